# SPDX-License-Identifier: MIT
"""Packets that a rule, a policy or a classifier does not want."""

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import (
    BOTH,
    CLIENT,
    CLOSED,
    FULL,
    OPEN,
    ROUTER,
    SERVER,
    Sink,
    through_router,
    to_server,
    udp_socket,
)
from pktdrop.demo.net import Net, ipv4, ipv6
from pktdrop.demo.tools import run
from tests.kit.provoke.packets import ACK, Segment
from tests.kit.provoke.witnesses import qdisc_drops, xfrm

SHOT, UNSPEC = 2, 0xFFFFFFFF  # TC_ACT_SHOT, TC_ACT_UNSPEC, include/uapi/linux/pkt_cls.h


def _shoot(net: Net, role: str, direction: str, v6: bool) -> None:
    """Let a classifier of clsact drop what goes to CLOSED, by a classic BPF program that says what to do."""
    port = 14 + (40 if v6 else 20) + 2
    program = f"4,40 0 0 {port},21 0 1 {CLOSED},6 0 0 {SHOT},6 0 0 {UNSPEC}"
    tc = ("tc", "-n", net[role].name)
    run(*tc, "qdisc", "add", "dev", "eth0", "clsact")
    run(*tc, "filter", "add", "dev", "eth0", direction, "bpf", "direct-action", "bytecode", program)


@cause("TC_INGRESS", "sch_handle_ingress", "__netif_receive_skb_core", "tc_run", short="tcin", at=SERVER,
       layer="qdisc", versions=BOTH, bounds=("qdisc.drops",))  # fmt: skip
def classifier_ingress(net: Net, v6: bool) -> Traffic:
    """A packet that a classifier drops as it comes in."""
    line, sink = to_server(net, v6)
    _shoot(net, "server", "ingress", v6)
    return Traffic(line.udp(CLOSED), qdisc_drops(net, "server"), line.udp(OPEN), sink.received)


@cause("TC_EGRESS", "sch_handle_egress", "__dev_queue_xmit", "tc_run", short="tcout", at=CLIENT, layer="qdisc",
       versions=BOTH, bounds=("qdisc.drops", "mib.IpOutDiscards", "mib.UdpSndbufErrors"),
       bounds6=("qdisc.drops", "mib.Ip6OutDiscards", "mib.Udp6SndbufErrors"), otherwise={"layer": "tx"})  # fmt: skip
def classifier_egress(net: Net, v6: bool) -> Traffic:
    """A packet that a classifier drops as it goes out."""
    sender, sink = udp_socket(net, "client", v6), Sink(net, "server", v6)
    there = ipv6(0, 2) if v6 else ipv4(0, 2)
    _shoot(net, "client", "egress", v6)
    return Traffic(
        lose=lambda: sender.sendto(b"x", (there, CLOSED)),
        lost=qdisc_drops(net, "client"),
        spare=lambda: sender.sendto(b"x", (there, OPEN)),
        spared=sink.received,
    )


def _block(net: Net, role: str, direction: str, v6: bool) -> None:
    any_address = "::/0" if v6 else "0.0.0.0/0"
    selector = ("src", any_address, "dst", any_address, "proto", "udp", "dport", str(FULL))
    net[role].ip("xfrm", "policy", "add", *selector, "dir", direction, "action", "block")


@cause("XFRM_POLICY", "udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb", short="xfrm", at=SERVER, versions=BOTH,
       counters=("mib.UdpInErrors",), counters6=("mib.Udp6InErrors",),
       bounds=("xfrm.XfrmInPolBlock", "socket.drops"))  # fmt: skip
def ipsec_input(net: Net, v6: bool) -> Traffic:
    """A packet for a socket that an IPsec policy blocks."""
    line, sink = to_server(net, v6)
    udp_socket(net, "server", v6).bind(("", FULL))
    _block(net, "server", "in", v6)
    return Traffic(line.udp(FULL), xfrm(net, "server", "XfrmInPolBlock"), line.udp(OPEN), sink.received)


def _forward(net: Net, v6: bool) -> Traffic:
    line, sink = through_router(net, v6)
    _block(net, "router", "fwd", v6)
    return Traffic(line.udp(FULL), xfrm(net, "router", "XfrmInPolBlock"), line.udp(OPEN), sink.received)


@cause("XFRM_POLICY", "ip_forward", short="xfrmfwd", at=ROUTER, bounds=("xfrm.XfrmInPolBlock",))
def ipsec_forward(net: Net, v6: bool) -> Traffic:
    """A packet on its way through a router that an IPsec policy blocks."""
    return _forward(net, v6)


@cause("NOT_SPECIFIED", "ip6_forward", short="xfrmfwd6", at=ROUTER, versions=(6,),
       bounds=("mib.Ip6InDiscards", "xfrm.XfrmInPolBlock"))  # fmt: skip
def ipsec_forward_6(net: Net, v6: bool) -> Traffic:
    """A packet of IPv6 on its way through a router that an IPsec policy blocks."""
    return _forward(net, v6)


@cause("NETFILTER_DROP", "nft_do_chain", "nf_hook_slow", "nf_hook_slow_list", short="invalid", at=SERVER,
       versions=BOTH)  # fmt: skip
def untracked(net: Net, v6: bool) -> Traffic:
    """A packet that fits no connection, which a rule drops."""
    line, sink = to_server(net, v6)
    net["server"].nft(
        """table inet pktdrop {
            counter lost { }
            chain input {
                type filter hook input priority 0; policy accept;
                ct state invalid counter name lost drop
            }
        }"""
    )
    net["server"].sysctl(netfilter__nf_conntrack_tcp_loose=0)
    stray = Segment(4000, OPEN, 1, 1, ACK).bytes(line.source, line.destination)
    return Traffic(line.ip(frames.TCP, stray), lambda: net["server"].nft_counter("lost"), line.udp(OPEN), sink.received)


CAUSES = (*classifier_ingress, *classifier_egress, *ipsec_input, *ipsec_forward, *ipsec_forward_6, *untracked)
