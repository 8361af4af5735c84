# SPDX-License-Identifier: MIT
"""Packets that are sampled: which, how many, and what is told of them; by each way of reading that this kernel lets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktdrop.account import Account
from pktdrop.demo.causes.parts import CLOSED
from pktdrop.demo.net import Net, one_ns, two_ns
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import prepared, readers, ring
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.extras import Extras
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.drops import DropKey
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Owner, Sample
from pktdrop.observe.observer import Observer
from pktdrop.watch import Watch
from tests.kit.kernel import Kernel
from tests.kit.process import on_cpu, wait_until
from tests.kit.provoked import LAST_CPU, send_udp
from tests.kit.reading import VMLINUX, works
from tests.kit.trace import inside, tracing


@pytest.fixture(params=["plain", "cast", "probe", "raw"])
def tracer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    """A tracer that reads packets in one of the ways, compiled for it."""
    way = request.param
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    if way == "raw":
        with Tracer(Namespaces(), ("raw",), cache=Cache(None)) as tracing_raw:
            yield tracing_raw
        return
    if not works(way):
        pytest.skip(f"this kernel lets no program read packets by {way}")
    monkeypatch.setattr(prepared.Build, "reader", lambda build, facts: way)
    with Tracer(Namespaces(), ("tp_btf",), cache=Cache(None)) as tracing_typed:
        yield tracing_typed


def of_netns(account: Account, net: Net) -> list[tuple[DropKey, int, list[Sample]]]:
    """Kinds, their counts and samples, of the drops in the namespaces of a topology."""
    inodes = {one.inode for one in net.namespaces.values()}
    return [
        (key, count.packets, [*account.samples.get(key, ())])
        for key, count in account.interval.drops.items()
        if key.netns is not None and key.netns.inode in inodes and account.judge(key).noise is None
    ]


def test_the_first_packets_of_a_look(tracer: Tracer) -> None:
    """Of 23 datagrams to a closed port the first 4 are sampled, all are counted; the next look has 4 of its own."""
    with one_ns() as net:
        watch = Watch(Observer(Namespaces(), tracer))
        for payload in (b"first look", b"another look"):
            port = send_udp(net, "host", 23, ("127.0.0.1", CLOSED), payload)
            ((key, count, samples),) = of_netns(watch.step(), net)
            assert (count, len(samples)) == (23, 4)
            assert key.cpu == LAST_CPU
            for sample in samples:
                packet = sample.packet
                assert (packet.source, packet.source_port) == ("127.0.0.1", port)
                assert (packet.destination, packet.destination_port) == ("127.0.0.1", CLOSED)
                assert (packet.protocol, packet.payload, packet.ttl) == ("UDP", len(payload), 64)
                assert sample.content[14 + 20 + 8 :] == payload
                assert sample.length == len(sample.content) == 14 + 20 + 8 + len(payload)
                assert sample.is_frame
                assert sample.received
        assert of_netns(watch.step(), net) == []
        assert sum(watch.whole().sampled[key] for key, _, _ in of_netns(watch.whole(), net)) == 8


def test_a_long_packet_is_cut(tracer: Tracer) -> None:
    """Of a packet that is longer than a sample there are 128 bytes, and it is said how long it was."""
    with one_ns() as net:
        watch = Watch(Observer(Namespaces(), tracer))
        payload = bytes(range(256)) * 4
        send_udp(net, "host", 1, ("127.0.0.1", CLOSED), payload)
        ((_, _, (sample,)),) = of_netns(watch.step(), net)
        assert (len(sample.content), sample.length) == (128, 14 + 20 + 8 + len(payload))
        assert sample.content[42:] == payload[: 128 - 42]
        assert sample.packet.payload == len(payload)


def test_the_socket_it_was_for(tracer: Tracer, kernel: Kernel) -> None:
    """A datagram that a full socket has no room for comes with that socket, as its owner knows it."""
    if not kernel.has_socket:
        pytest.skip("this kernel does not say for which socket a packet was")
    with one_ns() as net:
        full = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_DGRAM))
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind(("127.0.0.1", 4008))
        watch = Watch(Observer(Namespaces(), tracer))
        send_udp(net, "host", 12, ("127.0.0.1", 4008), bytes(1000))
        ((_, count, samples),) = of_netns(watch.step(), net)
        assert count >= len(samples) > 0
        for sample in samples:
            assert sample.socket is not None
            assert (sample.socket.family, sample.socket.protocol) == (socket.AF_INET, socket.IPPROTO_UDP)
            assert (sample.socket.local_port, sample.socket.remote_port) == (4008, None)
            assert sample.socket.inode == os.fstat(full.fileno()).st_ino
            assert sample.packet.destination_port == 4008


def test_every_layer_has_its_headers(tracer: Tracer) -> None:
    """Wherever a packet has got to when it is dropped, it is told from its first header on."""
    with two_ns() as net:
        net["server"].nft("add table ip t; add chain ip t in { type filter hook input priority 0; };"
                          "add rule ip t in udp dport 53 drop")  # fmt: skip
        net["client"].nft("add table ip t; add chain ip t out { type filter hook output priority 0; };"
                          "add rule ip t out udp dport 54 drop")  # fmt: skip
        watch = Watch(Observer(Namespaces(), tracer))
        address = "10.7.0.2"
        with on_cpu(LAST_CPU):
            stream = net.keep(net["client"].socket(socket.AF_INET, socket.SOCK_STREAM))
            with pytest.raises(ConnectionRefusedError):
                stream.connect((address, CLOSED))
            send_udp(net, "client", 2, (address, 53))
            out = net.keep(net["client"].socket(socket.AF_INET, socket.SOCK_DGRAM))
            with pytest.raises(PermissionError):
                out.sendto(b"x", (address, 54))
        found = {
            (sample.packet.protocol, sample.packet.destination_port): sample
            for _, _, samples in of_netns(watch.step(), net)
            for sample in samples
        }
        syn, rule, sent = found["TCP", CLOSED], found["UDP", 53], found["UDP", 54]
        assert (syn.packet.flags, syn.packet.source, syn.received) == (("SYN",), "10.7.0.1", True)
        assert "mss 1460" in syn.packet.options
        assert (rule.packet.source, rule.packet.link_source is not None, rule.received) == ("10.7.0.1", True, True)
        assert (sent.packet.source, sent.is_frame, sent.received) == ("10.7.0.1", False, False)
        assert sent.socket is not None
        assert sent.socket.inode == os.fstat(out.fileno()).st_ino


def test_no_kind_hides_another(tracer: Tracer) -> None:
    """A storm of one kind takes its own budget only: one packet of another kind in the midst is sampled."""
    with one_ns() as net:
        watch = Watch(Observer(Namespaces(), tracer))
        send_udp(net, "host", 3000, ("127.0.0.1", CLOSED))
        stream = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_STREAM))
        with on_cpu(LAST_CPU), pytest.raises(ConnectionRefusedError):
            stream.connect(("127.0.0.1", CLOSED))
        send_udp(net, "host", 3000, ("127.0.0.1", CLOSED))
        found = {samples[0].packet.protocol: (count, len(samples)) for _, count, samples in of_netns(watch.step(), net)}
        assert found == {"UDP": (6000, 4), "TCP": (1, 1)}


def test_a_full_budget_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU may take no more, the others are counted all the same, and a limit says that they were not seen."""
    monkeypatch.setattr(ring, "MOST", 1)
    monkeypatch.setattr(ring, "LEAST", 6)
    with one_ns() as net, Tracer(Namespaces(), cache=Cache(None), extras=Extras(packets=50)) as tracer:
        if VMLINUX.exists() and not any(map(works, readers.ORDER)):
            pytest.skip("this kernel lets no program read packets")
        watch = Watch(Observer(Namespaces(), tracer))
        for _ in range(2):
            send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
            account = watch.step()
            ((_, count, _),) = of_netns(account, net)
            assert count == 23
            # of all that this CPU drops, as others may have it drop something, too
            assert 0 < sum(len(samples) for key, samples in account.samples.items() if key.cpu == LAST_CPU) <= 6
        assert Limit("few-samples") in tracer.limits


def test_a_reader_that_does_not_look_costs_nothing() -> None:
    """Without looks there are no samples beyond the first, whatever is dropped; and with --packets 0 there are none."""
    with one_ns() as net, tracing("60", "--packets", "2") as two, tracing("60", "--packets", "0") as none:
        send_udp(net, "host", 500, ("127.0.0.1", CLOSED))
        summaries = []
        for trace in (two, none):
            assert trace.stop() == 0
            summaries.append(inside(trace.summary["drops"], net.namespaces.values()))
    for summary, sampled in zip(summaries, (2, 0), strict=True):
        (drop,) = summary
        assert (drop["count"], drop["sampled"], len(drop["samples"])) == (500, sampled, sampled)


def of(net: Net) -> tuple[str, ...]:
    """What has pktdrop show the drops of a namespace alone: others may have some, too."""
    return ("0.2", "--netns", net["host"].name)


def test_in_the_table() -> None:
    """Below its row stands who sent it, and in the summary who stood out; with -q neither row has a line."""
    with one_ns() as net, tracing(*of(net), style="table") as loud, tracing(*of(net), "-q", style="table") as quiet:
        port = send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
        wait_until(lambda: "NO_SOCKET" in loud.stdout and "NO_SOCKET" in quiet.stdout, "the row")
        assert loud.stop() == quiet.stop() == 0
        line = f"\n    127.0.0.1:{port} > 127.0.0.1:{CLOSED} UDP 5 B"
        assert line in loud.stdout
        assert line not in quiet.stdout
        for trace in (loud, quiet):
            assert "\nsampled  reason" in trace.stdout
            assert re.search(rf"\n +\d+  NO_SOCKET  127\.0\.0\.1 +127\.0\.0\.1:{CLOSED} UDP ", trace.stdout)


def test_whose_packets() -> None:
    """The process that a packet was for, by its socket, or by the port that is open there; or the one it came from."""
    with two_ns() as net:
        net["server"].nft("add table ip t; add chain ip t in { type filter hook input priority 0; };"
                          "add rule ip t in udp dport {53, 55} drop")  # fmt: skip
        net["client"].nft("add table ip t; add chain ip t out { type filter hook output priority 0; };"
                          "add rule ip t out udp dport 54 drop")  # fmt: skip
        address = "10.7.0.2"
        full, bound = (net.keep(net["server"].socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "ab")
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind((address, 4008))
        bound.bind(("0.0.0.0", 53))
        namespaces = Namespaces()
        with Tracer(namespaces) as tracer:
            if VMLINUX.exists() and not any(map(works, readers.ORDER)):
                pytest.skip("this kernel lets no program read packets")
            watch = Watch(Observer(namespaces, tracer))
            send_udp(net, "client", 12, (address, 4008), bytes(1000))
            for port in (53, 55, CLOSED):
                send_udp(net, "client", 1, (address, port))
            with pytest.raises(PermissionError):
                send_udp(net, "client", 1, (address, 54))
            account = watch.step()
        owners = {
            sample.packet.destination_port: sample.owner
            for _, _, samples in of_netns(account, net)
            for sample in samples
        }
        me = os.getpid(), Path("/proc/self/comm").read_text().rstrip("\n")
        assert owners == {
            4008: Owner(*me, is_receiver=True),
            53: Owner(*me, is_receiver=True),
            54: Owner(*me, is_receiver=False),
            55: None,
            CLOSED: None,
        }
