# SPDX-License-Identifier: MIT
"""Give drop events to the loss counters that they explain."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from pktdrop.ledger.entry import PEER
from pktdrop.ledger.events import Candidate, CounterKey, Events, GroupPackets
from pktdrop.ledger.matches import Match
from pktdrop.model.drops import Netns

#: Candidates that are remembered for counters that are read later.
_KEPT: Final = 16_384
_NOTHING: Final = (None, 0)


class Carry:
    """Events that explain no counter yet, as their counter may be in a namespace that is read less often.

    They explain only counters of namespaces that were not read at the look before: others have been asked.
    """

    def __init__(self) -> None:
        """Start without events."""
        self._packets: dict[tuple[object, ...], tuple[Netns | None, int]] = {}
        """By Candidate.order: the namespace, and packets in it."""

    def of(self, candidate: Candidate) -> int:
        """Return the packets of earlier intervals."""
        return self._packets.get(candidate.order, _NOTHING)[1]

    def keep(self, is_kept: Callable[[Netns], bool]) -> None:
        """Drop events of namespaces that are gone: no counter of theirs will be read."""
        self._packets = {
            order: (netns, packets)
            for order, (netns, packets) in self._packets.items()
            if netns is None or is_kept(netns)
        }

    def add(self, candidate: Candidate, packets: int) -> None:
        """Take packets of this interval, or with a negative number give back."""
        left = self._packets.pop(candidate.order, _NOTHING)[1] + packets
        if left > 0:
            self._packets[candidate.order] = candidate.netns, left
            if len(self._packets) > _KEPT:
                del self._packets[next(iter(self._packets))]


def give(
    events: Events,
    packets: GroupPackets,
    matches: Mapping[CounterKey, Match],
    carry: Carry | None = None,
    is_read: Callable[[Netns | None], bool] = lambda _: True,
) -> set[int]:
    """Give the events to the counters that they explain; return the groups of events that a counter shows.

    `carry` has events of earlier intervals and takes those that may be counted where it was not read.
    """
    left = _Left(packets, carry if any(match.is_late for match in matches.values()) else None)
    shown: set[int] = set()
    shared: dict[Candidate, None] = {}
    for key, match in matches.items():
        for candidate in events.at.get(key, ()):
            if len(candidate.row.counters) > 1:
                shared[candidate] = None
            elif packets[candidate.group] or match.is_late:
                left.add(candidate, match)
            shown.add(candidate.group)
    for candidate in sorted(shared, key=attrgetter("order")):
        _share_out(candidate, left, matches)
    names = dict.fromkeys(match.fact.name for match in matches.values())
    floating = dict.fromkeys(candidate for name in names for candidate in events.floating.get(name, ()))
    shown |= _fill(sorted((one for one in floating if left.any(one)), key=attrgetter("order")), left, matches)
    if carry is not None:
        _carry_on(events, left, matches, carry, is_read)
    return shown


class _Left:
    """Packets of candidates that no counter has yet: of this interval, and of earlier ones where none was read."""

    def __init__(self, packets: GroupPackets, carry: Carry | None) -> None:
        self._packets = packets
        self._carry = carry
        self.given: Tally[Candidate] = Tally()
        self.late: Tally[Candidate] = Tally()

    def now(self, candidate: Candidate) -> int:
        return self._packets[candidate.group] - self.given.get(
            candidate, 0
        )  # Tally[...] takes long for what is not there

    def earlier(self, candidate: Candidate) -> int:
        return 0 if self._carry is None else self._carry.of(candidate) - self.late[candidate]

    def is_there(self, group: int) -> bool:
        return self._packets[group] > 0

    def any(self, candidate: Candidate) -> bool:
        return self.now(candidate) > 0 or self.earlier(candidate) > 0

    def add(self, candidate: Candidate, match: Match) -> None:
        """Give all packets that are left to the counter of this candidate, however many these are."""
        self._take(candidate, self.now(candidate), match.add)
        if match.is_late:
            earlier = self.earlier(candidate)
            match.earlier += earlier
            self._take_earlier(candidate, earlier, match.add)

    def put(self, candidate: Candidate, match: Match) -> None:
        """Give as many packets as there is room for to a counter that must have counted these events."""
        self._take(candidate, min(self.now(candidate), match.room), match.add)
        if match.is_late:
            earlier = min(self.earlier(candidate), match.room)
            match.earlier += max(0, earlier)
            self._take_earlier(candidate, earlier, match.add)

    def fill(self, candidate: Candidate, match: Match) -> int:
        """Give as many as there is room for; return how many."""
        given = match.fill(candidate, self.now(candidate))
        self.given[candidate] += given
        if match.is_late and self.earlier(candidate) > 0:
            late = match.fill(candidate, self.earlier(candidate))
            match.earlier += late
            self.late[candidate] += late
            given += late
        return given

    def _take(self, candidate: Candidate, packets: int, add: Callable[[Candidate, int], None]) -> None:
        if packets > 0:
            add(candidate, packets)
            self.given[candidate] += packets

    def _take_earlier(self, candidate: Candidate, packets: int, add: Callable[[Candidate, int], None]) -> None:
        if packets > 0:
            add(candidate, packets)
            self.late[candidate] += packets


def _carry_on(
    events: Events,
    left: _Left,
    matches: Mapping[CounterKey, Match],
    carry: Carry,
    is_read: Callable[[Netns | None], bool],
) -> None:
    """Keep what may be counted where it was not read."""
    for candidate, packets in left.late.items():
        carry.add(candidate, -packets)
    for group in events.groups:
        for candidate in group.candidates if left.is_there(group.number) else ():
            if candidate.floats or (not is_read(candidate.netns) and not _in_place(candidate, matches)):
                carry.add(candidate, left.now(candidate))


def _share_out(candidate: Candidate, left: _Left, matches: Mapping[CounterKey, Match]) -> None:
    """Give events that one of several counters counted to the first of them that has room, else to the last."""
    found = _in_place(candidate, matches)
    for match in found:
        left.put(candidate, match)
    left.add(candidate, found[-1])  # then this shows as events beyond the counter


def _fill(candidates: list[Candidate], left: _Left, matches: Mapping[CounterKey, Match]) -> set[int]:
    """Let events that may belong anywhere explain what counters lack: in their own scope, their namespace, elsewhere.

    Returns the groups of events of which some, or others of their namespace and reason, explain a counter, and those in
    whose scope one moved.
    """
    shown: set[int] = set()
    for candidate in candidates:
        for match in _in_place(candidate, matches):
            shown.add(candidate.group)
            left.fill(candidate, match)
    used: set[tuple[str, str, Netns | None]] = set()
    for open_matches in (_Open(matches, by_netns=True), _Open(matches, by_netns=False)):
        for candidate in candidates:
            with_room = open_matches.of(candidate) if left.any(candidate) else []
            while with_room and with_room[-1].is_full:
                with_room.pop()
            for match in reversed(with_room):
                if not left.any(candidate):
                    break
                if left.fill(candidate, match):
                    used.add((match.fact.name, candidate.reason, candidate.netns))
    for candidate in candidates:
        if any((name, candidate.reason, candidate.netns) in used for name in candidate.row.counters):
            shown.add(candidate.group)
    return shown


def _in_place(candidate: Candidate, matches: Mapping[CounterKey, Match]) -> list[Match]:
    return [matches[key] for key in candidate.keys if key in matches]


class _Open:
    """Matches that take events of other scopes, of the same network namespace or of any; the next one last.

    A packet whose namespace is known was counted by sockets and protocols there; only interfaces hand packets to others
    in another namespace. Events whose interface is not known may be of any.
    """

    def __init__(self, matches: Mapping[CounterKey, Match], by_netns: bool) -> None:
        self._by_netns = by_netns
        self._by_name: dict[tuple[str, Netns | None], list[Match]] = {}
        self._of: dict[tuple[tuple[str, ...], Netns | None, bool, bool], list[Match]] = {}
        for match in matches.values():
            netns = match.event_scope.netns if by_netns else None
            self._by_name.setdefault((match.fact.name, netns), []).append(match)

    def of(self, candidate: Candidate) -> list[Match]:
        """Return the matches that a candidate may fill, those of its first counter first; candidates share them."""
        counters, netns = candidate.row.counters, candidate.netns if self._by_netns else None
        is_placed, is_known = candidate.netns is not None, bool(candidate.keys)
        found = self._of.get((counters, netns, is_placed, is_known))
        if found is None:
            found = [match for name in counters for match in self._by_name.get((name, netns), ())][::-1]
            if is_known:
                found = [match for match in found if match.takes_from_anywhere]
            if is_placed:
                found = [
                    match
                    for match in found
                    if match.event_scope.netns in (None, candidate.netns) or match.stat_class == PEER
                ]
            self._of[counters, netns, is_placed, is_known] = found
        return found
