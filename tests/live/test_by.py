# SPDX-License-Identifier: MIT
"""Drops counted by port, address, flow and process, in the kernel: exactly, whatever finds no room."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from pktdrop.demo.net import Net, one_ns
from tests.kit.process import on_cpu, wait_until
from tests.kit.trace import Trace, total, tracing

PORTS = {4001: 23, 4002: 9, 4003: 1}
"""Closed ones, and how many datagrams go to each."""
LARGE = b"x" * 1000


@contextmanager
def traced_by(by: str, net: Net, *arguments: str) -> Iterator[Trace]:
    """A trace of one namespace by something; the block is to send."""
    with tracing("0.3", "--by", by, "--netns", net["host"].name, "--packets", "1", *arguments) as trace:
        yield trace


def send(address: str, port: int, count: int, source_port: int = 0) -> int:
    """Send datagrams to a port of this namespace, and return the port they come from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as sender:
        sender.bind((address, source_port))
        for _ in range(count):
            sender.sendto(b"hello", (address, port))
        return int(sender.getsockname()[1])


def sums(lines: list[dict[str, Any]], *keys: str) -> Counter[Any]:
    """Packets of all flows, by some of their keys."""
    found: Counter[Any] = Counter()
    for line in lines:
        for flow in line["flows"]:
            found[tuple(flow[key] for key in keys) if len(keys) > 1 else flow[keys[0]]] += flow["count"]
    return found


def test_by_port(kernel_reasons: frozenset[str]) -> None:
    """Each closed port has its packets, over IPv4 and IPv6 together, in the intervals as in the summary."""
    more = 7 if kernel_reasons else 0  # Linux 5.10 raises an event for each ICMPv6 message that is done with, too
    with one_ns(ipv6=True) as net, traced_by("port", net) as trace:
        with net["host"].entered():
            for port, count in PORTS.items():
                send("127.0.0.1", port, count)
            send("::1", 4001, more)
        wait_until(
            lambda: total([drop for line in trace.intervals for drop in line["drops"]]) == 33 + more, "all drops"
        )
        assert trace.stop() == 0
        wanted = {("UDP", port): count for port, count in PORTS.items()} | {("UDP", 4001): 23 + more}
        assert sums([trace.summary], "ip_protocol", "destination_port") == wanted
        assert sums(trace.intervals, "ip_protocol", "destination_port") == wanted
        assert {flow["source"] for flow in trace.summary["flows"]} == {None}
        assert total(trace.summary["drops"]) == 33 + more


@pytest.mark.parametrize("by", ["source", "destination"])
def test_by_address(by: str, kernel_reasons: frozenset[str]) -> None:
    """Each address has its packets."""
    more = {"::1": 3} if kernel_reasons else {}
    with one_ns(ipv6=True) as net, traced_by(by, net) as trace:
        with net["host"].entered():
            send("127.0.0.1", 4001, 5)
            send("127.0.0.2", 4001, 11)
            for address, count in more.items():
                send(address, 4002, count)
        assert trace.stop() == 0
        assert sums([trace.summary], by) == {"127.0.0.1": 5, "127.0.0.2": 11, **more}
        assert sums([trace.summary], "destination_port") == {None: 16 + sum(more.values())}


def test_by_flow() -> None:
    """Each flow has both ends, and its packets; TCP and UDP are told apart."""
    with one_ns() as net, traced_by("flow", net) as trace:
        with net["host"].entered():
            first, second = send("127.0.0.1", 4001, 6), send("127.0.0.1", 4001, 4)
            with closing(socket.socket()) as client, pytest.raises(ConnectionRefusedError):
                client.connect(("127.0.0.1", 4001))
        assert trace.stop() == 0
        found = sums([trace.summary], "ip_protocol", "source", "source_port", "destination", "destination_port")
        assert found.pop(("UDP", "127.0.0.1", first, "127.0.0.1", 4001)) == 6
        assert found.pop(("UDP", "127.0.0.1", second, "127.0.0.1", 4001)) == 4
        assert [(key[0], key[4], count) for key, count in found.items()] == [("TCP", 4001, 1)]


def test_by_process() -> None:
    """What a full receive buffer loses is its process's; what nobody listens to is nobody's."""
    with one_ns() as net, traced_by("process", net) as trace:
        with net["host"].entered(), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as full:
            full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            full.bind(("127.0.0.1", 0))
            send("127.0.0.1", 4001, 8)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
                for _ in range(50):
                    sender.sendto(LARGE, full.getsockname())
            lost = int(trace_of_socket(full))
            wait_until(lambda: any(flow["pid"] for line in trace.intervals for flow in line["flows"]), "its process")
        assert trace.stop() == 0
        assert lost > 0
        assert sums([trace.summary], "pid") == {os.getpid(): lost, None: 8}


def trace_of_socket(one: socket.socket) -> str:
    """How many datagrams a socket has dropped, as /proc/net/udp says."""
    inode = str(os.fstat(one.fileno()).st_ino)
    with open("/proc/thread-self/net/udp", encoding="ascii") as table:
        (drops,) = (fields[-1] for fields in map(str.split, table) if inode in fields)
    return drops


def test_what_finds_no_room_is_counted_as_other() -> None:
    """With room for 32 flows, 200 ports are 32 and an exact rest; nothing is missing."""
    with one_ns() as net, traced_by("port", net, "--map-entries", "32") as trace:
        with net["host"].entered(), on_cpu(0):
            for port in range(5000, 5200):
                send("127.0.0.1", port, 2)
        wait_until(lambda: total([drop for line in trace.intervals for drop in line["drops"]]) == 400, "all drops")
        assert trace.stop() == 0
        assert sum(sums([trace.summary], "destination_port").values()) == total(trace.summary["drops"]) == 400
        others = sums([trace.summary], "other")
        assert others[True] > 0
        kept = sums([trace.summary], "destination_port")
        assert all(count == 2 for port, count in kept.items() if port is not None)


def test_without_by_no_flow_is_counted() -> None:
    """The negative: a plain trace has no flows."""
    with one_ns() as net, tracing("0.3", "--netns", net["host"].name) as trace:
        with net["host"].entered():
            send("127.0.0.1", 4001, 3)
        assert trace.stop() == 0
        assert "flows" not in trace.summary
        assert total(trace.summary["drops"]) == 3
