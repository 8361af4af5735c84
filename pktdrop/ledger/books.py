# SPDX-License-Identifier: MIT
"""The ledger of a window: the entries, what was lost in which layer, and what the NICs lost."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pktdrop.counters.collect import kernel_width
from pktdrop.counters.drivers import Drivers, Loss
from pktdrop.counters.increments import Moved
from pktdrop.counters.model import Row, Scope
from pktdrop.layers import LAYERS
from pktdrop.ledger.entry import FOLDED, FOLDING_DRIVERS, PEER, PEER_DRIVERS, SETTLED, Entry
from pktdrop.ledger.identities import NO_COUNTER, Identities
from pktdrop.ledger.reconcile import Between, Reconciler
from pktdrop.ledger.steady import Steady
from pktdrop.ledger.totals import rests, totals
from pktdrop.model import Count, DropKey, Netns

_NOT_READ = "the counters of its namespace could not be read"
_PEER_FIELDS = ("links.rx_dropped", "links.tx_dropped", "links.rx_errors", "links.tx_errors")

NOTHING_READ: Mapping[Scope, Row] = MappingProxyType({})

Nic = tuple[Netns | None, str]
"""Inode of the network namespace, and name of the interface."""


@dataclass(frozen=True)
class Ledger:
    """What counters and events say together."""

    entries: tuple[Entry, ...]
    lost: Mapping[str, int]
    """Packets lost, by layer; each packet in one of them, with or without an event."""
    nics: Mapping[Nic, tuple[Loss, ...]]
    """What the drivers of interfaces say was lost, each packet once; no drop events show it."""
    without_event: tuple[tuple[Entry, int], ...]
    """What other counters say was lost, beyond the events: packets, each with one of the counters that have it."""
    hints: frozenset[str]
    """Counters among the entries that count no lost packets, or none that another one does not tell."""

    @property
    def unexplained(self) -> int:
        """Packets of loss counters that nothing explains."""
        return sum(packets for entry, packets in self.without_event if entry.status == "unexplained")

    @property
    def doubt(self) -> Mapping[str, int]:
        """Packets of which it is not known whether they were lost, by layer; none of them is among the lost."""
        found: dict[str, int] = {}
        for entry in self.entries:
            if entry.status == "doubt":
                found[entry.layer] = found.get(entry.layer, 0) + sum(count for _, count in entry.by)
        return {layer: found[layer] for layer in LAYERS if layer in found}

    @property
    def of_loss(self) -> tuple[Entry, ...]:
        """Entries that tell of lost packets."""
        return tuple(
            entry for entry in self.entries if entry.counter not in self.hints or entry.status == "unexplained"
        )


class Books:
    """Makes the ledger of each window; knows the tables, and what earlier windows left open."""

    def __init__(self, rungs: Mapping[str, str], tcp_input_has_events: bool = True) -> None:
        """Take by which rung each probe is attached, and what the kernel does."""
        self._rungs = rungs
        self._identities = Identities.load(tcp_input_has_events)
        self._drivers = Drivers.load()
        self._reconciler = Reconciler(self._identities, self._classify)
        self._steady = Steady()
        self._driver_of: dict[Nic, str] = {}

    def learn_drivers(self, driver_of: Mapping[Nic, str], statistics: Mapping[Scope, Row] = NOTHING_READ) -> None:
        """Remember the drivers of interfaces, and what their statistics tell of them: Drivers.variant()."""
        for nic, driver in driver_of.items():
            row = statistics.get(Scope(netns=nic[0], interface=nic[1]))
            if row is not None or self._driver_of.get(nic, "").partition("!")[0] != driver:
                self._driver_of[nic] = self._drivers.variant(driver, () if row is None else row.names) or driver

    def width(self, source: str, scope: Scope, name: str) -> int:
        """Return at how many bits a counter wraps: some drivers show registers of the NIC as they are."""
        meaning = self._drivers.classify(self._driver(scope), name) if source == "driver" else None
        return kernel_width(source, scope, name) if meaning is None else meaning.bits

    def of_interval(
        self, drops: Mapping[DropKey, Count], moved: Moved, bracket: Between, read: Collection[Netns]
    ) -> Ledger:
        """Return the ledger of the next interval; what is out of balance counts as unexplained once it has stayed.

        `read` are the namespaces whose counters were read.
        """
        entries = self._steady.settle(self._entries(drops, moved, bracket, read))
        return self._ledger(entries, drops, moved)

    def of_run(self, drops: Mapping[DropKey, Count], moved: Moved, bracket: Between, read: Collection[Netns]) -> Ledger:
        """Return the ledger of several intervals."""
        return self._ledger(tuple(self._entries(drops, moved, bracket, read)), drops, moved)

    def _ledger(self, entries: tuple[Entry, ...], drops: Mapping[DropKey, Count], moved: Moved) -> Ledger:
        nics = self._nics(moved)
        hardware = {nic: {loss.kind: loss.packets for loss in losses} for nic, losses in nics.items()}
        lost = totals(entries, drops, self._identities, hardware)
        facts = self._identities.counters
        hints = frozenset(
            entry.counter for entry in entries if entry.counter in facts and facts[entry.counter].loss == "no"
        )
        return Ledger(entries, lost, nics, tuple(rests(entries, self._identities)), hints)

    def _entries(
        self, drops: Mapping[DropKey, Count], moved: Moved, bracket: Between, read: Collection[Netns]
    ) -> Iterator[Entry]:
        for entry in self._reconciler.entries(drops, moved, self._rungs, bracket):
            if entry.status == "silent" and entry.scope.netns is not None and entry.scope.netns not in read:
                yield replace(entry, counter=NO_COUNTER, note=_NOT_READ)
            else:
                yield entry

    def _classify(self, counter: str, scope: Scope) -> str | None:
        driver = self._driver(scope)
        if counter.startswith("links."):
            if driver in FOLDING_DRIVERS:
                return FOLDED
            if driver in PEER_DRIVERS and counter in _PEER_FIELDS:
                return PEER
            if self._drivers.settles(driver, counter):
                return SETTLED
            rule = self._drivers.link(driver, counter)
            return rule.kind if rule is not None and rule.events else None
        meaning = self._drivers.classify(driver, counter)
        is_loss = meaning is not None and meaning.counts == "loss" and meaning.role != "sum"
        return meaning.kind if meaning is not None and is_loss else None

    def _nics(self, moved: Moved) -> dict[Nic, tuple[Loss, ...]]:
        """Return what drivers counted as lost, for the interfaces any of whose counters rose."""
        rows: dict[Nic, dict[Scope, Row]] = {}
        links = {(scope.netns, scope.interface or ""): _row(risen) for scope, risen in moved.get("links", {}).items()}
        for scope, risen in moved.get("driver", {}).items():
            rows.setdefault((scope.netns, scope.interface or ""), {})[scope] = _row(risen)
        losses = {
            nic: self._drivers.nic_loss(self._driver_of.get(nic), rows.get(nic, {}), links.get(nic))
            for nic in {*rows, *links}
        }
        return {nic: found for nic in losses if (found := tuple(loss for loss in losses[nic] if loss.packets))}

    def _driver(self, scope: Scope) -> str | None:
        return self._driver_of.get((scope.netns, scope.interface or ""))


def _row(risen: Mapping[str, int]) -> Row:
    return Row(tuple(risen), tuple(risen.values()))
