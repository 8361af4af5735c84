# SPDX-License-Identifier: MIT
"""What leaves for a group, by an interface that nobody is behind, is no loss; what leaves for one receiver is."""

import socket

import pytest

from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, unlike_others
from tests.kit.diagnosed import diagnosing, judged
from tests.kit.trace import inside, total, tracing

N = 20
ALONE = 7
FAILED = 3
"""Exit status, as --fail-on asks."""
PORT = 5353
GROUPS = ("224.0.0.251", "239.1.2.3", "10.9.0.255", "255.255.255.255", "ff02::1", "ff02::fb")
DEVICES = {
    "veth": ("to a group, interface has no carrier", "qdisc"),
    "bridge": ("to a group, the bridge has no ports", "stack"),
}


def host(net: Net, kind: str) -> Namespace:
    """A host with an interface that has addresses, and knows a neighbour behind it, but there is none."""
    one = net.add("host")
    one.sysctl(ipv6__conf__all__disable_ipv6=0, ipv6__conf__default__disable_ipv6=0)
    one.ip("link", "add", "eth0", "type", kind, *(("peer", "name", "far") if kind == "veth" else ()))
    one.ip("link", "set", "eth0", "up")
    one.ip("address", "add", "10.9.0.1/24", "brd", "+", "dev", "eth0")
    one.ip("address", "add", "fe80::5/64", "dev", "eth0", "nodad")
    one.ip("neighbour", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0")
    return one


def send(sender: Namespace, counts: dict[str, int]) -> None:
    """Send as many datagrams to each address as asked."""
    with (
        sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as v4,
        sender.socket(socket.AF_INET6, socket.SOCK_DGRAM) as v6,
    ):
        v4.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        v4.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        v6.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        for address, count in counts.items():
            for _ in range(count):
                (v6 if ":" in address else v4).sendto(b"anybody", (address, PORT))


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("alone", [0, ALONE])
def test_nobody_is_there(kind: str, alone: int, kernel_reasons: frozenset[str]) -> None:
    """Only with frames for one receiver is it a loss, of just these; where the kernel names reasons, that is known."""
    if kind == "bridge" and "BRIDGE_INGRESS_STP_STATE" not in kernel_reasons:  # named in the same series
        pytest.skip("this kernel has no reason of its own for what a bridge has no port for")
    why, layer = DEVICES[kind]
    lost = alone if kernel_reasons else 0  # else one that was to leave for one receiver may have been something else
    net = Net(unlike_others())
    with net.stack:
        one = host(net, kind)
        with diagnosing("--all-netns", "--fail-on", "loss") as made, tracing("--all-netns") as trace:
            send(one, {**dict.fromkeys(GROUPS, N), "10.9.0.2": alone})
            assert trace.stop() == 0
            summary, data = trace.summary, judged(made, FAILED if lost else 0)
        drops = [drop for drop in inside(summary["drops"], [one]) if drop["layer"] == layer]
        assert total([drop for drop in drops if drop["noise"] == why]) >= len(GROUPS) * N  # and IPv6 joins groups
        assert total([drop for drop in drops if not drop["noise"]]) == alone
        assert sum(loss["packets"] for loss in data["losses"] if loss["netns"] == one.inode) == lost


def test_a_full_queue_is_one_for_groups_too() -> None:
    """The same reason, by an interface with a carrier: there is somebody who did not get it."""
    net = Net(unlike_others())
    with net.stack:
        one = host(net, "veth")
        one.ip("link", "set", "far", "up")
        one.run("tc", "qdisc", "replace", "dev", "eth0", "root", "bfifo", "limit", "1")
        with tracing("--all-netns") as trace:
            send(one, {"224.0.0.251": N, "10.9.0.2": ALONE})
            assert trace.stop() == 0
            drops = inside(trace.summary["drops"], [one])
        ours = [drop for drop in drops if drop["protocol"] == "IPv4" and drop["layer"] == "qdisc"]
        assert (total(ours), {drop["noise"] for drop in ours}) == (N + ALONE, {""})
