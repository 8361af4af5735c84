# SPDX-License-Identifier: MIT
"""The loss counters that rose, each with the events that are matched to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pktdrop.counters.increments import Increments
from pktdrop.ledger.entry import PEER
from pktdrop.ledger.events import EVERYWHERE, Candidate, CounterKey, EventScope
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import Counter

_SCOPE_UNKNOWN: Final = "it is not known of which interface or namespace some of the events are"

Classify = Callable[[str, Scope], str | None]
"""Takes a counter ("ethtool.rx_missed", "links.rx_dropped") and its scope; returns the stat_class of the packets that
the driver counts there as lost, None if these are no lost packets, or the driver does not count there; PEER for links.*
of PEER_DRIVERS, FOLDED for links.* of FOLDING_DRIVERS."""
Facts = Mapping[str, Mapping[str, Counter]]
"""What loss_counters.tsv says, by source and name."""


@dataclass(eq=False, slots=True)
class Match:
    """One counter that rose in one scope, and the events given to it, in packets."""

    fact: Counter
    event_scope: EventScope
    scope: Scope
    stat_class: str | None
    """What the driver counts in this field: a stat_class or PEER, FOLDED, SETTLED; None: nothing."""
    is_late: bool = False
    """Whether it was not read at the look before: events of earlier intervals may be in it."""
    delta: int = 0
    earlier: int = 0
    """Events of earlier intervals."""
    total: int = 0
    """All events given to this counter."""
    equal: int = 0
    """Events of identities "=": each is one increment."""
    sure: int = 0
    """Events of identities "=" and "<=": the counter must have counted them."""
    revealing: dict[int, int] = field(default_factory=dict)
    """Events by group that are called noise or doubt, and are losses as far as this counter has them."""
    reasons: dict[str, int] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    """Packets by the layer that lost them."""
    note: str = ""
    """Why the events are only a bound: of the first row that says so."""
    line: int = 0

    @property
    def key(self) -> CounterKey:
        """Return name of the counter and event scope."""
        return self.fact.name, self.event_scope

    @property
    def revealed(self) -> Mapping[int, int]:
        """Return of `revealing` what the counter has beyond all other events."""
        if not self.revealing:
            return self.revealing
        room = max(0, self.delta - self.total + sum(self.revealing.values()))
        found = {}
        for group, packets in self.revealing.items():
            found[group] = min(packets, room)
            room -= found[group]
        return found

    @property
    def takes_from_anywhere(self) -> bool:
        """Tell whether events of other scopes explain this counter: what a driver counts itself they do not."""
        return self.stat_class == PEER or not is_of_interface(self.fact.name)

    @property
    def room(self) -> int:
        """Return how much of it no events explain yet."""
        return max(0, self.delta - self.total)

    @property
    def is_full(self) -> bool:
        """Tell whether events explain all that the counter rose by."""
        return self.total >= self.delta

    def add(self, candidate: Candidate, packets: int) -> None:
        """Add events that this counter must have counted, or may have, however many."""
        relation = candidate.row.relation
        self._count(candidate, packets)
        if relation == "=":
            self.equal += packets
            self.sure += packets
            return
        if relation == "<=":
            self.sure += packets
        if candidate.row.note and (not self.note or candidate.row.line < self.line):
            self.note, self.line = candidate.row.note, candidate.row.line

    def fill(self, candidate: Candidate, packets: int) -> int:
        """Add events that this counter may have counted, as many as it has room for; return how many."""
        given = min(packets, self.delta - self.total)
        if given <= 0:
            return 0
        self._count(candidate, given)
        self.note = self.note or candidate.row.note or _SCOPE_UNKNOWN
        return given

    def _count(self, candidate: Candidate, packets: int) -> None:
        self.total += packets
        if candidate.reveals and self.fact.tells_loss:
            self.revealing[candidate.group] = self.revealing.get(candidate.group, 0) + packets
        self.reasons[candidate.reason] = self.reasons.get(candidate.reason, 0) + packets
        self.layers[candidate.layer] = self.layers.get(candidate.layer, 0) + packets


def by_source(counters: Iterable[Counter]) -> Facts:
    """Return the rows of loss_counters.tsv by source and name."""
    facts: dict[str, dict[str, Counter]] = {}
    for fact in counters:
        source, _, name = fact.name.partition(".")
        facts.setdefault(source, {})[name] = fact
    return facts


def matches_of(
    increments: Increments,
    facts: Facts,
    classify: Classify,
    summed: frozenset[str],
    is_late: Callable[[Netns | None], bool] = lambda _: False,
) -> dict[CounterKey, Match]:
    """Return a match for each loss counter that rose, and each scope; `is_late`: of a namespace not read before."""
    matches: dict[CounterKey, Match] = {}
    for source, rows in increments.items():
        known = facts.get(source, {})
        for scope, differences in rows.items():
            for name, delta in differences.items():
                fact = known.get(name)
                if fact is None or delta <= 0:
                    continue
                event_scope = event_scope_of(fact, scope, summed)
                match = matches.get((fact.name, event_scope))
                if match is None:
                    match = matches[fact.name, event_scope] = _match(fact, event_scope, scope, classify, summed)
                    match.is_late = scope.netns is not None and is_late(scope.netns)
                else:
                    match.scope = event_scope.scope  # of several queueing disciplines, or sockets
                match.delta += delta
    return matches


def _match(fact: Counter, event_scope: EventScope, scope: Scope, classify: Classify, summed: frozenset[str]) -> Match:
    stat_class = classify(fact.name, event_scope.scope) if is_of_interface(fact.name) else None
    return Match(
        fact, event_scope, event_scope.scope if fact.scope == "global" or fact.name in summed else scope, stat_class
    )


def event_scope_of(fact: Counter, scope: Scope, summed: frozenset[str]) -> EventScope:
    """Return the event scope of a counter's scope; `summed` are counters of which only the sum of all CPUs counts."""
    if fact.scope in ("netns", "socket"):
        return EventScope(netns=scope.netns)
    if fact.scope in ("interface", "qdisc"):
        return EventScope(netns=scope.netns, interface=scope.interface)
    if fact.scope == "cpu" and fact.name not in summed:
        return EventScope(cpu=scope.cpu)
    return EVERYWHERE


def is_of_interface(counter: str) -> bool:
    """Tell whether a counter is a field of rtnl_link_stats64, which drivers may count in, too."""
    return counter.startswith("links.")
