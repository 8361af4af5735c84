# SPDX-License-Identifier: MIT
"""The ledger of real drops: each counter that rose is explained, to the packet, and nothing is left over.

Which counters a cause moves is part of it (pktdrop.demo.causes.cause.Cause); that they do move, by as much, is what
nstat(8), ip(8), tc(8) and ss(8) say in the same namespaces. Which identity is proven by which cause, and which by none:
tests/unit/test_ledger_proofs.py and tests/data/identities_unproven.tsv.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import Cause, Traffic
from pktdrop.demo.net import Net
from pktdrop.ledger.identities import Identities
from tests.live import provoke
from tests.live.provoke.kit import qdisc_drops, socket_drops, xfrm
from tests.live.test_causes import LAST_CPU, N, send
from tests.live.tracing import function_of, total, tracing

ALL = (*CAUSES, *provoke.CAUSES)
GLOBAL = ("neigh", "rt_cache", "softnet")
"""Sources whose counters are one for the whole host."""

every_cause = pytest.mark.parametrize("cause", ALL, ids=lambda cause: cause.name)


def counted(net: Net, cause: Cause) -> dict[str, int]:
    """Read the counters of a cause with other tools; those that are one for the whole host left out."""
    namespace = net[cause.role]
    mibs: dict[str, int] = {}
    values = {}
    for counter in (*cause.counters, *cause.bounds):
        source, _, name = counter.partition(".")
        if source == "mib":
            mibs = mibs or json.loads(namespace.run("nstat", "-asz", "--json"))["kernel"]
            values[counter] = int(mibs.get(name, 0))
        elif source == "links":
            direction, _, kind = name.partition("_")
            shown = json.loads(namespace.ip("-s", "-s", "-j", "link", "show"))
            key = {"otherhost_dropped": "otherhost"}.get(kind, kind)
            values[counter] = sum(int(link["stats64"][direction].get(key, 0)) for link in shown)
        elif source == "xfrm":
            values[counter] = xfrm(net, cause.role, name)()
        elif source not in GLOBAL:
            values[counter] = {"qdisc": qdisc_drops, "socket": socket_drops}[source](net, cause.role)()
    return values


@dataclass
class Provoked:
    """One cause, provoked once without and once with losses."""

    net: Net | None = None
    traffic: Traffic | None = None
    failure: Exception | None = None
    rose: dict[str, int] = field(default_factory=dict)
    """By how much counters rose, by other tools."""

    def send(self, cause: Cause, lose: int) -> None:
        """Send N packets that get through, and some that are lost."""
        if self.net is None or self.traffic is None:
            return
        try:
            before = counted(self.net, cause)
            send(self.traffic, lose=lose, spare=N, cpu=LAST_CPU)
            self.rose = {name: value - before[name] for name, value in counted(self.net, cause).items()}
        except Exception as failure:
            self.failure = failure

    @property
    def inodes(self) -> set[int]:
        """Its namespaces. Raises what went wrong before."""
        if self.failure is not None or self.net is None:
            raise AssertionError("the cause could not be provoked") from self.failure
        return {namespace.inode for namespace in self.net.namespaces.values()}


@dataclass(frozen=True)
class Observed:
    """All causes, and what trace said of the run without losses and of that with them."""

    causes: dict[str, Provoked]
    spared: list[dict[str, Any]]
    lost: list[dict[str, Any]]
    """Intervals, and the summary last."""


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    """All causes, provoked under one tracer, as a start takes time.

    The namespaces live all the time, so that each has an inode of its own, by which its drops are told apart.
    """
    with ExitStack() as stack:
        causes = {cause.name: Provoked() for cause in ALL}
        for cause in ALL:
            provoked = causes[cause.name]
            try:
                provoked.net = stack.enter_context(cause.net())
                provoked.traffic = cause.build(provoked.net)
            except Exception as failure:
                provoked.failure = failure
        runs = []
        for lose in (0, N):
            with tracing("2", "--all-netns") as trace:
                for cause in ALL:
                    causes[cause.name].send(cause, lose)
                assert trace.stop() == 0, trace.stderr
                runs.append([*trace.intervals, trace.summary])
        yield Observed(causes, *runs)


def entries(lines: Iterable[Mapping[str, Any]], inodes: set[int]) -> list[dict[str, Any]]:
    """The ledger entries of some namespaces."""
    return [entry for line in lines for entry in line["ledger"] if entry["scope"].get("netns") in inodes]


def losses(found: Iterable[dict[str, Any]], identities: Identities) -> list[dict[str, Any]]:
    """Those that tell of lost packets, and are no hints."""
    return [one for one in found if one["status"] == "silent" or identities.counters[one["counter"]].loss != "no"]


@pytest.fixture(scope="module")
def identities() -> Identities:
    """The tables that come with pktdrop, for which counters are of loss at all."""
    return Identities.load()


@every_cause
def test_what_is_lost_is_dropped_once(cause: Cause, observed: Observed, kernel_reasons: frozenset[str]) -> None:
    """N packets lost among N that get through are one drop of N, of the right kind, in the right place."""
    provoked = observed.causes[cause.name]
    (drop,) = [drop for drop in observed.lost[-1]["drops"] if drop["netns"] in provoked.inodes]
    assert provoked.net is not None
    reason = cause.reason if cause.reason in kernel_reasons else "NOT_SPECIFIED"
    assert (reason, N, cause.interface, provoked.net[cause.role].inode, cause.protocol, cause.layer, LAST_CPU) == (
        *(drop[key] for key in ("reason", "count", "interface", "netns", "protocol", "layer", "cpu")),
    )
    assert function_of(drop["location"]) in cause.functions


@every_cause
def test_what_is_lost_is_explained(
    cause: Cause, observed: Observed, kernel_reasons: frozenset[str], identities: Identities
) -> None:
    """The counters of the cause rose by N, drop events explain N, and nothing is unexplained."""
    provoked = observed.causes[cause.name]
    inodes, summary = provoked.inodes, observed.lost[-1]
    assert provoked.net is not None
    assert [one for one in entries([summary], inodes) if one["status"] == "unexplained"] == []
    role = {provoked.net[cause.role].inode}
    by_counter = {one["counter"]: one for one in entries([summary], role)}
    for counter in (*cause.counters, *cause.bounds):
        if counter.startswith(GLOBAL):
            of_all(counter, cause, summary)
            continue
        rose = provoked.rose[counter]
        # whether a bound is counted may depend on the kernel; what is counted must be explained
        assert rose == N or (rose == 0 and counter in cause.bounds)
        assert (counter in by_counter) == (rose != 0)
        if rose and cause.reason in kernel_reasons:
            entry = by_counter[counter]
            assert (entry["delta"], entry["explained"], entry["unexplained"]) == (N, N, 0), entry
            assert entry["by"] == [{"reason": cause.reason, "count": N}]
            assert entry["status"] == ("exact" if counter in cause.counters else "bound")
    if cause.reason in kernel_reasons:
        of_loss = {one["counter"] for one in losses(by_counter.values(), identities)}
        assert of_loss <= {*cause.counters, *cause.bounds, "none"}
    if not any(provoked.rose.values()) and not any(name.startswith(GLOBAL) for name in cause.counters + cause.bounds):
        silent(cause, summary, role)


def of_all(counter: str, cause: Cause, summary: dict[str, Any]) -> None:
    """A counter of the whole host: events of this cause are among what it counted; if they must be all, they are."""
    (entry,) = [one for one in summary["ledger"] if one["counter"] == counter]
    reasons = {one["reason"]: one["count"] for one in entry["by"]}
    everywhere = total([drop for drop in summary["drops"] if drop["reason"] == cause.reason])
    assert reasons[cause.reason] == everywhere >= N
    if counter in cause.counters:
        assert ("exact", everywhere, 0) == (entry["status"], entry["delta"], entry["unexplained"])
    else:
        assert ("bound", sum(reasons.values())) == (entry["status"], entry["explained"])


def silent(cause: Cause, summary: dict[str, Any], role: set[int]) -> None:
    """No counter shows the packets, and the ledger says so; unless they were no loss of this host."""
    (drop,) = [drop for drop in summary["drops"] if drop["netns"] in role]
    said = [one for one in entries([summary], role) if one["status"] == "silent"]
    if drop["noise"]:
        assert said == []
        return
    (entry,) = said
    assert (entry["counter"], entry["delta"], entry["layer"]) == ("none", 0, cause.layer)
    assert entry["by"] == [{"reason": drop["reason"], "count": N}]


@every_cause
def test_what_gets_through_is_no_loss(cause: Cause, observed: Observed, identities: Identities) -> None:
    """Packets like the lost ones that the kernel accepts leave no line in the ledger."""
    found = entries(observed.spared, observed.causes[cause.name].inodes)
    assert losses(found, identities) == []


def test_totals_by_layer_are_the_packets_lost(observed: Observed) -> None:
    """`layers` has each packet of every cause once, and of others no more than the ledger shows of them."""
    summary = observed.lost[-1]
    ours = set().union(*(provoked.inodes for provoked in observed.causes.values()))
    mine: Counter[str] = Counter()
    for drop in summary["drops"]:
        if drop["netns"] in ours and not drop["noise"]:
            mine[drop["layer"]] += drop["count"]
    noise = {drop["netns"] for drop in summary["drops"] if drop["noise"]}
    caused: Counter[str] = Counter()
    for cause in ALL:
        net = observed.causes[cause.name].net
        if net is not None and net[cause.role].inode not in noise:
            caused[cause.layer] += N
    assert caused == mine
    events: Counter[str] = Counter()
    for drop in summary["drops"]:
        if not drop["noise"]:
            events[drop["layer"]] += drop["count"]
    beyond: Counter[str] = Counter()  # what others lost without an event
    for entry in summary["ledger"]:
        if entry["scope"].get("netns") not in ours:
            beyond[entry["layer"]] += max(0, entry["unexplained"])
    for layer in {*events, *summary["layers"]}:
        assert events[layer] <= summary["layers"].get(layer, 0) <= events[layer] + beyond[layer], layer
    assert [one for one in entries([summary], ours) if one["status"] == "unexplained"] == []


def test_no_interval_leaves_anything_unexplained(observed: Observed) -> None:
    """Counters and events are read one after the other; what only that sets apart is no riddle."""
    ours = set().union(*(provoked.inodes for provoked in observed.causes.values()))
    assert [one for one in entries(observed.lost, ours) if one["status"] == "unexplained"] == []


def test_intervals_add_up(observed: Observed) -> None:
    """Counters and events of the intervals are together those of the summary."""
    *intervals, summary = observed.lost
    assert len(intervals) > 1
    for provoked in observed.causes.values():
        if provoked.net is None:
            continue
        whole: Counter[str] = Counter()
        parts: Counter[str] = Counter()
        for entry in entries([summary], provoked.inodes):
            whole[entry["counter"]] += entry["delta"]
        for entry in entries(intervals, provoked.inodes):
            parts[entry["counter"]] += entry["delta"]
        assert +parts == +whole
