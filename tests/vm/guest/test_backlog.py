# SPDX-License-Identifier: MIT
"""Full backlogs of another CPU, of one flow, of a tunnel, and of a device that goes down, counted on every rung."""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import IPPROTO_GRE
from typing import Any

import pytest

from pktdrop.demo import frames
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from tests.kit import storm
from tests.kit.diagnosed import commands, diagnosing, judged, of
from tests.kit.process import DEADLINE, wait_until
from tests.kit.rungs import Rungs, ended, tracing_by_all
from tests.kit.trace import function_of, inside, total
from tests.vm.guest.cpus import RECEIVES, SENDS, rise, settings, softnet

FRAMES = 5_000
DEFAULT_BACKLOG = 1000  # netdev_max_backlog, net/core/dev.c or hotdata.c
RULES = 200
"""That a packet has to pass, so that the receiving CPU is slower than the sending one."""
UDP = frames.ip4(ipv4(0, 1), ipv4(0, 2), frames.UDP, frames.udp(ipv4(0, 1), ipv4(0, 2), 9))
FRAME = frames.ethernet(mac(0, 2), mac(0, 1), frames.ETH_P_IP, UDP)
Record = Callable[[str, object], None]
Reasons = frozenset[str]


@pytest.fixture
def net() -> Iterator[Net]:
    """A client and a slow server whose packets all go to another CPU, and whose backlogs are short."""
    with two_ns() as made, settings(netdev_max_backlog=30):
        made["server"].run("sh", "-c", f"echo {1 << RECEIVES:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus")
        slow = "\n".join(f"udp sport {port} drop" for port in range(10000, 10000 + RULES))
        chain = f"type filter hook input priority 0; policy accept;\n{slow}\nmeta l4proto udp counter name took drop"
        made["server"].nft(f"table ip pktdrop {{\ncounter took {{ }}\nchain input {{\n{chain}\n}}\n}}")
        yield made


def sender(net: Net, count: int = FRAMES, frame: bytes = FRAME) -> "subprocess.Popen[bytes]":
    """Start sending frames as fast as can be; it prints how many the kernel took."""
    arguments = map(str, (SENDS, "eth0", count, frame.hex(), 1, 1 << 26))
    command = ["ip", "netns", "exec", net["client"].name, sys.executable, "-I", storm.__file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def send(net: Net, frame: bytes = FRAME) -> int:
    """Send FRAMES frames; return how many the backlog took, once each of them is dropped by the rule or the tunnel."""
    server = net["server"]

    def gone() -> int:
        return server.nft_counter("took") + tunnel_drops(server)

    before = gone()
    with sender(net, frame=frame) as process:
        taken = int(process.communicate(timeout=20 * DEADLINE)[0])
    wait_until(lambda: gone() - before == taken, "the last packet", 2 * DEADLINE)
    return taken


def tunnel_drops(server: Namespace) -> int:
    """Return how many packets the tunnel had no room for, if there is one."""
    return server.link("tunnel", "rx.dropped") if '"tunnel"' in server.ip("-j", "link") else 0


def at_backlog(drops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that enqueue_to_backlog() freed."""
    return [drop for drop in drops if function_of(drop["location"]) == "enqueue_to_backlog"]


def ledger(summary: dict[str, Any], counter: str) -> tuple[int, int]:
    """Return by how much a counter rose in all its scopes, and how much of that drop events explain."""
    found = [entry for entry in summary["ledger"] if entry["counter"] == counter]
    return sum(entry["delta"] for entry in found), sum(entry["explained"] for entry in found)


def said(diagnosis: dict[str, Any], namespace: Namespace, cause: str) -> tuple[int, str]:
    """Return how many packets a diagnosis says were lost in a namespace for one cause, and what it says to do."""
    (loss,) = (loss for loss in of(diagnosis, namespace) if loss["cause"] == cause)
    return loss["packets"], " ".join(one["say"] for one in loss["advice"])


def told_where_and_no_less_than_the_default(diagnosis: dict[str, Any], server: Namespace, lost: int) -> None:
    """A backlog that was made short is to be as long as the kernel makes it, at least; and it is said whose packets."""
    (loss,) = (loss for loss in of(diagnosis, server) if loss["cause"] == "backlog")
    assert loss["packets"] == lost
    assert f"eth0 of netns {server.name}" in loss["where"]
    advised = [int(length) for line in commands(loss) for length in re.findall(r"netdev_max_backlog=(\d+)", line)]
    assert [length for length in advised if length >= DEFAULT_BACKLOG] == advised != []


def unexplained(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the ledger could not explain, of the whole guest: nothing else happens in it."""
    return [entry for entry in summary["ledger"] if entry["status"] == "unexplained"]


def target(rungs: Rungs) -> int | None:
    """Return which target CPU a tracer on these rungs must name."""
    return None if rungs.enqueue_to_backlog == "none" else RECEIVES


def test_full_backlog_of_another_cpu(net: Net, kernel_reasons: Reasons, record_property: Record) -> None:
    """Each packet that found the other CPU's backlog full is one drop, of this CPU's on the other's account."""
    server, before = net["server"], softnet(1)
    with tracing_by_all() as traces, diagnosing() as made:
        taken = send(net)
        summaries, diagnosis = ended(traces), judged(made)
    lost = server.link("eth0", "rx.dropped")
    assert rise(before, softnet(1)) == {RECEIVES: lost}
    assert lost > 0
    told_where_and_no_less_than_the_default(diagnosis, server, lost)
    record_property("caused", lost)
    for rungs, summary in summaries.items():
        drops = inside(summary["drops"], [server])
        full = at_backlog(drops)
        record_property(f"counted by {rungs}", total(full))
        record_property(f"target CPU by {rungs}", ",".join(sorted({str(drop["target_cpu"]) for drop in full})))
        assert total(full) == lost, rungs
        assert total(drops) == lost + taken, rungs
        assert {(drop["cpu"], drop["target_cpu"]) for drop in full} == {(SENDS, target(rungs))}, rungs
        assert {(drop["layer"], drop["interface"]) for drop in full} == {("backlog", "eth0")}
        assert {drop["reason"] for drop in full} <= {
            "CPU_BACKLOG" if "CPU_BACKLOG" in kernel_reasons else "NOT_SPECIFIED"
        }
        assert summary["lost"] == {"map_full": 0, "missed": 0}
        for counter in ("softnet.dropped", "links.rx_dropped"):
            assert ledger(summary, counter) == (lost, lost), rungs
        assert unexplained(summary) == [], rungs
    if "thread_backlog_napi" in Path("/proc/cmdline").read_text():
        threads = subprocess.run(["pgrep", "-f", "backlog_napi/"], capture_output=True, timeout=DEADLINE)
        assert threads.returncode == 0, "this kernel knows no threaded backlog"


def test_flow_limit(net: Net) -> None:
    """What one flow loses to the flow limit is a drop of the backlog like others; softnet counts it in both columns."""
    # skb_flow_limit() asks, and counts for, the CPU that sends; "dropped" is of the one that receives (net/core/dev.c)
    with settings(netdev_max_backlog=300, flow_limit_cpu_bitmap=f"{1 << SENDS:x}"):
        dropped, limited = softnet(1), softnet(10)
        with tracing_by_all() as traces, diagnosing() as made:
            send(net)
            summaries, diagnosis = ended(traces), judged(made)
        limit, lost = rise(limited, softnet(10)), rise(dropped, softnet(1))
    assert set(lost) == {RECEIVES}
    assert set(limit) == {SENDS}
    assert 0 < limit[SENDS] <= lost[RECEIVES]
    for rungs, summary in summaries.items():
        full = at_backlog(inside(summary["drops"], [net["server"]]))
        assert total(full) == lost[RECEIVES], rungs
        assert {(drop["layer"], drop["target_cpu"]) for drop in full} == {("backlog", target(rungs))}, rungs
        assert unexplained(summary) == [], rungs
    packets, advice = said(diagnosis, net["server"], "backlog")
    assert packets == lost[RECEIVES]
    assert f"Of these, {limit[SENDS]:,} were held back by the flow limit" in advice


def test_device_down(net: Net, kernel_reasons: Reasons) -> None:
    """A packet on its way into a backlog when its device goes down is told from one that found it full, by its reason.

    Only in the moment between its device's stop and its flags' (net/core/dev.c, __dev_close_many) does one get there,
    so it is tried until one did. A queueing discipline makes that moment longer: who stops it waits for its readers.
    """
    server = net["server"]
    server.run("tc", "qdisc", "add", "dev", "eth0", "root", "pfifo")
    with settings(netdev_max_backlog=10_000_000):  # so that none finds it full
        before = softnet(1)
        with tracing_by_all(interval="1") as traces, diagnosing() as made:
            one, *_ = traces.values()
            deadline = time.monotonic() + 2 * DEADLINE
            while not any(at_backlog(inside(interval["drops"], [server])) for interval in one.intervals):
                assert time.monotonic() < deadline
                with sender(net, 10 * FRAMES) as process:
                    while process.poll() is None:
                        server.ip("link", "set", "dev", "eth0", "down")
                        server.ip("link", "set", "dev", "eth0", "up")
            summaries, diagnosis = ended(traces), judged(made)
    counts = []
    for rungs, summary in summaries.items():
        drops = at_backlog(inside(summary["drops"], [server]))
        ((reason, count),) = Counter({drop["reason"]: drop["count"] for drop in drops}).items()
        counts.append((reason, count))
        assert reason in {"DEV_READY", "NOT_SPECIFIED"}, rungs
        assert {(drop["layer"], drop["target_cpu"]) for drop in drops} == {("backlog", target(rungs))}, rungs
        # where it has a reason of its own, it is no longer in the CPU's counter
        assert rise(before, softnet(1)) == ({} if reason == "DEV_READY" else {RECEIVES: count}), rungs
        assert ledger(summary, "softnet.dropped") == ((0, 0) if reason == "DEV_READY" else (count, count)), rungs
    assert [counts[0]] * len(counts) == counts
    # a kernel that names neither cannot tell them apart; one that names a full backlog (6.1) does so by that
    cause = "backlog-down" if "CPU_BACKLOG" in kernel_reasons else "backlog"
    assert said(diagnosis, server, cause)[0] == counts[0][1]
    assert {loss["cause"] for loss in of(diagnosis, server)} & {"backlog", "backlog-down"} == {cause}


def test_full_cell_of_a_tunnel(net: Net, record_property: Record) -> None:
    """What a tunnel has no room for is dropped in the backlog layer, one for each in the tunnel's rx_dropped."""
    server = net["server"]
    server.ip(*("link", "add", "tunnel", "type", "gre", "local", ipv4(0, 2), "remote", ipv4(0, 1)))
    server.ip("link", "set", "dev", "tunnel", "up")
    carried = frames.ip4(ipv4(0, 1), ipv4(0, 2), IPPROTO_GRE, b"\x00\x00\x08\x00" + UDP)
    # so many packets may the CPU put into the tunnel's cell before it takes any out; how many are there is up to chance
    with settings(netdev_max_backlog=20, dev_weight=10_000), tracing_by_all() as traces, diagnosing() as made:
        deadline = time.monotonic() + 2 * DEADLINE
        while not (lost := tunnel_drops(server)):
            assert time.monotonic() < deadline
            send(net, frames.ethernet(mac(0, 2), mac(0, 1), frames.ETH_P_IP, carried))
        summaries, diagnosis = ended(traces), judged(made)
    record_property("caused", lost)
    assert said(diagnosis, server, "gro-cells")[0] == lost
    for rungs, summary in summaries.items():
        drops = [
            drop for drop in inside(summary["drops"], [server]) if function_of(drop["location"]) == "gro_cells_receive"
        ]
        record_property(f"counted by {rungs}", total(drops))
        assert total(drops) == lost, rungs
        assert unexplained(summary) == [], rungs
        assert {(drop["layer"], drop["interface"], drop["cpu"]) for drop in drops} == {("backlog", "tunnel", RECEIVES)}
