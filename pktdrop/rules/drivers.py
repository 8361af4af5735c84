# SPDX-License-Identifier: MIT
"""How many packets the NIC lost by the statistics of its driver, each counted once.

Counters of one event are never added up: the driver's total stands against the sum of its queues, and a counter that is
the sum of several events ("ring+fifo") only serves to find what is missing.  So it is with rx_errors, which most
drivers make of what other counters have, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pktdrop.model.counters import Row, Scope
from pktdrop.rules.driver_meanings import DriverMeanings, Meaning, bare
from pktdrop.rules.driver_tables import STAT_CLASSES
from pktdrop.rules.match import ANY


class NicLoss(NamedTuple):
    """Packets that a NIC lost, of one stat_class."""

    stat_class: str
    """One of STAT_CLASSES."""
    packets: int
    """Packets of the whole interface."""
    queues: Mapping[int, int]
    """What is known to have been lost on which queue; part of ``packets``."""
    counters: tuple[str, ...]
    """Where the numbers are from: "ethtool.rx_queue_0_drops", "links.rx_fifo_errors"..."""
    confidence: str
    """"driver" or "generic", as in Meaning."""


@dataclass(frozen=True)
class Hint:
    """A counter that points at a bottleneck, but does not count lost packets."""

    stat_class: str
    counter: str
    queue: int | None
    value: int
    note: str | None
    confidence: str


class Drivers(DriverMeanings):
    """The rules, with what the NIC lost by them."""

    def nic_loss(self, driver: str | None, rows: Mapping[Scope, Row], links: Row | None = None) -> tuple[NicLoss, ...]:
        """Add up what the NIC lost, by stat_class, each event once.

        ``driver`` may be what variant() made of it; ``rows`` are the ethtool and qstats rows of one interface (of a
        Reading, or differences of two), ``links`` its row of rtnl_link_stats64.  A field that other parts of the kernel
        add to (rx_dropped, tx_dropped: relation "bound") is not used: what it holds of the driver cannot be told from
        the rest.  What rx_errors and tx_errors count beyond the events that are known was lost as well, unless an event
        that is no loss is in there and was not read.  For an unknown driver each one is the largest of the counters
        that the kernel defines, as several may count the same packets.
        """
        if driver is not None and self.knows(driver):
            return self._known_loss(driver, rows, links)
        return self._guessed_loss(rows, links)

    def inside(self, driver: str | None, rows: Mapping[Scope, Row], field: str) -> int:
        """Return how many packets of a field of rtnl_link_stats64 the driver's statistics have: told by these, or none.

        Drivers add to rx_dropped what they could not receive, and what they did not want (a filter) as well.
        """
        link = self.link(driver, field)
        if link is None or not link.events:
            return 0
        found: dict[str, _Event] = {}
        for name, value, meaning, queue in self._meanings(driver, rows):
            if meaning.role != "sum" and meaning.events[0] in link.events:
                found.setdefault(meaning.events[0], _Event(meaning.stat_class)).add(name, value, meaning, queue)
        return sum(event.result()[0] for event in found.values())

    def hints(self, driver: str | None, rows: Mapping[Scope, Row]) -> tuple[Hint, ...]:
        """Return the counters other than 0 that point at a bottleneck without counting lost packets."""
        return tuple(
            Hint(meaning.stat_class, name, queue, value, meaning.note, meaning.confidence)
            for name, value, meaning, queue in self._meanings(driver, rows)
            if meaning.counts == "hint" and value > 0
        )

    def _meanings(
        self, driver: str | None, rows: Mapping[Scope, Row]
    ) -> Iterator[tuple[str, int, Meaning, int | None]]:
        for scope, row in rows.items():
            for name, value in zip(row.names, row.values, strict=False):
                meaning = self.classify(driver, name)
                if meaning is not None:
                    yield name, value, meaning, scope.queue if meaning.queue is None else meaning.queue

    def _known_loss(self, driver: str, rows: Mapping[Scope, Row], links: Row | None) -> tuple[NicLoss, ...]:
        events: dict[str, _Event] = {}
        beside: dict[str, _Event] = {}
        """What may be in a sum and is none of these losses: handed on, or told by a field with drops of the core."""
        sums: dict[tuple[str, ...], _Event] = {}
        for name, value, meaning, queue in self._meanings(driver, rows):
            if meaning.role == "sum":
                if meaning.counts == "loss":
                    sums.setdefault(meaning.events, _Event(meaning.stat_class)).add(name, value, meaning, queue)
                continue
            found = events if meaning.counts == "loss" else beside
            found.setdefault(meaning.events[0], _Event(meaning.stat_class)).add(name, value, meaning, queue)
        for name, value in () if links is None else zip(links.names, links.values, strict=False):
            link = self.link(driver, name)
            if link is None or not link.events:
                continue
            if link.relation == "bound":
                if len(link.events) == 1:
                    beside.setdefault(link.events[0], _Event(link.stat_class)).add_link(f"links.{bare(name)}", value)
            elif len(link.events) > 1:
                sums.setdefault(link.events, _Event(link.stat_class)).add_link(f"links.{bare(name)}", value)
            elif not self._is_unlost(driver, link.events[0]):
                events.setdefault(link.events[0], _Event(link.stat_class)).add_link(f"links.{bare(name)}", value)
        for parts in sorted(sums, key=len):  # what is in another sum first
            self._solve(driver, events, beside, parts, sums[parts])
        by_stat_class: dict[str, _Total] = {}
        for event in events.values():
            by_stat_class.setdefault(event.stat_class, _Total()).add(*event.result())
        return _losses(by_stat_class, "driver")

    def _solve(
        self,
        driver: str,
        events: dict[str, _Event],
        beside: Mapping[str, _Event],
        parts: tuple[str, ...],
        total: _Event,
    ) -> None:
        """Give what a sum counts beyond the events that are known to the one that is not."""
        known = {part: found for part in parts if (found := events.get(part) or beside.get(part)) is not None}
        unknown = [part for part in parts if part not in known]
        if not unknown or any(self._is_unlost(driver, part) for part in unknown):
            return
        packets, _, counters = total.result()
        rest = packets - sum(event.result()[0] for event in known.values())
        stat_class = self._stat_class(driver, unknown[0], total.stat_class) if len(unknown) == 1 else total.stat_class
        events[unknown[0]] = _Event(stat_class)
        events[unknown[0]].add_link(counters[0], max(rest, 0))
        # the other unknown ones are inside this number now: no later sum may find them again
        for part in unknown[1:]:
            events[part] = _Event(stat_class)
            events[part].add_link(counters[0], 0)

    def _guessed_loss(self, rows: Mapping[Scope, Row], links: Row | None) -> tuple[NicLoss, ...]:
        # counters with the same name but for their numbers are parts of one; different names may be the same event
        groups: dict[tuple[str, str], _Total] = {}
        certain: set[str] = set()
        for name, value, meaning, queue in self._meanings(None, rows):
            if meaning.counts != "loss" or meaning.role == "sum":
                continue
            certain.add(meaning.stat_class)
            shape = name if queue is None else f"{name} of queues"
            groups.setdefault((meaning.stat_class, shape), _Total()).add(
                value, {} if queue is None else {queue: value}, (name,)
            )
        for name, value in () if links is None else zip(links.names, links.values, strict=False):
            link = self._links.get((ANY, bare(name)))
            if link is not None and link.relation == "exact" and link.events:
                groups.setdefault((link.stat_class, bare(name)), _Total()).add(value, {}, (f"links.{bare(name)}",))
        by_stat_class: dict[str, _Total] = {}
        for (stat_class, _), total in groups.items():
            best = by_stat_class.get(stat_class)
            if best is None or (total.packets, len(total.queues)) > (best.packets, len(best.queues)):
                by_stat_class[stat_class] = total
        return tuple(
            loss
            for stat_class, total in by_stat_class.items()
            for loss in _losses({stat_class: total}, "driver" if stat_class in certain else "generic")
        )


def _losses(totals: Mapping[str, _Total], confidence: str) -> tuple[NicLoss, ...]:
    return tuple(
        NicLoss(
            stat_class,
            totals[stat_class].packets,
            totals[stat_class].queues,
            tuple(dict.fromkeys(totals[stat_class].counters)),
            confidence,
        )
        for stat_class in STAT_CLASSES
        if stat_class in totals
    )


@dataclass
class _Total:
    """Packets of one stat_class, while they are added up."""

    packets: int = 0
    queues: dict[int, int] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)

    def add(self, packets: int, queues: Mapping[int, int], counters: Iterable[str]) -> None:
        self.packets += packets
        for queue, count in queues.items():
            self.queues[queue] = self.queues.get(queue, 0) + count
        self.counters.extend(counters)


class _Event:
    """All counters of one event."""

    def __init__(self, stat_class: str) -> None:
        self.stat_class: Final = stat_class
        self._whole: tuple[int, str] | None = None
        self._link: tuple[int, str] | None = None
        # by line of drivers.tsv: two rules that know the queues count the same packets
        self._queues: dict[int, _Total] = {}
        self._parts: dict[int, _Total] = {}

    def add(self, name: str, value: int, meaning: Meaning, queue: int | None) -> None:
        if meaning.role == "part":  # also where it has a queue: there may be several of them on one queue
            self._parts.setdefault(meaning.line, _Total()).add(value, {}, (name,))
        elif queue is not None:
            self._queues.setdefault(meaning.line, _Total()).add(value, {queue: value}, (name,))
        elif self._whole is None or value > self._whole[0]:
            self._whole = value, name

    def add_link(self, name: str, value: int) -> None:
        if self._link is None:
            self._link = value, name

    def result(self) -> tuple[int, dict[int, int], list[str]]:
        """Return packets, what is known by queue, and the counters both are from.

        The total of the driver, but never less than its queues show: some totals are renewed less often.
        """
        queues = max(self._queues.values(), key=lambda total: total.packets, default=None)
        parts = max(self._parts.values(), key=lambda total: total.packets, default=None)
        packets, counters = 0, list[str]()
        for found in (self._whole, self._link):
            if found is not None and not counters:
                packets, counters = found[0], [found[1]]
        if queues is not None:
            packets, counters = max(packets, queues.packets), counters + queues.counters
        elif parts is not None and not counters:
            packets, counters = parts.packets, parts.counters
        return packets, {} if queues is None else queues.queues, counters
