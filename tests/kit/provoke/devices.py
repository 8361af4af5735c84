# SPDX-License-Identifier: MIT
"""Packets that devices and their queues do not take."""

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import replace

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Scene, Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLIENT, CLOSED, LARGE, OPEN, Sink, filled, to_server, udp_socket, wire
from pktdrop.demo.net import Net, ipv4, ipv6, mac, one_ns, two_ns
from tests.kit.process import run, wait_until
from tests.kit.provoke.witnesses import qdisc_drops

# include/uapi/linux/if_tun.h
TUNSETIFF, TUNSETTXFILTER, TUNATTACHFILTER, TUNSETQUEUE = 0x400454CA, 0x400454D1, 0x401054D5, 0x400454D9
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_DETACH_QUEUE = 0x0001, 0x0002, 0x1000, 0x0100, 0x0400
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # include/linux/socket.h, include/uapi/linux/if_packet.h
TAP = Scene(one_ns, "host", "tap0")
UNKNOWN = f"{frames.UNKNOWN_ETHERTYPE:#06x}"


# --- tun and tap


def _tap(net: Net, name: str, flags: int = IFF_TAP) -> int:
    """Make a device; return what its user holds."""
    with net["host"].entered():
        user = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        net.stack.callback(os.close, user)
        fcntl.ioctl(user, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags | IFF_NO_PI))
    net["host"].ip("link", "set", "dev", name, "txqueuelen", "1000", "up")
    return user


class Taps:
    """A device whose user does not take what comes, once he has said so, and one whose user takes all."""

    def __init__(self, net: Net, flags: int = IFF_TAP) -> None:
        """Make them."""
        self._net = net
        self.choosy, self._open = _tap(net, "tap0", flags), _tap(net, "tap1")
        self._to = {name: wire(net, "host", name) for name in ("tap0", "tap1")}
        self._frame = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")
        self._received = 0

    def received(self) -> int:
        """Read all there is; return how many frames came so far."""
        while True:
            try:
                os.read(self._open, 2000)
            except BlockingIOError:
                return self._received
            self._received += 1

    def traffic(self) -> Traffic:
        """Return frames to both."""
        host = self._net["host"]
        return Traffic(
            lose=lambda: self._to["tap0"].send(self._frame),
            lost=lambda: host.link("tap0", "tx.dropped"),
            spare=lambda: self._to["tap1"].send(self._frame),
            spared=self.received,
        )


@cause("TAP_TXFILTER", "tun_net_xmit", short="tapmac", at=TAP, layer="tx", protocol=UNKNOWN,
       counters=("links.tx_dropped",))  # fmt: skip
def tap_address_filter(net: Net, v6: bool) -> Traffic:
    """A frame to a tap device whose user wants another hardware address only."""
    taps = Taps(net)
    fcntl.ioctl(taps.choosy, TUNSETTXFILTER, struct.pack("=HH6s", 0, 1, b"\2\0\0\0\0\x63"))  # struct tun_filter
    return taps.traffic()


@cause("SOCKET_FILTER", "tun_net_xmit", short="tapbpf", at=TAP, layer="tx", protocol=UNKNOWN,
       counters=("links.tx_dropped",))  # fmt: skip
def tap_packet_filter(net: Net, v6: bool) -> Traffic:
    """A frame to a tap device whose user refuses all by a classic BPF filter."""
    taps = Taps(net)
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: 0 bytes
    fcntl.ioctl(taps.choosy, TUNATTACHFILTER, struct.pack("@HP", 1, ctypes.addressof(instruction)))
    return taps.traffic()


@cause("DEV_READY", "tun_net_xmit", short="tapqueue", at=TAP, layer="tx", protocol=UNKNOWN,
       counters=("links.tx_dropped",))  # fmt: skip
def tap_without_queue(net: Net, v6: bool) -> Traffic:
    """A frame to a tap device whose user has detached its only queue."""
    taps = Taps(net, IFF_TAP | IFF_MULTI_QUEUE)
    fcntl.ioctl(taps.choosy, TUNSETQUEUE, struct.pack("16sH22x", b"", IFF_DETACH_QUEUE))
    return taps.traffic()


# --- veth


def _peer_sees(net: Net) -> Traffic:
    line, sink = to_server(net, False)
    large = line.udp(CLOSED, size=1400)

    def lose() -> None:
        with suppress(OSError):  # ENOBUFS: the sender is told
            large()

    return Traffic(lose, lambda: net["client"].link("eth0", "tx.dropped"), line.udp(OPEN), sink.received)


@cause("NOT_SPECIFIED", "veth_xmit", "__dev_forward_skb2", "__dev_forward_skb",
       "____dev_forward_skb", short="vethmtu", at=CLIENT,
       bounds=("links.tx_dropped",))  # fmt: skip
def too_big_for_peer(net: Net, v6: bool) -> Traffic:
    """A frame through a veth pair whose other end takes only smaller ones."""
    net["server"].ip("link", "set", "dev", "eth0", "mtu", "1000")
    return _peer_sees(net)


# --- queueing disciplines


def _queue(net: Net, v6: bool, *qdiscs: str) -> Traffic:
    """UDP from client to server through qdiscs that are full."""
    client = net["client"]
    for qdisc in qdiscs:
        client.run("tc", *qdisc.split())
    sender, back, sink = udp_socket(net, "client", v6), udp_socket(net, "server", v6), Sink(net, "client", v6)
    here, there = (ipv6(0, 1), ipv6(0, 2)) if v6 else (ipv4(0, 1), ipv4(0, 2))
    dropped = qdisc_drops(net, "client")

    def lose() -> int:
        return sender.sendto(LARGE, (there, CLOSED))

    wait_until(filled(lose, dropped), "the queue to be full")
    return Traffic(
        lose=lose,
        lost=dropped,
        spare=lambda: back.sendto(b"x" * 1000, (here, OPEN)),
        spared=sink.received,
        filled=dropped(),
    )


FREED = ("__dev_xmit_skb", "__dev_queue_xmit", "kfree_skb_list", "kfree_skb_list_reason", "__tcf_kfree_skb_list")
CLASS = "class add dev eth0 parent 1: classid 1:1 htb rate 8bit burst 1600 cburst 1600"
HTB = ("qdisc add dev eth0 root handle 1: htb default 1", CLASS)
TBF = "qdisc add dev eth0 root handle 1: tbf rate 8bit burst 1600 limit 1000000"


@cause("QDISC_DROP", *FREED, short="pfifo", at=CLIENT, layer="qdisc", versions=BOTH,
       counters=("qdisc.drops",), bounds=("mib.IpOutDiscards", "mib.UdpSndbufErrors"),
       bounds6=("mib.Ip6OutDiscards", "mib.Udp6SndbufErrors"))  # fmt: skip
def leaf_of_class_full(net: Net, v6: bool) -> Traffic:
    """A packet to a pfifo in a class of htb that is full; both qdiscs count it."""
    # no room at all: htb lets a packet go once a minute, however little it may (mbuffer, net/sched/sch_htb.c)
    return _queue(net, v6, *HTB, "qdisc add dev eth0 parent 1:1 pfifo limit 0")


@cause("QDISC_DROP", *FREED, short="bfifo", at=CLIENT, layer="qdisc",
       counters=("qdisc.drops",), bounds=("mib.IpOutDiscards", "mib.UdpSndbufErrors"))  # fmt: skip
def leaf_of_shaper_full(net: Net, v6: bool) -> Traffic:
    """A packet to a bfifo in a token bucket that is full; both qdiscs count it."""
    return _queue(net, v6, TBF, "qdisc add dev eth0 parent 1: bfifo limit 3000")


@cause("QDISC_DROP", *FREED, short="headdrop", at=CLIENT, layer="qdisc", counters=("qdisc.drops",))
def head_of_queue(net: Net, v6: bool) -> Traffic:
    """The oldest packet of a full pfifo_head_drop, for one that comes."""
    return _queue(net, v6, TBF, "qdisc add dev eth0 parent 1: pfifo_head_drop limit 2")


@cause(
    "QDISC_DROP",
    *FREED,
    "noop_enqueue",
    short="carrier",
    at=Scene(two_ns, "client", "eth1"),
    layer="qdisc",
    bounds=("links.tx_dropped",),
    missing="qdisc.drops",  # counted nowhere (noop_enqueue in net/sched/sch_generic.c, v6.1): it looks like a full one
)
def no_carrier(net: Net, v6: bool) -> Traffic:
    """A packet out of an interface without a carrier."""
    client = net["client"]
    run("ip", "-n", client.name, "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    client.ip("link", "set", "dev", "eth1", "arp", "off", "up")
    client.sysctl(ipv4__conf__eth1__ignore_routes_with_linkdown=0)
    client.ip("address", "add", "10.7.5.1/24", "dev", "eth1")
    sender, sink = udp_socket(net, "client", v6), Sink(net, "server", v6)
    given = 0

    def lose() -> None:
        nonlocal given
        given += sender.sendto(b"x", ("10.7.5.2", CLOSED))

    return Traffic(
        lose=lose,
        lost=lambda: given - client.link("eth1", "tx.packets"),  # not every kernel counts it in tx.dropped
        spare=lambda: sender.sendto(b"x", (ipv4(0, 2), OPEN)),
        spared=sink.received,
    )


@cause("NOT_SPECIFIED", "__dev_direct_xmit", "kfree_skb_list_reason", "kfree_skb_list", short="bypass",
       at=Scene(two_ns, "client", "eth1"), layer="tx", protocol=UNKNOWN, counters=("links.tx_dropped",))  # fmt: skip
def no_carrier_past_queue(net: Net, v6: bool) -> Traffic:
    """A frame past the queues, out of an interface without a carrier."""
    client = net["client"]
    run("ip", "-n", client.name, "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
    client.ip("link", "set", "dev", "eth1", "arp", "off", "up")
    raw = wire(net, "client", "eth1")
    raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    line, sink = to_server(net, False)
    frame = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")

    def lose() -> None:
        with suppress(OSError):  # the sender is told
            raw.send(frame)

    return Traffic(lose, lambda: client.link("eth1", "tx.dropped"), line.udp(OPEN), sink.received)


@cause("NO_TX_TARGET", "br_flood", "br_dev_xmit", short="bridge", at=Scene(two_ns, "server", "br0"),
       protocol=UNKNOWN, since="BRIDGE_INGRESS_STP_STATE")  # fmt: skip
def bridge_without_ports(net: Net, v6: bool) -> Traffic:
    """A frame out of a bridge that has no port to send it by."""
    server = net["server"]
    server.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
    server.ip("link", "set", "dev", "br0", "up")
    raw = wire(net, "server", "br0")
    line, sink = to_server(net, False)
    frame = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")
    return Traffic(lambda: raw.send(frame), lambda: server.link("br0", "tx.packets"), line.udp(OPEN), sink.received)


@cause("DEV_READY", "tun_get_user", short="tapdown", at=TAP, layer="driver", protocol=UNKNOWN,
       bounds=("links.rx_dropped",))  # fmt: skip
def tap_down(net: Net, v6: bool) -> Traffic:
    """A frame from the user of a tap device that is down."""
    taps, host = Taps(net), net["host"]
    host.ip("link", "set", "dev", "tap0", "down")
    frame = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")

    def lose() -> None:
        with suppress(OSError):  # EIO: the user is told
            os.write(taps.choosy, frame)

    return replace(taps.traffic(), lose=lose, lost=lambda: host.link("tap0", "rx.dropped"))


CAUSES = (
    *tap_address_filter,
    *tap_packet_filter,
    *tap_without_queue,
    *too_big_for_peer,
    *leaf_of_class_full,
    *leaf_of_shaper_full,
    *head_of_queue,
    *no_carrier,
    *no_carrier_past_queue,
    *bridge_without_ports,
    *tap_down,
)
