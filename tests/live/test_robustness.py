# SPDX-License-Identifier: MIT
"""Storms, full maps, several tracers, things that vanish, strange names, and every way to end."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pktdrop.demo import frames
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from tests.kit import storm
from tests.kit.process import DEADLINE, as_nobody, error, launch, need, run, wait_until
from tests.kit.trace import finish, function_of, inside, total, tracing, without_times

N = 23
LOST_NOTHING = {"map_full": 0, "missed": 0}
UNKNOWN = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")
FREE_ETHERTYPES = 0x9200
"""A range of more than 2,000 ethertypes from here on that Linux handles none of (include/uapi/linux/if_ether.h)."""
FEW_PROTOCOLS = 4
"""As in bpf/drops.h."""
RED = "a\x1b[31mb"
"""Turns a terminal red. The kernel refuses only blanks, "/" and ":" in the name of an interface (dev_valid_name)."""


def storm_command(cpu: int, count: int, frame: bytes, distinct: int = 1, buffer: int = 0) -> list[str]:
    """Return the command that sends frames fast and prints how many."""
    return [sys.executable, "-I", storm.__file__, *map(str, (cpu, "eth0", count, frame.hex(), distinct, buffer))]


def send(namespace: Namespace, count: int, frame: bytes = UNKNOWN, **how: int) -> int:
    """Send frames from a namespace; return how many the kernel took. Nothing keeps the namespace in use afterwards."""
    return int(run("ip", "netns", "exec", namespace.name, *storm_command(0, count, frame, **how), seconds=4 * DEADLINE))


# --- many


def test_storm_is_counted_to_the_packet() -> None:
    """Half a million drops from all CPUs at once are counted exactly, and nothing is lost."""
    cpus = sorted(os.sched_getaffinity(0))
    each = 520_000 // len(cpus)
    with two_ns() as net:
        server = net["server"]
        with tracing() as trace:
            senders = [
                subprocess.Popen(
                    ["ip", "netns", "exec", net["client"].name, *storm_command(cpu, each, UNKNOWN)],
                    stdout=subprocess.PIPE,
                )
                for cpu in cpus
            ]
            sent = [int(sender.communicate(timeout=4 * DEADLINE)[0]) for sender in senders]
            wait_until(lambda: server.link("eth0", "rx.dropped") >= sum(sent), "the last frame to be dropped")
            summary = finish(trace)
            drops = inside(summary["drops"], net.namespaces.values())
            assert server.link("eth0", "rx.dropped") == total(drops)
            assert sum(sent) == total([drop for drop in drops if drop["layer"] != "backlog"])
            assert len(cpus) * each == sum(sent)
            assert {"eth0"} == {drop["interface"] for drop in drops}
            assert summary["lost"] == LOST_NOTHING


def test_ethertypes_that_a_sender_makes_up_count_together() -> None:
    """Of 2,000 ethertypes without a name, the first four on a CPU are rows, the rest is one: exact in the sum."""
    kinds = 2000
    first = frames.ethernet(mac(0, 2), mac(0, 1), FREE_ETHERTYPES, b"pktdrop")
    with two_ns() as net, tracing() as trace:
        assert 3 * kinds == send(net["client"], 3 * kinds, first, distinct=kinds)
        lldp = frames.ethernet(mac(0, 2), mac(0, 1), 0x88CC, b"pktdrop")
        assert send(net["client"], N, lldp) == N
        summary = finish(trace)
        drops = inside(summary["drops"], net.namespaces.values())
        counted = {drop["protocol"]: drop["count"] for drop in drops}
        assert counted.pop("LLDP") == N
        assert counted.pop("other") == 3 * (kinds - FEW_PROTOCOLS)
        assert list(counted.values()) == [3] * FEW_PROTOCOLS
        assert len(drops) == FEW_PROTOCOLS + 2
        assert summary["lost"] == LOST_NOTHING


def test_full_backlog_is_counted_where_it_was_full(kernel_reasons: frozenset[str]) -> None:
    """Packets steered to a CPU that does not keep up are drops of the backlog layer, one for each in rx_dropped."""
    if os.cpu_count() == 1:
        pytest.skip("a backlog that another CPU fills needs two CPUs")
    packet = frames.ip4(ipv4(0, 1), ipv4(0, 2), frames.UDP, frames.udp(ipv4(0, 1), ipv4(0, 2), 9))
    frame = frames.ethernet(mac(0, 2), mac(0, 1), frames.ETH_P_IP, packet)
    with two_ns() as net:
        server = net["server"]
        server.run("sh", "-c", "echo 2 > /sys/class/net/eth0/queues/rx-0/rps_cpus")
        slow = "\n".join(f"udp sport {port} drop" for port in range(10000, 11000))
        chain = f"type filter hook input priority 0; policy accept;\n{slow}\ncounter name lost drop"
        server.nft(f"table ip pktdrop {{\ncounter lost {{ }}\nchain input {{\n{chain}\n}}\n}}")
        with tracing("--all-netns") as trace:
            accepted = send(net["client"], 4_000, frame, buffer=1 << 26)
            wait_until(lambda: server.nft_counter("lost") == accepted, "the rule to see what the backlog took")
            summary = finish(trace)
            backlog = trace.lines("start")[0]["probes"]["enqueue_to_backlog"]
            drops = inside(summary["drops"], [server])
            full = [drop for drop in drops if function_of(drop["location"]) == "enqueue_to_backlog"]
            assert total(full) == server.link("eth0", "rx.dropped")
            assert total(drops) - total(full) == accepted
            if "CPU_BACKLOG" in kernel_reasons:
                assert {drop["reason"] for drop in drops} == {"CPU_BACKLOG", "NETFILTER_DROP"}
            assert {("backlog", "enqueue_to_backlog", "eth0", "IPv4", 0)} == {
                (drop["layer"], function_of(drop["location"]), drop["interface"], drop["protocol"], drop["cpu"])
                for drop in full
            }
            assert {None if backlog == "none" else 1} == {drop["target_cpu"] for drop in full}
            assert_one_loss_in_three_counters(summary, net, total(full))


def assert_one_loss_in_three_counters(summary: dict[str, Any], net: Net, lost: int) -> None:
    """A full backlog moves softnet, the receiver's rx_dropped and the sender's tx_dropped: one loss, all explained."""
    for role, counter, status in (("server", "links.rx_dropped", "exact"), ("client", "links.tx_dropped", "bound")):
        (entry,) = [
            entry
            for entry in summary["ledger"]
            if (entry["counter"], entry["scope"].get("netns")) == (counter, net[role].inode)
        ]
        assert net[role].link("eth0", counter.removeprefix("links.").replace("_", ".")) == lost
        assert (lost, lost, 0, status) == tuple(
            entry[key] for key in ("delta", "explained", "unexplained", "status")
        ), entry
    # these count for the whole host: others may lose packets in their backlogs, too
    everywhere = [drop for drop in summary["drops"] if drop["layer"] == "backlog"]
    softnet = [entry for entry in summary["ledger"] if entry["counter"] == "softnet.dropped"]
    assert sum(entry["delta"] for entry in softnet) == sum(entry["explained"] for entry in softnet)
    assert total([drop for drop in everywhere if function_of(drop["location"]) == "enqueue_to_backlog"]) == sum(
        entry["delta"] for entry in softnet
    )
    assert summary["layers"]["backlog"] == total([drop for drop in everywhere if not drop["noise"]])


def test_two_tracers_count_the_same() -> None:
    """Two pktdrop at once see the same drops, and neither disturbs the other."""
    with two_ns() as net, tracing() as one, tracing() as other:
        sent = send(net["client"], N)
        here = net.namespaces.values()
        first, second = inside(finish(one)["drops"], here), inside(finish(other)["drops"], here)
        assert N == sent == total(first)
        assert without_times(first) == without_times(second)


def test_second_tracer_starts_at_zero() -> None:
    """A trace counts what happens while it runs, not what another one has counted before."""
    with two_ns() as net, tracing() as early:
        send(net["client"], N)
        with tracing() as late:
            send(net["client"], N)
            assert total(inside(finish(late)["drops"], net.namespaces.values())) == N
        assert total(inside(finish(early)["drops"], net.namespaces.values())) == 2 * N


# --- things that vanish


@pytest.mark.parametrize("pace", ["0.1", "60"], ids=["after it was shown", "before it was shown"])
def test_interface_deleted_while_traced_keeps_its_name(pace: str) -> None:
    """Drops of an interface that is gone are still shown under its name."""
    with two_ns() as net, tracing(pace) as trace:
        ifindex = json.loads(net["server"].ip("-j", "link", "show", "dev", "eth0"))[0]["ifindex"]
        send(net["client"], N)
        if pace == "0.1":
            wait_until(lambda: any(inside(each["drops"], [net["server"]]) for each in trace.intervals), "an interval")
        net["client"].ip("link", "delete", "dev", "eth0")
        (drop,) = inside(finish(trace)["drops"], net.namespaces.values())
        assert (N, "eth0", ifindex) == (drop["count"], drop["interface"], drop["ifindex"])


@pytest.mark.parametrize("pace", ["0.1", "60"], ids=["after it was shown", "before it was shown"])
def test_namespace_deleted_while_traced_keeps_its_drops(pace: str) -> None:
    """Drops of a namespace that is gone are still shown; its name too, if it was there when it was looked for."""
    with two_ns() as net, tracing(pace) as trace:
        server = net["server"]
        name, inode = server.name, server.inode
        send(net["client"], N)
        if pace == "0.1":
            wait_until(lambda: any(inside(each["drops"], [server]) for each in trace.intervals), "an interval")
        run("ip", "netns", "delete", name)
        wait_until(lambda: '"eth0"' not in net["client"].ip("-j", "link"), "the namespace to be gone")
        (drop,) = [drop for drop in finish(trace)["drops"] if drop["netns"] == inode]
        assert (drop["count"], drop["interface"]) == (N, "eth0")
        assert drop["netns_name"] in ({name} if pace == "0.1" else {name, None})


# --- names


@contextmanager
def oddly_named() -> Iterator[Net]:
    """Make a client and a server whose interface and namespace have a terminal escape sequence in their names."""
    net = Net()
    with net.stack:
        net.add("client")
        net.add("server", f"pktdrop-{os.getpid()}-{RED}")
        net.cable(0, ("client", "eth0", 1), ("server", RED, 2))
        yield net


def test_control_characters_reach_programs_unharmed() -> None:
    """In JSON a strange name is escaped on the line and itself again when read."""
    with oddly_named() as net, tracing() as trace:
        send(net["client"], N)
        (drop,) = inside(finish(trace)["drops"], net.namespaces.values())
        assert (N, RED, net["server"].name) == (drop["count"], drop["interface"], drop["netns_name"])
        assert "\x1b" not in trace.stdout + trace.stderr


def test_control_characters_never_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table a strange name is shown escaped."""
    monkeypatch.setenv("COLUMNS", "250")
    with oddly_named() as net, tracing("0.1", style="table") as trace:
        send(net["client"], N)
        wait_until(lambda: "\\x1b[31mb" in trace.stdout, "a table with the name")
        assert trace.stop() == 0
        assert net["server"].name.replace("\x1b", "\\x1b") in trace.stdout
        assert "\x1b" not in trace.stdout + trace.stderr


# --- ends


def bpf_objects(pid: int) -> set[tuple[str, str]]:
    """Return the BPF programs and maps that a process holds, as bpftool(8) calls them: ("prog", "42")."""
    kinds = {"prog_id:": "prog", "map_id:": "map"}
    held = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        for line in info.read_text().splitlines():
            label, *value = line.split()
            if label in kinds:
                held.add((kinds[label], value[0]))
    return held


def in_kernel(held: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of them that the kernel still has."""
    return {
        (kind, number)
        for kind, number in held
        if subprocess.run(["bpftool", kind, "show", "id", number], capture_output=True, timeout=DEADLINE).returncode
        == 0
    }


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_stays_in_the_kernel(how: signal.Signals) -> None:
    """However pktdrop ends, killed too, its programs and maps are gone with it."""
    with tracing() as trace:
        held = bpf_objects(trace.process.pid)
        assert {"prog", "map"} == {kind for kind, _ in held}
        assert held == in_kernel(held)
        trace.stop(how)
        wait_until(lambda: not in_kernel(held), "the kernel to free the programs")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_signals_end_with_a_summary(how: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP are normal ends: exit 0, and the last drops are in the summary."""
    with two_ns() as net, tracing("60") as trace:
        send(net["client"], N)
        assert total(inside(finish(trace, how)["drops"], net.namespaces.values())) == N


def written(file: BinaryIO) -> bytes:
    """Return what another process has written to a file so far."""
    return os.pread(file.fileno(), 1 << 20, 0)


@pytest.mark.parametrize("style", ["json", "table"])
def test_closed_pipe_ends_it_quietly(style: str) -> None:
    """When the reader of the output goes away, as "head" does, pktdrop ends: no complaint, exit 0."""
    with two_ns() as net, tempfile.TemporaryFile() as complaints:
        process = launch("trace", "0.1", "--format", style, stdout=subprocess.PIPE, stderr=complaints)
        try:
            wait_until(lambda: b"Tracing " in written(complaints), "the start line", DEADLINE)
            send(net["client"], N)
            assert process.stdout is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.wait(DEADLINE) == 0
            assert b"Traceback" not in written(complaints)
            assert b"Error" not in written(complaints)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("style", ["json", "table"])
def test_closed_terminal_ends_it_quietly(style: str) -> None:
    """When its terminal is closed, pktdrop ends: no traceback, exit 0."""
    master, slave = pty.openpty()
    with tempfile.TemporaryFile() as complaints:
        process = launch(
            *("trace", "0.1", "--format", style), stdin=slave, stdout=slave, stderr=complaints, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # closing it then sends SIGHUP
        )  # fmt: skip
        os.close(slave)
        try:
            wait_until(lambda: b"Tracing " in written(complaints), "the start line", DEADLINE)
            os.close(master)
            assert process.wait(DEADLINE) == 0
            assert b"Traceback" not in written(complaints)
        finally:
            process.kill()
            process.wait()


def test_without_root_it_says_what_to_do() -> None:
    """Without root: one sentence what is missing, one what to do, exit 1, nothing on standard output."""
    need("setpriv", "unshare")  # they give up root
    refused = subprocess.run(as_nobody("trace"), cwd="/", capture_output=True, text=True, timeout=DEADLINE)
    what, do = error(refused.stderr)
    assert refused.returncode == 1
    assert what.endswith(".")
    assert do.endswith(".")
    assert not refused.stdout
