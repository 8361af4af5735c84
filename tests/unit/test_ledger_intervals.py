# SPDX-License-Identifier: MIT
"""Intervals add up to the summary, and both to what was lost, whenever counters of which namespace are read."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.counters.gone import Together, together
from pktdrop.ledger.books import Books, Ledger
from pktdrop.model.counters import Scope
from pktdrop.model.drops import THE_GONE, Count, DropKey, Netns
from pktdrop.rules.rules import Rules
from tests.kit.windows import FixedWindows
from tests.unit.fates import (
    CAUSES,
    ETH0,
    FATES,
    IDENTITIES,
    LAYER_RULES,
    LINK,
    NETNS,
    NICS,
    OTHER_NETNS,
    RECEIVER,
    SENDER,
    TRACED,
    Fate,
    Increments,
    backlog,
    happen,
)

RULES = Rules(IDENTITIES, NICS, LAYER_RULES, CAUSES)
DRIVERS: Mapping[tuple[Netns | None, str], str] = {
    (NETNS, "eth0"): "fate", (NETNS, "v0"): "veth", (OTHER_NETNS, "v1"): "veth",
}  # fmt: skip
EVERYTHING = frozenset((NETNS, OTHER_NETNS))
Happened = Sequence[tuple[Fate, int, int]]


class Step(NamedTuple):
    """What happens in an interval, and which namespaces are read at its end."""

    fates: Happened
    read: frozenset[Netns]


class Host:
    """Lets packets be lost, and has counters read now and then."""

    def __init__(
        self, rungs: Mapping[str, str] = TRACED, read: frozenset[Netns] = frozenset((NETNS, OTHER_NETNS))
    ) -> None:
        self.books = Books(rungs, RULES, read)
        self.books.learn_drivers(DRIVERS)
        self.drops: Tally[DropKey] = Tally()
        self.lost: Tally[str] = Tally()
        self._traced = bool(rungs)
        self._unread: dict[tuple[str, Scope], Tally[str]] = {}
        self._total: dict[tuple[str, Scope], Tally[str]] = {}

    def step(self, one: Step, is_last: bool = False) -> Ledger:
        """Let an interval pass; return its ledger."""
        drops, increments, lost = happen(one.fates)
        self.lost.update(lost)
        for source, rows in increments.items():
            for scope, risen in rows.items():
                self._unread.setdefault((source, scope), Tally()).update(risen)
        now = {where: self._unread.pop(where) for where in [*self._unread] if where[1].netns in (None, *one.read)}
        for where, risen in now.items():
            self._total.setdefault(where, Tally()).update(risen)
        if not self._traced:
            drops = {}
        self.drops.update({key: count.packets for key, count in drops.items()})
        return self.books.of_interval(drops, _by_source(now), FixedWindows(drops, drops), one.read, is_last=is_last)

    def whole(self) -> Ledger:
        """Return the ledger of all intervals."""
        drops = {key: Count(packets, 0) for key, packets in self.drops.items()}
        return self.books.of_run(drops, _by_source(self._total), FixedWindows(drops, drops), EVERYTHING)

    def forget(self, netns: frozenset[Netns]) -> Ledger:
        """Tell the counters and drops of namespaces that are gone not apart any more; return the ledger again."""
        total: dict[tuple[str, Scope], Tally[str]] = {}
        for (source, scope), risen in self._total.items():
            place = together(scope, THE_GONE, self.books.driver(scope)) if scope.netns in netns else scope
            total.setdefault((source, place), Tally()).update(risen)
        interfaces = {(scope.netns, scope.interface) for _, scope in total if scope.interface is not None}
        self.books.keep(lambda one: one not in netns, interfaces)
        drops = Together(lambda one: one not in netns, interfaces)(
            {key: Count(packets, 0) for key, packets in self.drops.items()}
        )
        return self.books.of_run(drops, _by_source(total), FixedWindows(drops, drops), EVERYTHING)


def _by_source(rows: Mapping[tuple[str, Scope], Mapping[str, int]]) -> Increments:
    found: dict[str, dict[Scope, Mapping[str, int]]] = {}
    for (source, scope), risen in rows.items():
        found.setdefault(source, {})[scope] = risen
    return found


def run(host: Host, steps: Sequence[Step]) -> tuple[dict[str, int], Ledger]:
    """Return the sum of what the intervals have by layer, and the summary. The last look reads everything."""
    everything = Step((), EVERYTHING)
    layers: Tally[str] = Tally()
    for ledger in (*(host.step(one) for one in steps), host.step(everything, is_last=True)):
        assert all(loss.packets > 0 and 0 <= loss.without_event <= loss.packets for loss in ledger.losses)
        layers.update(ledger.lost)
    return dict(layers), host.whole()


_HAPPENED = st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 1000), st.just(0)), max_size=4)
_STEPS = st.lists(
    st.builds(Step, _HAPPENED, st.sampled_from([frozenset((NETNS,)), frozenset((NETNS, OTHER_NETNS)),
                                                frozenset((OTHER_NETNS,)), frozenset()])),
    max_size=6,
)  # fmt: skip


@settings(deadline=None)
@given(_STEPS)
def test_intervals_add_up_to_the_summary_and_to_what_was_lost(steps: list[Step]) -> None:
    """For any sequence of looks: a namespace may be read at each, at some, or at the start and the end only."""
    host = Host()
    layers, summary = run(host, steps)
    assert layers == summary.lost
    assert layers == {layer: packets for layer, packets in host.lost.items() if packets}
    assert summary.unexplained == 0


@settings(deadline=None)
@given(_STEPS, st.sampled_from([frozenset((NETNS,)), frozenset((OTHER_NETNS,)), EVERYTHING]))
def test_the_summary_adds_up_where_what_is_gone_is_one(steps: list[Step], gone: frozenset[Netns]) -> None:
    """All that was lost in namespaces that are gone is as much as before, and no less of it is explained."""
    host = Host()
    layers, summary = run(host, steps)
    after = host.forget(gone)
    assert after.lost == layers
    assert (after.unexplained, after.doubt) == (0, summary.doubt)
    assert _risen(after) == _risen(summary)
    assert [entry for entry in after.entries if entry.status == "unexplained"] == []
    assert {entry.scope.netns for entry in after.entries}.isdisjoint(gone)
    assert {loss.whereabouts.netns for loss in after.losses}.isdisjoint(gone)


def _risen(ledger: Ledger) -> Mapping[str, int]:
    risen: Tally[str] = Tally()
    for entry in ledger.entries:
        risen[entry.counter] += entry.delta
    return risen


@settings(deadline=None)
@given(_STEPS)
def test_intervals_add_up_without_tracing(steps: list[Step]) -> None:
    """Counters alone, all namespaces read at each look; what only rx_dropped has may be lost or not."""
    host = Host(rungs={})
    layers, summary = run(host, [one._replace(read=EVERYTHING) for one in steps])
    assert layers == summary.lost
    seen = sum(host.lost.values()) - _unseen(steps)
    assert sum(layers.values()) + sum(summary.doubt.values()) == seen
    assert sum(summary.doubt.values()) <= sum(
        packets for one in steps for fate, packets, _ in one.fates if (*LINK, "rx_dropped") in fate.moved
    )


def _unseen(steps: Sequence[Step]) -> int:
    return sum(packets for one in steps for fate, packets, _ in one.fates if fate.layer and not fate.moved)


def test_a_sender_that_is_read_at_the_end_only() -> None:
    """The backlog's events come in each interval, what the sending end of the veth pair counts in the last one."""
    fate = Fate(
        "backlog", backlog(1, netns=OTHER_NETNS, interface="v1"), ("softnet", Scope(cpu=1), "dropped"),
        ("links", RECEIVER, "rx_dropped"), ("links", SENDER, "tx_dropped"),
    )  # fmt: skip
    host = Host()
    steps = [Step(((fate, packets, 0),), frozenset((OTHER_NETNS,))) for packets in (100_000, 74_491, 33_600)]
    layers, summary = run(host, steps)
    assert layers == summary.lost == {"backlog": 208_091}
    assert [loss.without_event for loss in summary.losses] == [0]


LATE = Fate("backlog", backlog(1), ("softnet", Scope(cpu=1), "dropped"), ("links", ETH0, "rx_dropped"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=6))
def test_counters_that_lag_behind_the_events_make_no_loss_of_their_own(steps: list[tuple[int, int]]) -> None:
    """Drops that come while counters are read are in these an interval later: lost once, in the interval of theirs."""
    host, behind = Host(), 0
    layers: Tally[str] = Tally()
    for number, (packets, late) in enumerate([*steps, (0, 0)]):
        late = min(late, packets)
        outer = {LATE.event: Count(packets + behind, 0)} if packets + behind and LATE.event else {}
        counted, behind = packets - late + behind, late
        drops = {LATE.event: Count(packets, 0)} if packets and LATE.event else {}
        increments = {source: {scope: {name: counted}} for source, scope, name in LATE.moved} if counted else {}
        inner = {LATE.event: Count(packets - late, 0)} if packets > late and LATE.event else {}
        ledger = host.books.of_interval(
            drops, increments, FixedWindows(inner, outer), EVERYTHING, is_last=number == len(steps)
        )
        layers.update(ledger.lost)
        assert sum(ledger.lost.values()) == packets
    assert sum(layers.values()) == sum(packets for packets, _ in steps)
