# SPDX-License-Identifier: MIT
"""Which namespaces a run reads, and when: what it says of counters in each."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.naming import Naming
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.drops import DropKey
from tests.kit.process import DEADLINE, wait_until
from tests.kit.provoked import send
from tests.kit.trace import tracing

by_name = {cause.name: cause for cause in CAUSES}
CLOSED = by_name["udp_closed_port"]


def moved(line: dict[str, Any], netns: int, counter: str) -> int:
    """By how much a counter of a namespace rose, by the ledger."""
    return sum(
        int(entry["delta"])
        for entry in line["ledger"]
        if entry["counter"] == counter and entry["scope"].get("netns") == netns
    )


def test_each_interval_has_its_own_ledger(kernel_reasons: frozenset[str]) -> None:
    """A namespace that is not ours is read in the intervals around its drops; together they are the summary."""
    with CLOSED.net() as net:
        traffic = CLOSED.build(net)
        netns = net[CLOSED.role].inode
        with tracing("0.2") as trace:
            for sent in (5, 12):
                send(
                    traffic,
                    lose=sent - sum(moved(line, netns, "mib.UdpNoPorts") for line in trace.intervals),
                    spare=0,
                    cpu=0,
                )
                wait_until(
                    lambda so_far=sent: so_far == sum(moved(line, netns, "mib.UdpNoPorts") for line in trace.intervals),
                    f"the ledger to have {sent} in the intervals",
                )
            assert trace.stop() == 0
            assert moved(trace.summary, netns, "mib.UdpNoPorts") == 12
            found = [
                entry for line in trace.intervals for entry in line["ledger"] if entry["scope"].get("netns") == netns
            ]
            # a call site alone says less, and so does a counter that was read between two of its drops
            assert {entry["status"] for entry in found} <= ({"exact", "bound"} if kernel_reasons else {"bound"})
            apart = [entry for entry in found if entry["status"] == "bound"] if kernel_reasons else []
            assert [entry for entry in apart if "read at another moment" not in entry["note"]] == []
            whole = next(entry for entry in trace.summary["ledger"] if entry["scope"].get("netns") == netns
                         and entry["counter"] == "mib.UdpNoPorts")  # fmt: skip
            assert whole["status"] == ("exact" if kernel_reasons else "bound")


def test_a_counter_without_any_drop_event_is_in_the_summary() -> None:
    """What moves in a namespace without drops shows when the run ends, or each time with --all-netns."""
    cause = by_name["receive_buffer_full"]
    with cause.net() as net:
        netns = net[cause.role].inode
        with tracing("0.2", "--all-netns") as each_time, tracing("0.2") as at_the_end:
            # a connection attempt without route counts, and frees no packet
            ping = ["ip", "netns", "exec", net[cause.role].name, "python3", "-c",
                    "import socket; socket.socket().connect_ex(('198.51.100.1', 9))"]  # fmt: skip
            subprocess.run(ping, check=True, timeout=DEADLINE)
            wait_until(
                lambda: any(moved(line, netns, "mib.IpOutNoRoutes") for line in each_time.intervals),
                "the ledger of an interval to have it",
            )
            assert (each_time.stop(), at_the_end.stop()) == (0, 0)
            witness = moved(each_time.summary, netns, "mib.IpOutNoRoutes")
            assert witness > 0
            assert moved(at_the_end.summary, netns, "mib.IpOutNoRoutes") == witness
            assert not any(moved(line, netns, "mib.IpOutNoRoutes") for line in at_the_end.intervals[:-1])


def test_a_namespace_made_during_the_run_counts_from_zero() -> None:
    """Nothing of a new namespace is missed, though it was not there at the start."""
    with tracing("0.2") as trace, CLOSED.net() as net:
        traffic = CLOSED.build(net)
        netns = net[CLOSED.role].inode
        send(traffic, lose=7, spare=7, cpu=0)
        assert trace.stop() == 0
        assert moved(trace.summary, netns, "mib.UdpNoPorts") == 7


def test_the_ledger_survives_the_end_of_a_namespace() -> None:
    """Drops of a namespace that is gone at the end are explained by what was read before."""
    with tracing("0.1") as trace:
        with CLOSED.net() as net:
            traffic = CLOSED.build(net)
            netns = net[CLOSED.role].inode
            send(traffic, lose=9, spare=0, cpu=0)
            wait_until(lambda: any(moved(line, netns, "mib.UdpNoPorts") for line in trace.intervals), "an interval")
        assert trace.stop() == 0
        assert "Traceback" not in trace.stderr
        assert moved(trace.summary, netns, "mib.UdpNoPorts") == 9


def test_the_clock_is_read_with_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first interval and its rates are of the time that was counted, however long symbols take to be read."""
    cause = by_name["udp_closed_port"]
    with cause.net() as net, Tracer(Namespaces()) as tracer:
        named: list[float] = []
        key = Naming.key

        def noting(*arguments: Any) -> DropKey:
            named.append(time.monotonic())
            return key(*arguments)

        monkeypatch.setattr(Naming, "key", noting)
        send(cause.build(net), lose=3, spare=0, cpu=0)
        snapshot = tracer.snapshot()
    assert named
    assert snapshot.monotonic < named[0]
