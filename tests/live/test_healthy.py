# SPDX-License-Identifier: MIT
"""Traffic of a host that loses nothing: it must not be called loss, whatever the kernel frees meanwhile."""

import json
import socket

import pytest

from pktdrop.demo import frames
from pktdrop.demo.namespace import Namespace
from pktdrop.host.netns import cookie_here
from tests.kit.diagnosed import Run, diagnosing, judged, unable_in
from tests.kit.lan import NOBODY, N, call_out, converse, lan, live_a_while
from tests.kit.process import wait_until
from tests.kit.trace import inside, total, tracing


def received(host: Namespace) -> int:
    """Count frames that came in, by ip(8)."""
    return host.link("eth0", "rx.packets")


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
