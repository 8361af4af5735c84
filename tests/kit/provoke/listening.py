# SPDX-License-Identifier: MIT
"""What a listening TCP socket does not take."""

import socket
import struct

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, OPEN, SERVER, refuse_all, to_server
from pktdrop.demo.net import Net, ipv4, ipv6
from tests.kit.provoke.packets import ACK, Segment
from tests.kit.provoke.peer import TUN, Peer
from tests.kit.provoke.witnesses import socket_drops

TCP_MD5SIG = 14  # include/uapi/linux/tcp.h
IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73  # include/uapi/linux/in.h, in6.h
_SIGNATURE = struct.pack("!BB16s", 19, 18, b"not the right one")[:18]  # RFC 2385
RCV = ("tcp_v4_rcv", "tcp_v6_rcv")


@cause(
    "TCP_LISTEN_OVERFLOW",
    *RCV,
    short="accept",
    at=TUN,
    layer="socket",
    versions=BOTH,
    bounds=("mib.TcpExtListenOverflows", "mib.TcpExtListenDrops"),
)
def accept_queue_full(net: Net, v6: bool) -> Traffic:
    """The last packet of a handshake, when as many connections wait to be accepted as may."""
    peer = Peer(net, v6)
    net["host"].sysctl(ipv4__tcp_synack_retries=100)  # the request stays
    peer.listen(backlog=3)  # 4 may wait to be accepted, and 3 for the last packet of their handshakes

    def begin(port: int) -> Segment:
        answer = peer.ask(Segment(port, OPEN, 1))
        return Segment(port, OPEN, 2, answer.seq + 1, ACK)

    for port in (4001, 4002, 4003):
        peer.tcp(begin(port))
    fourth, fifth = begin(4004), begin(4005)  # both while there is room
    peer.tcp(fourth)
    return Traffic(
        lose=lambda: peer.tcp(fifth),
        lost=lambda: net["host"].mib("TcpExtListenOverflows"),
        spare=peer.udp,
        spared=peer.sink.received,
    )


def _listener(net: Net, v6: bool) -> socket.socket:
    """In two_ns: an open port of the server's."""
    listener = net.keep(net["server"].socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM))
    listener.bind(("", OPEN))
    listener.listen(100)
    return listener


@cause("TCP_MINTTL", *RCV, short="minttl", at=SERVER, versions=BOTH, bounds=("mib.TcpExtTCPMinTTLDrop", "socket.drops"))
def too_far_away(net: Net, v6: bool) -> Traffic:
    """A TCP segment to a socket that takes none from so far away (RFC 5082)."""
    line, sink = to_server(net, v6)
    listener = _listener(net, v6)
    if v6:
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT, 255)
    else:
        listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255)
    syn = Segment(4000, OPEN, 1).bytes(line.source, line.destination)
    return Traffic(
        lose=line.ip(frames.TCP, syn),
        lost=lambda: net["server"].mib("TcpExtTCPMinTTLDrop"),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


def _signed(net: Net, v6: bool, expected: bool, sent: bool, counter: str) -> Traffic:
    line, sink = to_server(net, v6)
    listener = _listener(net, v6)
    if expected:
        family = socket.AF_INET6 if v6 else socket.AF_INET
        address = socket.inet_pton(family, ipv6(0, 1) if v6 else ipv4(0, 1))
        peer = struct.pack("=HHI16s" if v6 else "=HH4s", family, 0, *((0, address) if v6 else (address,)))
        key = b"pktdrop"
        listener.setsockopt(
            socket.IPPROTO_TCP, TCP_MD5SIG, struct.pack("=128sBBHi80s", peer, 0, 0, len(key), 0, key)
        )  # struct tcp_md5sig
    syn = Segment(4000, OPEN, 1, options=_SIGNATURE if sent else b"").bytes(line.source, line.destination)
    return Traffic(
        lose=line.ip(frames.TCP, syn),
        lost=lambda: net["server"].mib(counter),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("TCP_MD5NOTFOUND", *RCV, short="unsigned", at=SERVER, versions=BOTH, counters=("mib.TcpExtTCPMD5NotFound",),
       bounds=("socket.drops",))  # fmt: skip
def signature_missing(net: Net, v6: bool) -> Traffic:
    """A TCP segment without the signature that the socket wants (RFC 2385)."""
    return _signed(net, v6, expected=True, sent=False, counter="TcpExtTCPMD5NotFound")


@cause("TCP_MD5UNEXPECTED", *RCV, short="signed", at=SERVER, versions=BOTH, counters=("mib.TcpExtTCPMD5Unexpected",),
       bounds=("socket.drops",))  # fmt: skip
def signature_unexpected(net: Net, v6: bool) -> Traffic:
    """A TCP segment with a signature to a socket that has no key."""
    return _signed(net, v6, expected=False, sent=True, counter="TcpExtTCPMD5Unexpected")


@cause("TCP_MD5FAILURE", *RCV, short="forged", at=SERVER, versions=BOTH, counters=("mib.TcpExtTCPMD5Failure",),
       bounds=("socket.drops",))  # fmt: skip
def signature_wrong(net: Net, v6: bool) -> Traffic:
    """A TCP segment with a wrong signature."""
    return _signed(net, v6, expected=True, sent=True, counter="TcpExtTCPMD5Failure")


@cause(
    "SOCKET_FILTER", *RCV, "sk_filter_trim_cap", short="tcpfilter", at=SERVER, layer="socket", versions=BOTH,
    bounds=("socket.drops",),
)  # fmt: skip
def tcp_filter(net: Net, v6: bool) -> Traffic:
    """A TCP segment to a listener whose classic BPF filter refuses all."""
    line, sink = to_server(net, v6)
    refuse_all(_listener(net, v6))
    syn = Segment(4000, OPEN, 1).bytes(line.source, line.destination)
    return Traffic(line.ip(frames.TCP, syn), socket_drops(net, "server"), line.udp(OPEN), sink.received)


@cause("PKT_TOO_SMALL", *RCV, short="tcpcut", at=SERVER, versions=BOTH, counters=("mib.TcpInErrs",))
def tcp_header_cut(net: Net, v6: bool) -> Traffic:
    """A TCP segment that ends before its header does."""
    line, sink = to_server(net, v6)
    cut = Segment(4000, OPEN, 1, header_words=4).bytes(line.source, line.destination)
    return Traffic(line.ip(frames.TCP, cut), lambda: net["server"].mib("TcpInErrs"), line.udp(OPEN), sink.received)


TCP_DEFER_ACCEPT = 9  # include/uapi/linux/tcp.h


@cause("NOT_SPECIFIED", *RCV, short="defer", at=TUN, layer="socket", versions=BOTH,
       bounds=("mib.TcpExtTCPDeferAcceptDrop",))  # fmt: skip
def nothing_to_accept(net: Net, v6: bool) -> Traffic:
    """The last packet of a handshake without data, at a listener that waits for data."""
    peer = Peer(net, v6)
    net["host"].sysctl(ipv4__tcp_synack_retries=100)  # the request stays
    peer.listen().setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 3600)
    answer = peer.ask(Segment(4001, OPEN, 1))
    last = Segment(4001, OPEN, 2, answer.seq + 1, ACK)
    return Traffic(
        lambda: peer.tcp(last), lambda: net["host"].mib("TcpExtTCPDeferAcceptDrop"), peer.udp, peer.sink.received
    )


@cause("TCP_FLAGS", "tcp_v4_do_rcv", "tcp_v6_do_rcv", "tcp_rcv_state_process", short="cookie", at=TUN, versions=BOTH,
       bounds=("mib.TcpExtSyncookiesFailed", "mib.TcpOutRsts"), since="TCP_ABORT_ON_DATA",
       told_by="socket")  # fmt: skip
def wrong_cookie(net: Net, v6: bool) -> Traffic:
    """The last packet of a handshake that never began, where cookies are baked (RFC 4987)."""
    peer = Peer(net, v6)
    net["host"].sysctl(ipv4__tcp_syncookies=2)
    peer.listen()
    first = Segment(4001, OPEN, 1)
    wrong = Segment(4001, OPEN, 2, peer.ask(first).seq + 12345, ACK)

    def lose() -> None:
        peer.tcp(first)  # cookies are looked at for two minutes (TCP_SYNCOOKIE_VALID, include/net/tcp.h)
        peer.tcp(wrong)

    return Traffic(lose, lambda: net["host"].mib("TcpExtSyncookiesFailed"), peer.udp, peer.sink.received)


@cause("NO_SOCKET", "cookie_v4_check", "cookie_v6_check", short="cookiefull",
       at=TUN, layer="socket", versions=BOTH,
       bounds=("mib.TcpExtListenOverflows", "mib.TcpExtListenDrops"))  # fmt: skip
def cookie_queue_full(net: Net, v6: bool) -> Traffic:
    """The last packet of a handshake by cookie, when as many connections wait to be accepted as may."""
    peer = Peer(net, v6)
    net["host"].sysctl(ipv4__tcp_syncookies=2)  # nothing is kept of a SYN
    peer.listen(backlog=0)  # 1 may wait
    baked = [peer.ask(Segment(port, OPEN, 1)) for port in (4001, 4002)]
    first, second = (Segment(one.port, OPEN, 2, one.seq + 1, ACK) for one in baked)
    peer.tcp(first)
    return Traffic(
        lambda: peer.tcp(second), lambda: net["host"].mib("TcpExtListenOverflows"), peer.udp, peer.sink.received
    )


CAUSES = (
    *accept_queue_full,
    *cookie_queue_full,
    *too_far_away,
    *signature_missing,
    *signature_unexpected,
    *signature_wrong,
    *tcp_filter,
    *tcp_header_cut,
    *nothing_to_accept,
    *wrong_cookie,
)
