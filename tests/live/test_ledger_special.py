# SPDX-License-Identifier: MIT
"""The ledger of losses that have no event, or not one for each packet, or not at once."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo import frames
from pktdrop.demo.causes.parts import CLOSED, OPEN, filled, to_server
from pktdrop.demo.net import Net, ipv4, ipv6, one_ns, two_ns
from tests.kit.kernel import Kernel
from tests.kit.process import DEADLINE, wait_until
from tests.kit.provoke import bpf
from tests.kit.provoke.fragments import MORE, fragment
from tests.kit.provoke.packets import ACK, Segment, header4, icmp, payload
from tests.kit.provoke.peer import Connection, Peer
from tests.kit.provoke.witnesses import socket_drops
from tests.kit.trace import function_of, inside, total, tracing

N = 23
Entries = dict[str, dict[str, Any]]


class Watched:
    """What trace said of the namespaces of a topology."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.drops: list[dict[str, Any]] = []
        self.entries: Entries = {}
        """By counter; "silent in" a layer are those that no counter shows."""
        self.summary: dict[str, Any] = {}
        self.beyond: Counter[str] = Counter()
        """What the layers have beyond the drops of the whole host."""
        self.of_others: Counter[str] = Counter()
        """What counters of other namespaces have beyond theirs."""

    def take(self, summary: dict[str, Any], net: Net) -> None:
        """Take the last line of trace."""
        inodes = {namespace.inode for namespace in net.namespaces.values()}
        self.summary = summary
        self.drops = inside(summary["drops"], net.namespaces.values())
        self.beyond.update(summary["layers"])
        for drop in summary["drops"]:
            if not drop["noise"]:
                self.beyond[drop["layer"]] -= drop["count"]
        for entry in summary["ledger"]:
            if entry["scope"].get("netns") in inodes:
                name = f"silent in {entry['layer']}" if entry["status"] == "silent" else entry["counter"]
                assert name not in self.entries
                self.entries[name] = entry
            else:
                self.of_others[entry["layer"]] += max(0, entry["unexplained"])

    @property
    def reasons(self) -> Counter[str]:
        """How many packets were dropped for which reason."""
        return _by_reason(self.drops)

    @property
    def anywhere(self) -> Counter[str]:
        """The same, with those of which it is not known where: packets that wait in a tree have no interface."""
        return _by_reason([*self.drops, *(drop for drop in self.summary["drops"] if drop["netns"] is None)])

    def figures(self, counter: str) -> tuple[int, int, int, str]:
        """Return delta, explained, unexplained and status of a counter."""
        entry = self.entries[counter]
        return entry["delta"], entry["explained"], entry["unexplained"], entry["status"]


def _by_reason(drops: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for drop in drops:
        found[drop["reason"]] += drop["count"]
    return found


@contextmanager
def watching(net: Net) -> Iterator[Watched]:
    """Trace around a block; what was seen is there behind it."""
    watched = Watched()
    with tracing("--all-netns") as trace:
        yield watched
        assert trace.stop() == 0, trace.stderr
        watched.take(trace.summary, net)
    assert [one for one in watched.entries.values() if one["status"] == "unexplained"] == []


# --- losses without an event


def test_syn_at_a_full_accept_queue_is_one_loss_without_an_event() -> None:
    """N SYNs are in ListenOverflows, ListenDrops and the socket's drops, and are N losses of the layer socket."""
    with one_ns() as net:
        peer = Peer(net, False)
        peer.listen(backlog=0)
        answer = peer.ask(Segment(4001, OPEN, 1))
        peer.tcp(Segment(4001, OPEN, 2, answer.seq + 1, ACK))
        with watching(net) as watched:
            for port in range(5000, 5000 + N):
                peer.tcp(Segment(port, OPEN, 1))
            assert tuple(net["host"].mib(f"TcpExtListen{name}") for name in ("Overflows", "Drops")) == (N, N)
            assert socket_drops(net, "host")() == N
        assert watched.drops == []
        for counter in ("mib.TcpExtListenOverflows", "mib.TcpExtListenDrops", "socket.drops"):
            assert watched.figures(counter) == (N, 0, N, "no-event")
        assert N <= watched.beyond["socket"] <= N + watched.of_others["socket"]


def test_syn_at_a_full_request_queue_is_one_loss_without_an_event() -> None:
    """N SYNs are in TCPReqQFullDrop and ListenDrops, and are N losses of the layer socket."""
    with one_ns() as net:
        peer = Peer(net, False)
        net["host"].sysctl(ipv4__tcp_syncookies=0, ipv4__tcp_synack_retries=100)
        peer.listen(backlog=2)

        def full() -> list[int]:
            return [net["host"].mib(f"TcpExt{name}") for name in ("TCPReqQFullDrop", "ListenDrops")]

        with suppress(ConnectionError):  # v5.10 takes two, v6.1 three
            for port in (4001, 4002, 4003):
                peer.ask(Segment(port, OPEN, 1))
        before = full()
        with watching(net) as watched:
            for port in range(5000, 5000 + N):
                peer.tcp(Segment(port, OPEN, 1))
            assert [now - then for now, then in zip(full(), before, strict=True)] == [N, N]
        assert watched.drops == []
        for counter in ("mib.TcpExtTCPReqQFullDrop", "mib.TcpExtListenDrops"):
            assert watched.figures(counter) == (N, 0, N, "no-event")
        assert N <= watched.beyond["socket"] <= N + watched.of_others["socket"]


def test_full_raw_socket_beside_the_kernel_is_a_hint(kernel: Kernel) -> None:
    """A raw socket that misses pings which the kernel answers has drops; no packet was lost, and none has an event."""
    with two_ns() as net:
        line, sink = to_server(net, False)
        lazy = net.keep(net["server"].socket(socket.AF_INET, socket.SOCK_RAW, frames.ICMP))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        net["server"].sysctl(ipv4__icmp_echo_ignore_all=1)
        ping, dropped = line.ip(frames.ICMP, icmp(8, 0, b"\0\0\0\1")), socket_drops(net, "server")
        wait_until(filled(ping, dropped), "the buffer to be full")
        before = dropped()
        with watching(net) as watched:
            for _ in range(N):
                ping()
            wait_until(lambda: dropped() - before == N, f"{N} pings to be missed")
        named = {reason: count for reason, count in watched.reasons.items() if reason != "NOT_SPECIFIED"}
        # kernels that do not look first whether there is room (v6.1) drop the socket's copy
        asked_late = "SOCKET_RCVBUFF" in kernel.reasons and "VXLAN_INVALID_HDR" not in kernel.reasons
        assert named == ({"SOCKET_RCVBUFF": N} if asked_late else {})
        assert watched.entries["socket.drops"]["delta"] == N
        assert 0 <= watched.beyond["socket"] <= watched.of_others["socket"]
        del sink


# --- events whose place or counter is not known


def test_checksum_found_when_a_program_reads(kernel: Kernel) -> None:
    """The packet is not on an interface any more: its drop has no namespace, and the counters are still explained."""
    with two_ns() as net:
        line, sink = to_server(net, False)
        wrong = line.udp(OPEN, size=500, wrong=1)
        with watching(net) as watched:
            for _ in range(N):
                wrong()
                sink.received()
            assert tuple(net["server"].mib(f"UdpIn{name}") for name in ("CsumErrors", "Errors")) == (N, N)
        assert watched.drops == []
        nowhere = [drop for drop in watched.summary["drops"] if drop["netns"] is None]
        read = [drop for drop in nowhere if function_of(drop["location"]) == "udp_recvmsg"]
        assert total(read) == N
        assert {drop["reason"] for drop in read} <= {"UDP_CSUM", "NOT_SPECIFIED"}  # the reason is newer than its name
        for counter in ("mib.UdpInCsumErrors", "mib.UdpInErrors"):
            assert watched.figures(counter) == (N, N, 0, "bound")


def test_full_ping_socket_is_silent(kernel: Kernel) -> None:
    """Ping sockets' drops are in no counter that is read: N drops, and the ledger says that nothing shows them."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        net["server"].sysctl(ipv4__ping_group_range="0 0")
        lazy = net.keep(net["server"].socket(socket.AF_INET, socket.SOCK_DGRAM, frames.ICMP))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        lazy.bind(("", 7))  # the identifier of its pings
        answer = line.ip(frames.ICMP, icmp(0, 0, struct.pack("!HH", 7, 1)))
        dropped = socket_drops(net, "server")
        wait_until(filled(answer, dropped), "the buffer to be full")
        before = dropped()
        with watching(net) as watched:
            for _ in range(N):
                answer()
            wait_until(lambda: dropped() - before == N, f"{N} answers to be dropped")
        # kernels that give the socket a copy free the packet itself as well: noise by its reason (v6.1), if it has one
        by_layer = Counter({"socket": N}) if kernel.reasons else Counter({"socket": N, "stack": N})
        reason = kernel.name("SOCKET_RCVBUFF")
        assert _by_reason([drop for drop in watched.drops if not drop["noise"]]) == {reason: by_layer.total()}
        silent = {layer: watched.entries[f"silent in {layer}"]["by"] for layer in by_layer}
        assert silent == {layer: [{"reason": reason, "count": N}] for layer in by_layer}


# --- several packets at once


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_fragments_that_time_out(v6: bool, kernel: Kernel) -> None:
    """Each packet that was never completed counts once, each of its fragments is a drop: a bound."""
    parts, ip = 3, "Ip6" if v6 else "Ip"
    with two_ns(v6) as net:
        line, _ = to_server(net, v6)
        net["server"].sysctl(**{"ipv6__ip6frag_time" if v6 else "ipv4__ipfrag_time": 1})
        with watching(net) as watched:
            for ident in range(1, N + 1):
                for part in range(1, parts + 1):  # the first one is not among them: nobody is told
                    payload(line, fragment(line, ident, 64 * part, b"x" * 64))()
            wait_until(lambda: net["server"].mib(f"{ip}ReasmTimeout") == N, f"{N} packets to be given up")
            assert net["server"].mib(f"{ip}ReasmFails") == N
        assert watched.anywhere[kernel.name("FRAG_REASM_TIMEOUT")] == parts * N
        for counter in (f"mib.{ip}ReasmTimeout", f"mib.{ip}ReasmFails"):
            assert watched.figures(counter) == (N, N, 0, "bound")


def test_fragments_that_overlap(kernel: Kernel) -> None:
    """An overlap throws away the packet as a whole; only the fragment that did not fit has an event."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        idents = count(1)
        with watching(net) as watched:
            for ident in (next(idents) for _ in range(N)):
                for offset, size in ((0, 64), (4, 64)):
                    packet = header4(
                        line.source, line.destination, frames.UDP, b"x" * size, ident=ident, fragment=MORE | offset
                    )
                    payload(line, packet)()
            wait_until(lambda: net["server"].mib("IpReasmFails") == N, f"{N} overlaps")
            assert net["server"].mib("IpExtReasmOverlaps") == N
        # the one that did not fit; the other is freed as consumed, before that (v6.1) as dropped
        assert watched.anywhere["NOT_SPECIFIED"] == (N if "FRAG_REASM_TIMEOUT" in kernel.reasons else 2 * N)
        assert watched.figures("mib.IpReasmFails")[:3] == (N, N, 0)
        assert watched.figures("mib.IpExtReasmOverlaps")[:3] == (N, N, 0)


def test_fragments_too_far_apart(kernel: Kernel) -> None:
    """Fragments of one packet with many others in between: what there was is dropped, and counted once."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        net["server"].sysctl(ipv4__ipfrag_max_dist=1, ipv4__ipfrag_time=60)

        def part(ident: int, offset: int) -> None:
            packet = header4(
                line.source, line.destination, frames.UDP, b"x" * 64, ident=ident, fragment=MORE | 8 * offset
            )
            payload(line, packet)()

        with watching(net) as watched:
            for turn in range(N):
                part(1000 + turn, 1)
                for other in range(3):
                    part(2000 + 3 * turn + other, 1)
                part(1000 + turn, 2)
            wait_until(lambda: net["server"].mib("IpReasmFails") == N, f"{N} packets to begin anew")
        assert watched.anywhere[kernel.name("FRAG_TOO_FAR")] == N
        assert watched.figures("mib.IpReasmFails")[:3] == (N, N, 0)


# --- memory of TCP


def fill(connection: Connection, counter: Callable[[], int], ahead: int) -> None:
    """Send bytes one by one, in order or ahead of a hole, until the receive buffer has no room for one."""
    for step in range(20_000):
        if ahead:
            connection.peer.tcp(connection.segment(ahead=ahead + 2 * step, payload=b"x"))
        else:
            connection.send(b"x")
        if step % 50 == 49 and counter():
            return
    raise AssertionError("the buffer is not full")


def of_connection(lost: int, kernel: Kernel) -> tuple[int, int, int]:
    """Delta, explained and unexplained of a counter of what TCP drops: without reasons it raises no event."""
    return (lost, lost, 0) if kernel.reasons else (lost, 0, lost)


def test_receive_queue_of_tcp_full(kernel: Kernel) -> None:
    """Data in order for which a receive buffer has no room is in TCPRcvQDrop, one to one."""
    with one_ns() as net:
        peer, host = Peer(net, False), net["host"]
        connection = Connection(peer)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the window was told already
        with watching(net) as watched:
            fill(connection, lambda: host.mib("TcpExtTCPRcvQDrop"), 0)
            lost, after_it = host.mib("TcpExtTCPRcvQDrop"), host.mib("TcpExtTCPOFODrop")
        assert lost
        assert watched.anywhere["PROTO_MEM"] == (lost + after_it if kernel.reasons else 0)
        assert of_connection(lost, kernel) == watched.figures("mib.TcpExtTCPRcvQDrop")[:3]


def test_out_of_order_queue_of_tcp_full(kernel: Kernel) -> None:
    """Data ahead for which a receive buffer has no room is in TCPOFODrop; what has to go for other data, a bound."""
    with one_ns() as net:
        peer, host = Peer(net, False), net["host"]
        connection = Connection(peer)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with watching(net) as watched:
            fill(connection, lambda: host.mib("TcpExtTCPOFODrop") + host.mib("TcpExtOfoPruned"), 10)
            peer.tcp(connection.segment(ahead=5, payload=b"x"))  # older than all that wait
            lost, pruned = host.mib("TcpExtTCPOFODrop"), host.mib("TcpExtOfoPruned")
        assert bool(lost) == kernel.drops_latest
        assert watched.anywhere["PROTO_MEM"] == (lost if kernel.reasons else 0)
        assert not lost or of_connection(lost, kernel) == watched.figures("mib.TcpExtTCPOFODrop")[:3]
        assert pruned > 0
        assert pruned <= watched.anywhere["TCP_OFO_QUEUE_PRUNE"] or not kernel.reasons
        assert of_connection(pruned, kernel) == watched.figures("mib.TcpExtOfoPruned")[:3]


# --- BPF: no counter, or somebody else's


def test_tcx_is_silent(kernel: Kernel) -> None:
    """What a program at tcx drops is in no counter of a qdisc: there is none."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        with net["server"].entered():
            index = socket.if_nametoindex("eth0")
            if "BPF_TCX_INGRESS" not in kernel.names:
                with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                    bpf.attach(net, bpf.SCHED_CLS, bpf.returning(2), index, bpf.AT_TCX_INGRESS)
                print("this kernel has no tcx")
                return
            bpf.attach(net, bpf.SCHED_CLS, bpf.returning(2), index, bpf.AT_TCX_INGRESS)  # TC_ACT_SHOT
        lose = line.udp(CLOSED)
        with watching(net) as watched:
            for _ in range(N):
                lose()
            wait_until(lambda: net["server"].link("eth0", "rx.packets") == N, f"{N} packets to come")
        assert watched.reasons == {"TC_INGRESS": N}
        assert watched.entries.keys() == {"silent in qdisc"}


def test_generic_xdp_is_silent() -> None:
    """What XDP drops where no driver helps it is in no counter."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        with net["server"].entered():
            index = socket.if_nametoindex("eth0")
            bpf.attach(net, bpf.XDP, bpf.returning(1), index, bpf.AT_XDP, bpf.XDP_FLAGS_SKB_MODE)  # XDP_DROP
        lose = line.udp(CLOSED)
        with watching(net) as watched:
            for _ in range(N):
                lose()
            wait_until(lambda: net["server"].link("eth0", "rx.packets") == N, f"{N} packets to come")
        assert watched.reasons.total() == N
        assert {function_of(drop["location"]) for drop in watched.drops} <= {"do_xdp_generic",
                                                                            "netif_receive_generic_xdp"}  # fmt: skip
        assert watched.entries.keys() == {"silent in driver"}


@pytest.fixture
def cgroups(tmp_path: Path) -> Iterator[Path]:
    """Where cgroups of version 2 are."""
    subprocess.run(["mount", "-t", "cgroup2", "none", tmp_path], check=True, timeout=DEADLINE)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True, timeout=DEADLINE)


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_program_at_a_cgroup(v6: bool, cgroups: Path, kernel: Kernel) -> None:
    """What a program refuses to a sender is in OutDiscards there: a bound."""
    there, counter = (ipv6(0, 2), "Ip6OutDiscards") if v6 else (ipv4(0, 2), "IpOutDiscards")
    own = Path("/proc/self/cgroup").read_text().splitlines()
    group = cgroups / f"pktdrop-{os.getpid()}"
    back = cgroups / next(line.removeprefix("0::/") for line in own if line.startswith("0::")) / "cgroup.procs"
    with two_ns(v6) as net:
        group.mkdir()
        net.stack.callback(group.rmdir)
        directory = os.open(group, os.O_RDONLY)
        net.stack.callback(os.close, directory)
        bpf.attach(net, bpf.CGROUP_SKB, bpf.returning(0), directory, bpf.AT_CGROUP_EGRESS)
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            sender = net.keep(
                net["client"].socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
            )  # it belongs to the cgroup
        finally:
            back.write_text(str(os.getpid()))
        with watching(net) as watched:
            for _ in range(N):
                with suppress(OSError):  # EPERM: the sender is told
                    sender.sendto(b"x", (there, CLOSED))
            assert net["client"].mib(counter) == N
        assert watched.reasons == {kernel.name("BPF_CGROUP_EGRESS"): N}
        assert watched.figures(f"mib.{counter}") == (N, N, 0, "bound")


# --- a socket in use


class Fault:
    """A page of memory that is not there until we give it: who copies into it waits (userfaultfd(2))."""

    SIZE = mmap.PAGESIZE

    def __init__(self, net: Net) -> None:
        """Make it."""
        call = ctypes.CDLL(None, use_errno=True).syscall
        number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
        self._fd = int(call(number, os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd < 0:
            pytest.skip(f"no userfaultfd: {os.strerror(ctypes.get_errno())}")
        net.stack.callback(os.close, self._fd)
        fcntl.ioctl(self._fd, 0xC018AA3F, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))  # UFFDIO_API
        self.page = mmap.mmap(-1, self.SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._range = struct.pack("=QQ", ctypes.addressof(ctypes.c_char.from_buffer(self.page)), self.SIZE)
        fcntl.ioctl(self._fd, 0xC020AA00, bytearray(self._range + struct.pack("=QQ", 1, 0)))  # UFFDIO_REGISTER

    def awaited(self) -> bool:
        """Tell whether somebody waits for it."""
        try:
            return bool(os.read(self._fd, 32))
        except BlockingIOError:
            return False

    def give(self) -> None:
        """Let him go on."""
        fcntl.ioctl(self._fd, 0xC020AA04, bytearray(self._range + struct.pack("=QQ", 0, 0)))  # UFFDIO_ZEROPAGE


def test_backlog_of_a_socket_in_use(kernel: Kernel) -> None:
    """Segments for a connection whose socket is in use, and has as many of them as may wait, are in TCPBacklogDrop."""
    with one_ns() as net:
        peer, host, fault = Peer(net, False), net["host"], Fault(net)
        connection = Connection(peer)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            connection.socket.setsockopt(socket.SOL_SOCKET, option, 1)
        connection.send(b"x")
        reader = threading.Thread(target=connection.socket.recv_into, args=(fault.page, 1))
        reader.start()
        try:
            wait_until(fault.awaited, "the reader to hold the socket")
            ahead = count(10, 2)  # nothing that could be put together

            def lose() -> None:
                peer.tcp(connection.segment(ahead=next(ahead), payload=b"x"))

            wait_until(filled(lose, lambda: host.mib("TcpExtTCPBacklogDrop")), "the backlog to be full")
            before = host.mib("TcpExtTCPBacklogDrop")
            with watching(net) as watched:
                for _ in range(N):
                    lose()
                assert host.mib("TcpExtTCPBacklogDrop") - before == N
        finally:
            fault.give()
            reader.join()
        assert watched.anywhere[kernel.name("SOCKET_BACKLOG")] == N
        assert watched.figures("mib.TcpExtTCPBacklogDrop") == (N, N, 0, "exact" if kernel.has_socket else "bound")


# --- routes and neighbours that go


def test_no_route_left_for_a_connection(kernel: Kernel) -> None:
    """Segments that a connection has no route for any more: not more than OutNoRoutes counts."""
    with one_ns() as net:
        peer, host = Peer(net, False), net["host"]
        connection = Connection(peer)
        host.ip("route", "add", "blackhole", "10.7.9.2/32")
        host.ip("route", "del", "10.7.9.0/24", "dev", "tun0")
        host.ip("route", "flush", "cache")
        with watching(net) as watched:
            connection.socket.send(b"x")
            wait_until(lambda: host.mib("IpOutNoRoutes") >= 2, "a segment and a repetition to find no route")
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
            connection.socket.close()
            counted = host.mib("IpOutNoRoutes")
        assert 0 < watched.anywhere[kernel.name("IP_OUTNOROUTES")] <= counted
        delta, explained, _, status = watched.figures("mib.IpOutNoRoutes")
        status_of_site = "bound" if kernel.reasons else "exact"  # with reasons, those of other places count too
        assert (counted, watched.anywhere[kernel.name("IP_OUTNOROUTES")], status_of_site) == (delta, explained, status)


def test_neighbour_that_does_not_answer(kernel: Kernel) -> None:
    """All packets that wait for a neighbour are lost with it, which counts once."""
    waiting = 3
    with two_ns() as net:
        client = net["client"]
        client.ip("link", "set", "dev", "eth0", "arp", "on")
        client.sysctl(ipv4__neigh__eth0__retrans_time_ms=50, ipv4__neigh__eth0__mcast_solicit=1)
        sender = net.keep(client.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with watching(net) as watched:
            for host in range(100, 100 + N):
                for _ in range(waiting):
                    sender.sendto(b"x", (ipv4(0, host), CLOSED))
            wait_until(lambda: client.ip("neighbour").count("FAILED") >= N, f"{N} neighbours to fail")
        assert watched.anywhere[kernel.name("NEIGH_FAILED")] == N * waiting
        (entry,) = [one for one in watched.summary["ledger"] if one["counter"] == "neigh.res_failed"]
        assert entry["delta"] >= N
        assert {"reason": kernel.name("NEIGH_FAILED")}.items() <= entry["by"][0].items()
        assert entry["status"] in ("bound", "no-event")


def test_neighbour_that_does_not_answer_by_ipv6(kernel: Kernel) -> None:
    """So it is for IPv6, where kernels name no reason for what waited."""
    waiting, by = 3, ("neigh_invalidate", "ndisc_error_report")  # the second frees by a tail call, as compiled here
    with two_ns(True) as net:
        client = net["client"]
        client.ip("link", "set", "dev", "eth0", "arp", "on")
        client.sysctl(ipv6__neigh__eth0__retrans_time_ms=50, ipv6__neigh__eth0__mcast_solicit=1)
        sender = net.keep(client.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        with watching(net) as watched:
            for host in range(100, 100 + N):
                for _ in range(waiting):
                    sender.sendto(b"x", (ipv6(0, host), CLOSED))
            wait_until(lambda: client.ip("-6", "neighbour").count("FAILED") >= N, f"{N} neighbours to fail")
        failed = [drop for drop in watched.drops if function_of(drop["location"]) in by]
        assert total(failed) == N * waiting
        assert {(drop["layer"], drop["noise"], drop["doubt"]) for drop in failed} == {("stack", "", "")}
        (entry,) = [one for one in watched.summary["ledger"] if one["counter"] == "neigh.res_failed"]
        assert entry["delta"] >= N
        assert {"reason": failed[0]["reason"]}.items() <= entry["by"][0].items()


def test_both_ends_of_a_veth_pair_count_what_is_too_big() -> None:
    """A packet that the other end does not take is in tx_dropped here and rx_dropped there: one event, one loss."""
    with two_ns() as net:
        line, _ = to_server(net, False)
        net["server"].ip("link", "set", "dev", "eth0", "mtu", "1000")
        large = line.udp(CLOSED, size=1400)
        with watching(net) as watched:
            for _ in range(N):
                with suppress(OSError):  # ENOBUFS: the sender is told
                    large()
            assert (net["client"].link("eth0", "tx.dropped"), net["server"].link("eth0", "rx.dropped")) == (N, N)
        assert watched.reasons == {"NOT_SPECIFIED": N}
        for counter in ("links.tx_dropped", "links.rx_dropped"):
            assert watched.figures(counter) == (N, N, 0, "bound")
        for layer in ("tx", "driver", "stack"):
            assert 0 <= watched.beyond[layer] <= watched.of_others[layer]
