# SPDX-License-Identifier: MIT
"""Packets that do not get out: neighbours, queues, devices."""

import fcntl
import os
import struct
from functools import partial

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Scene, Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLIENT, CLOSED, LARGE, OPEN, Sink, filled, mib, udp_socket, wire
from pktdrop.demo.net import Net, ipv4, ipv6, mac, one_ns
from pktdrop.demo.tools import wait_until

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # include/uapi/linux/if_tun.h
_A_DAY = 24 * 3600 * 1000
"""In milliseconds: the neighbour is asked for once, and not given up."""


def _unresolved(net: Net, v6: bool, **settings: int) -> Traffic:
    """UDP to a neighbour that does not exist; what went to IP and did not come out of the interface is lost."""
    client, sink = net["client"], Sink(net, "server", v6)
    reports = client.mib("Icmp6OutMLDv2Reports") if v6 else 0
    client.ip("link", "set", "dev", "eth0", "arp", "on")  # forgets the neighbours
    if v6:
        # within a second it also tells its multicast groups, net.ipv6.mld_qrv = 2 times, which the server drops
        wait_until(lambda: client.mib("Icmp6OutMLDv2Reports") - reports >= 2, "the multicast reports")
    there = ipv6(0, 2) if v6 else ipv4(0, 2)
    client.ip("neighbour", "replace", there, "lladdr", mac(0, 2), "dev", "eth0", "nud", "permanent")
    family = "ipv6" if v6 else "ipv4"
    client.sysctl(**{f"{family}__neigh__eth0__{name}": value for name, value in settings.items()})
    sender = udp_socket(net, "client", v6)
    requests = mib(net, "client", "IpOutRequests", "Ip6OutRequests", v6)

    def lost() -> int:
        while True:  # another packet (an MLD report) may leave between two readings
            sent = client.link("eth0", "tx.packets")
            requested = requests()
            if sent == client.link("eth0", "tx.packets"):
                return requested - sent

    return Traffic(
        lose=lambda: sender.sendto(b"x", (ipv6(0, 99) if v6 else ipv4(0, 99), CLOSED)),
        lost=lost,
        spare=lambda: sender.sendto(b"x", (there, OPEN)),
        spared=sink.received,
    )


@cause("NEIGH_FAILED", "__neigh_event_send", short="neigh", at=CLIENT, versions=BOTH)
def neighbour_failed(net: Net, v6: bool) -> Traffic:
    """A packet to a neighbour that cannot be asked for."""
    return _unresolved(net, v6, mcast_solicit=0, app_solicit=0)


@cause(
    "NEIGH_QUEUEFULL",
    "__neigh_event_send",
    short="neighq",
    at=CLIENT,
    versions=BOTH,
    counters=("neigh.unresolved_discards",),
)
def neighbour_queue_full(net: Net, v6: bool) -> Traffic:
    """A packet to a neighbour that is still being asked for, when as many wait already as may."""
    traffic = _unresolved(net, v6, retrans_time_ms=_A_DAY, unres_qlen_bytes=1)
    traffic.lose()  # one may wait, however large: the next one takes its place
    return traffic


@cause(
    "QDISC_DROP",
    "__dev_xmit_skb",
    "__dev_queue_xmit",
    "kfree_skb_list",
    "kfree_skb_list_reason",
    "__tcf_kfree_skb_list",
    short="shaper",
    at=CLIENT,
    layer="qdisc",
    versions=BOTH,
    counters=("qdisc.drops",),
    bounds=("mib.IpOutDiscards", "mib.UdpSndbufErrors"),
    bounds6=("mib.Ip6OutDiscards", "mib.Udp6SndbufErrors"),
)
def shaper_full(net: Net, v6: bool) -> Traffic:
    """A packet to a token bucket that is out of tokens and whose queue is full."""
    client = net["client"]
    client.run(*["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "3000"])
    sender, back, sink = udp_socket(net, "client", v6), udp_socket(net, "server", v6), Sink(net, "client", v6)
    here, there = (ipv6(0, 1), ipv6(0, 2)) if v6 else (ipv4(0, 1), ipv4(0, 2))

    def lose() -> int:
        return sender.sendto(LARGE, (there, CLOSED))

    dropped = partial(client.qdisc_drops, "eth0")
    wait_until(filled(lose, dropped), "the queue to be full")
    return Traffic(
        lose=lose,
        lost=dropped,
        spare=lambda: back.sendto(b"x" * 1000, (here, OPEN)),
        spared=sink.received,
        filled=dropped(),
    )


@cause(
    "FULL_RING",
    "tun_net_xmit",
    short="tap",
    at=Scene(one_ns, "host", "tap0"),
    layer="tx",
    protocol=f"{frames.UNKNOWN_ETHERTYPE:#06x}",
    counters=("links.tx_dropped",),
)
def tap_full(net: Net, v6: bool) -> Traffic:
    """A frame to a tap device whose user does not read and whose ring is full."""
    full, free = Tap(net, "tap0", length=4), Tap(net, "tap1", length=1000)
    dropped = partial(net["host"].link, "tap0", "tx.dropped")
    wait_until(filled(full.send, dropped), "the ring to be full")
    return Traffic(full.send, dropped, free.send, free.received, filled=dropped())


class Tap:
    """A tap device; we are its user, who reads what the kernel sends, or does not."""

    def __init__(self, net: Net, name: str, length: int) -> None:
        """Make it with a ring of `length` frames."""
        with net["host"].entered():
            self._user = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            net.stack.callback(os.close, self._user)
            fcntl.ioctl(self._user, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        net["host"].ip("link", "set", "dev", name, "txqueuelen", str(length), "up")
        self._kernel = wire(net, "host", name)
        self._received = 0

    def send(self) -> int:
        """Let the kernel send one frame to the user."""
        return self._kernel.send(frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop"))

    def received(self) -> int:
        """Read all there is; return how many frames came so far."""
        while True:
            try:
                os.read(self._user, 2000)
            except BlockingIOError:
                return self._received
            self._received += 1


CAUSES = (*neighbour_failed, *neighbour_queue_full, *shaper_full, *tap_full)
