# SPDX-License-Identifier: MIT
"""Filters of packets, on drops that were caused: what matches is counted exactly, and so is what does not."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from fcntl import ioctl

import pytest

from pktdrop.demo.net import Net, one_ns, two_ns
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import prepared
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.extras import Extras
from pktdrop.kernel.pcap import compile_expression, libpcap
from pktdrop.kernel.tracer import Tracer
from tests.kit.frames import ether, ipv4, udp
from tests.kit.process import DEADLINE, command, on_cpu
from tests.kit.provoked import LAST_CPU
from tests.kit.reading import VMLINUX, works
from tests.kit.rungs import ended, offered
from tests.kit.trace import Trace, function_of, inside

Filtered = Callable[[str], Tracer]


@pytest.fixture(autouse=True)
def _has_library() -> None:
    if libpcap() is None:
        pytest.skip("libpcap is not installed")


@pytest.fixture(params=["plain", "cast", "probe", "raw"])
def filtered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filtered]:
    """Makes a tracer with a filter, which reads packets in one of the ways."""
    way = request.param
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    if way != "raw":
        if not works(way):
            pytest.skip(f"this kernel lets no program read packets by {way}")
        monkeypatch.setattr(prepared.Build, "reader", lambda build, facts: way)
    tracers = []

    def make(text: str) -> Tracer:
        rung = "raw" if way == "raw" else "tp_btf"
        tracer = Tracer(Namespaces(), (rung,), cache=Cache(None), extras=Extras(program=compile_expression(text)))
        tracers.append(tracer)
        return tracer

    yield make
    for tracer in tracers:
        tracer.__exit__()


def of_netns(tracer: Tracer, net: Net) -> dict[bool, int]:
    """Return how many drops in the namespaces of a topology matched, and how many did not, but for noise."""
    inodes = {one.inode for one in net.namespaces.values()}
    found = {True: 0, False: 0}
    for key, count in tracer.snapshot().drops.items():
        is_told = (
            function_of(key.call_site) == "icmpv6_rcv"
        )  # an event of messages that are done with, before Linux 5.17
        if key.netns is not None and key.netns.inode in inodes and key.protocol and not is_told:
            found[key.matches] += count.packets
    return found


def send(net: Net, role: str, count: int, to: tuple[str, int], family: int = socket.AF_INET, size: int = 5) -> None:
    """Send datagrams."""
    with net[role].socket(family, socket.SOCK_DGRAM) as sender, on_cpu(LAST_CPU):
        for _ in range(count):
            with suppress(ConnectionRefusedError, PermissionError):  # told of the one before; refused by a rule
                sender.sendto(bytes(size), to)


def test_matching_and_other_packets(filtered: Filtered) -> None:
    """Of a mixture of drops at one place, those that match are counted apart, to the packet."""
    with one_ns() as net:
        tracer = filtered("udp port 53 and host 127.0.0.9")
        for _ in range(5):
            send(net, "host", 30, ("127.0.0.9", 53))
            send(net, "host", 20, ("127.0.0.9", 54))
            send(net, "host", 10, ("127.0.0.8", 53))
        with on_cpu(LAST_CPU), net["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            assert stream.connect_ex(("127.0.0.9", 53)) != 0
        assert of_netns(tracer, net) == {True: 150, False: 151}
        samples = [one for one in tracer.samples() if one.packet.destination == "127.0.0.9"]
        assert samples
        assert all(one.packet.destination_port == 53 and one.packet.protocol == "UDP" for one in samples)


@pytest.mark.parametrize(
    ("text", "matching"),
    [("ip and udp port 53", 7), ("ip6 and udp port 53", 4), ("port 53 and len = 47", 7), ("udp[4:2] = 13", 10),
     ("not port 53", 3), ("greater 1000", 0), ("ether[12:2] = 0x86dd", 4), ("dst host 127.0.0.1 or ip6", 14)],
)  # fmt: skip
def test_families_and_lengths(filtered: Filtered, text: str, matching: int) -> None:
    """IPv4 and IPv6, lengths from the MAC header on, and bytes of the payload's header."""
    with one_ns(ipv6=True) as net:
        tracer = filtered(text)
        send(net, "host", 7, ("127.0.0.1", 53))
        send(net, "host", 4, ("::1", 53), socket.AF_INET6)
        send(net, "host", 3, ("127.0.0.1", 54))
        assert of_netns(tracer, net) == {True: matching, False: 14 - matching}


def test_packets_without_a_mac_header(filtered: Filtered) -> None:
    """What a rule refuses on its way out has no MAC header yet: it is found by all but addresses of that."""
    with two_ns() as net:
        net["client"].nft("add table ip t; add chain ip t out { type filter hook output priority 0; };"
                          "add rule ip t out udp dport {53, 54} drop")  # fmt: skip
        both, by_address = filtered("udp port 53 and dst host 10.7.0.2"), filtered("not ether host 02:03:04:05:06:07")
        send(net, "client", 6, ("10.7.0.2", 53))
        send(net, "client", 5, ("10.7.0.2", 54))
        assert of_netns(both, net) == {True: 6, False: 5}
        assert of_netns(by_address, net) == {True: 0, False: 11}


def test_packets_of_a_device_without_mac_headers(filtered: Filtered) -> None:
    """A tun device hands in packets from their IP header on."""
    with one_ns() as net:
        tracer = filtered("udp port 53 and src host 10.9.0.2")
        with net["host"].entered():
            device = os.open("/dev/net/tun", os.O_RDWR)
            net.stack.callback(os.close, device)
            ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
        net["host"].ip(*"addr add 10.9.0.1/24 dev tun0".split())
        net["host"].ip(*"link set tun0 up".split())
        for port, count in ((53, 6), (54, 5)):
            datagram = struct.pack("!HHHH", 999, port, 13, 0) + b"hello"
            header = bytes.fromhex("4500002100010000401100000a0900020a090001")
            total = sum(struct.unpack("!10H", header))
            checksum = 0xFFFF - (total + (total >> 16) & 0xFFFF)
            for _ in range(count):
                os.write(device, header[:10] + struct.pack("!H", checksum) + header[12:] + datagram)
        assert of_netns(tracer, net) == {True: 6, False: 5}


def test_a_tag_that_the_device_took_out(filtered: Filtered) -> None:
    """VLAN tags are found though the kernel keeps them apart from the frame."""
    with two_ns() as net:
        tracer, untagged = filtered("vlan 10 and udp port 53"), filtered("udp port 53")
        if not tracer._facts.samples or not tracer._facts.samples.vlan:
            pytest.skip("this kernel says by a bit whether there is a tag")
        chain = "add chain netdev t in { type filter hook ingress device eth0 priority 0; policy drop; }"
        net["server"].nft(f"add table netdev t;{chain}")
        with net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            for port, tags, count in ((53, (10,), 6), (54, (10,), 5), (53, (20,), 4), (53, (), 3)):
                for _ in range(count):
                    sender.send(ether(0x0800, ipv4(17, udp(999, port)), tags))
        assert of_netns(tracer, net) == {True: 6, False: 12}
        assert of_netns(untagged, net) == {True: 3, False: 15}


@pytest.mark.parametrize("options", [("--filter", "udp port 53"), ("--port", "53"), ("--host", "127.0.0.9")])
def test_every_rung_counts_alike(options: tuple[str, ...]) -> None:
    """pktdrop trace shows what matches, and says how much does not, on each rung that this kernel offers."""
    with one_ns() as net:
        traces = {}
        for rungs in {rung.kfree_skb: rung for rung in offered()}.values():
            probes = ("--probe", rungs.kfree_skb, "--probe", rungs.enqueue_to_backlog)
            traces[rungs] = Trace("60", *probes, "--netns", str(net["host"].inode), *options)
        try:
            for trace in traces.values():
                assert trace.became_ready(), trace.stderr
            send(net, "host", 30, ("127.0.0.9", 53))
            send(net, "host", 20, ("127.0.0.8", 54))
            for rungs, summary in ended(traces).items():
                (drop,) = inside(summary["drops"], net.namespaces.values())
                assert drop["count"] == 30, rungs
                assert summary["filtered"] >= 20, rungs
        finally:
            for trace in traces.values():
                trace.kill()


def test_what_is_refused_is_said() -> None:
    """What libpcap cannot read ends with 2 and one sentence, before anything is attached."""
    for options in (("--filter", "udp prot 53"), ("--port", "70000"), ("--host", "1.2.3.4 or tcp"),
                    ("--filter", " or ".join(f"port {port}" for port in range(10_000)))):  # fmt: skip
        ended_at_once = subprocess.run(
            [*command(), "trace", *options, "1", "1"], cwd="/", capture_output=True, text=True, timeout=DEADLINE
        )
        assert ended_at_once.returncode == 2
        assert "Traceback" not in ended_at_once.stderr
        assert f"Error: Invalid value for {options[0]}: " in ended_at_once.stderr
