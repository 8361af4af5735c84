# SPDX-License-Identifier: MIT
"""`pktdrop diagnose` as a user runs it: real losses in namespaces of our own, named with what to change."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import Traffic
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, one_ns
from pktdrop.rules.layers import LAYERS
from tests.kit.diagnosed import commands, diagnosing, judged, lose, of, unable_in
from tests.kit.process import DEADLINE, command, launch, run, wait_until

N = 23
Reasons = frozenset[str]
ROUTING, SOCKET = ("routing", "routing-any"), ("unspecified", "socket-any")
"""Class and cause that a call site alone tells."""
by_name = {cause.name: cause for cause in CAUSES}


@contextmanager
def cause(name: str) -> Iterator[tuple[Net, Traffic, Namespace]]:
    """Build a cause of the demo; yield it with the namespace that loses."""
    with by_name[name].net() as net:
        yield net, by_name[name].build(net), net[by_name[name].role]


def test_a_full_receive_buffer_names_socket_and_process(kernel_reasons: Reasons) -> None:
    """The socket by its port, this process by its name, its buffer as ss(8) shows it, and what may be asked for."""
    with cause("receive_buffer_full") as (_, traffic, here), diagnosing("--fail-on", "capacity") as made:
        lose(traffic)
        if not kernel_reasons:  # the call site tells no more than that a socket of UDP did not take them
            (loss,) = of(judged(made), here)
            assert (loss["packets"], loss["layer"], loss["class"]) == (N, "socket", "unspecified")
            return
        shown = here.run("ss", "-u", "-a", "-n", "-m", "sport", "=", ":4008")
        (loss,) = of(judged(made, status=3), here)
        comm = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
        assert (loss["packets"], loss["layer"], loss["class"], loss["cause"]) == (
            N,
            "socket",
            "capacity",
            "receive-buffer",
        )
        assert f"in the receive buffer of {comm} (UDP 127.0.0.1:4008)" in loss["where"]
        buffer = int(shown.partition(",rb")[2].partition(",")[0])
        rmem_max = int(run("sysctl", "-n", "net.core.rmem_max"))
        said = " ".join(one["say"] for one in loss["advice"])
        assert f"Its buffer takes {buffer:,} bytes" in said
        assert f"net.core.rmem_max ({rmem_max:,})" in said
        assert f"let {comm} ask" in said


@pytest.mark.parametrize(
    ("name", "kind", "found", "expected", "by_call_site"),
    [
        ("nftables_input", "policy", "firewall", "nft list ruleset", ("policy", "firewall")),
        ("reverse_path", "policy", "rp-filter", "sysctl -w net/ipv4/conf/eth0/rp_filter=2", ROUTING),
        ("no_route", "routing", "no-route", "ip route get 1", ROUTING),
        ("udp_closed_port", "routing", "no-socket", "ss -l -t -u -n -p 'sport = :", SOCKET),
        ("udp_checksum", "malformed", "checksum", None, SOCKET),
        (
            "neighbour_queue_full",
            "capacity",
            "neighbour-queue",
            "net/ipv4/neigh/eth0/unres_qlen_bytes=212992",
            ("routing", "neighbour-failed"),
        ),
        ("tap_full", "capacity", "tap-ring", "ip link set dev tap0 txqueuelen 1000", ("unspecified", "transmit-any")),
    ],
)
def test_each_kind_is_told_apart(
    name: str, kind: str, found: str, expected: str | None, by_call_site: tuple[str, str], kernel_reasons: Reasons
) -> None:
    """Class, cause, and a command for that very namespace, with its own values; without reasons by call site."""
    is_named = by_name[name].reason in kernel_reasons
    with cause(name) as (_, traffic, here), diagnosing() as made:
        lose(traffic)
        (loss,) = of(judged(made), here)
        assert (loss["packets"], loss["class"], loss["cause"]) == (N, *((kind, found) if is_named else by_call_site))
        if expected is not None and is_named:
            assert any(expected in line and f"ip netns exec {here.name} " in line for line in commands(loss))


def test_a_shaper_is_named_with_its_interface() -> None:
    """Which qdisc it was is known by its own counter; tc(8) has the same handle."""
    with cause("shaper_full") as (_, traffic, here), diagnosing() as made:
        lose(traffic)
        (loss,) = of(judged(made), here)
        kind, handle = run("tc", "-n", here.name, "qdisc", "show", "dev", "eth0").split()[1:3]
        assert (loss["packets"], loss["layer"], loss["qdiscs"]) == (N, "qdisc", [f"{kind} {handle}"])
        assert f"in the qdisc {kind} {handle} of eth0 of netns {here.name}" == loss["where"]


def test_a_full_accept_queue_is_found_without_an_event() -> None:
    """SYNs at a full queue are consumed: counters alone show them, and the listener is named with its limit."""
    with one_ns() as net, net["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 8080))
        listener.listen(1)
        here = net["host"]
        waiting = [net.keep(here.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(5)]
        with diagnosing() as made:
            for caller in waiting:
                caller.setblocking(False)
                caller.connect_ex(("127.0.0.1", 8080))
            wait_until(lambda: here.mib("TcpExtListenOverflows") >= 2, "the queue to be full")
            data = judged(made)
        overflows = [loss for loss in of(data, here) if loss["cause"] == "listen-queue"]
        assert sum(loss["packets"] for loss in overflows) >= 2
        assert {loss["class"] for loss in overflows} == {"capacity"}
        assert any("TCP 127.0.0.1:8080" in loss["where"] for loss in overflows)
        assert any("lets 1 connections wait" in one["say"] for loss in overflows for one in loss["advice"])


def test_what_gets_through_is_no_loss() -> None:
    """Packets like the lost ones that are received leave nothing in a diagnosis."""
    with cause("udp_closed_port") as (_, traffic, here), diagnosing("--all-netns") as made:
        before = traffic.spared()
        for _ in range(N):
            traffic.spare()
        wait_until(lambda: traffic.spared() - before == N, "the spared packets")
        data = judged(made)
        assert of(data, here) == []
        assert data["watched"]["received"] >= N
        assert data["watched"]["unread"] or "unseen" not in {station["status"] for station in data["stations"]}


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        (["loss"], 3),
        (["NO_SOCKET"], 3),
        (["no_*", "capacity"], 3),
        (["NETFILTER_DROP"], 0),
        (["unexplained"], 0),
        ([], 0),
    ],
)
def test_exit_statuses(conditions: list[str], status: int, kernel_reasons: Reasons) -> None:
    """3 where a condition holds, and which is said; 0 where none does."""
    if not kernel_reasons:
        named = {"NO_SOCKET": "NOT_SPECIFIED", "no_*": "not_*", "NETFILTER_DROP": "capacity"}
        conditions = [named.get(condition, condition) for condition in conditions]
    options = [word for condition in conditions for word in ("--fail-on", condition)]
    # other tests may lose packets at the same time, for other reasons than these
    with cause("udp_closed_port") as (_, traffic, _), diagnosing(*options) as made:
        lose(traffic)
        data = judged(made, status)
        assert bool(data["failed"]) == (status == 3)
        assert ("--fail-on asks" in made.stderr) == (status == 3)


def test_a_reason_that_there_is_not_is_a_usage_error(kernel_reasons: Reasons) -> None:
    """Exit status 2 before anything is watched; the option is named, and names that are near."""
    right = "NO_SOCKET" if kernel_reasons else "NOT_SPECIFIED"
    wrong = right.replace("C", "", 1)
    done = subprocess.run([*command(), "diagnose", "--fail-on", wrong], capture_output=True, text=True, cwd="/")
    assert done.returncode == 2
    assert "--fail-on" in done.stderr
    assert right in done.stderr
    assert done.stdout == ""


def unable(net: Net, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Diagnose to the end in the first namespace of a topology, without root and BPF."""
    called = unable_in(next(iter(net.namespaces.values())))
    return subprocess.run([*called, "diagnose", *arguments], capture_output=True, text=True, cwd="/", timeout=DEADLINE)


def test_without_root_counters_tell() -> None:
    """Without any capability: the loss by its counter, what could not be seen, and exit status 3 if asked for."""
    with cause("udp_closed_port") as (_, traffic, here):
        with diagnosing("--fail-on", "loss", called=unable_in(here)) as made:
            lose(traffic)
            data = judged(made, status=3)
        assert data["probes"]["kfree_skb"] == "none"
        seen = {station["layer"]: station["status"] for station in data["stations"]}
        assert (seen["socket"], seen["backlog"]) == ("loss", "ok")
        assert {seen[layer] for layer in ("nic-fifo", "nic-ring", "driver", "stack", "qdisc", "tx")} == {"unseen"}
        assert data["unexplained"] is None
        (loss,) = data["losses"]
        assert (loss["packets"], loss["cause"], loss["counters"]) == (N, "no-socket", ["mib.UdpNoPorts"])
        assert "Drops were not traced" in data["verdict"]
        assert data["limits"][0].startswith("Drops could not be traced: ")


def test_without_root_a_quiet_namespace_is_not_called_quiet_host() -> None:
    """What was not seen is not said to be fine."""
    with one_ns() as net:
        done = unable(net, "-d", "0.2")
        assert done.returncode == 0, done.stderr
        verdict = " ".join(done.stdout.split("\n\n")[0].split())
        assert verdict.startswith(
            "No counter of lost packets rose in 1 "
        )  # "of 7 network namespaces", if it sees others
        assert verdict.endswith("drops could not be traced.")
        assert "Nothing was lost" not in done.stdout
        rows = [line.split()[:2] for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0] in LAYERS]
        assert dict(rows) == {layer: "ok" if layer == "backlog" else "?" for layer in LAYERS}


@pytest.mark.parametrize("condition", ["NOT_SPECIFIED", "unexplained"])
def test_a_condition_that_cannot_be_seen_is_refused(condition: str) -> None:
    """Without tracing it would always pass: exit status 1, what is missing and what to do."""
    with one_ns() as net:
        done = unable(net, "-d", "0.2", "--fail-on", condition)
        assert done.returncode == 1
        assert f"--fail-on {condition} needs drops to be traced" in done.stderr
        assert "sudo" in done.stderr


def test_text_fits_a_terminal() -> None:
    """80 columns where nothing says otherwise, but for commands to copy; the verdict is the first line."""
    with cause("receive_buffer_full") as (_, traffic, here), diagnosing(style="table") as made:
        lose(traffic)
        assert made.stop() == 0, made.stderr
        lines = made.stdout.splitlines()
        assert lines[0].startswith("In ")
        assert [line for line in lines if len(line) > 80 and here.name not in line] == []
        assert "!! LOSS" in made.stdout


def test_it_ends_by_itself_and_changes_nothing() -> None:
    """After its duration; all settings of a namespace are as they were."""
    with one_ns() as net:
        before = net["host"].run("sysctl", "-a")
        inside = ("ip", "netns", "exec", net["host"].name)
        done = run(*inside, *command(), "diagnose", "-d", "0.2", "--format", "json")
        assert json.loads(done)["end"] - json.loads(done)["start"] >= 0.2
        assert _stable(net["host"].run("sysctl", "-a")) == _stable(before)


def _stable(settings: str) -> list[str]:
    """Settings without those that tell what is going on."""
    moving = ("random", "fs.", "dentry", "nr_", "count", "kernel.ns_last_pid", "hung_task", "stat_refresh")
    return [
        line for line in settings.splitlines() if line.startswith("net.") and not any(word in line for word in moving)
    ]


def test_a_closed_pipe_ends_it() -> None:
    """Nobody reads any more: it ends quietly, long before its time."""
    process = launch("diagnose", "-d", "3600", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(DEADLINE) == 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_loss_says_whose_packets_they_were() -> None:
    """Who sent them, where to, and which process they were for, by the packets that were looked at."""
    with one_ns() as net, diagnosing() as run:
        full = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_DGRAM))
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind(("127.0.0.1", 4008))
        sender = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_DGRAM))
        for _ in range(N):
            sender.sendto(bytes(1000), ("127.0.0.1", 4008))
        lost = net["host"].mib("UdpRcvbufErrors")
        assert run.stop() == 0, run.stderr
        if "none is shown" in run.stdout:
            pytest.skip("this kernel lets no program read packets")
        losses = json.loads(run.stdout)["losses"]
        (loss,) = [one for one in losses if one["netns"] == net["host"].inode]
        assert loss["packets"] == lost
        who = loss["who"]
        assert (who["source"]["name"], who["destination"]["name"]) == ("127.0.0.1", "127.0.0.1:4008 UDP")
        assert who["source"]["samples"] == who["samples"] > 0
        comm = Path("/proc/self/comm").read_text().rstrip("\n")
        assert who["owner"] == {"name": f"for {comm}[{os.getpid()}]", "samples": who["samples"]}
