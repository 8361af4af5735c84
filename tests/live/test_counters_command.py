# SPDX-License-Identifier: MIT
"""`pktdrop counters` as a user runs it, beside the tools whose place it takes."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pktdrop.demo.frames import UNKNOWN_ETHERTYPE, ethernet
from pktdrop.demo.net import Net, mac, two_ns
from tests.kit.process import DEADLINE, as_nobody, command, launch, need, run

LOST = 7


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """Two namespaces; the server has dropped LOST frames that nobody handles."""
    with two_ns() as made:
        lose(made, LOST)
        yield made


def lose(net: Net, count: int) -> None:
    """Send frames to the server that it counts in rx_dropped."""
    with net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        for _ in range(count):
            sender.send(ethernet(mac(0, 2), mac(0, 1), UNKNOWN_ETHERTYPE, b"?"))


def counters(net: Net, *arguments: str) -> str:
    """Return what `pktdrop counters` shows in the server's namespace."""
    return run("ip", "netns", "exec", net["server"].name, *command(), "counters", *arguments)


def values(line: str, counter: str) -> dict[str, int]:
    """Return the values of a counter in a line of JSON, by interface."""
    data: dict[str, Any] = json.loads(line)
    return {one["scope"]["interface"]: one["value"] for one in data["counters"] if one["counter"] == counter}


def test_since_boot_equals_ip(net: Net) -> None:
    """Without an interval a counter stands as `ip -s` shows it, and what is at 0 is left out."""
    assert net["server"].link("eth0", "rx.dropped") == LOST
    assert values(counters(net, "--format", "json"), "links.rx_dropped") == {"eth0": LOST}
    row = next(line for line in counters(net).splitlines() if line.endswith("links.rx_dropped"))
    assert row.split()[0] == str(LOST)


def test_all_shows_what_is_at_0_and_what_is_no_loss(net: Net) -> None:
    """With --all every counter of every interface is there."""
    line = counters(net, "--all", "--format", "json")
    assert values(line, "links.rx_dropped") == {"lo": 0, "eth0": LOST}
    assert values(line, "links.rx_packets")["eth0"] == net["server"].link("eth0", "rx.packets")


def test_like_netstat(net: Net) -> None:
    """--like netstat gives the numbers of `netstat -i -a` under its titles."""
    need("netstat")
    titles, *rows = [line.split() for line in counters(net, "--like", "netstat").splitlines()]
    header, *lines = [line.split() for line in net["server"].run("netstat", "-i", "-a").splitlines()[1:]]
    shown = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert {row[0]: dict(zip(titles, row, strict=True)) for row in rows} == {
        name: {title: cells[title] for title in titles} for name, cells in shown.items()
    }


def test_like_softnet_names_every_cpu(net: Net) -> None:
    """--like softnet has a row for each line of /proc/net/softnet_stat."""
    with open("/proc/net/softnet_stat", encoding="ascii") as source:
        cpus = [line.split()[12] for line in source]
    assert [line.split()[0] for line in counters(net, "--like", "softnet").splitlines()[1:]] == cpus


def test_an_interval_shows_what_rose_in_it(net: Net) -> None:
    """With an interval, what rises while it runs is shown once, and Ctrl-C is a normal end."""
    arguments = ["ip", "netns", "exec", net["server"].name, *command(), "counters", "0.2", "--format", "json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd="/") as running:
        assert running.stdout is not None
        first = running.stdout.readline()  # it has its first reading
        lose(net, 5)
        rose = 0
        for line in running.stdout:
            rose += values(line, "links.rx_dropped").get("eth0", 0)
            if rose >= 5:
                break
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(DEADLINE) == 0
    assert values(first, "links.rx_dropped") == {}
    assert (rose, "eth0" in rest) == (5, False)


def test_all_netns_looks_into_the_others(net: Net) -> None:
    """With --all-netns the counters of a namespace without any process are there, by its inode."""
    shown = subprocess.run([*command(), "counters", "--all-netns", "--format", "json"], capture_output=True, cwd="/")
    data = json.loads(shown.stdout)
    ours = [one for one in data["counters"] if one["scope"].get("netns") == net["server"].inode]
    assert next(one["value"] for one in ours if one["counter"] == "links.rx_dropped") >= LOST


def test_it_needs_no_root() -> None:
    """Without any capability the counters are shown, with exit status 0."""
    shown = subprocess.run(as_nobody("counters", "--all"), capture_output=True, text=True, cwd="/")
    assert shown.returncode == 0, shown.stderr
    assert "links.rx_packets" in shown.stdout


def test_a_closed_pipe_ends_it() -> None:
    """Nobody reads any more: it ends quietly, without a write."""
    process = launch("counters", "60", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(DEADLINE) == 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
