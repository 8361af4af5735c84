# SPDX-License-Identifier: MIT
"""Packets that are not for here, or cannot go on from here."""

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, NOWHERE, OPEN, ROUTER, SERVER, mib, through_router, to_server
from pktdrop.demo.net import Net, mac


@cause(
    "IP_INADDRERRORS",
    "ip_error",
    "ip6_forward",
    "ip6_pkt_drop",
    "ip6_pkt_discard",
    short="address",
    at=SERVER,
    versions=BOTH,
    counters=("mib.IpInAddrErrors",),
    counters6=("mib.Ip6InAddrErrors",),
)
def not_for_us(net: Net, v6: bool) -> Traffic:
    """A packet for another host, at a host that does not forward."""
    line, sink = to_server(net, v6)
    if v6:
        net["server"].ip("-6", "route", "add", "2001:db8::/32", "dev", "eth0")
    return Traffic(
        lose=line.udp(OPEN, destination=NOWHERE[v6]),
        lost=mib(net, "server", "IpInAddrErrors", "Ip6InAddrErrors", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "IP_INNOROUTES",
    "ip_error",
    "ip6_pkt_drop",
    "ip6_pkt_discard",
    short="noroute",
    at=ROUTER,
    versions=BOTH,
    counters=("mib.IpExtInNoRoutes",),
    counters6=("mib.Ip6InNoRoutes",),
)
def no_route(net: Net, v6: bool) -> Traffic:
    """A packet that a router has no route for."""
    line, sink = through_router(net, v6)
    return Traffic(
        lose=line.udp(OPEN, destination=NOWHERE[v6]),
        lost=mib(net, "router", "IpExtInNoRoutes", "Ip6InNoRoutes", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "OTHERHOST",
    "ip_rcv_core",
    "ip6_rcv_core",
    short="mac",
    at=SERVER,
    versions=BOTH,
    counters=("links.rx_otherhost_dropped",),
)
def foreign_mac(net: Net, v6: bool) -> Traffic:
    """A frame for another hardware address, as a switch floods it."""
    line, sink = to_server(net, v6)
    right = line.udp(OPEN)
    line.macs = (mac(0, 99), line.macs[1])
    received = mib(net, "server", "IpInReceives", "Ip6InReceives", v6)
    # IP does not count it as received; rx.otherhost, which does, came with Linux 5.19
    return Traffic(line.udp(OPEN), lambda: net["server"].link("eth0", "rx.packets") - received(), right, sink.received)


@cause(
    "UNHANDLED_PROTO",
    "__netif_receive_skb_core",
    short="type",
    at=SERVER,
    protocol=f"{frames.UNKNOWN_ETHERTYPE:#06x}",
    counters=("links.rx_dropped",),
)
def unknown_ethertype(net: Net, v6: bool) -> Traffic:
    """A frame of a protocol that this host does not speak."""
    line, sink = to_server(net, v6)
    return Traffic(
        lose=line.frame(*line.macs, frames.UNKNOWN_ETHERTYPE, b"pktdrop"),
        lost=lambda: net["server"].link("eth0", "rx.dropped"),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "IP_NOPROTO",
    "ip_protocol_deliver_rcu",
    "ip_local_deliver_finish",
    "ip6_protocol_deliver_rcu",
    "ip6_input_finish",
    "ip6_input",  # which compilers may merge it with
    short="proto",
    at=SERVER,
    versions=BOTH,
    counters6=("mib.Ip6InUnknownProtos",),
    bounds=("mib.IpInUnknownProtos",),
    bounds6=(),
)
def unknown_protocol(net: Net, v6: bool) -> Traffic:
    """An IP packet of a transport protocol that this host does not speak."""
    line, sink = to_server(net, v6)
    return Traffic(
        lose=line.ip(frames.UNKNOWN_PROTOCOL, b"pktdrop!"),
        lost=mib(net, "server", "IpInUnknownProtos", "Ip6InUnknownProtos", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "PKT_TOO_BIG",
    "ip_forward",
    "ip6_forward",
    short="mtu",
    at=ROUTER,
    versions=BOTH,
    interface6="east",
    counters6=("mib.Ip6InTooBigErrors",),
    bounds=("mib.IpFragFails",),
    bounds6=("mib.Ip6FragFails",),
)
def too_big_to_forward(net: Net, v6: bool) -> Traffic:
    """A packet that must not be fragmented and is larger than the next link takes.

    ip6_forward() sets skb->dev to that link before it sends the ICMPv6 error; ip_forward() leaves the old one.
    """
    line, sink = through_router(net, v6)
    net["router"].ip("link", "set", "dev", "east", "mtu", "1280")
    return Traffic(
        lose=line.udp(OPEN, size=1400, df=True),
        lost=mib(net, "router", "IpFragFails", "Ip6InTooBigErrors", v6),
        spare=line.udp(OPEN, size=1000, df=True),
        spared=sink.received,
    )


@cause(
    "IP_INHDR",
    "ip_forward",
    "ip6_forward",
    short="ttl",
    at=ROUTER,
    versions=BOTH,
    bounds=("mib.IpInHdrErrors",),
    bounds6=("mib.Ip6InHdrErrors",),
)
def time_to_live_over(net: Net, v6: bool) -> Traffic:
    """A packet whose time to live ends at the router."""
    line, sink = through_router(net, v6)
    return Traffic(
        lose=line.udp(OPEN, hops=1),
        lost=mib(net, "router", "IpInHdrErrors", "Ip6InHdrErrors", v6),
        spare=line.udp(OPEN, hops=2),
        spared=sink.received,
    )


CAUSES = (
    *not_for_us,
    *no_route,
    *foreign_mac,
    *unknown_ethertype,
    *unknown_protocol,
    *too_big_to_forward,
    *time_to_live_over,
)
