# SPDX-License-Identifier: MIT
"""What trace and diagnose say of the same packets is the same, adds up, and is what nstat(8) and ss(8) have."""

import re
import socket
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from pktdrop.demo import frames
from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.parts import CLOSED, LARGE, OPEN, filled
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, one_ns, two_ns
from pktdrop.host.netns import cookie_here
from pktdrop.rules.identities import Identities
from tests.kit.diagnosed import diagnosing, judged, lose, of
from tests.kit.lan import lan, live_a_while
from tests.kit.process import DEADLINE, command, run, wait_until
from tests.kit.provoke.packets import ACK, Segment
from tests.kit.provoke.peer import Peer
from tests.kit.provoked import send
from tests.kit.trace import Trace, losses, total, tracing

N, TURNS, PORT = 23, 9, 8080
ENOUGH = 120
"""Packets that are no small loss, whatever else is lost on this machine."""
FIN = 0x01  # RFC 9293
by_name = {cause.name: cause for cause in CAUSES}
BPF_WITHOUT_SYMBOLS = ("setpriv", "--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all,+bpf,+perfmon")
"""A root that may trace, and to whom /proc/kallsyms shows no address (CAP_SYSLOG, kernel/ksyms_common.c)."""


# --- intervals and the summary


def _kinds(lines: Sequence[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """Packets by all that a drop is told apart by."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        for drop in line["drops"]:
            apart = ("netns_cookie", "ifindex", "reason", "location", "cpu", "protocol", "layer", "noise", "doubt")
            sums[tuple(drop[key] for key in apart)] += drop["count"]
    return sums


def _summed(lines: Sequence[dict[str, Any]], key: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for line in lines:
        sums.update(line[key])
    return sums


def _live(trace: Trace, is_long: bool) -> tuple[int | None, int]:
    """Have a namespace lose N packets with an event, and SYNs without; let it see the end of an interval, or not.

    Returns its cookie, and how many SYNs it counted.
    """
    before = len(trace.intervals)
    closed = by_name["udp_closed_port"]
    with closed.net() as net, net["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        here = net["host"]
        send(closed.build(net), lose=N, spare=0, cpu=0)
        calling = _overflow(net, listener)
        if is_long:
            wait_until(lambda: len(trace.intervals) > before + 1, "a look while it is there", DEADLINE)
        for one in (*calling, listener):  # or SYNs go on coming
            one.close()
        with here.entered():
            return cookie_here(), here.mib("TcpExtListenOverflows")


def _overflow(net: Net, listener: socket.socket, callers: int = 6) -> list[socket.socket]:
    """Let more connections come than the listener has room for; return the callers."""
    listener.bind(("127.0.0.1", PORT))
    listener.listen(1)
    calling = [net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(callers)]
    for caller in calling:
        caller.setblocking(False)
        caller.connect_ex(("127.0.0.1", PORT))
    wait_until(lambda: net["host"].mib("TcpExtListenOverflows") >= callers - 2, "the queue to be full")
    return calling


@pytest.mark.parametrize("options", [(), ("--all-netns",)], ids=["own", "all"])
def test_intervals_add_up_while_namespaces_come_and_go(options: tuple[str, ...]) -> None:
    """Packets, `layers` and what was not counted: the sums over all intervals are the summary."""
    with tracing("0.3", *options) as trace:
        lives = [_live(trace, is_long=turn % 3 == 0) for turn in range(TURNS)]
        assert trace.stop() == 0, trace.stderr
        intervals, summary = trace.intervals, trace.summary
    assert len(intervals) >= TURNS // 3
    assert _kinds(intervals) == _kinds([summary])
    assert +_summed(intervals, "layers") == +Counter(summary["layers"])
    assert +_summed(intervals, "lost") == +Counter(summary["lost"])
    cookies = {cookie for cookie, _ in lives}
    here = [drop for drop in summary["drops"] if drop["netns_cookie"] in cookies and not drop["noise"]]
    assert total([drop for drop in here if drop["protocol"] == "IPv4" and not drop["doubt"]]) == TURNS * N
    overflows = [
        entry for entry in summary["ledger"]
        if entry["counter"] == "mib.TcpExtListenOverflows" and entry["scope"]["netns_cookie"] in cookies
    ]  # fmt: skip
    # those without an event are known of namespaces that were read while they were there
    assert 0 < sum(entry["delta"] for entry in overflows) <= sum(counted for _, counted in lives)
    lost = sum(entry["delta"] for entry in overflows) + TURNS * N
    assert summary["layers"]["socket"] >= lost


# --- a full accept queue


def _said(summary: dict[str, Any], here: Namespace) -> dict[str, dict[str, Any]]:
    """What the ledger of trace has of a namespace, by counter; doubts are apart."""
    ours = [one for one in summary["ledger"] if one["scope"].get("netns") == here.inode]
    return {one["counter"]: one for one in ours if one["status"] != "doubt"}


def test_a_full_accept_queue_is_one_loss() -> None:
    """As many as ListenOverflows has, in both commands; that the callers and the listener close loses nothing."""
    with one_ns() as net, net["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        here = net["host"]
        with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
            for caller in _overflow(net, listener):
                caller.close()
            listener.close()
            lost = here.mib("TcpExtListenOverflows")
            assert trace.stop() == 0, trace.stderr
            summary, data = trace.summary, judged(made)
        (loss,) = of(data, here)
        assert (loss["packets"], loss["layer"], loss["class"], loss["cause"]) == (
            lost, "socket", "capacity", "listen-queue",
        )  # fmt: skip
        said = _said(summary, here)
        assert summary["layers"]["socket"] >= lost
        told = losses(said.values(), Identities.load())
        assert {one["counter"]: one["delta"] for one in told} == dict.fromkeys(
            ("mib.TcpExtListenOverflows", "mib.TcpExtListenDrops", "socket.drops")[: len(told)], lost
        )


def _begin(peer: Peer, port: int) -> Segment:
    """Ask for a connection; return the last packet of the handshake."""
    answer = peer.ask(Segment(port, OPEN, 1))
    return Segment(port, OPEN, 2, answer.seq + 1, ACK)


def _complete(peer: Peer, port: int) -> Segment:
    last = _begin(peer, port)
    peer.tcp(last)
    return last


@pytest.mark.parametrize(("cookies", "reason"), [(0, "TCP_LISTEN_OVERFLOW"), (2, "NO_SOCKET")])
def test_handshakes_that_end_at_a_full_queue_are_the_same_loss(
    cookies: int, reason: str, kernel_reasons: frozenset[str]
) -> None:
    """SYNs raise no event, the last packet of a handshake does, a cookie's another one: all are ListenOverflows."""
    with one_ns() as net:
        here = net["host"]
        here.sysctl(ipv4__tcp_synack_retries=100, ipv4__tcp_syncookies=cookies)  # the request stays, or nothing does
        peer = Peer(net, False)
        peer.listen(backlog=3)  # 4 may wait to be accepted
        first, *_ = [_complete(peer, port) for port in (4001, 4002, 4003)]
        fourth, fifth = _begin(peer, 4004), _begin(peer, 4005)  # both while there is room
        peer.tcp(fourth)
        before = here.mib("TcpExtListenOverflows")
        with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
            for port in range(5000, 5000 + N):
                peer.tcp(Segment(port, OPEN, 1))
                peer.tcp(fifth)
            peer.tcp(first.but(flags=ACK | FIN))
            lost = here.mib("TcpExtListenOverflows") - before
            assert trace.stop() == 0, trace.stderr
            summary, data = trace.summary, judged(made)
        assert lost == 2 * N
        (loss,) = of(data, here)
        assert (loss["packets"], loss["cause"]) == (lost, "listen-queue")
        entry = _said(summary, here)["mib.TcpExtListenOverflows"]
        assert (entry["delta"], entry["explained"] + entry["unexplained"]) == (lost, lost)
        if "TCP_LISTEN_OVERFLOW" in kernel_reasons:
            assert entry["by"] == [{"reason": reason, "count": N}]


# --- datagrams that do not get out

IP_RECVERR = 11  # include/uapi/linux/in.h


def test_only_who_asks_is_told_of_a_lost_datagram() -> None:
    """Both kinds of senders lose it in the qdisc and count it in UdpSndbufErrors: one loss, and one is told."""
    with two_ns() as net:
        client = net["client"]
        client.run(*"tc qdisc add dev eth0 root tbf rate 8bit burst 1600 limit 3000".split())
        deaf, asking = (net.keep(client.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2))
        asking.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        there = (ipv4(0, 2), CLOSED)
        dropped = lambda: client.qdisc_drops("eth0")  # noqa: E731
        wait_until(filled(lambda: deaf.sendto(LARGE, there), dropped), "the queue to be full")
        before = dropped(), client.mib("UdpSndbufErrors"), client.mib("IpOutDiscards")
        with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
            for _ in range(N):
                assert deaf.sendto(LARGE, there) == len(LARGE)
                with pytest.raises(OSError, match="No buffer space"):
                    asking.sendto(LARGE, there)
            rose = dropped(), client.mib("UdpSndbufErrors"), client.mib("IpOutDiscards")
            assert trace.stop() == 0, trace.stderr
            summary, data = trace.summary, judged(made)
        assert tuple(now - was for now, was in zip(rose, before, strict=True)) == (2 * N,) * 3
        (loss,) = of(data, client)
        assert (loss["packets"], loss["layer"], loss["cause"]) == (2 * N, "qdisc", "qdisc")
        said = _said(summary, client)
        for counter in ("qdisc.drops", "mib.UdpSndbufErrors", "mib.IpOutDiscards"):
            assert (said[counter]["delta"], said[counter]["explained"]) == (2 * N, 2 * N), counter
        assert "told" in said["mib.UdpSndbufErrors"]["note"] or "IP_RECVERR" in said["mib.UdpSndbufErrors"]["note"]


# --- symbols that are hidden


def _hides_symbols() -> bool:
    seen = run(*BPF_WITHOUT_SYMBOLS, "head", "-1", "/proc/kallsyms")
    return int(seen.split()[0], 16) == 0


def test_without_symbols_noise_is_no_loss_and_limits_say_so() -> None:
    """CAP_BPF and CAP_PERFMON alone: a healthy host loses nothing; a loss that its reason tells is one."""
    if not _hides_symbols():
        pytest.skip("this host shows kernel symbols to everybody")
    with lan() as (left, right):
        called = ("ip", "netns", "exec", right.name, *BPF_WITHOUT_SYMBOLS, *command())
        with (
            right.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            diagnosing("--fail-on", "capacity", called=called) as made,
        ):
            live_a_while(left, right)
            for _ in range(N):
                sender.sendto(b"x", ("127.0.0.1", CLOSED))
            wait_until(lambda: right.mib("UdpNoPorts") >= N, f"{N} datagrams to find nobody")
            data = judged(made)
        assert data["probes"]["kfree_skb"] == "tp_btf"
        assert [(loss["packets"], loss["cause"]) for loss in of(data, right)] == [(N, "no-socket")]
        (limit,) = [one for one in data["limits"] if "call sites are addresses" in one]
        assert "layer" in limit
        assert "noise" in limit
        assert data["doubt"]


# --- small losses, and the time that was watched


@pytest.mark.parametrize("style", ["table", "json"])
def test_one_stray_packet_is_no_numbered_loss(style: str, kernel_reasons: frozenset[str]) -> None:
    """A frame of IPv6 at an interface without it, beside a real loss: summed up, and nothing is advised for it."""
    if not kernel_reasons:
        return  # such a packet is in doubt: it looks like a frame for another host
    closed = by_name["nftables_input"]
    with closed.net() as net:
        traffic, here = closed.build(net), net[closed.role]
        raw = net.keep(net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        raw.bind(("eth0", 0))
        packet = frames.ip6("fd00:7::1", "fd00:7::2", frames.UDP, bytes(8))
        with diagnosing("--all-netns", style=style) as made:
            lose(traffic, ENOUGH)
            raw.send(frames.ethernet(mac(0, 2), mac(0, 1), frames.ETH_P_IPV6, packet))
            wait_until(lambda: here.mib("Ip6InReceives") + here.mib("Ip6InDiscards") > 0, "the stray packet")
            if style == "json":
                stray, real = sorted(of(judged(made), here), key=lambda loss: loss["packets"])
                assert (stray["packets"], stray["small"], stray["advice"]) == (1, True, [])
                assert (real["packets"], real["small"]) == (ENOUGH, False)
                return
            assert made.stop() == 0, made.stderr
            text = " ".join(made.stdout.split())
    assert not re.search(rf"\b\d+\. 1 packet [^.]*{here.name}", text)
    assert re.search(rf"\d\. {ENOUGH} packets [^.]*{here.name}", text)
    assert re.search(rf"too few to change anything for: .*1 on eth0 of netns {here.name}, which has IPv6", text)


def test_the_time_said_is_the_time_watched() -> None:
    """From the look that the start line stands for to the one that Ctrl-C asks for."""
    started = time.monotonic()
    with one_ns(), diagnosing() as made:
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() > begun + 1.5, "some time to pass")
        asked = time.monotonic()
        data = judged(made)
        ended = time.monotonic()
    (said,) = re.findall(r"in ([0-9.]+) s\b", data["verdict"], re.IGNORECASE)
    assert asked - begun - 0.1 <= float(said) <= ended - started + 0.1
    assert data["end"] - data["start"] == pytest.approx(float(said), abs=0.06)
