# SPDX-License-Identifier: MIT
"""Give drop events to the loss counters that they explain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from pktdrop.ledger.entry import PEER
from pktdrop.ledger.events import Claim, Events, Packets, Where
from pktdrop.ledger.lines import Line
from pktdrop.model import Netns


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
    """Let events that may belong anywhere explain what counters lack: in their own place, their namespace, elsewhere.

    Returns the groups of events of which some, or others of their namespace and reason, explain a counter, and those in
    whose place one moved.
    """
    shown: set[int] = set()
    left = {claim: packets[claim.group] for claim in claims}
    for claim in claims:
        for line in _in_place(claim, lines):
            shown.add(claim.group)
            left[claim] -= line.fill(claim, left[claim])
    used: set[tuple[str, str, Netns | None]] = set()
    for open_lines in (_Open(lines, by_netns=True), _Open(lines, by_netns=False)):
        for claim in claims:
            candidates = open_lines.of(claim) if left[claim] else []
            while left[claim] and candidates:
                given = candidates[-1].fill(claim, left[claim])
                if given:
                    used.add((candidates[-1].fact.name, claim.reason, claim.netns))
                    left[claim] -= given
                else:
                    candidates.pop()
    for claim in claims:
        if any((name, claim.reason, claim.netns) in used for name in claim.row.counters):
            shown.add(claim.group)
    return shown


def _in_place(claim: Claim, lines: Mapping[Where, Line]) -> list[Line]:
    return [lines[where] for where in claim.wheres if where in lines]


class _Open:
    """Lines that take events of other places, of the same network namespace or of any; the next one last.

    A packet whose namespace is known was counted by sockets and protocols there; only interfaces hand packets to others
    in another namespace.
    """

    def __init__(self, lines: Mapping[Where, Line], by_netns: bool) -> None:
        self._by_netns = by_netns
        self._by_name: dict[tuple[str, Netns | None], list[Line]] = {}
        self._of: dict[tuple[tuple[str, ...], Netns | None, bool], list[Line]] = {}
        for line in lines.values():
            if line.takes_from_anywhere:
                netns = line.place.netns if by_netns else None
                self._by_name.setdefault((line.fact.name, netns), []).append(line)

    def of(self, claim: Claim) -> list[Line]:
        """Return the lines that a claim may fill, those of its first counter first; claims share them."""
        counters, netns = claim.row.counters, claim.netns if self._by_netns else None
        is_placed = claim.netns is not None
        found = self._of.get((counters, netns, is_placed))
        if found is None:
            found = [line for name in counters for line in self._by_name.get((name, netns), ())][::-1]
            if is_placed:
                found = [line for line in found if line.place.netns in (None, claim.netns) or line.kind == PEER]
            self._of[counters, netns, is_placed] = found
        return found
