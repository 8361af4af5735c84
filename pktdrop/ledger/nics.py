# SPDX-License-Identifier: MIT
"""What drivers count as lost, interval by interval, without what drop events show."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pktdrop.counters.increments import Increments
from pktdrop.ledger.entry import STAT_CLASS_LAYERS
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.driver_meanings import bare
from pktdrop.rules.drivers import Drivers, NicLoss

Nic = tuple[Netns | None, str]
"""Network namespace, and name of the interface."""

#: Layers whose packets never had an event: what their counters say comes on top of all events.
BEFORE_EVENTS: Final = ("nic-fifo", "nic-ring")
#: Where drivers count what the kernel also sees, the stat_classes most likely to be those events come last here.
_SEEN_FIRST: Final = ("software", "xdp", "error", "tx", "alloc")
#: Layers in which a driver may count packets that have events.
_DOUBTFUL: Final = ("driver", "tx")
#: Fields in which drivers, and the rest of the kernel, count what statistics of the driver have, too.
_SHARED: Final = ("links.rx_dropped", "links.tx_dropped")
#: NICs that are remembered: more than any host has at once.
_KEPT: Final = 16_384


@dataclass
class _History:
    """One NIC since the first look."""

    rows: dict[Scope, dict[str, int]] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    seen: Tally[str] = field(default_factory=Tally)
    """Events that the driver may count, too, by layer."""
    told: dict[str, NicLoss] = field(default_factory=dict)
    """Losses by stat_class, beyond the events."""
    counted: Tally[str] = field(default_factory=Tally)
    """Packets that the driver counted as lost, by layer, with those that had events."""
    inside: Tally[str] = field(default_factory=Tally)
    """What statistics of the driver have of the fields, lost or not."""


class Nics:
    """Adds up what each NIC counts: several counters may have the same packets, and are not read at one instant.

    What is lost in an interval is by how much the loss since the beginning grew, so that intervals add up.
    """

    def __init__(self, drivers: Drivers) -> None:
        """Take the table of drivers."""
        self._drivers = drivers
        self._fields = {bare(link.field) for link in drivers.links if link.events} | {*map(bare, _SHARED)}
        """Fields of rtnl_link_stats64 in which drivers count losses."""
        self._of: dict[Nic, _History] = {}
        self.counted: Tally[tuple[Netns | None, str, str]] = Tally()
        """What drivers counted in the last interval, by namespace, interface and layer, events or not."""
        self.inside: Tally[tuple[Netns | None, str, str]] = Tally()
        """What of a field statistics of the driver had in the last interval, by namespace, interface and field."""

    def see(self, nic: Nic, layer: str, packets: int) -> None:
        """Take events that a driver may count, too: only in the layers driver and tx, where that is not known."""
        if layer in _DOUBTFUL:
            self._history(nic).seen[layer] += packets

    def step(self, increments: Increments, driver_of: Mapping[Nic, str]) -> Iterator[tuple[Nic, NicLoss]]:
        """Yield what each NIC lost in the next interval, by stat_class, beyond the events that it may have counted."""
        self.counted, self.inside = Tally(), Tally()
        touched: dict[Nic, None] = {}
        for source in ("driver", "links"):
            for scope, risen in increments.get(source, {}).items():
                if source == "links":  # most interfaces only have traffic
                    risen = {name: by for name, by in risen.items() if name in self._fields}
                    if not risen:
                        continue
                nic = scope.netns, scope.interface or ""
                touched[nic] = None
                history = self._history(nic)
                _add(history.links if source == "links" else history.rows.setdefault(scope, {}), risen)
        for nic in touched:
            history = self._history(nic)
            rows = {scope: _row(risen) for scope, risen in history.rows.items()}
            stats = self._drivers.nic_loss(driver_of.get(nic), rows, _row(history.links) if history.links else None)
            self._count(nic, history, stats)
            for name in _SHARED:
                if name.removeprefix("links.") not in history.links:
                    continue
                inside = self._drivers.inside(driver_of.get(nic), rows, name)
                self.inside[nic[0], nic[1], name] = max(0, inside - history.inside[name])
                history.inside[name] = max(inside, history.inside[name])
            for stat in _grown(history, _beyond(stats, history.seen)):
                yield nic, stat

    def _count(self, nic: Nic, history: _History, stats: Iterable[NicLoss]) -> None:
        counted: Tally[str] = Tally()
        for stat in stats:
            if stat.stat_class in STAT_CLASS_LAYERS:
                counted[STAT_CLASS_LAYERS[stat.stat_class]] += stat.packets
        for layer, packets in counted.items():
            self.counted[nic[0], nic[1], layer] = max(0, packets - history.counted[layer])
            history.counted[layer] = max(packets, history.counted[layer])

    def _history(self, nic: Nic) -> _History:
        history = self._of.pop(nic, None) or _History()
        self._of[nic] = history  # those that moved last are last
        if len(self._of) > _KEPT:
            del self._of[next(iter(self._of))]
        return history


def _beyond(stats: Iterable[NicLoss], seen: Mapping[str, int]) -> Iterator[NicLoss]:
    """Take off what may have had events."""
    left = dict(seen)
    for stat in sorted(
        stats, key=lambda one: _SEEN_FIRST.index(one.stat_class) if one.stat_class in _SEEN_FIRST else -1
    ):
        layer = STAT_CLASS_LAYERS.get(stat.stat_class)
        if layer is None:
            continue
        known = 0 if layer in BEFORE_EVENTS else min(stat.packets, left.get(layer, 0))
        left[layer] = left.get(layer, 0) - known
        yield stat._replace(packets=stat.packets - known)


def _grown(history: _History, now: Iterable[NicLoss]) -> Iterator[NicLoss]:
    """Give by how much each stat_class grew; what was told of another and turned out to be of this is left out."""
    stats = {stat.stat_class: stat for stat in now}
    owed = sum(
        max(0, told.packets - (stats[stat_class].packets if stat_class in stats else 0))
        for stat_class, told in history.told.items()
    )
    for stat_class, stat in stats.items():
        told = history.told.get(stat_class)
        before = told.packets if told else 0
        packets = max(0, stat.packets - before)
        paid = min(owed, packets)
        owed -= paid
        if packets > paid:
            queues = {q: n - (told.queues.get(q, 0) if told else 0) for q, n in stat.queues.items()}
            history.told[stat_class] = stat._replace(packets=before + packets - paid)
            yield stat._replace(packets=packets - paid, queues={q: n for q, n in queues.items() if n > 0})


def _add(sums: dict[str, int], risen: Mapping[str, int]) -> None:
    for name, by in risen.items():
        sums[name] = sums.get(name, 0) + by


def _row(risen: Mapping[str, int]) -> Row:
    return Row(tuple(risen), tuple(risen.values()))
