# SPDX-License-Identifier: MIT
"""What has happened so far: the Accounts of a run, added up. All that `pktdrop top` calculates is calculated here."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pktdrop.account import Account
from pktdrop.counters.gone import together
from pktdrop.filters import Selection
from pktdrop.ledger.entry import Entry
from pktdrop.ledger.loss import Loss, by_layer
from pktdrop.ledger.nics import Nic
from pktdrop.model.counters import Scope
from pktdrop.model.drops import THE_GONE, Count, DropKey, Judge, Lost, Netns, Verdict
from pktdrop.model.snapshots import Drops, Kinds
from pktdrop.top.series import Series
from pktdrop.views.table import interface_of, netns_of, reason

LEAST_STRETCH: Final = 2.0
"""Seconds of a cell of the widest sparkline: 60 of them are two minutes."""
_SPARE: Final = 4_096
"""Rows and kinds beyond twice those that were left when what is gone was put together last."""
_OTHER: Final = "other"
"""In place of an interface: those of namespaces that are gone."""
NO_EVENT: Final = "(no event)"
"""In place of a reason: what was lost without a drop event, by NICs and full queues."""


class Reason(NamedTuple):
    """What a row of the view of reasons stands for."""

    layer: str
    name: str
    noise: str | None
    doubt: str | None = None


class Tally:
    """Packets of one row: all, and in the last interval."""

    __slots__ = ("_rate", "packets", "seen", "series")

    def __init__(self, stretch: float) -> None:
        """Start at zero."""
        self.packets = 0
        self.seen = -1.0
        """When the last ones were counted, in seconds of the history; below zero: never."""
        self.series = Series(stretch)
        self._rate = 0.0

    def add(self, packets: int, start: float, end: float) -> None:
        """Count packets of an interval; none of an empty interval have a rate."""
        self.packets += packets
        self.seen = end
        if end > start:
            self._rate = packets / (end - start)
            self.series.add(start, end, self._rate)

    def rate(self, now: float) -> float:
        """Return packets per second of the interval that ended now."""
        return self._rate if self.seen == now else 0.0

    def take(self, other: "Tally") -> None:
        """Count what another one did; when that was is not kept."""
        self.packets += other.packets
        self.seen = max(self.seen, other.seen)

    def copy(self) -> "Tally":
        """Return one that does not change with this one."""
        other = Tally.__new__(Tally)
        other.packets, other.seen, other.series, other._rate = self.packets, self.seen, self.series.copy(), self._rate
        return other


@dataclass
class Group:
    """The drops that one row sums up."""

    tally: Tally
    """Losses; in a row of noise or doubt, that."""
    position: int = -1
    """Index among all groups of a history."""
    noise: int = 0
    """Packets that are no loss, in a row that has both."""
    doubt: int = 0
    """Packets of which it is not known whether they were lost, in a row that has others, too."""
    keys: list[DropKey] = field(default_factory=list)
    interfaces: set[str] = field(default_factory=set)
    netns: set[str] = field(default_factory=set)
    cpus: set[tuple[int, int | None]] = field(default_factory=set)
    """CPU that dropped, and CPU whose backlog was full."""
    words: set[str] = field(default_factory=set)
    """What a filter may look for."""

    def forget(self) -> None:
        """Forget the kinds of drops, to learn them anew."""
        for what in (self.keys, self.interfaces, self.netns, self.cpus, self.words):
            what.clear()

    def learn(self, key: DropKey, verdict: Verdict) -> None:
        """Take one more kind of drop."""
        self.keys.append(key)
        self.interfaces.add(interface_of(key))
        self.netns.add(netns_of(key))
        self.cpus.add((key.cpu, key.target_cpu))
        self.words.update((reason(key, verdict), verdict.layer, interface_of(key), netns_of(key), key.call_site))

    def take(self, other: "Group") -> None:
        """Sum up what another one does."""
        self.tally.take(other.tally)
        self.noise += other.noise
        self.doubt += other.doubt

    def copy(self) -> "Group":
        """Return one that does not change with this one."""
        return replace(
            self,
            tally=self.tally.copy(),
            keys=self.keys.copy(),
            interfaces=self.interfaces.copy(),
            netns=self.netns.copy(),
            cpus=self.cpus.copy(),
            words=self.words.copy(),
        )


@dataclass(frozen=True)
class Line:
    """The entries of one counter in one scope, added up."""

    entry: Entry
    """The last one."""
    delta: int
    explained: int
    """Events that came an interval late or early count as well."""
    unexplained: int
    """What stayed unexplained."""
    by: Mapping[str, int]
    is_hint: bool

    @property
    def status(self) -> str:
        """Return the status of all together."""
        if self.unexplained:
            return "unexplained"
        if self.entry.status in ("silent", "no-event"):
            return self.entry.status
        return "exact" if self.delta == self.explained == sum(self.by.values()) else "bound"

    def plus(self, other: "Line") -> "Line":
        """Return the sum of both."""
        by = Counter(self.by) + Counter(other.by)
        delta, explained = self.delta + other.delta, self.explained + other.explained
        return replace(self, delta=delta, explained=explained, unexplained=self.unexplained + other.unexplained, by=by)


@dataclass
class Port:
    """What an interface, or one of its queues, has lost and moved."""

    driver: str = ""
    stat_classes: dict[str, int] = field(default_factory=dict)
    """Packets lost by the NIC, by class of the counter."""
    counters: dict[str, int] = field(default_factory=dict)
    """Whence that is known, with the packets each time."""
    received: float = 0.0
    """Packets per second in the last interval in which the counters moved."""
    sent: float = 0.0
    moved: float = -1.0
    """When the counters moved last."""
    lost: float = -1.0
    """When the NIC lost last."""

    def take(self, other: "Port") -> None:
        """Lose what another one has lost."""
        for sums, more in ((self.stat_classes, other.stat_classes), (self.counters, other.counters)):
            for name, packets in more.items():
                sums[name] = sums.get(name, 0) + packets
        self.lost = max(self.lost, other.lost)

    def copy(self) -> "Port":
        """Return one that does not change with this one."""
        return replace(self, stat_classes=self.stat_classes.copy(), counters=self.counters.copy())


class Processor(NamedTuple):
    """The softnet counters of a CPU: since the start of the history, per second, and queue lengths of now."""

    total: Mapping[str, int]
    rates: Mapping[str, float]
    backlog: Mapping[str, int]


Queue = tuple[Netns | None, str, int | None]
"""Namespace, interface, queue; without a queue the interface as a whole."""


class History:
    """Adds up Accounts. The clock is the sum of the lengths of all intervals, so steps of the wall clock do not show.

    What the command line's filters hide is in `filtered` only; layers and the ledger are of the whole host, as in
    `pktdrop trace`.
    """

    def __init__(self, interval: float, elapsed: float = 0.0) -> None:
        """Start at zero; take seconds of an interval, and how long the run has lasted."""
        self._stretch = max(LEAST_STRETCH, interval)
        self.since = elapsed
        """When counting began, on the clock of the run."""
        self.elapsed = elapsed
        self.end: float | None = None
        """Wall clock at the end of the last interval."""
        self.seconds = 0.0
        """Length of the last interval."""
        self.intervals = 0
        self.lost = Lost(0, 0)
        self.filtered = 0
        self.noise = 0
        self.doubt = 0
        self.unexplained = 0
        self.loss = Tally(self._stretch)
        """Packets lost on the whole host, with or without an event."""
        self.layers: dict[str, Tally] = {}
        self.drops: dict[DropKey, int] = {}
        self.now: Mapping[DropKey, Count] = {}
        """The drops of the last interval."""
        self.reasons: dict[Reason, Group] = {}
        self.cpus: dict[int, Group] = {}
        self.targets: dict[int, Tally] = {}
        """Drops by the CPU whose backlog was full."""
        self.interfaces: dict[tuple[Netns | None, str], Group] = {}
        self.netns: dict[Netns | None, Group] = {}
        self.ports: dict[Queue, Port] = {}
        self.processors: dict[int, Processor] = {}
        self.lines: dict[tuple[str, Scope], Line] = {}
        self._groups: list[Group] = []
        self._positions: dict[DropKey, tuple[Verdict, tuple[int, ...]]] = {}
        """What is said of a kind of drop, and where in it its groups are."""
        self._trimmed = 0
        """How many rows and kinds trim() left."""

    def anew(self, interval: float) -> "History":
        """Return one that counts from zero at this moment."""
        return History(interval, self.elapsed)

    def copy(self) -> "History":
        """Return one that does not change with this one. It is to look at: nothing can be added to it."""
        other = History(self._stretch, self.since)
        other.__dict__.update(self.__dict__)
        other.loss = self.loss.copy()
        other.drops = self.drops.copy()
        for name in ("layers", "targets", "reasons", "cpus", "interfaces", "netns"):
            rows: Mapping[Any, Tally | Group] = getattr(self, name)
            setattr(other, name, {key: row.copy() for key, row in rows.items()})
        other.ports = {queue: port.copy() for queue, port in self.ports.items()}
        other.processors, other.lines = self.processors.copy(), self.lines.copy()
        return other

    def add(self, account: Account, selection: Selection) -> None:
        """Take the next interval, and which of its drops the user wants to see."""
        step = account.interval
        start, self.elapsed = self.elapsed, self.elapsed + step.seconds
        self.end, self.seconds, self.now = step.end, step.seconds, selection.drops
        self.intervals += 1
        self.lost = Lost(*(was + more for was, more in zip(self.lost, step.lost, strict=True)))
        self.filtered += selection.filtered
        self._add_drops(selection, start)
        self._add_layers(account, start)
        self._add_ledger(account)
        self._add_ports(account)
        self._add_processors(account)
        if len(self._positions) + len(self.ports) + len(self.lines) > 2 * self._trimmed + _SPARE:
            self._trim(account, selection.judge)

    def _trim(self, account: Account, judge: Judge) -> None:
        """Put together what is gone, so that memory does not grow with what was; sums stay."""
        self._trim_drops(Drops.of(account.interval.drops).kinds, judge)
        self._trim_ports(account)
        for counter, scope in [one for one in self.lines if one[1].netns is not None]:
            if scope.netns is not None and not account.is_kept(scope.netns):
                line = self.lines.pop((counter, scope))
                scope_of_gone = together(scope, THE_GONE, None)
                entry = line.entry._replace(scope=scope_of_gone)
                before = self.lines.get((counter, scope_of_gone))
                self.lines[counter, scope_of_gone] = replace(line, entry=entry) if before is None else before.plus(line)
        self._trimmed = len(self._positions) + len(self.ports) + len(self.lines)

    def _trim_drops(self, kinds: Kinds, judge: Judge) -> None:
        """Let kinds that the tracer keeps apart no more, which did not move for long, go on as those of other places.

        Rows of interfaces and namespaces without any other kind do the same.
        """
        known, self.drops = self.drops, {}
        for key, packets in known.items():
            called = key if kinds.find(key) is not None else key.of_other_places()
            self.drops[called] = self.drops.get(called, 0) + packets
        rows: tuple[dict[Any, Group], ...] = (self.reasons, self.cpus, self.interfaces, self.netns)
        for group in (group for groups in rows for group in groups.values() if group.keys):
            group.forget()
        self._merge(self.interfaces, {(key.netns, interface_of(key)) for key in self.drops})
        self._merge(self.netns, {key.netns for key in self.drops})
        self._groups = [group for groups in rows for group in groups.values()]
        for position, group in enumerate(self._groups):
            group.position = position
        self._positions = {}
        for key in self.drops:
            self._learn(key, judge)

    def _merge(self, groups: dict[Any, Group], kept: Collection[object]) -> None:
        other = next((key for key in self.drops if key.other_places), None)
        if other is None:
            return
        row_of_others: object = None if groups is self.netns else (None, interface_of(other))
        for row in [row for row in groups if row not in kept]:
            self._group(groups, row_of_others).take(groups.pop(row))

    def _trim_ports(self, account: Account) -> None:
        there = {(scope.netns, scope.interface or "") for scope in account.counters.rows.get("links", ())}
        for queue, port in list(self.ports.items()):
            netns = queue[0]
            if netns is None or (
                account.is_kept(netns) and (netns not in account.counters.netns or queue[:2] in there)
            ):
                continue
            del self.ports[queue]
            if port.stat_classes:
                self._port((None, _OTHER)).take(port)

    def per_second(self, packets: int) -> float:
        """Return the rate of what was counted in the last interval."""
        return packets / self.seconds if self.seconds else 0.0

    def verdict(self, key: DropKey) -> Verdict:
        """Return what the rules say of a kind of drop."""
        return self._positions[key][0]

    def _add_drops(self, selection: Selection, start: float) -> None:
        moved: dict[int, int] = {}
        full: dict[int, int] = {}
        known, totals = self._positions, self.drops
        for key, count in selection.drops.items():
            packets = count.packets
            verdict, positions = known.get(key) or self._learn(key, selection.judge)
            totals[key] = totals.get(key, 0) + packets
            if verdict.noise is not None:
                self.noise += packets
                for position in positions[1:]:
                    self._groups[position].noise += packets
                positions = positions[:1]
            elif verdict.doubt is not None:
                for position in positions[1:]:
                    self._groups[position].doubt += packets
                positions = positions[:1]
            elif key.target_cpu is not None:
                full[key.target_cpu] = full.get(key.target_cpu, 0) + packets
            for position in positions:
                moved[position] = moved.get(position, 0) + packets
        for position, packets in moved.items():
            self._groups[position].tally.add(packets, start, self.elapsed)
        for cpu, packets in full.items():
            self._tally(self.targets, cpu).add(packets, start, self.elapsed)

    def _learn(self, key: DropKey, judge: Judge) -> tuple[Verdict, tuple[int, ...]]:
        """Return what is said of a new kind of drop, and the positions of its groups, that of its reason first."""
        verdict = judge(key)
        groups = (
            self._group(self.reasons, Reason(verdict.layer, reason(key, verdict), verdict.noise, verdict.doubt)),
            self._group(self.cpus, key.cpu),
            self._group(self.interfaces, (key.netns, interface_of(key))),
            self._group(self.netns, key.netns),
        )
        for group in groups:
            group.learn(key, verdict)
        found = self._positions[key] = verdict, tuple(group.position for group in groups)
        return found

    def _group(self, groups: dict[Any, Group], key: object) -> Group:
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(Tally(self._stretch), len(self._groups))
            self._groups.append(group)
        return group

    def _tally(self, tallies: dict[Any, Tally], key: object) -> Tally:
        tally = tallies.get(key)
        if tally is None:
            tally = tallies[key] = Tally(self._stretch)
        return tally

    def _add_layers(self, account: Account, start: float) -> None:
        """Take what was lost by layer; what the events do not show gets a row of its own."""
        losses = account.ledger.losses
        lost = by_layer(losses)
        without_event: Counter[str] = Counter()
        for loss in losses:
            without_event[loss.layer] += loss.without_event
        if sum(lost.values()):
            self.loss.add(sum(lost.values()), start, self.elapsed)
        for layer, packets in lost.items():
            self._tally(self.layers, layer).add(packets, start, self.elapsed)
            if without_event[layer]:
                group = self._group(self.reasons, Reason(layer, NO_EVENT, None))
                group.tally.add(without_event[layer], start, self.elapsed)
                group.words.update((NO_EVENT, layer))

    def _add_ledger(self, account: Account) -> None:
        self.unexplained += account.ledger.unexplained
        self.doubt += sum(account.ledger.doubt.values())
        hints = account.ledger.hints
        for entry in account.ledger.entries:
            if entry.status == "doubt":  # a row of the reasons
                continue
            key = (entry.counter, entry.scope)
            before = self.lines.get(key)
            delta, by = entry.delta, Counter(dict(entry.by))
            unexplained = entry.unexplained if entry.status == "unexplained" else 0
            if before is not None:
                delta, by, unexplained = delta + before.delta, by + Counter(before.by), unexplained + before.unexplained
            explained = min(delta, sum(by.values()))
            self.lines[key] = Line(
                entry, delta, explained, min(unexplained, delta - explained), by,
                entry.counter in hints and entry.status != "unexplained",
            )  # fmt: skip

    def _add_ports(self, account: Account) -> None:
        for scope in account.counters.rows.get("links", ()):
            if (scope.netns, scope.interface or "", None) not in self.ports:
                driver = account.counters.drivers.get((scope.netns, scope.interface or ""), "")
                self.ports[scope.netns, scope.interface or "", None] = Port(driver)
        for scope, risen in account.moved.get("links", {}).items():
            port = self._port((scope.netns, scope.interface or ""))
            port.moved = self.elapsed
            port.received = account.rate(scope.netns, risen.get("rx_packets", 0))
            port.sent = account.rate(scope.netns, risen.get("tx_packets", 0))
        for loss in account.ledger.losses:
            if loss.stat_class is not None:
                self._add_nic((loss.whereabouts.netns, loss.whereabouts.interface or ""), loss.stat_class, loss)

    def _add_nic(self, nic: Nic, stat_class: str, loss: Loss) -> None:
        queues: Iterable[tuple[int | None, int]] = ((None, loss.packets), *loss.whereabouts.queues)
        for queue, packets in queues:
            if packets:
                port = self._port(nic, queue)
                port.lost = self.elapsed
                port.stat_classes[stat_class] = port.stat_classes.get(stat_class, 0) + packets
                for counter in loss.counters:
                    port.counters[counter] = port.counters.get(counter, 0) + packets

    def _port(self, nic: Nic, queue: int | None = None) -> Port:
        return self.ports.setdefault((*nic, queue), Port())

    def _add_processors(self, account: Account) -> None:
        moved, backlogs = account.moved.get("softnet", {}), account.counters.backlogs
        for scope in account.counters.rows.get("softnet", ()):
            if scope.cpu is None:
                continue
            known = self.processors.get(scope.cpu)
            risen = moved.get(scope, {})
            total = dict(known.total) if known else {}
            for name, by in risen.items():
                total[name] = total.get(name, 0) + by
            backlog = backlogs.get(scope.cpu)
            self.processors[scope.cpu] = Processor(
                total,
                {name: account.rate(None, by) for name, by in risen.items()},
                dict(zip(backlog.names, backlog.values, strict=True)) if backlog else {},
            )
