# SPDX-License-Identifier: MIT
"""Each cause of pktdrop demo: exactly what was lost is counted, as what it is, and nothing else."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import DemoCause, Traffic
from pktdrop.demo.net import Net
from tests.kit.kernel import Reasons
from tests.kit.process import DEADLINE, wait_until
from tests.kit.provoked import LAST_CPU, N, is_answer, send
from tests.kit.rungs import Rungs, doctor, ended, tracing_by_all
from tests.kit.trace import finish, function_of, inside, total, tracing

LOST_NOTHING = {"map_full": 0, "missed": 0}

by_name = {cause.name: cause for cause in CAUSES}
every_cause = pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)


def expected(cause: DemoCause, reasons: Reasons, net: Net, count: int, cpu: int) -> dict[str, Any]:
    """What a tracer must say of the drops of a cause, but for their size, call site and namespace.

    Where the kernel does not have the reason, it gives none, and the call site must tell the layer.
    """
    namespace = net[cause.role]
    with namespace.entered():
        ifindex = socket.if_nametoindex(cause.interface)
    return {
        "reason": cause.reason if cause.reason in reasons else "NOT_SPECIFIED",
        "subsystem": "core",
        "count": count,
        "cpu": cpu,
        "target_cpu": None,
        "interface": cause.interface,
        "ifindex": ifindex,
        "netns": namespace.inode,
        "netns_name": namespace.name,
        "netns_gone": False,
        "container": None,
        "protocol": cause.protocol,
        "other_places": False,
    }


def layers(cause: DemoCause, reasons: Reasons, function: str) -> set[str]:
    """The layers that a drop of a cause may be said to be of: without a reason, that of any cause freed there."""
    if cause.reason in reasons:
        return {cause.layer}
    return {other.layer for other in CAUSES if function in other.functions}


def netns_and_call_site(drop: dict[str, Any]) -> tuple[int, str]:
    """Order drops of equal counts."""
    return drop["netns"], drop["location"]


def without(drop: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A drop but for some of its keys."""
    return {key: value for key, value in drop.items() if key not in keys}


def timeless(drop: dict[str, Any]) -> dict[str, Any]:
    """A drop whose samples have no time."""
    return {**drop, "samples": [without(sample, "time") for sample in drop["samples"]]}


@dataclass
class Provoked:
    """One cause, provoked once without and once with losses, and what went wrong with that."""

    net: Net | None = None
    traffic: Traffic | None = None
    failure: Exception | None = None

    def send(self, lose: int) -> None:
        """Send N packets that get through, and some that are lost."""
        try:
            if self.traffic is not None:
                send(self.traffic, lose=lose, spare=N, cpu=LAST_CPU)
        except Exception as failure:
            self.failure = failure

    def drops(self, summary: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what a tracer counted of it. Raises what went wrong before."""
        if self.failure is not None or self.net is None:
            raise AssertionError("the cause could not be provoked") from self.failure
        return inside(summary["drops"], self.net.namespaces.values())


@dataclass(frozen=True)
class Observed:
    """All causes, and what the tracers said, by rungs, of the run without losses and of that with them."""

    causes: dict[str, Provoked]
    spared: dict[Rungs, dict[str, Any]]
    lost: dict[Rungs, dict[str, Any]]
    has_samples: bool
    """Whether this kernel lets programs read packets, as `pktdrop doctor` says."""


@pytest.fixture(scope="module")
def observed() -> Iterator[Observed]:
    """All causes, provoked under tracers on every pair of rungs. They share the tracers, as a start takes time.

    The namespaces live all the time, so that each has an inode of its own, by which its drops are told apart.
    """
    with ExitStack() as stack:
        causes = {}
        for cause in CAUSES:
            provoked = causes[cause.name] = Provoked()
            try:
                provoked.net = stack.enter_context(cause.net())
                provoked.traffic = cause.build(provoked.net)
            except Exception as failure:
                provoked.failure = failure
        summaries = []
        for lose in (0, N):
            with tracing_by_all() as traces:
                for provoked in causes.values():
                    provoked.send(lose)
                summaries.append(ended(traces))
        yield Observed(causes, *summaries, has_samples=doctor()["packets"]["status"] == "ok")


def test_every_rung_was_tried(observed: Observed, btf: str) -> None:
    """What follows compares them: there are two at least, as a kernel with BTF has both ways to its tracepoint."""
    assert "btf_trace_kfree_skb" in btf
    assert {rungs.kfree_skb for rungs in observed.lost} == {"tp_btf", "raw"}
    assert observed.spared.keys() == observed.lost.keys()


@every_cause
def test_what_is_lost_is_counted_and_nothing_else(
    cause: DemoCause, observed: Observed, kernel_reasons: Reasons, record_property: Callable[[str, object], None]
) -> None:
    """N packets lost among N that get through are N drops of the right kind, in the right place, on the right CPU."""
    provoked = observed.causes[cause.name]
    record_property("caused", N)
    for rungs, summary in observed.lost.items():
        drops = provoked.drops(summary)
        answers = [drop for drop in drops if is_answer(drop, cause)]
        losses = [drop for drop in drops if drop not in answers]
        record_property(f"counted by {rungs}", total(losses))
        (drop,) = losses
        assert provoked.net is not None
        assert total(answers) <= N  # there is a limit on their rate
        assert expected(cause, kernel_reasons, provoked.net, N, LAST_CPU) == without(
            drop, "bytes", "location", "layer", "noise", "doubt", "netns_cookie", "sampled", "samples"
        ), rungs
        assert drop["sampled"] == len(drop["samples"]) == (4 if observed.has_samples else 0), rungs
        # without a reason, the call site is all there is to go by, and it may be one of frees that lose nothing
        assert cause.reason not in kernel_reasons or drop["doubt"] == "", rungs
        assert drop["layer"] in layers(cause, kernel_reasons, function_of(drop["location"]))
        assert function_of(drop["location"]) in cause.functions
        assert drop["bytes"] >= N
        assert summary["lost"] == LOST_NOTHING


@every_cause
def test_what_gets_through_is_not_counted(cause: DemoCause, observed: Observed) -> None:
    """Packets like the lost ones that the kernel accepts leave no drop at all in their namespaces."""
    for summary in observed.spared.values():
        assert observed.causes[cause.name].drops(summary) == []


@every_cause
def test_every_rung_counts_the_same(cause: DemoCause, observed: Observed) -> None:
    """Whatever way the probes are attached, the drops are the same to the last key."""
    provoked = observed.causes[cause.name]
    first, *others = (
        sorted(map(timeless, provoked.drops(summary)), key=netns_and_call_site) for summary in observed.lost.values()
    )
    assert first
    assert [first] * len(others) == others


def test_intervals_add_up_to_the_summary() -> None:
    """Drops in several intervals are each shown in the one they fell in, and together they are the summary."""
    cause = by_name["udp_closed_port"]
    with cause.net() as net:
        traffic, here = cause.build(net), net.namespaces.values()
        with tracing("0.1") as trace:
            for sent in (N, 2 * N, 3 * N):
                send(traffic, lose=N, spare=0, cpu=0)
                wait_until(
                    lambda so_far=sent: so_far == sum(total(inside(each["drops"], here)) for each in trace.intervals),
                    f"{sent} drops to be shown in the intervals",
                    DEADLINE,
                )
            (whole,) = inside(finish(trace)["drops"], here)
            parts = [drop for each in trace.intervals for drop in inside(each["drops"], here)]
            assert len(parts) >= 3
            assert {"count": 3 * N, "bytes": whole["bytes"]} == {
                "count": sum(part["count"] for part in parts),
                "bytes": sum(part["bytes"] for part in parts),
            }
            assert all(before["end"] == after["start"] for before, after in pairwise(trace.intervals))


def test_each_cpu_has_its_own_count() -> None:
    """The same loss on every CPU is one row per CPU."""
    cause = by_name["udp_closed_port"]
    cpus = sorted(os.sched_getaffinity(0))
    with cause.net() as net:
        traffic = cause.build(net)
        with tracing() as trace:
            for cpu in cpus:
                send(traffic, lose=N + cpu, spare=0, cpu=cpu)
            drops = inside(finish(trace)["drops"], net.namespaces.values())
            assert {cpu: N + cpu for cpu in cpus} == {drop["cpu"]: drop["count"] for drop in drops}
            assert len(cpus) == len(drops)
