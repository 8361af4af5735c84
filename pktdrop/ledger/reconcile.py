# SPDX-License-Identifier: MIT
"""Compare the counters that rose with the drop events of the same time. No I/O.

An event is one skb. It explains an increment of a counter if a row of ``data/identities.tsv`` says so and both belong
to the same scope. What is left of a counter is named: it is within what the identity leaves open, or such packets have
no events, or it is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pktdrop.counters.increments import Increments
from pktdrop.ledger.attribution import Carry, give
from pktdrop.ledger.entry import STAT_CLASS_LAYERS, Entry, entry_order
from pktdrop.ledger.events import DropCounts, EventGroup, Events, GroupPackets, WhyOf
from pktdrop.ledger.matches import Classify, Match, by_source, matches_of
from pktdrop.ledger.verdict import CounterJudge, WindowBounds, Windows
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import NO_COUNTER, Identities

#: Sources of what drivers count; names of "driver" are whole: "ethtool.rx_missed".
_DRIVER_SOURCES: Final = ("driver", "ethtool", "qstats", "links")
#: Groups that are remembered beyond twice those that moved lately: of kinds that stand still none is needed.
_SPARE_GROUPS: Final = 1_024


@dataclass(frozen=True)
class Reconciled:
    """What counters and events of one interval say together."""

    entries: tuple[Entry, ...]
    lost: tuple[tuple[EventGroup, int], ...]
    """Lost packets by group of events."""
    bounds: WindowBounds | None

    def late(self) -> Iterator[tuple[EventGroup, int]]:
        """Yield the lost packets that counters may not have yet, as they were read before the last events."""
        if self.bounds is None:
            return
        for group, packets in self.lost:
            late = packets - self.bounds.inner(group, packets)
            if late > 0:
                yield group, late


class Reconciler:
    """Explains the counters of one interval after the other; remembers which events belong to which counters."""

    def __init__(self, identities: Identities, classify: Classify, why: WhyOf) -> None:
        """Take the tables, what knows the drivers, and what tells the causes of events."""
        self._identities = identities
        self._classify = classify
        self._facts = by_source(identities.counters.values())
        self._judge = CounterJudge(identities)
        self._why = why
        self._events = Events(identities, why)

    def reconcile(
        self,
        drops: DropCounts,
        increments: Increments,
        rungs: Mapping[str, str],
        windows: Windows | None = None,
        carry: Carry | None = None,
        is_read: Callable[[Netns | None], bool] = lambda _: True,
        is_late: Callable[[Netns | None], bool] = lambda _: False,
    ) -> Reconciled:
        """Explain each loss counter that rose, and name the events that no counter shows.

        ``drops`` are those of one interval, noise included (it moves counters as well). ``increments``: of the
        counters, by source, scope and name. ``rungs`` are the probes: without "kfree_skb" there are no events,
        and nothing is called unexplained. ``windows``: a counter that differs from ``drops`` but not from both of its
        windows was only read at another moment. ``carry``: events of earlier intervals, for counters of namespaces that
        were not read at the look before (``is_late``); it takes those of namespaces not read now (not ``is_read``).
        """
        events = self._events
        packets = events.count(drops)
        if events.unused > _SPARE_GROUPS:
            events = self._events = Events(self._identities, self._why)
            packets = events.count(drops)
        summed = events.summed(packets)
        matches = matches_of(increments, self._facts, self._classify, summed, is_late)
        shown = give(events, packets, matches, carry, is_read)
        lost = tuple(
            (group, count) for group, count in zip(events.groups, packets, strict=True) if count and group.is_loss
        )
        quiet = [group for group, _ in lost if group.number not in shown]
        bounds = WindowBounds(events, windows) if rungs.get("kfree_skb", "none") != "none" else None
        entries = [self._judge.entry(match, bounds, match.fact.name in summed) for match in matches.values()]
        entries += self._hardware(increments)
        entries += _silent(quiet, packets, bounds, summed)
        # windows may have events that this interval has not: those groups came after these packets were counted
        entries += _doubts(events.groups[: len(packets)], packets, _settled(matches.values()))
        return Reconciled(tuple(sorted(entries, key=entry_order)), lost, bounds)

    def _hardware(self, increments: Increments) -> Iterator[Entry]:
        """Counters of drivers that say that packets were lost: there can be no event."""
        for source, rows in increments.items():
            if source not in _DRIVER_SOURCES:
                continue
            for scope, differences in rows.items():
                if scope.interface is None:
                    continue
                for name, delta in differences.items():
                    if delta <= 0:
                        continue
                    counter = name if source == "driver" else f"{source}.{name}"
                    if counter in self._identities.counters:
                        continue
                    stat_class = self._classify(counter, scope)
                    if stat_class is not None and stat_class in STAT_CLASS_LAYERS:
                        layer, note = STAT_CLASS_LAYERS[stat_class], _class_note(stat_class)
                        yield Entry(layer, counter, scope, delta, 0, delta, "no-event", (), note, stat_class)


def _class_note(stat_class: str) -> str:
    never = ", never an event" if stat_class in ("fifo", "ring") else ""
    return f"counted by the driver ({stat_class}){never}"


def _settled(matches: Iterable[Match]) -> Mapping[int, int]:
    """Return how many events of each group are losses by what counters say; a part and its whole count once."""
    revealed: dict[str, dict[int, int]] = {}
    part_of: dict[str, str | None] = {}
    for match in matches:
        if not match.revealing:
            continue
        part_of[match.fact.name] = match.fact.part_of
        of_counter = revealed.setdefault(match.fact.name, {})
        for group, packets in match.revealed.items():
            of_counter[group] = of_counter.get(group, 0) + packets
    settled: dict[int, int] = {}
    for name, groups in revealed.items():
        for group, packets in groups.items():
            if group not in revealed.get(part_of[name] or "", ()):
                settled[group] = settled.get(group, 0) + packets
    return settled


def _doubts(groups: Iterable[EventGroup], packets: GroupPackets, settled: Mapping[int, int]) -> Iterator[Entry]:
    """Events of which neither their call site nor a counter tells whether packets were lost."""
    open_: dict[tuple[str, str, Netns | None, str], int] = {}
    for group in groups:
        left = packets[group.number] - settled.get(group.number, 0) if group.doubt is not None else 0
        if left > 0:
            question = group.layer, group.reason, group.scope.netns, group.doubt or ""
            open_[question] = open_.get(question, 0) + left
    for (layer, reason, netns, why), count in open_.items():
        yield Entry(layer, NO_COUNTER, Scope(netns=netns), 0, 0, 0, "doubt", ((reason, count),), why)


def _silent(
    groups: Iterable[EventGroup], packets: GroupPackets, bounds: WindowBounds | None, summed: frozenset[str]
) -> Iterator[Entry]:
    """Yield entries of lost packets that no counter shows: there is none for them, or none of theirs rose."""
    quiet: dict[tuple[str, str, Scope, str], int] = {}
    notes: dict[tuple[str, str, Scope, str], tuple[int, str]] = {}
    for group in groups:
        if group.expected != NO_COUNTER and bounds is not None and bounds.may_come_later(group):
            continue
        scope = Scope() if group.expected in summed else group.scope
        question = group.layer, group.reason, scope, group.expected
        quiet[question] = quiet.get(question, 0) + packets[group.number]
        notes[question] = min(notes.get(question, (group.line, group.note)), (group.line, group.note))
    for question, count in quiet.items():
        layer, reason, scope, expected = question
        note = notes[question][1] if expected == NO_COUNTER else f"expected in {expected}, which did not move"
        yield Entry(layer, expected, scope, 0, 0, 0, "silent", ((reason, count),), note)
