# SPDX-License-Identifier: MIT
"""Traffic of a host that loses nothing: it must not be called loss, whatever the kernel frees meanwhile."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pktdrop.demo.net import Net, unlike_others
from pktdrop.host.netns import cookie_here
from tests.live import frames
from tests.live.net import Namespace, run, wait_until
from tests.live.test_diagnose import Run, diagnosing, judged, unable_in
from tests.live.tracing import inside, total, tracing

N = 20
PORT = 5000
NOBODY = 5399
"""A port that nobody listens on."""
FIN_WAIT2 = 5  # include/net/tcp_states.h
LLDP = bytes.fromhex("0180c200000e020000000001") + b"\x88\xcc" + bytes(50)
WHO_HAS_99 = bytes.fromhex("ffffffffffff020000000001 0806 0001080006040001 020000000001 0a090001 000000000000 0a090063")


@contextmanager
def lan() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts that do what hosts do by default: ARP, neighbour discovery, duplicate addresses, routers sought."""
    net = Net(unlike_others())
    with net.stack:
        left, right = net.add("left"), net.add("right")
        for one in (left, right):
            one.sysctl(
                ipv6__conf__all__disable_ipv6=0,
                ipv6__conf__default__disable_ipv6=0,
                ipv6__conf__default__accept_dad=1,
                ipv6__conf__default__dad_transmits=1,
                ipv6__conf__default__accept_ra=1,
                ipv6__conf__default__router_solicitations=2,
                ipv6__conf__default__addr_gen_mode=0,
            )
        run("ip", "-n", left.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name)
        _settle(left, right)
        yield left, right


def _settle(*hosts: Namespace) -> None:
    """Bring links up and give addresses; return when neither is tentative any more.

    Multicast of the other end that comes before an interface has IPv6 finds no route.
    """
    for one in hosts:
        one.ip("link", "set", "eth0", "up")
    for number, one in enumerate(hosts, 1):
        one.ip("address", "add", f"10.9.0.{number}/24", "brd", "+", "dev", "eth0")
        one.ip("address", "add", f"fd00:9::{number}/64", "dev", "eth0")
        one.ip("route", "add", "default", "dev", "eth0")
    for one in hosts:
        wait_until(lambda: "tentative" not in one.ip("-6", "address", "show", "dev", "eth0"), "IPv6 addresses")  # noqa: B023


def listen(host: Namespace, family: socket.AddressFamily, kind: socket.SocketKind, stack: ExitStack) -> socket.socket:
    """Open a socket on PORT for all addresses of a family."""
    opened = stack.enter_context(host.socket(family, kind))
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(("", PORT))
    return opened


def _state(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def converse(client: Namespace, server: Namespace, family: socket.AddressFamily, address: str) -> None:
    """Open and close N connections, the client first, so that its end goes through TIME_WAIT; ask N questions."""
    with ExitStack() as stack:
        listener = listen(server, family, socket.SOCK_STREAM, stack)
        listener.listen(N)
        for _ in range(N):
            with client.socket(family, socket.SOCK_STREAM) as asking:
                asking.connect((address, PORT))
                answering, _ = listener.accept()
                with answering:
                    asking.sendall(b"question")
                    assert answering.recv(100) == b"question"
                    asking.shutdown(socket.SHUT_WR)
                    assert answering.recv(100) == b""
                    wait_until(lambda: _state(asking) == FIN_WAIT2, "the end to be acknowledged")
                    asking.close()  # from here on a TIME_WAIT socket waits for the other end (tcp_close)
        answering = listen(server, family, socket.SOCK_DGRAM, stack)
        asking = stack.enter_context(client.socket(family, socket.SOCK_DGRAM))
        for _ in range(N):
            asking.sendto(b"question", (address, PORT))
            answering.sendto(b"answer", answering.recvfrom(100)[1])
            assert asking.recv(100) == b"answer"


def call_out(caller: Namespace) -> None:
    """Send what goes to everybody and nobody wants: broadcast, multicast, LLDP, a question for somebody else."""
    with (
        caller.socket(socket.AF_INET, socket.SOCK_DGRAM) as v4,
        caller.socket(socket.AF_INET6, socket.SOCK_DGRAM) as v6,
        caller.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
    ):
        v4.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        v4.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.1"))
        with caller.entered():
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
        wire.bind(("eth0", 0))
        for _ in range(N):
            for address in ("10.9.0.255", "255.255.255.255", "224.0.0.1", "224.0.0.251", "239.1.2.3"):
                v4.sendto(b"anybody", (address, NOBODY))
            for address in ("ff02::1", "ff02::fb"):
                v6.sendto(b"anybody", (address, NOBODY))
            wire.send(LLDP)
            wire.send(WHO_HAS_99)


def received(host: Namespace) -> int:
    """Count frames that came in, by ip(8)."""
    return host.link("eth0", "rx.packets")


def live_a_while(left: Namespace, right: Namespace) -> None:
    """Do all of it, and let the neighbours be asked for once more."""
    left.ip("address", "add", "fd00:9::11/64", "dev", "eth0")  # is it a duplicate, and who joins its group
    wait_until(lambda: "tentative" not in left.ip("-6", "address", "show", "dev", "eth0"), "a new address")
    converse(left, right, socket.AF_INET, "10.9.0.2")
    converse(left, right, socket.AF_INET6, "fd00:9::2")
    call_out(left)
    for one in (left, right):
        one.ip("neighbour", "flush", "dev", "eth0")
    converse(left, right, socket.AF_INET, "10.9.0.2")


def identity(host: Namespace) -> tuple[int, int | None]:
    """What it is called in JSON: others that are gone may have had its inode."""
    with host.entered():
        return host.inode, cookie_here()


def fails_no_condition(made: Run, *hosts: Namespace) -> None:
    """End it; these hosts lost nothing."""
    known = [identity(host) for host in hosts]
    status = made.stop()
    data = json.loads(made.stdout)
    ours = [loss for loss in data["losses"] if (loss["netns"], loss["netns_cookie"]) in known]
    assert ours == [], ours
    assert status == (3 if data["packets"] or data["uncounted"] else 0), made.stderr  # others may lose packets


def test_a_healthy_host_fails_no_condition() -> None:
    """Connections that end, questions, ARP, neighbour discovery, broadcast and multicast: nothing is lost."""
    with lan() as (left, right), diagnosing("--fail-on", "loss", "--all-netns") as made:
        live_a_while(left, right)
        fails_no_condition(made, left, right)


def test_interfaces_that_come_up_fail_no_condition(kernel_reasons: frozenset[str]) -> None:
    """As each container's does: duplicate addresses looked for, routers sought, groups joined, from the first frame on.

    Kernels without reasons call what has no route yet lost, whomever it was for.
    """
    with diagnosing("--fail-on", "loss", "--all-netns") as made, lan() as (left, right):
        if kernel_reasons:
            fails_no_condition(made, left, right)


def test_a_healthy_host_fails_no_condition_without_root() -> None:
    """Without tracing nobody knows what rx_dropped has: LLDP, as here, or packets that were lost."""
    with lan() as (left, right):
        before = right.link("eth0", "rx.dropped")
        with diagnosing("--fail-on", "loss", called=unable_in(right)) as made:
            live_a_while(left, right)
            wait_until(lambda: right.link("eth0", "rx.dropped") >= before + N, "the last frame")
            data = judged(made)
        assert (data["packets"], data["losses"], data["probes"]["kfree_skb"]) == (0, [], "none")
        (doubt,) = [one for one in data["doubt"] if one["reason"] == "links.rx_dropped"]
        assert doubt["packets"] == right.link("eth0", "rx.dropped") - before
        assert "LLDP" in doubt["why"]


def send_early(left: Namespace, right: Namespace, group: int, alone: int) -> None:
    """Send to all nodes, by frames for the group or for the other end alone, which has no route for either.

    So it is between the moment that an interface comes up and the one that it has an IPv6 address.
    """
    right.ip("-6", "route", "del", "ff00::/8", "dev", "eth0", "table", "local")
    before = right.mib("Ip6InNoRoutes")
    mac = json.loads(right.ip("-j", "link", "show", "eth0"))[0]["address"]
    packet = frames.ip6("fd00:9::1", "ff02::1", frames.UDP, frames.udp("fd00:9::1", "ff02::1", NOBODY))
    with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        for count, destination in ((group, "33:33:00:00:00:01"), (alone, mac)):
            for _ in range(count):
                wire.send(frames.ethernet(destination, "02:00:00:00:00:01", frames.ETH_P_IPV6, packet))
    wait_until(lambda: right.mib("Ip6InNoRoutes") >= before + group + alone, "the last packet without a route")


def test_multicast_before_ipv6_is_up_is_no_loss(kernel_reasons: frozenset[str]) -> None:
    """The same packet in a frame for this host alone is one: what the device says of the frame tells them apart."""
    if "IP_INNOROUTES" not in kernel_reasons:
        pytest.skip("this kernel names no reason for what finds no route")
    alone = 7
    with lan() as (left, right):
        with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
            send_early(left, right, N, alone)
            assert trace.stop() == 0
            summary, data = trace.summary, judged(made)
        early = [drop for drop in inside(summary["drops"], [right]) if drop["reason"] == "IP_INNOROUTES"]
        assert total([drop for drop in early if drop["noise"] == "multicast before IPv6 was up here"]) >= N
        assert total([drop for drop in early if not drop["noise"] and not drop["doubt"]]) == alone
        assert [(one["packets"], one["cause"]) for one in data["losses"] if one["netns"] == right.inode] == [
            (alone, "no-route")
        ]


def test_without_root_what_finds_no_route_is_a_doubt() -> None:
    """The counter has both, and only events tell which."""
    with lan() as (left, right):
        before = right.mib("Ip6InNoRoutes")
        with diagnosing("--fail-on", "loss", called=unable_in(right)) as made:
            send_early(left, right, N, N)
            data = judged(made)
        (doubt,) = [one for one in data["doubt"] if one["reason"] == "mib.Ip6InNoRoutes"]
        assert doubt["packets"] == right.mib("Ip6InNoRoutes") - before >= 2 * N
        assert data["losses"] == []


def test_what_nobody_asked_for_is_noise_with_its_own_words() -> None:
    """UDP without a listener is counted as ignored by the kernel, as noise here; groups not joined have their words."""
    with lan() as (left, right), tracing("--all-netns") as trace:
        before = {name: right.mib(name) for name in ("UdpIgnoredMulti", "Udp6IgnoredMulti")}
        call_out(left)
        wait_until(lambda: right.mib("Udp6IgnoredMulti") > before["Udp6IgnoredMulti"], "the last multicast")
        wait_until(lambda: right.link("eth0", "rx.dropped") >= N, "the last frame")
        ignored = sum(right.mib(name) - was for name, was in before.items())
        assert trace.stop() == 0
        drops = inside(trace.summary["drops"], [right])
    unheard = [drop for drop in drops if drop["noise"] == "multicast or broadcast with no listener"]
    lldp = [drop for drop in drops if drop["noise"].startswith("no user for this protocol")]
    assert [drop for drop in drops if not drop["noise"] and not drop["doubt"]] == []
    if not any(drop["doubt"] for drop in drops):  # kernels without reasons cannot tell
        assert total(unheard) == ignored == 4 * N  # to all, twice, and to all nodes, by both protocols
        assert total([drop for drop in drops if drop["noise"] == "multicast group not joined here"]) >= 3 * N
    assert total(lldp) in (0, N)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "10.9.0.2"), (socket.AF_INET6, "fd00:9::2")])
def test_closing_connections_are_not_called_loss(family: socket.AddressFamily, address: str) -> None:
    """The segment that ends a connection meets a TIME_WAIT socket: one for each, of which nobody knows, none lost."""
    with lan() as (left, right):
        with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
            converse(left, right, family, address)
            assert trace.stop() == 0
            summary, data = trace.summary, judged(made)
        assert [loss for loss in data["losses"] if loss["netns"] in (left.inode, right.inode)] == []
        assert sum(one["packets"] for one in data["doubt"] if one["reason"] == "NOT_SPECIFIED") >= N
        ours = [one for one in summary["ledger"] if one["scope"].get("netns") in (left.inode, right.inode)]
        assert [one for one in ours if one["by"] and one["status"] != "doubt"] == []
        waiting = left.read("ss", "-H", "-t", "-a", "-n", "state", "time-wait").splitlines()
        assert len(waiting) == N
        drops = inside(summary["drops"], [left, right])
        in_doubt = [drop for drop in drops if drop["doubt"]]
        assert [drop for drop in drops if not drop["noise"] and not drop["doubt"]] == []
        assert total(in_doubt) == N
        assert {drop["layer"] for drop in in_doubt} == {"socket"}
        assert summary["doubt"]["socket"] >= N
