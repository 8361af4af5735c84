# SPDX-License-Identifier: MIT
"""Each cause in causes.py: exactly what was lost is counted, as what it is, and nothing else."""

import os
import socket
from itertools import pairwise
from typing import Any

import pytest

from tests.live.causes import CAUSES, Cause, Traffic
from tests.live.net import Net, on_cpu, wait_until
from tests.live.tracing import Trace, function_of, inside, total, tracing

N = 23
LOST_NOTHING = {"map_full": 0, "missed": 0}

by_name = {cause.name: cause for cause in CAUSES}
every_cause = pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)


def send(traffic: Traffic, lose: int, spare: int, cpu: int) -> None:
    """Send packets of both kinds from one CPU; return when the witnesses have seen them all."""
    lost, spared = traffic.lost(), traffic.spared()
    with on_cpu(cpu):
        for turn in range(max(lose, spare)):
            if turn < spare:
                traffic.spare()
            if turn < lose:
                traffic.lose()
    wait_until(lambda: traffic.lost() - lost >= lose, f"the witness to see {lose} lost packets")
    wait_until(lambda: traffic.spared() - spared >= spare, f"{spare} spared packets to come through")
    assert (lose, spare) == (traffic.lost() - lost, traffic.spared() - spared)


def expected(cause: Cause, net: Net, count: int, cpu: int) -> dict[str, Any]:
    """What a tracer must say of the drops of a cause, but for their size and place."""
    namespace = net[cause.role]
    with namespace.entered():
        ifindex = socket.if_nametoindex(cause.interface)
    return {
        "reason": cause.reason,
        "subsystem": "core",
        "count": count,
        "cpu": cpu,
        "target_cpu": None,
        "interface": cause.interface,
        "ifindex": ifindex,
        "netns": namespace.inode,
        "netns_name": namespace.name,
        "protocol": cause.protocol,
        "layer": cause.layer,
    }


def without(drop: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A drop but for some of its keys."""
    return {key: value for key, value in drop.items() if key not in keys}


def ended(trace: Trace) -> dict[str, Any]:
    """End a trace as Ctrl-C does; return its summary."""
    assert trace.stop() == 0, trace.stderr
    assert "Traceback" not in trace.stderr
    return trace.summary


@every_cause
def test_what_is_lost_is_counted_and_nothing_else(cause: Cause, kernel_reasons: frozenset[str]) -> None:
    """N packets lost among N that get through are N drops of the right kind, in the right place, on the right CPU."""
    if cause.reason not in kernel_reasons:
        pytest.skip(f"this kernel has no drop reason {cause.reason}")
    cpu = max(os.sched_getaffinity(0))
    with cause.net() as net:
        traffic = cause.build(net)
        with tracing() as trace:
            send(traffic, lose=N, spare=N, cpu=cpu)
            summary = ended(trace)
            (drop,) = inside(summary["drops"], net.namespaces.values())
            assert expected(cause, net, N, cpu) == without(drop, "bytes", "location")
            assert function_of(drop["location"]) in cause.functions
            assert drop["bytes"] >= N
            assert summary["lost"] == LOST_NOTHING


@every_cause
def test_what_gets_through_is_not_counted(cause: Cause) -> None:
    """Packets like the lost ones that the kernel accepts leave no drop at all in their namespaces."""
    with cause.net() as net:
        traffic = cause.build(net)
        with tracing() as trace:
            send(traffic, lose=0, spare=N, cpu=max(os.sched_getaffinity(0)))
            assert inside(ended(trace)["drops"], net.namespaces.values()) == []


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
                )
            (whole,) = inside(ended(trace)["drops"], here)
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
            drops = inside(ended(trace)["drops"], net.namespaces.values())
            assert {cpu: N + cpu for cpu in cpus} == {drop["cpu"]: drop["count"] for drop in drops}
            assert len(cpus) == len(drops)


@pytest.mark.parametrize("rung", ["tp_btf", "raw"])
@pytest.mark.parametrize("name", ["udp_closed_port", "nftables_forward", "neighbour_failed", "shaper_full"])
def test_every_rung_counts_the_same(rung: str, name: str, kernel_reasons: frozenset[str]) -> None:
    """Whatever way the probe is attached, the drop is the same to the last key."""
    cause = by_name[name]
    if cause.reason not in kernel_reasons:
        pytest.skip(f"this kernel has no drop reason {cause.reason}")
    with cause.net() as net:
        traffic = cause.build(net)
        trace = Trace("--probe", rung)
        try:
            if not trace.became_ready():
                assert trace.process.returncode == 1
                pytest.skip(f"this kernel refuses the rung {rung}: {trace.stderr.strip()}")
            assert rung == trace.lines("start")[0]["probes"]["kfree_skb"]
            send(traffic, lose=N, spare=N, cpu=0)
            (drop,) = inside(ended(trace)["drops"], net.namespaces.values())
        finally:
            trace.kill()
        assert expected(cause, net, N, 0) == without(drop, "bytes", "location")
