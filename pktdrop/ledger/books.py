# SPDX-License-Identifier: MIT
"""The ledger of an interval: each counter that rose beside the events that explain it, and the list of losses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Final

from pktdrop.counters import gone
from pktdrop.counters.collect import kernel_width
from pktdrop.counters.increments import Increments
from pktdrop.ledger.attribution import Carry
from pktdrop.ledger.entry import FOLDED, FOLDING_DRIVERS, PEER, PEER_DRIVERS, SETTLED, Entry
from pktdrop.ledger.events import Why, WhyOf
from pktdrop.ledger.listing import Listing, LossKey, added, added_doubts, key_of, of_events
from pktdrop.ledger.loss import Loss, by_layer, in_order
from pktdrop.ledger.narrowing import narrowed
from pktdrop.ledger.nics import Nic
from pktdrop.ledger.reconcile import Reconciled, Reconciler
from pktdrop.ledger.rests import SHARED_FIELDS
from pktdrop.ledger.steady import Steady
from pktdrop.ledger.verdict import Windows
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import THE_GONE, Count, DropKey, Netns
from pktdrop.rules.causes import Causes
from pktdrop.rules.identities import NO_COUNTER
from pktdrop.rules.layers import LAYERS, Layers
from pktdrop.rules.match import Event
from pktdrop.rules.rules import Rules

_NOT_READ: Final = "the counters of its namespace could not be read"
_PEER_FIELDS: Final = ("links.rx_dropped", "links.tx_dropped", "links.rx_errors", "links.tx_errors")

_QUESTIONS: Final = 8_192
"""Pairs of counter and driver whose meaning is remembered."""

NOTHING_READ: Final[Mapping[Scope, Row]] = MappingProxyType({})


@dataclass(frozen=True)
class Ledger:
    """What counters and events say together."""

    entries: tuple[Entry, ...]
    losses: tuple[Loss, ...]
    """All lost packets, each in exactly one loss; every total is a sum over these."""
    hints: frozenset[str]
    """Counters among the entries that count no lost packets, or only such as another counter tells, too."""

    @property
    def lost(self) -> Mapping[str, int]:
        """Packets lost, by layer, with or without an event; layers without loss are left out."""
        return by_layer(self.losses)

    @property
    def unexplained(self) -> int:
        """Packets of loss counters that nothing explains."""
        return sum(loss.packets for loss in self.losses if loss.note)

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
    """Makes the ledger of each interval; knows the tables, and what earlier intervals left open."""

    def __init__(self, rungs: Mapping[str, str], rules: Rules, read: Collection[Netns] | None = None) -> None:
        """Take by which rung each probe is attached, and the rules.

        `read` are the namespaces whose counters were read at the beginning; None: all.
        """
        self._rungs = rungs
        self._identities, self._drivers = rules.identities, rules.drivers
        self._reconciler = Reconciler(self._identities, self._classify, why_of(rules.layers, rules.causes))
        self._steady = Steady()
        self._carry = Carry()
        is_traced = rungs.get("kfree_skb", "none") != "none"
        self._listing = Listing(self._identities, self._drivers, rules.causes, is_traced)
        self._unattributed = _Unattributed()
        self._driver_of: dict[Nic, str] = {}
        self._class_of = lru_cache(_QUESTIONS)(self._classify_by)
        self._read_before = read
        self._run: tuple[Loss, ...] = ()
        """What was lost since the beginning, at no socket or queueing discipline yet."""
        self._run_doubts: tuple[Entry, ...] = ()
        """What counters leave in doubt since the beginning."""
        self._last: Reconciled | None = None

    def learn_drivers(self, driver_of: Mapping[Nic, str], statistics: Mapping[Scope, Row] = NOTHING_READ) -> None:
        """Remember the drivers of interfaces, and their variants as statistics tell them: Drivers.variant()."""
        for nic, driver in driver_of.items():
            row = statistics.get(Scope(netns=nic[0], interface=nic[1]))
            if row is not None or self._driver_of.get(nic, "").partition("!")[0] != driver:
                self._driver_of[nic] = self._drivers.variant(driver, () if row is None else row.names) or driver

    def keep(self, is_kept: Callable[[Netns], bool], interfaces: Collection[Nic]) -> None:
        """Sum losses of namespaces that are not kept up as one, and forget all interfaces but these."""
        self._driver_of = {nic: driver for nic, driver in self._driver_of.items() if nic in interfaces}
        self._carry.keep(is_kept)
        self._run = added(
            loss
            if loss.whereabouts.netns is None or is_kept(loss.whereabouts.netns)
            else loss._replace(
                whereabouts=loss.whereabouts._replace(netns=THE_GONE, interface=None, sockets=(), qdiscs=())
            )
            for loss in self._run
        )

    def width(self, source: str, scope: Scope, name: str) -> int:
        """Return at how many bits a counter wraps: some drivers show registers of the NIC as they are."""
        meaning = self._drivers.classify(self.driver(scope), name) if source == "driver" else None
        return kernel_width(source, scope, name) if meaning is None else meaning.bits

    def of_interval(
        self,
        drops: Mapping[DropKey, Count],
        increments: Increments,
        windows: Windows,
        read: Collection[Netns],
        unattributed: int = 0,
        is_last: bool = False,
    ) -> Ledger:
        """Return the ledger of the next interval; what is out of balance counts as unexplained once it has stayed.

        `read` are the namespaces whose counters were read, `unattributed` how many drops were not counted, or not in
        their scope. After the last interval nothing is left open.
        """
        before = self._read_before
        found = self._reconciler.reconcile(
            drops, increments, self._rungs, windows, self._carry, read.__contains__,
            lambda netns: before is not None and netns not in before,
        )  # fmt: skip
        self._read_before = read
        settled = self._steady.settle(_of_read(found.entries, read), is_last)
        entries = self._unattributed.explain(settled, unattributed)
        losses = self._listing.step(found.lost, entries, increments, self._driver_of)
        self._run = added(losses, to=self._run)
        self._run_doubts = added_doubts(self._listing.doubts, to=self._run_doubts)
        self._last = found
        return self._ledger((*entries, *self._listing.doubts), losses, increments)

    def of_run(
        self,
        drops: Mapping[DropKey, Count],
        increments: Increments,
        windows: Windows,
        read: Collection[Netns],
        unattributed: int = 0,
    ) -> Ledger:
        """Return the ledger of all intervals so far: its losses are those of the intervals, added up."""
        found = self._reconciler.reconcile(drops, increments, self._rungs, windows)
        entries = _Unattributed().explain(_of_read(found.entries, read), unattributed)
        return self._ledger((*entries, *self._run_doubts), self._run, increments)

    def _ledger(self, entries: tuple[Entry, ...], losses: tuple[Loss, ...], increments: Increments) -> Ledger:
        late = _Late(self._last)
        facts = self._identities.counters
        hints = frozenset(
            entry.counter for entry in entries if entry.counter in facts and facts[entry.counter].loss == "no"
        )
        return Ledger(entries, in_order(narrowed(losses, increments, late.of)), hints)

    def _classify(self, counter: str, scope: Scope) -> str | None:
        return self._class_of(counter, self.driver(scope))

    def _classify_by(self, counter: str, driver: str | None) -> str | None:
        if counter.startswith("links."):
            if driver in FOLDING_DRIVERS:
                return FOLDED
            if driver in PEER_DRIVERS and counter in _PEER_FIELDS:
                return PEER
            if self._drivers.settles(driver, counter):
                return SETTLED
            rule = self._drivers.link(driver, counter)
            return rule.stat_class if rule is not None and rule.events else None
        meaning = self._drivers.classify(driver, counter)
        is_loss = meaning is not None and meaning.counts == "loss" and meaning.role != "sum"
        return meaning.stat_class if meaning is not None and is_loss else None

    def driver(self, scope: Scope) -> str | None:
        """Return the driver of an interface, or of those that are gone, and what its statistics tell of it."""
        return self._driver_of.get((scope.netns, scope.interface or "")) or gone.driver_of(scope.interface)


class _Unattributed:
    """Drops that were not counted, or not in their scope: counters that rose beyond the events may count these."""

    def __init__(self) -> None:
        self._left = 0

    def explain(self, entries: Iterable[Entry], unattributed: int) -> tuple[Entry, ...]:
        """Take how many drops of the next interval were not counted; call unexplained only what is more than that.

        One drop moves several counters, so each is compared with all that were not counted.
        """
        self._left += unattributed
        found, most = [], 0
        for entry in entries:
            may_be = entry.status == "unexplained" or (entry.counter in SHARED_FIELDS and not entry.is_open)
            packets = min(entry.unexplained, self._left) if may_be else 0
            most = max(most, packets)
            found.append(_explained(entry, packets) if packets else entry)
        self._left -= most
        return tuple(found)


def _explained(entry: Entry, packets: int) -> Entry:
    note = f"{packets} of them may be drops that were not counted, or not where they were"
    explained = entry.explained + packets if entry.delta else 0
    left = entry.unexplained - packets
    return entry._replace(explained=explained, unexplained=left, status=entry.status if left else "bound", note=note)


def _of_read(entries: Iterable[Entry], read: Collection[Netns]) -> Iterator[Entry]:
    for entry in entries:
        is_unseen = entry.scope.netns is not None and entry.scope.netns not in read
        if is_unseen and entry.status == "silent" and not entry.delta:
            yield entry._replace(counter=NO_COUNTER, note=_NOT_READ)
        else:
            yield entry


def why_of(layers: Layers, causes: Causes) -> WhyOf:
    """Return what tells verdict and cause of an event."""

    def why(key: DropKey, event: Event) -> Why:
        verdict = layers.of(key)
        return Why(event.name, verdict, causes.of_event(verdict.layer, verdict.nature, event))

    return why


class _Late:
    """Lost packets that counters may not have yet, as they were read for the last time before; worked out if asked."""

    def __init__(self, last: Reconciled | None) -> None:
        self._last = last

    @cached_property
    def _packets(self) -> Mapping[LossKey, int]:
        late = [] if self._last is None else [*self._last.late()]
        return {key_of(loss): loss.packets for loss in of_events(late)}

    def of(self, loss: Loss) -> int:
        """Return how many packets of a loss these are."""
        return self._packets.get(key_of(loss), 0)
