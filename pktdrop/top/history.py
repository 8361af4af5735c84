# SPDX-License-Identifier: MIT
"""What has happened so far: the Accounts of a run, added up. All that `pktdrop top` calculates is calculated here."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from pktdrop.account import Account
from pktdrop.counters.gone import together
from pktdrop.filters import Selection
from pktdrop.ledger.loss import Loss, by_layer
from pktdrop.model.drops import THE_GONE, Count, DropKey, Judge, Netns, Uncounted, Verdict
from pktdrop.model.snapshots import Drops, Kinds
from pktdrop.top.subjects import NO_EVENT, CounterScope, InterfaceQueue, Reason
from pktdrop.top.sums import Group, Line, Port, Processor, Tally
from pktdrop.top.whose import Whose
from pktdrop.views.kinds import interface_of, reason

LEAST_STRETCH: Final = 2.0
"""Seconds of a cell of the widest sparkline: 60 of them are two minutes."""
_SPARE: Final = 4_096
"""Rows and kinds beyond twice those that were left when what is gone was put together last."""
_OTHER: Final = "other"
"""Stands for the interfaces of namespaces that are gone, in place of a name."""


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
        self.uncounted = Uncounted(0, 0)
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
        self.interfaces: dict[InterfaceQueue, Group] = {}
        self.netns: dict[Netns | None, Group] = {}
        self.ports: dict[InterfaceQueue, Port] = {}
        self.processors: dict[int, Processor] = {}
        self.lines: dict[CounterScope, Line] = {}
        self.whose = Whose()
        """By those packets that were looked at."""
        self._groups: list[Group] = []
        self._positions: dict[DropKey, tuple[Verdict, tuple[int, ...]]] = {}
        """What is said of a kind of drop, and where in it its groups are."""
        self._trimmed = 0
        """How many rows and kinds trim() left."""

    def anew(self, interval: float) -> "History":
        """Return a history that counts from zero at this moment."""
        return History(interval, self.elapsed)

    def copy(self) -> "History":
        """Return a history to look at, which stays as this one is now; nothing can be added to it."""
        other = History(self._stretch, self.since)
        other.__dict__.update(self.__dict__)
        other.loss = self.loss.copy()
        for name in ("layers", "targets", "reasons", "cpus", "interfaces", "netns"):
            rows: Mapping[Any, Tally | Group] = getattr(self, name)
            setattr(other, name, {key: row.copy() for key, row in rows.items()})
        for name in ("drops", "ports", "processors", "lines", "whose"):  # what is in them never changes
            setattr(other, name, getattr(self, name).copy())
        return other

    def add(self, account: Account, selection: Selection) -> None:
        """Take the next interval, and which of its drops the user wants to see."""
        step = account.interval
        start, self.elapsed = self.elapsed, self.elapsed + step.seconds
        self.end, self.seconds, self.now = step.end, step.seconds, selection.drops
        self.intervals += 1
        self.uncounted = Uncounted(*(was + more for was, more in zip(self.uncounted, step.uncounted, strict=True)))
        self.filtered += selection.filtered
        self._add_drops(selection, start)
        self.whose.add(account.samples, selection, self.elapsed)
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
        for subject in list(self.lines):
            if subject.scope.netns is not None and not account.is_kept(subject.scope.netns):
                line = self.lines.pop(subject)
                scope_of_gone = together(subject.scope, THE_GONE, None)
                called = CounterScope(subject.counter, scope_of_gone)
                before, entry = self.lines.get(called), line.entry._replace(scope=scope_of_gone)
                self.lines[called] = replace(line, entry=entry) if before is None else before.plus(line)
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
        self._merge(self.interfaces, {InterfaceQueue(key.netns, interface_of(key)) for key in self.drops})
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
        row_of_others: object = None if groups is self.netns else InterfaceQueue(None, interface_of(other))
        for row in [row for row in groups if row not in kept]:
            self._group(groups, row_of_others).take(groups.pop(row))

    def _trim_ports(self, account: Account) -> None:
        there = {(scope.netns, scope.interface or "") for scope in account.counters.rows.get("links", ())}
        for subject, port in list(self.ports.items()):
            netns = subject.netns
            if netns is None or (
                account.is_kept(netns) and (netns not in account.counters.netns or (netns, subject.interface) in there)
            ):
                continue
            del self.ports[subject]
            if port.stat_classes:
                self._lose(InterfaceQueue(None, _OTHER), port)

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
            self._group(self.interfaces, InterfaceQueue(key.netns, interface_of(key))),
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
            subject = CounterScope(entry.counter, entry.scope)
            before = self.lines.get(subject)
            delta, by = entry.delta, Counter(dict(entry.by))
            unexplained = entry.unexplained if entry.status == "unexplained" else 0
            if before is not None:
                delta, by, unexplained = delta + before.delta, by + Counter(before.by), unexplained + before.unexplained
            explained = min(delta, sum(by.values()))
            self.lines[subject] = Line(
                entry, delta, explained, min(unexplained, delta - explained), by,
                entry.counter in hints and entry.status != "unexplained",
            )  # fmt: skip

    def _add_ports(self, account: Account) -> None:
        for scope in account.counters.rows.get("links", ()):
            subject = InterfaceQueue(scope.netns, scope.interface or "")
            if subject not in self.ports:
                self.ports[subject] = Port(account.counters.drivers.get((scope.netns, subject.interface), ""))
        for scope, risen in account.increments.get("links", {}).items():
            subject = InterfaceQueue(scope.netns, scope.interface or "")
            self.ports[subject] = replace(
                self.ports.get(subject, Port()),
                moved=self.elapsed,
                received=account.rate(scope.netns, risen.get("rx_packets", 0)),
                sent=account.rate(scope.netns, risen.get("tx_packets", 0)),
            )
        for loss in account.ledger.losses:
            if loss.stat_class is not None:
                self._add_nic(loss, loss.stat_class)

    def _add_nic(self, loss: Loss, stat_class: str) -> None:
        queues: Iterable[tuple[int | None, int]] = ((None, loss.packets), *loss.whereabouts.queues)
        for queue, packets in queues:
            lost = Port("", {stat_class: packets}, dict.fromkeys(loss.counters, packets), lost=self.elapsed)
            if packets:
                self._lose(InterfaceQueue(loss.whereabouts.netns, loss.whereabouts.interface or "", queue), lost)

    def _lose(self, subject: InterfaceQueue, lost: Port) -> None:
        self.ports[subject] = self.ports.get(subject, Port()).plus(lost)

    def _add_processors(self, account: Account) -> None:
        increments, backlogs = account.increments.get("softnet", {}), account.counters.backlogs
        for scope in account.counters.rows.get("softnet", ()):
            if scope.cpu is None:
                continue
            known = self.processors.get(scope.cpu)
            risen = increments.get(scope, {})
            total = dict(known.total) if known else {}
            for name, by in risen.items():
                total[name] = total.get(name, 0) + by
            backlog = backlogs.get(scope.cpu)
            self.processors[scope.cpu] = Processor(
                total,
                {name: account.rate(None, by) for name, by in risen.items()},
                dict(zip(backlog.names, backlog.values, strict=True)) if backlog else {},
            )
