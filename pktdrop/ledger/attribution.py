# SPDX-License-Identifier: MIT
"""Give drop events to the loss counters that they explain."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from pktdrop.ledger.entry import PEER
from pktdrop.ledger.events import Claim, CounterKey, Events, Packets
from pktdrop.ledger.lines import Line
from pktdrop.model.drops import Netns

#: Claims that are remembered for counters that are read later.
_KEPT: Final = 16_384


class Carry:
    """Events that no counter has been found for yet: it may be in a namespace that is read less often.

    They explain only counters of namespaces that were not read at the look before: others have been asked.
    """

    def __init__(self) -> None:
        """Start without events."""
        self._packets: dict[tuple[object, ...], int] = {}
        """By Claim.order."""

    def of(self, claim: Claim) -> int:
        """Return the packets of earlier intervals."""
        return self._packets.get(claim.order, 0)

    def add(self, claim: Claim, packets: int) -> None:
        """Take packets of this interval, or with a negative number give back."""
        left = self._packets.pop(claim.order, 0) + packets
        if left > 0:
            self._packets[claim.order] = left
            if len(self._packets) > _KEPT:
                del self._packets[next(iter(self._packets))]


def give(
    events: Events,
    packets: Packets,
    lines: Mapping[CounterKey, Line],
    carry: Carry | None = None,
    is_read: Callable[[Netns | None], bool] = lambda _: True,
) -> set[int]:
    """Give the events to the counters that they explain; return the groups of events that a counter shows.

    `carry` has events of earlier intervals and takes those that may be counted where it was not read.
    """
    left = _Left(packets, carry if any(line.is_late for line in lines.values()) else None)
    shown: set[int] = set()
    shared: dict[Claim, None] = {}
    for key, line in lines.items():
        for claim in events.at.get(key, ()):
            if len(claim.row.counters) > 1:
                shared[claim] = None
            elif packets[claim.group] or line.is_late:
                left.add(claim, line)
            shown.add(claim.group)
    for claim in sorted(shared, key=attrgetter("order")):
        _share_out(claim, left, lines)
    names = dict.fromkeys(line.fact.name for line in lines.values())
    floating = dict.fromkeys(claim for name in names for claim in events.floating.get(name, ()))
    shown |= _fill(sorted((one for one in floating if left.any(one)), key=attrgetter("order")), left, lines)
    if carry is not None:
        _carry_on(events, left, lines, carry, is_read)
    return shown


class _Left:
    """Packets of claims that no counter has yet: of this interval, and of earlier ones for counters not read since."""

    def __init__(self, packets: Packets, carry: Carry | None) -> None:
        self._packets = packets
        self._carry = carry
        self.given: Tally[Claim] = Tally()
        self.late: Tally[Claim] = Tally()

    def now(self, claim: Claim) -> int:
        return self._packets[claim.group] - self.given.get(claim, 0)  # Tally[...] takes long for what is not there

    def earlier(self, claim: Claim) -> int:
        return 0 if self._carry is None else self._carry.of(claim) - self.late[claim]

    def is_there(self, group: int) -> bool:
        return self._packets[group] > 0

    def any(self, claim: Claim) -> bool:
        return self.now(claim) > 0 or self.earlier(claim) > 0

    def add(self, claim: Claim, line: Line) -> None:
        """Give all packets to their counter, as many as they are."""
        self._take(claim, self.now(claim), line.add)
        if line.is_late:
            earlier = self.earlier(claim)
            line.earlier += earlier
            self._take_earlier(claim, earlier, line.add)

    def put(self, claim: Claim, line: Line) -> None:
        """Give as many as there is room for to a counter that these must be in."""
        self._take(claim, min(self.now(claim), line.room), line.add)
        if line.is_late:
            earlier = min(self.earlier(claim), line.room)
            line.earlier += max(0, earlier)
            self._take_earlier(claim, earlier, line.add)

    def fill(self, claim: Claim, line: Line) -> int:
        """Give as many as there is room for; return how many."""
        given = line.fill(claim, self.now(claim))
        self.given[claim] += given
        if line.is_late and self.earlier(claim) > 0:
            late = line.fill(claim, self.earlier(claim))
            line.earlier += late
            self.late[claim] += late
            given += late
        return given

    def _take(self, claim: Claim, packets: int, add: Callable[[Claim, int], None]) -> None:
        if packets > 0:
            add(claim, packets)
            self.given[claim] += packets

    def _take_earlier(self, claim: Claim, packets: int, add: Callable[[Claim, int], None]) -> None:
        if packets > 0:
            add(claim, packets)
            self.late[claim] += packets


def _carry_on(
    events: Events,
    left: _Left,
    lines: Mapping[CounterKey, Line],
    carry: Carry,
    is_read: Callable[[Netns | None], bool],
) -> None:
    """Keep what may be counted where it was not read."""
    for claim, packets in left.late.items():
        carry.add(claim, -packets)
    for group in events.groups:
        for claim in group.claims if left.is_there(group.number) else ():
            if claim.floats or (not is_read(claim.netns) and not _in_place(claim, lines)):
                carry.add(claim, left.now(claim))


def _share_out(claim: Claim, left: _Left, lines: Mapping[CounterKey, Line]) -> None:
    """Give events that one of several counters counted to the first of them that has room, else to the last."""
    found = _in_place(claim, lines)
    for line in found:
        left.put(claim, line)
    left.add(claim, found[-1])  # then this shows as events beyond the counter


def _fill(claims: list[Claim], left: _Left, lines: Mapping[CounterKey, Line]) -> set[int]:
    """Let events that may belong anywhere explain what counters lack: in their own scope, their namespace, elsewhere.

    Returns the groups of events of which some, or others of their namespace and reason, explain a counter, and those in
    whose scope one moved.
    """
    shown: set[int] = set()
    for claim in claims:
        for line in _in_place(claim, lines):
            shown.add(claim.group)
            left.fill(claim, line)
    used: set[tuple[str, str, Netns | None]] = set()
    for open_lines in (_Open(lines, by_netns=True), _Open(lines, by_netns=False)):
        for claim in claims:
            candidates = open_lines.of(claim) if left.any(claim) else []
            while candidates and candidates[-1].is_full:
                candidates.pop()
            for line in reversed(candidates):
                if not left.any(claim):
                    break
                if left.fill(claim, line):
                    used.add((line.fact.name, claim.reason, claim.netns))
    for claim in claims:
        if any((name, claim.reason, claim.netns) in used for name in claim.row.counters):
            shown.add(claim.group)
    return shown


def _in_place(claim: Claim, lines: Mapping[CounterKey, Line]) -> list[Line]:
    return [lines[key] for key in claim.keys if key in lines]


class _Open:
    """Lines that take events of other scopes, of the same network namespace or of any; the next one last.

    A packet whose namespace is known was counted by sockets and protocols there; only interfaces hand packets to others
    in another namespace. Events whose interface is not known may be of any.
    """

    def __init__(self, lines: Mapping[CounterKey, Line], by_netns: bool) -> None:
        self._by_netns = by_netns
        self._by_name: dict[tuple[str, Netns | None], list[Line]] = {}
        self._of: dict[tuple[tuple[str, ...], Netns | None, bool, bool], list[Line]] = {}
        for line in lines.values():
            netns = line.event_scope.netns if by_netns else None
            self._by_name.setdefault((line.fact.name, netns), []).append(line)

    def of(self, claim: Claim) -> list[Line]:
        """Return the lines that a claim may fill, those of its first counter first; claims share them."""
        counters, netns = claim.row.counters, claim.netns if self._by_netns else None
        is_placed, is_known = claim.netns is not None, bool(claim.keys)
        found = self._of.get((counters, netns, is_placed, is_known))
        if found is None:
            found = [line for name in counters for line in self._by_name.get((name, netns), ())][::-1]
            if is_known:
                found = [line for line in found if line.takes_from_anywhere]
            if is_placed:
                found = [
                    line for line in found if line.event_scope.netns in (None, claim.netns) or line.stat_class == PEER
                ]
            self._of[counters, netns, is_placed, is_known] = found
        return found
