# SPDX-License-Identifier: MIT
"""Sort drop events by the counters they move, and remember how: a kind that comes again is only a number to add.

Most kinds differ in what does not matter here: the CPU that freed the packet, the offset in a function, the ethertype.
Those that are alike are one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, DropKey, Netns, Verdict, netns_order
from pktdrop.model.snapshots import Drops, Kinds
from pktdrop.rules.causes import Cause
from pktdrop.rules.identities import NO_COUNTER, Counter, Identities, Identity
from pktdrop.rules.match import Event

DropCounts = Mapping[DropKey, Count]
"""Drop events by kind."""
GroupPackets = Sequence[int]
"""Packets of each group, by its number."""


class EventScope(NamedTuple):
    """The part of a scope that events know, too: counters and events are compared by it."""

    netns: Netns | None = None
    interface: str | None = None
    cpu: int | None = None

    @property
    def scope(self) -> Scope:
        """Return the event scope as the scope of a counter."""
        return Scope(netns=self.netns, interface=self.interface, cpu=self.cpu)


EVERYWHERE: Final = EventScope()
_UNKNOWN: Final = -1
_NO_COUNTERS: Final[frozenset[str]] = frozenset()

Same = Callable[[EventScope, EventScope], EventScope]
"""Takes a scope twice; returns one object for all that are equal."""
#: Name of a counter, and the event scope in which it moved.
CounterKey = tuple[str, EventScope]


class Why(NamedTuple):
    """What the rules say of an event."""

    name: str
    """Reason, with its subsystem unless that is the core."""
    verdict: Verdict
    cause: Cause


WhyOf = Callable[[DropKey, Event], Why]


@dataclass(frozen=True, eq=False, slots=True)
class EventRule:
    """What the tables say of a kind: one object for all kinds of which they say the same."""

    why: Why
    rows: tuple[Identity, ...]
    """Rows of identities.tsv that hold for events of these kinds."""


class Alike(NamedTuple):
    """What the events of a group have in common."""

    reason: str
    netns: Netns | None
    interface: str | None
    target_cpu: int | None
    cpu: int | None
    """The CPU that freed them, where the cause is told by CPUs."""
    rule: EventRule


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """Events of a group that may explain increments of a counter, by one row of identities.tsv."""

    group: int
    reason: str
    layer: str
    row: Identity
    netns: Netns | None
    keys: tuple[CounterKey, ...]
    """The counters in the scope of the events, those of a CPU also as the sum of all CPUs; empty if it is not known."""
    of: Alike
    floats: bool
    """Whether the events may be counted in another scope than theirs."""
    reveals: bool
    """Whether the counter of these events, which are called noise or doubt, tells the losses among them."""

    @property
    def order(self) -> tuple[int | str | tuple[int, ...], ...]:
        """Return what candidates are sorted by, so that the order of the events does not matter."""
        cpu = -1 if self.of.target_cpu is None else self.of.target_cpu
        return self.row.line, self.reason, self.layer, netns_order(self.netns), self.of.interface or "", cpu


@dataclass(frozen=True, eq=False, slots=True)
class LossOf:
    """Layer, nature, cause and scope that make events one loss: one object for each such loss."""

    layer: str
    nature: str
    cause: Cause
    event_scope: EventScope
    """As far as losses of this cause are told apart by it."""


@dataclass(frozen=True, eq=False, slots=True)
class EventGroup:
    """Events that move the same counters in the same scopes."""

    number: int
    of: Alike
    loss: LossOf
    """The loss that these events are part of, if they are lost packets."""
    reason: str
    layer: str
    is_loss: bool
    doubt: str | None
    candidates: tuple[Candidate, ...]
    expected: str
    """Counter that has all of them; "none" if there is no such counter."""
    note: str
    """Note of the first row of identities.tsv that holds for these events."""
    line: int
    """Line of that row in identities.tsv."""
    of_unknown_cpu: frozenset[str]
    """Counters by CPU that these events moved, where it is not known for which CPU."""

    @property
    def scope(self) -> Scope:
        """Return the scope of the counter `expected`; if there is none, that of the events."""
        keys = next((one.keys for one in self.candidates if one.row.relation == "="), ())
        return keys[0][1].scope if keys else Scope(netns=self.of.netns, interface=self.of.interface)


class Events:
    """The groups, and the candidates by counter. Grows with the kinds it is asked about."""

    def __init__(self, identities: Identities, why: WhyOf) -> None:
        """Take the rows of both tables, and what tells the causes of events."""
        self.groups: Final[list[EventGroup]] = []
        self.at: Final[dict[CounterKey, list[Candidate]]] = {}
        """Candidates for a counter in a known scope."""
        self.floating: Final[dict[str, list[Candidate]]] = {}
        """Candidates for a counter in any scope."""
        self._identities = identities
        self._why = why
        self._kinds = Kinds()
        self._group_of: list[int] = []
        """Number of the group of each kind, by number of the kind."""
        self._rule_of: dict[tuple[str, str, str, int, bool], EventRule] = {}
        self._rules: dict[tuple[Why, tuple[tuple[int, str], ...]], EventRule] = {}
        self._alike: dict[Alike, int] = {}
        self._losses: dict[tuple[str, str, Cause, EventScope], LossOf] = {}
        self._of_unknown_cpu: list[EventGroup] = []
        self._same: Same = dict[EventScope, EventScope]().setdefault
        self._lately = 0
        """The most groups that moved at once, less a tenth with each counting since."""

    @property
    def unused(self) -> int:
        """How many groups are remembered beyond twice those that moved lately."""
        return len(self.groups) - 2 * self._lately

    def count(self, drops: DropCounts) -> list[int]:
        """Return the packets of each group."""
        counts = Drops.of(drops)
        if counts.kinds is not self._kinds:
            self._renumber(counts.kinds)
        group_of = self._group_of
        group_of += [_UNKNOWN] * (len(counts.kinds) - len(group_of))
        packets = [0] * len(self.groups)
        for kind, count in zip(counts.numbers, counts.packets, strict=True):
            number = group_of[kind]
            if number == _UNKNOWN:
                number = group_of[kind] = self._learn(counts.kinds.keys[kind])
                packets.extend([0] * (number + 1 - len(packets)))
            packets[number] += count
        self._lately = max(len(packets) - packets.count(0), self._lately * 9 // 10)
        return packets

    def _renumber(self, kinds: Kinds) -> None:
        """Take other kinds, most of which were known by other numbers."""
        find, known = self._kinds.find, self._group_of
        before = map(find, kinds.keys)
        self._group_of = [_UNKNOWN if was is None or was >= len(known) else known[was] for was in before]
        self._kinds = kinds

    def summed(self, packets: GroupPackets) -> frozenset[str]:
        """Return the counters by CPU of which only the sum can be compared, as the CPU of some events is not known."""
        return frozenset(
            name for group in self._of_unknown_cpu if packets[group.number] for name in group.of_unknown_cpu
        )

    def _learn(self, key: DropKey) -> int:
        rule = self._rule(key)
        alike = Alike(
            reason=key.reason,
            netns=key.netns,
            interface=key.interface,
            target_cpu=key.target_cpu,
            cpu=key.cpu if "cpu" in rule.why.cause.words else None,
            rule=rule,
        )
        number = self._alike.get(alike)
        if number is None:
            number = self._alike[alike] = len(self.groups)
            self._add(self._group(number, alike))
        return number

    def _rule(self, key: DropKey) -> EventRule:
        question = key.subsystem, key.reason, key.call_site, key.protocol
        asked = *question, key.to_group
        rule = self._rule_of.get(asked)
        if rule is None:
            event = Event.of(*question)
            rows, why = self._identities.of(event), self._why(key, event)
            lines = tuple((row.line, row.relation) for row in rows)
            rule = self._rule_of[asked] = self._rules.setdefault((why, lines), EventRule(why, rows))
        return rule

    def _loss_of(self, of: Alike) -> LossOf:
        _, verdict, cause = of.rule.why
        if "cpu" in cause.words:
            event_scope = EventScope(cpu=of.target_cpu)
        else:
            event_scope = EventScope(netns=of.netns, interface=of.interface if "nic" in cause.words else None)
        event_scope = self._same(event_scope, event_scope)
        loss = LossOf(verdict.layer, verdict.nature, cause, event_scope)
        return self._losses.setdefault((loss.layer, loss.nature, cause, event_scope), loss)

    def _group(self, number: int, alike: Alike) -> EventGroup:
        facts, rows, verdict = self._identities.counters, alike.rule.rows, alike.rule.why.verdict
        candidates = tuple(
            _candidate(number, alike, row, facts[row.counters[0]], self._same) for row in rows if row.counters
        )
        expected = next((candidate for candidate in candidates if candidate.row.relation == "="), None)
        return EventGroup(
            number=number,
            of=alike,
            loss=self._loss_of(alike),
            reason=alike.reason,
            layer=verdict.layer,
            is_loss=verdict.is_loss,
            doubt=verdict.doubt,
            candidates=candidates,
            expected=NO_COUNTER if expected is None else expected.row.counters[-1],
            note=rows[0].note if rows else "",
            line=rows[0].line if rows else 0,
            of_unknown_cpu=_of_unknown_cpu(candidates, facts) if alike.target_cpu is None else _NO_COUNTERS,
        )

    def _add(self, group: EventGroup) -> None:
        self.groups.append(group)
        if group.of_unknown_cpu:
            self._of_unknown_cpu.append(group)
        for candidate in group.candidates:
            if candidate.floats:
                for name in candidate.row.counters:
                    self.floating.setdefault(name, []).append(candidate)
            else:
                for key in candidate.keys:
                    self.at.setdefault(key, []).append(candidate)


def _of_unknown_cpu(candidates: Iterable[Candidate], facts: Mapping[str, Counter]) -> frozenset[str]:
    names = {name for candidate in candidates for name in candidate.row.counters if facts[name].scope == "cpu"}
    return frozenset(names) if names else _NO_COUNTERS  # there are thousands of groups, and each set takes 216 bytes


def _candidate(group: int, of: Alike, row: Identity, fact: Counter, same: Same) -> Candidate:
    verdict = of.rule.why.verdict
    keys = tuple(_keys(row, fact, of, same))
    is_doubt = verdict.doubt is not None
    floats = row.relation in ("other", "lost") or not keys
    reveals = is_doubt or (not verdict.is_loss and row.relation == "lost")
    return Candidate(group, of.reason, verdict.layer, row, of.netns, keys, of, floats, reveals)


def _keys(row: Identity, fact: Counter, of: Alike, same: Same) -> Iterator[CounterKey]:
    """Give the counters of a row where the events moved them, if that is known."""
    event_scope = _event_scope(fact, of)
    if event_scope is None:
        return
    event_scope = same(event_scope, event_scope)
    for name in row.counters:
        yield name, event_scope
        if event_scope.cpu is not None:
            yield name, EVERYWHERE


def _event_scope(fact: Counter, of: Alike) -> EventScope | None:
    """Return the scope in which events moved a counter; None if it is not known."""
    if fact.scope == "cpu":
        return EventScope(cpu=of.target_cpu)
    if fact.scope == "global":
        return EVERYWHERE
    if of.netns is None:
        return None
    if fact.scope not in ("interface", "qdisc"):
        return EventScope(netns=of.netns)
    return None if of.interface is None else EventScope(netns=of.netns, interface=of.interface)
