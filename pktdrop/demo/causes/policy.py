# SPDX-License-Identifier: MIT
"""Packets that somebody does not want: rules and settings."""

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLOSED, NOWHERE, OPEN, ROUTER, SERVER, Wire, through_router, to_server
from pktdrop.demo.net import Net, ipv6


def _drop_rule(hook: str) -> str:
    return f"""table inet pktdrop {{
        counter lost {{ }}
        chain {hook} {{
            type filter hook {hook} priority 0; policy accept;
            udp dport {CLOSED} counter name lost drop
        }}
    }}"""


@cause("NETFILTER_DROP", "nft_do_chain", "nf_hook_slow", "nf_hook_slow_list", short="input", at=SERVER, versions=BOTH)
def nftables_input(net: Net, v6: bool) -> Traffic:
    """A packet for this host that a rule drops."""
    line, sink = to_server(net, v6)
    net["server"].nft(_drop_rule("input"))
    return Traffic(line.udp(CLOSED), lambda: net["server"].nft_counter("lost"), line.udp(OPEN), sink.received)


@cause("NETFILTER_DROP", "nft_do_chain", "nf_hook_slow", "nf_hook_slow_list", short="forward", at=ROUTER, versions=BOTH)
def nftables_forward(net: Net, v6: bool) -> Traffic:
    """A packet on its way through a router that a rule drops."""
    line, sink = through_router(net, v6)
    net["router"].nft(_drop_rule("forward"))
    return Traffic(line.udp(CLOSED), lambda: net["router"].nft_counter("lost"), line.udp(OPEN), sink.received)


@cause(
    "IP_RPFILTER",
    "ip_rcv_finish_core",
    "ip_rcv_finish",
    "ip_sublist_rcv_finish",
    "ip_list_rcv_finish",
    short="rpfilter",
    at=SERVER,
    counters=("mib.TcpExtIPReversePathFilter",),
    bounds=("rt_cache.in_martian_src",),
)
def reverse_path(net: Net, v6: bool) -> Traffic:
    """A source address that is not reached through the interface it came in by."""
    line, sink = to_server(net, v6)
    net["server"].sysctl(ipv4__conf__eth0__rp_filter=1)
    payload = frames.udp(NOWHERE[v6], line.destination, OPEN)
    spoofed = frames.ip4(NOWHERE[v6], line.destination, frames.UDP, payload)
    return Traffic(
        lose=line.frame(*line.macs, frames.ETH_P_IP, spoofed),
        lost=lambda: net["server"].mib("TcpExtIPReversePathFilter"),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "IPV6DISABLED",
    "ip6_rcv_core",
    "ipv6_rcv",
    short="ipv6off",
    at=SERVER,
    versions=(6,),
    net_ipv6=False,
    bounds=("mib.Ip6InDiscards",),
)
def ipv6_off(net: Net, v6: bool) -> Traffic:
    """IPv6 to an interface that has IPv6 switched off."""
    line = Wire(net, True, 0, 1, 2, ipv6(0, 2))
    line4, sink = to_server(net, False)
    return Traffic(line.udp(OPEN), lambda: net["server"].mib("Ip6InDiscards"), line4.udp(OPEN), sink.received)


CAUSES = (*nftables_input, *nftables_forward, *reverse_path, *ipv6_off)
