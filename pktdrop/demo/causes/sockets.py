# SPDX-License-Identifier: MIT
"""Packets that reach no socket, or one that does not take them."""

import socket

from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLOSED, FULL, LO, OPEN, Sink, filled, mib, refuse_all, udp_socket
from pktdrop.demo.net import Net
from pktdrop.demo.tools import wait_until


def _loopback(v6: bool) -> str:
    return "::1" if v6 else "127.0.0.1"


@cause(
    "NO_SOCKET",
    "__udp4_lib_rcv",
    "__udp6_lib_rcv",
    "udp_rcv",
    "udpv6_rcv",
    short="closed",
    at=LO,
    layer="socket",
    versions=BOTH,
    counters=("mib.UdpNoPorts",),
    counters6=("mib.Udp6NoPorts",),
)
def udp_closed_port(net: Net, v6: bool) -> Traffic:
    """UDP to a port nobody listens on."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    return Traffic(
        lose=lambda: sender.sendto(b"x", (_loopback(v6), CLOSED)),
        lost=mib(net, "host", "UdpNoPorts", "Udp6NoPorts", v6),
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
    )


@cause(
    "NO_SOCKET",
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    short="tcp",
    at=LO,
    layer="socket",
    versions=BOTH,
    bounds=("mib.TcpOutRsts",),
)
def tcp_closed_port(net: Net, v6: bool) -> Traffic:
    """A TCP connection to a port nobody listens on; the kernel answers each SYN with a reset."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    listener = net.keep(net["host"].socket(family, socket.SOCK_STREAM))
    listener.bind((_loopback(v6), OPEN))
    listener.listen(1000)

    def refused() -> None:
        with net["host"].socket(family, socket.SOCK_STREAM) as caller:
            if caller.connect_ex((_loopback(v6), CLOSED)) == 0:
                raise ConnectionError(f"somebody listens on port {CLOSED}")

    return Traffic(
        lose=refused,
        lost=lambda: net["host"].mib("TcpOutRsts"),
        spare=lambda: net.keep(net["host"].socket(family, socket.SOCK_STREAM)).connect((_loopback(v6), OPEN)),
        spared=lambda: net["host"].mib("TcpPassiveOpens"),
    )


@cause(
    "SOCKET_RCVBUFF",
    "__udp_queue_rcv_skb",
    "__udpv6_queue_rcv_skb",
    "__udp_enqueue_schedule_skb",
    "udp_queue_rcv_one_skb",
    "udpv6_queue_rcv_one_skb",
    short="rcvbuf",
    at=LO,
    layer="socket",
    versions=BOTH,
    counters=("mib.UdpRcvbufErrors", "mib.UdpInErrors"),
    counters6=("mib.Udp6RcvbufErrors", "mib.Udp6InErrors"),
)
def receive_buffer_full(net: Net, v6: bool) -> Traffic:
    """UDP to a socket that nobody reads and whose buffer is full."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    lazy = udp_socket(net, "host", v6)
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lazy.bind((_loopback(v6), FULL))
    errors = mib(net, "host", "UdpRcvbufErrors", "Udp6RcvbufErrors", v6)

    def lose() -> int:
        return sender.sendto(b"x", (_loopback(v6), FULL))

    wait_until(filled(lose, errors), "the buffer to be full")
    return Traffic(
        lose=lose,
        lost=errors,
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
        filled=errors(),
    )


@cause(
    "SOCKET_FILTER",
    "udp_queue_rcv_one_skb",
    "udpv6_queue_rcv_one_skb",
    "sk_filter_trim_cap",
    short="filter",
    at=LO,
    layer="socket",
    versions=BOTH,
    counters=("mib.UdpInErrors",),
    counters6=("mib.Udp6InErrors",),
)
def socket_filter(net: Net, v6: bool) -> Traffic:
    """UDP to a socket whose classic BPF filter refuses all."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    choosy = udp_socket(net, "host", v6)
    refuse_all(choosy)
    choosy.bind((_loopback(v6), FULL))
    return Traffic(
        lose=lambda: sender.sendto(b"x", (_loopback(v6), FULL)),
        lost=mib(net, "host", "UdpInErrors", "Udp6InErrors", v6),
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
    )


CAUSES = (*udp_closed_port, *tcp_closed_port, *receive_buffer_full, *socket_filter)
