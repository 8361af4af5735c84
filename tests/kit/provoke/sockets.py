# SPDX-License-Identifier: MIT
"""Packets for sockets that are neither of UDP as usual nor of TCP."""

import socket
import struct

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLOSED, FULL, OPEN, SERVER, filled, mib, to_server
from pktdrop.demo.net import Net
from tests.kit.process import wait_until
from tests.kit.provoke.packets import UDPLITE, icmp, payload, pseudo
from tests.kit.provoke.witnesses import socket_drops

IPV6_CHECKSUM = 7  # include/uapi/linux/in6.h
PACKET_STATISTICS, SOL_PACKET = 6, 263  # include/uapi/linux/if_packet.h


def _family(v6: bool) -> int:
    return socket.AF_INET6 if v6 else socket.AF_INET


def lite(line_source: str, destination: str, port: int) -> bytes:
    """One UDP-Lite datagram, all of it covered by its checksum (RFC 3828)."""
    head, data = struct.pack("!HHH", 4000, port, 0), b"pktdrop!"
    right = frames.checksum(pseudo(line_source, destination, UDPLITE, 16) + head + b"\0\0" + data)
    return head + struct.pack("!H", right) + data


@cause("IP_NOPROTO", "ip_protocol_deliver_rcu", "ip_local_deliver_finish", "ip6_protocol_deliver_rcu",
       "ip6_input_finish", "raw_rcv", "rawv6_rcv", "raw_local_deliver", "raw6_local_deliver", short="rawbuf", at=SERVER,
       versions=BOTH, bounds=("mib.IpInUnknownProtos", "socket.drops"),
       counters6=("mib.Ip6InUnknownProtos",), bounds6=("socket.drops",), older=("SOCKET_RCVBUFF",),
       older6=(), since="VXLAN_INVALID_HDR", otherwise={"layer": "socket"})  # fmt: skip
def raw_buffer_full(net: Net, v6: bool) -> Traffic:
    """A packet for a raw socket that nobody reads and whose buffer is full.

    The socket is passed over (raw_v4_input): the packet is dropped as one of a protocol that nobody wants. Kernels that
    do not look first (v6.1) drop it at the socket (raw_rcv).
    """
    line, sink = to_server(net, v6)
    lazy = net.keep(net["server"].socket(_family(v6), socket.SOCK_RAW, frames.UNKNOWN_PROTOCOL))
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lose, dropped = line.ip(frames.UNKNOWN_PROTOCOL, b"pktdrop!"), socket_drops(net, "server")
    wait_until(filled(lose, dropped), "the buffer to be full")
    return Traffic(lose, dropped, line.udp(OPEN), sink.received, filled=dropped())


@cause("SKB_CSUM", "rawv6_rcv", short="rawsum", at=SERVER, versions=(6,), bounds=("socket.drops",),
       since="VXLAN_INVALID_HDR", otherwise={"layer": "socket"})  # fmt: skip
def raw_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong checksum in a packet for a raw socket of IPv6 that checks it."""
    line, sink = to_server(net, v6)
    checking = net.keep(net["server"].socket(socket.AF_INET6, socket.SOCK_RAW, frames.UNKNOWN_PROTOCOL))
    checking.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 0)
    wrong = line.ip(frames.UNKNOWN_PROTOCOL, b"pktdrop!")
    return Traffic(wrong, socket_drops(net, "server"), line.udp(OPEN), sink.received)


@cause("NO_SOCKET", "ping_rcv", "icmp_rcv", "icmpv6_rcv", short="noping", at=SERVER, layer="socket", versions=BOTH)
def ping_of_nobody(net: Net, v6: bool) -> Traffic:
    """An answer to a ping that nobody has sent."""
    line, sink = to_server(net, v6)
    protocol = frames.ICMPV6 if v6 else frames.ICMP
    whole = pseudo(line.source, line.destination, protocol, 8) if v6 else b""
    answer = line.ip(protocol, icmp(129 if v6 else 0, 0, struct.pack("!HH", 7, 1), whole))
    received = mib(net, "server", "IcmpInEchoReps", "Icmp6InEchoReplies", v6)
    return Traffic(answer, received, line.udp(OPEN), sink.received)


@cause("NO_SOCKET", "__udp4_lib_rcv", "__udp6_lib_rcv", short="lite", at=SERVER, layer="socket", versions=BOTH,
       counters=("mib.UdpLiteNoPorts",), counters6=("mib.UdpLite6NoPorts",))  # fmt: skip
def lite_closed_port(net: Net, v6: bool) -> Traffic:
    """UDP-Lite to a port nobody listens on."""
    line, sink = to_server(net, v6)
    lose = line.ip(UDPLITE, lite(line.source, line.destination, CLOSED))
    return Traffic(lose, mib(net, "server", "UdpLiteNoPorts", "UdpLite6NoPorts", v6), line.udp(OPEN), sink.received)


@cause("SOCKET_RCVBUFF", "__udp_queue_rcv_skb", "__udpv6_queue_rcv_skb", "__udp_enqueue_schedule_skb",
       "udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb", short="litebuf", at=SERVER, layer="socket", versions=BOTH,
       counters=("mib.UdpLiteRcvbufErrors", "mib.UdpLiteInErrors"),
       counters6=("mib.UdpLite6RcvbufErrors", "mib.UdpLite6InErrors"))  # fmt: skip
def lite_buffer_full(net: Net, v6: bool) -> Traffic:
    """UDP-Lite to a socket that nobody reads and whose buffer is full."""
    line, sink = to_server(net, v6)
    lazy = net.keep(net["server"].socket(_family(v6), socket.SOCK_DGRAM, UDPLITE))
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lazy.bind(("", FULL))
    lose = line.ip(UDPLITE, lite(line.source, line.destination, FULL))
    errors = mib(net, "server", "UdpLiteRcvbufErrors", "UdpLite6RcvbufErrors", v6)
    wait_until(filled(lose, errors), "the buffer to be full")
    return Traffic(lose, errors, line.udp(OPEN), sink.received, filled=errors())


@cause("PKT_TOO_SMALL", "__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv", short="udpcut", at=SERVER,
       versions=BOTH, counters=("mib.UdpInErrors",), counters6=("mib.Udp6InErrors",))  # fmt: skip
def udp_length_wrong(net: Net, v6: bool) -> Traffic:
    """A UDP datagram that is shorter than it says."""
    line, sink = to_server(net, v6)
    wrong = line.ip(frames.UDP, struct.pack("!HHHH", 4000, OPEN, 100, 0xFFFF) + b"x" * 8)
    return Traffic(wrong, mib(net, "server", "UdpInErrors", "Udp6InErrors", v6), line.udp(OPEN), sink.received)


@cause("NOT_SPECIFIED", "__udp4_lib_mcast_deliver", "__udp4_lib_rcv", "__udp6_lib_mcast_deliver", "__udp6_lib_rcv",
       "udp_rcv", "udpv6_rcv", short="mcast", at=SERVER, layer="socket", versions=BOTH,
       bounds=("mib.UdpIgnoredMulti",), bounds6=("mib.Udp6IgnoredMulti",))  # fmt: skip
def broadcast_to_nobody(net: Net, v6: bool) -> Traffic:
    """UDP to all hosts, on a port that nobody here listens on."""
    line, sink = to_server(net, v6)
    there = "ff02::1" if v6 else "255.255.255.255"
    macs = ("33:33:00:00:00:01" if v6 else "ff:ff:ff:ff:ff:ff", line.macs[1])
    data = frames.udp(line.source, there, CLOSED)
    packet = (frames.ip6 if v6 else frames.ip4)(line.source, there, frames.UDP, data)
    right, line.macs = line.udp(OPEN), macs
    received = mib(net, "server", "UdpIgnoredMulti", "Udp6IgnoredMulti", v6)
    return Traffic(payload(line, packet), received, right, sink.received)


@cause("PACKET_SOCK_ERROR", "packet_rcv", "tpacket_rcv", short="capture", at=SERVER, layer="socket",
       protocol=f"{frames.UNKNOWN_ETHERTYPE:#06x}")  # fmt: skip
def capture_full(net: Net, v6: bool) -> Traffic:
    """A frame that only a packet socket takes, which nobody reads and whose buffer is full."""
    line, sink = to_server(net, v6)
    lazy = net.keep(net["server"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lazy.bind(("eth0", frames.UNKNOWN_ETHERTYPE))
    lose = line.frame(*line.macs, frames.UNKNOWN_ETHERTYPE, b"pktdrop")
    seen = 0

    def dropped() -> int:
        nonlocal seen
        seen += int(struct.unpack("=II", lazy.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])  # reading resets it
        return seen

    wait_until(filled(lose, dropped), "the buffer to be full")
    return Traffic(lose, dropped, line.udp(OPEN), sink.received, filled=dropped())


CAUSES = (
    *raw_buffer_full,
    *raw_checksum,
    *ping_of_nobody,
    *lite_closed_port,
    *lite_buffer_full,
    *udp_length_wrong,
    *broadcast_to_nobody,
    *capture_full,
)
