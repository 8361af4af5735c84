# SPDX-License-Identifier: MIT
"""Give drop events to the loss counters that they explain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from pktdrop.ledger.events import Claim, Events, Packets, Where
from pktdrop.ledger.lines import Line


def give(events: Events, packets: Packets, lines: Mapping[Where, Line]) -> set[int]:
    """Give the events to the counters that they explain; return the groups of events that a counter shows."""
    shown: set[int] = set()
    shared: dict[Claim, None] = {}
    for where, line in lines.items():
        for claim in events.at.get(where, ()):
            shown.add(claim.group)
            if len(claim.row.counters) > 1:
                shared[claim] = None
            elif packets[claim.group]:
                line.add(claim, packets[claim.group])
    for claim in _in_order(shared, packets):
        _share_out(claim, packets[claim.group], lines)
    names = dict.fromkeys(line.fact.name for line in lines.values())
    floating = dict.fromkeys(claim for name in names for claim in events.floating.get(name, ()))
    return shown | _fill(_in_order(floating, packets), packets, lines)


def _in_order(claims: Iterable[Claim], packets: Packets) -> list[Claim]:
    return sorted((claim for claim in claims if packets[claim.group]), key=attrgetter("order"))


def _share_out(claim: Claim, packets: int, lines: Mapping[Where, Line]) -> None:
    """Give events that one of several counters counted to the first of them that has room, else to the last."""
    found = _in_place(claim, lines)
    for line in found:
        given = max(0, min(packets, line.delta - line.total))
        if given:
            line.add(claim, given)
        packets -= given
    if packets:
        found[-1].add(claim, packets)  # then this shows as events beyond the counter


def _fill(claims: list[Claim], packets: Packets, lines: Mapping[Where, Line]) -> set[int]:
    """Let events that may belong anywhere explain what counters lack, those of their own place first.

    Returns the groups of events of which some, or others of their reason, explain a counter, or whose place has one.
    """
    shown: set[int] = set()
    used: set[tuple[str, str]] = set()
    left: list[tuple[Claim, int]] = []
    for claim in claims:
        rest = packets[claim.group]
        for line in _in_place(claim, lines):
            shown.add(claim.group)
            rest -= line.fill(claim, rest)
        left.append((claim, rest))
    open_lines = _Open(lines)
    for claim, rest in left:
        candidates = open_lines.of(claim.row.counters)
        while rest and candidates:
            given = candidates[-1].fill(claim, rest)
            if given:
                used.add((candidates[-1].fact.name, claim.reason))
                rest -= given
            else:
                candidates.pop()
    shown.update(claim.group for claim in claims if any((name, claim.reason) in used for name in claim.row.counters))
    return shown


def _in_place(claim: Claim, lines: Mapping[Where, Line]) -> list[Line]:
    return [lines[where] for where in claim.wheres if where in lines]


class _Open:
    """Lines that take events of any place, by counters; the next one last."""

    def __init__(self, lines: Mapping[Where, Line]) -> None:
        self._by_name: dict[str, list[Line]] = {}
        self._of: dict[tuple[str, ...], list[Line]] = {}
        for line in lines.values():
            if line.takes_from_anywhere:
                self._by_name.setdefault(line.fact.name, []).append(line)

    def of(self, counters: tuple[str, ...]) -> list[Line]:
        """Return the lines of some counters, the first counter's first."""
        if counters not in self._of:
            self._of[counters] = [line for name in counters for line in self._by_name.get(name, ())][::-1]
        return self._of[counters]
