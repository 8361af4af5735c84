# SPDX-License-Identifier: MIT
"""The ledger of real drops: each counter that rose is explained, to the packet, and nothing is left over.

Which counters a cause moves is part of it (pktdrop.demo.causes.cause.Cause); that they do move, by as much, is what
nstat(8), ip(8), tc(8) and ss(8) say in the same namespaces. Which identity is proven by which cause, and which by none:
tests/unit/test_ledger_proofs.py, tests/data/identities_proven.tsv and identities_unproven.tsv.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from pktdrop.demo.causes.cause import DemoCause, Traffic
from pktdrop.demo.net import Net
from pktdrop.demo.tools import wait_until
from pktdrop.rules.identities import Identities
from tests.kit import provoke
from tests.kit.kernel import Kernel
from tests.kit.process import DEADLINE
from tests.kit.provoke.witnesses import qdisc_drops, socket_drops, xfrm
from tests.kit.provoked import EVERY, LAST_CPU, N, is_answer, send
from tests.kit.trace import NO_PACKET, entries, function_of, losses, total, tracing

ALL = tuple(cause for cause in EVERY if provoke.possible(cause))
"""Those that this kernel can be brought to."""
GLOBAL = ("neigh", "rt_cache", "softnet")
"""Sources whose counters are one for the whole host."""
FREE_LISTS = ("kfree_skb_list", "kfree_skb_list_reason")
"""Functions that free for many others, which kernels that inline them (v6.12) name instead."""
SECONDS = str(DEADLINE / 15)
"""From one look to the next at the counters of some 250 namespaces, which keeps an emulated CPU busy for seconds."""

every_cause = pytest.mark.parametrize("cause", ALL, ids=lambda cause: cause.name)


def counted(net: Net, cause: DemoCause) -> dict[str, int]:
    """Read the counters of a cause that this kernel has with other tools, but those that are the whole host's."""
    namespace = net[cause.role]
    mibs: dict[str, int] = {}
    values = {}
    for counter in (*cause.counters, *cause.bounds):
        source, _, name = counter.partition(".")
        if source == "mib":
            mibs = mibs or json.loads(namespace.read("nstat", "-asz", "--json"))["kernel"]
            if name in mibs:
                values[counter] = int(mibs[name])
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

    def send(self, cause: DemoCause, lose: int) -> None:
        """Send N packets that get through, and some that are lost."""
        if self.net is None or self.traffic is None:
            return
        try:
            before = counted(self.net, cause) if lose else {}
            send(self.traffic, lose=lose, spare=N, cpu=LAST_CPU)
            if lose:
                self.rose = {name: value - before[name] for name, value in counted(self.net, cause).items()}
        except Exception as failure:
            self.failure = failure

    def has(self, counter: str, kernel: Kernel) -> bool:
        """Tell whether this kernel has a counter; ip(8) leaves out a field of links that is 0."""
        source, _, name = counter.partition(".")
        return name in kernel.names if source == "links" else counter in self.rose

    @property
    def inodes(self) -> set[int]:
        """Its namespaces. Raises what went wrong before."""
        if self.failure is not None or self.net is None:
            raise AssertionError("the cause could not be provoked") from self.failure
        return {namespace.inode for namespace in self.net.namespaces.values()}


def drop_of(
    cause: DemoCause, provoked: Provoked, drops: Iterable[dict[str, Any]], kernel: Kernel
) -> dict[str, Any] | None:
    """The one drop of a cause in its namespaces; None where it is not found there.

    Besides it there may be what is no packet, and on older kernels the ICMPv6 errors that told of it: no losses.
    """
    here = [drop for drop in drops if drop["netns"] in provoked.inodes and not drop["noise"].endswith(NO_PACKET)]
    answers = [drop for drop in here if is_answer(drop, cause)]
    assert all(drop["noise"] for drop in answers)
    assert total(answers) <= N  # there is a limit on their rate
    drops = [drop for drop in here if drop not in answers]
    if kernel.found(cause) != "here":
        assert drops == []
        return None
    (drop,) = drops
    return drop


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
            with tracing(SECONDS, "--all-netns") as trace:
                for number, cause in enumerate(ALL):
                    if number == len(ALL) // 2:  # losses in two intervals at least, however fast this machine is
                        wait_until(lambda: trace.intervals, "the first interval", DEADLINE)
                    causes[cause.name].send(cause, lose)
                sent = time.time()
                # the last look has little time for so many namespaces: one before it has read them all
                wait_until(lambda: trace.intervals[-1]["start"] > sent, "an interval after the last packet", DEADLINE)  # noqa: B023
                assert trace.stop() == 0, trace.stderr
                runs.append([*trace.intervals, trace.summary])
        yield Observed(causes, *runs)


@pytest.fixture(scope="module")
def identities() -> Identities:
    """The tables that come with pktdrop, for which counters are of loss at all."""
    return Identities.load()


@every_cause
def test_what_is_lost_is_dropped_once(cause: DemoCause, observed: Observed, kernel: Kernel) -> None:
    """N packets lost among N that get through are one drop of N, of the right kind, in the right place."""
    provoked = observed.causes[cause.name]
    drop = drop_of(cause, provoked, observed.lost[-1]["drops"], kernel)
    if drop is None:
        return  # counted by the next test
    assert provoked.net is not None
    reason, function = cause.named(kernel.reasons), function_of(drop["location"])
    otherwise = {} if cause.is_named(kernel.reasons) else cause.otherwise
    protocol = otherwise.get("protocol", cause.protocol)
    assert (reason, N, cause.interface, provoked.net[cause.role].inode, protocol, LAST_CPU) == (
        *(drop[key] for key in ("reason", "count", "interface", "netns", "protocol", "cpu")),
    )
    assert function in cause.functions
    # without its reason, it may be of the layer of any cause that is freed there, or has the reason that is given
    alike = [other for other in EVERY if function in other.functions or reason == other.reason != "NOT_SPECIFIED"]
    layers = set() if is_sure(cause, kernel, drop) else {other.layer for other in alike}
    assert drop["layer"] in {otherwise.get("layer", cause.layer), *layers}


def is_sure(cause: DemoCause, kernel: Kernel, drop: dict[str, Any]) -> bool:
    """Tell whether the kernel says enough of a drop for its layer."""
    return cause.reason == cause.named(kernel.reasons) and not (
        cause.reason == "NOT_SPECIFIED" and function_of(drop["location"]) in FREE_LISTS
    )


def test_what_is_nowhere_is_counted_once(observed: Observed, kernel: Kernel) -> None:
    """Drops of which the kernel does not say for which socket they were are as many, by reason and protocol."""
    expected: Counter[tuple[str, str]] = Counter()
    for cause in ALL:
        if kernel.found(cause) == "nowhere":
            expected[cause.named(kernel.reasons), cause.protocol] += N
    nowhere: Counter[tuple[str, str]] = Counter()
    for drop in observed.lost[-1]["drops"]:
        if drop["netns"] is None and (drop["reason"], drop["protocol"]) in expected:
            nowhere[drop["reason"], drop["protocol"]] += drop["count"]
    assert nowhere == expected
    assert bool(expected) == (not kernel.has_socket)


@every_cause
def test_what_is_lost_is_explained(
    cause: DemoCause, observed: Observed, kernel: Kernel, identities: Identities
) -> None:
    """The counters of the cause rose by N, drop events explain N, and nothing is unexplained."""
    provoked = observed.causes[cause.name]
    inodes, summary = provoked.inodes, observed.lost[-1]
    assert provoked.net is not None
    assert [one for one in entries([summary], inodes) if one["status"] == "unexplained"] == []
    role = {provoked.net[cause.role].inode}
    by_counter = {one["counter"]: one for one in entries([summary], role)}
    drop = drop_of(cause, provoked, summary["drops"], kernel)
    for counter in (*cause.counters, *cause.bounds):
        if counter.startswith(GLOBAL):
            of_all(counter, cause, summary, kernel)
        elif provoked.has(counter, kernel):
            rose = provoked.rose[counter]
            assert rose == N or (rose == 0 and may_stand_still(counter, cause, kernel))
            assert (counter in by_counter) == (rose != 0)
            if rose:
                explained(by_counter[counter], cause, kernel, drop)
    told = losses(by_counter.values(), identities)
    if cause.reason == cause.named(kernel.reasons):
        moved = {one["counter"] for one in told if one["status"] != "silent"}
        assert moved <= {*cause.counters, *cause.bounds}
    elif kernel.found(cause) != "none":
        assert [one for one in told if one["unexplained"]] == []
    said = [one for one in entries([summary], role) if one["status"] == "silent"]
    shown = any(one["by"] for one in by_counter.values() if one["status"] != "silent")
    if drop is None or shown or counts_globally(cause):
        assert said == []
    elif said or not may_be_of_another(cause, kernel, drop):
        silent(drop, cause, kernel, said)


def counts_globally(cause: DemoCause) -> bool:
    """Tell whether counters of the whole host show the packets of a cause."""
    return any(name.startswith(GLOBAL) for name in (*cause.counters, *cause.bounds))


def may_be_of_another(cause: DemoCause, kernel: Kernel, drop: dict[str, Any]) -> bool:
    """Tell whether a drop looks like one of a cause that counters of the whole host show."""
    function = function_of(drop["location"])
    return not is_sure(cause, kernel, drop) and any(
        counts_globally(other) for other in EVERY if function in other.functions
    )


def may_stand_still(counter: str, cause: DemoCause, kernel: Kernel) -> bool:
    """Tell whether a counter need not rise: that of a bound depends on the kernel, as does the way of some packets."""
    elsewhere = bool(cause.older or cause.since) and cause.named(kernel.reasons) != cause.reason
    return counter in cause.bounds or elsewhere


def explained(entry: dict[str, Any], cause: DemoCause, kernel: Kernel, drop: dict[str, Any] | None) -> None:
    """N events of the cause are what a counter of its namespace has, as far as there are events."""
    reason, is_exact = cause.named(kernel.reasons), entry["counter"] in cause.counters
    if kernel.found(cause) == "none":  # events of which nothing is known but a function of TCP may be taken for it
        known = {"reason": "NOT_SPECIFIED", "count": entry["explained"]}
        assert (entry["delta"], entry["unexplained"]) == (N, N - entry["explained"])
        assert (entry["status"], entry["by"]) == (("bound", [known]) if entry["explained"] else ("no-event", []))
        return
    assert (entry["delta"], entry["explained"], entry["unexplained"]) == (N, N, 0)
    if kernel.found(cause) == "nowhere":  # they may be those of another cause
        assert (entry["status"], sum(one["count"] for one in entry["by"])) == ("bound", N)
        return
    assert entry["by"] == [{"reason": reason, "count": N}]
    for_all = reason == "NOT_SPECIFIED" and drop is not None and function_of(drop["location"]) in FREE_LISTS
    if reason == cause.reason and not for_all:
        assert entry["status"] == ("exact" if is_exact else "bound")
    else:  # the function alone says less
        assert entry["status"] in ("exact", "bound")


def of_all(counter: str, cause: DemoCause, summary: dict[str, Any], kernel: Kernel) -> None:
    """A counter of the whole host: events of this cause are among what it counted; if they must be all, they are."""
    (entry,) = [one for one in summary["ledger"] if one["counter"] == counter]
    reasons = {one["reason"]: one["count"] for one in entry["by"]}
    if cause.named(kernel.reasons) != cause.reason:
        assert min(reasons[cause.named(kernel.reasons)], entry["delta"]) >= N
        assert entry["unexplained"] == 0
        return
    everywhere = total([drop for drop in summary["drops"] if drop["reason"] == cause.reason])
    assert reasons[cause.reason] == everywhere >= N
    if counter in cause.counters:
        assert ("exact", everywhere, 0) == (entry["status"], entry["delta"], entry["unexplained"])
    else:
        assert ("bound", sum(reasons.values())) == (entry["status"], entry["explained"])


def silent(drop: dict[str, Any], cause: DemoCause, kernel: Kernel, said: list[dict[str, Any]]) -> None:
    """No counter shows the packets, and the ledger says so; unless they were no loss of this host."""
    if drop["noise"] or drop["doubt"]:
        assert said == []
        return
    (entry,) = said
    counter = cause.missing if cause.missing and kernel.reasons else "none"
    assert (entry["counter"], entry["delta"], entry["layer"]) == (counter, 0, drop["layer"])
    assert entry["by"] == [{"reason": drop["reason"], "count": N}]


@every_cause
def test_what_gets_through_is_no_loss(cause: DemoCause, observed: Observed, identities: Identities) -> None:
    """Packets like the lost ones that the kernel accepts leave no line in the ledger."""
    found = entries(observed.spared, observed.causes[cause.name].inodes)
    assert losses(found, identities) == []


def is_loss(drop: dict[str, Any]) -> bool:
    """Tell whether trace calls a drop a loss, neither noise nor a doubt."""
    return not drop["noise"] and not drop["doubt"]


def test_totals_by_layer_are_the_packets_lost(observed: Observed, kernel: Kernel, identities: Identities) -> None:
    """`layers` has each packet of every cause once, and of others no more than the ledger shows of them."""
    summary = observed.lost[-1]
    ours = set().union(*(provoked.inodes for provoked in observed.causes.values()))
    mine: Counter[str] = Counter()
    for drop in summary["drops"]:
        if drop["netns"] in ours and is_loss(drop):
            mine[drop["layer"]] += drop["count"]
    caused: Counter[str] = Counter()
    events: Counter[str] = Counter()
    for cause in ALL:
        provoked = observed.causes[cause.name]
        drop = drop_of(cause, provoked, summary["drops"], kernel)
        if drop is not None and is_loss(drop):
            caused[cause.layer if is_sure(cause, kernel, drop) else drop["layer"]] += N
        elif kernel.found(cause) == "none":  # once, however many counters tell of it
            told = losses(entries([summary], provoked.inodes), identities)
            events.update({one["layer"]: one["unexplained"] for one in told[:1]})
    assert caused == mine
    for drop in summary["drops"]:
        if is_loss(drop):
            events[drop["layer"]] += drop["count"]
    beyond: Counter[str] = Counter()  # what others lost without an event
    for entry in summary["ledger"]:
        if entry["scope"].get("netns") not in ours:
            beyond[entry["layer"]] += max(0, entry["unexplained"])
    if "ICMP_CSUM" not in kernel.reasons:  # of all ICMPv6 messages, freed alike, counters tell those that are losses
        events["stack"] += N
    for layer in {*events, *summary["layers"]}:
        assert events[layer] <= summary["layers"].get(layer, 0) <= events[layer] + beyond[layer], layer
    assert [one for one in entries([summary], ours) if one["status"] == "unexplained"] == []


def test_only_what_the_kernel_cannot_drop_is_left_out(kernel: Kernel) -> None:
    """A cause is left out where the kernel has neither its reasons nor UDP-Lite, and nowhere else."""
    left_out = {cause.name for cause in EVERY if cause not in ALL}
    print("left out:", *sorted(left_out) or ["nothing"])
    lite = {"lite_closed_port", "lite_closed_port6", "lite_buffer_full", "lite_buffer_full6"}
    assert left_out == {
        *(
            {"wrong_echo", "cookie_queue_full", "cookie_queue_full6"}
            if "TCP_RFC7323_TSECR" not in kernel.reasons
            else ()
        ),
        *({"beyond_window_end"} if "TCP_INVALID_END_SEQUENCE" not in kernel.reasons else ()),
        *(lite if "udplite_rcv" not in kernel.names else ()),
    }


def test_no_interval_leaves_anything_unexplained(observed: Observed) -> None:
    """Counters and events are read one after the other; what only that sets apart is no riddle."""
    ours = set().union(*(provoked.inodes for provoked in observed.causes.values()))
    missed = {(inode, cause.missing) for cause in ALL if cause.missing for inode in observed.causes[cause.name].inodes}
    assert [
        one
        for one in entries(observed.lost, ours)
        if one["status"] == "unexplained"
        and (one["delta"] != 0 or (one["scope"]["netns"], one["counter"]) not in missed)
    ] == []


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
