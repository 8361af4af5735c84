# SPDX-License-Identifier: MIT
"""Packets that are broken."""

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, CLOSED, OPEN, SERVER, mib, to_server
from pktdrop.demo.net import Net


@cause(
    "UDP_CSUM",
    "__udp4_lib_rcv",
    "__udp6_lib_rcv",
    "udp_rcv",
    "udpv6_rcv",
    short="udpsum",
    at=SERVER,
    versions=BOTH,
    counters=("mib.UdpInCsumErrors", "mib.UdpInErrors"),
    counters6=("mib.Udp6InCsumErrors", "mib.Udp6InErrors"),
)
def udp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong UDP checksum, found when no socket wants the packet either."""
    line, sink = to_server(net, v6)
    wrong = line.udp(CLOSED, wrong=1)
    return Traffic(wrong, mib(net, "server", "UdpInCsumErrors", "Udp6InCsumErrors", v6), line.udp(OPEN), sink.received)


@cause(
    "TCP_CSUM",
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    short="tcpsum",
    at=SERVER,
    versions=BOTH,
    counters=("mib.TcpInCsumErrors",),
    bounds=("mib.TcpInErrs",),
)
def tcp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong TCP checksum."""
    line, sink = to_server(net, v6)
    wrong = line.ip(frames.TCP, frames.tcp_syn(line.source, line.destination, CLOSED, wrong=1))
    return Traffic(wrong, lambda: net["server"].mib("TcpInCsumErrors"), line.udp(OPEN), sink.received)


@cause(
    "ICMP_CSUM",
    "icmp_rcv",
    "icmpv6_rcv",
    short="icmpsum",
    at=SERVER,
    versions=BOTH,
    counters=("mib.IcmpInCsumErrors",),
    counters6=("mib.Icmp6InCsumErrors",),
    bounds=("mib.IcmpInErrors",),
    bounds6=("mib.Icmp6InErrors",),
)
def icmp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong ICMP checksum."""
    line, sink = to_server(net, v6)
    request = frames.echo_request(line.source, line.destination, wrong=1)
    wrong = line.ip(frames.ICMPV6 if v6 else frames.ICMP, request)
    witness = mib(net, "server", "IcmpInCsumErrors", "Icmp6InCsumErrors", v6)
    return Traffic(wrong, witness, line.udp(OPEN), sink.received)


@cause(
    "IP_CSUM",
    "ip_rcv_core",
    short="ipsum",
    at=SERVER,
    counters=("mib.IpExtInCsumErrors", "mib.IpInHdrErrors"),
)
def ip_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong IPv4 header checksum."""
    line, sink = to_server(net, v6)
    wrong = line.ip(frames.UDP, frames.udp(line.source, line.destination, OPEN), wrong=1)
    return Traffic(wrong, lambda: net["server"].mib("IpExtInCsumErrors"), line.udp(OPEN), sink.received)


@cause(
    "PKT_TOO_SMALL",
    "ip_rcv_core",
    "ip6_rcv_core",
    short="cut",
    at=SERVER,
    versions=BOTH,
    counters=("mib.IpExtInTruncatedPkts",),
    counters6=("mib.Ip6InTruncatedPkts",),
)
def truncated(net: Net, v6: bool) -> Traffic:
    """A packet that is shorter than its header says."""
    line, sink = to_server(net, v6)
    payload = frames.udp(line.source, line.destination, OPEN, b"x" * 200)
    packet = (frames.ip6 if v6 else frames.ip4)(line.source, line.destination, frames.UDP, payload)
    return Traffic(
        lose=line.frame(*line.macs, frames.ETH_P_IPV6 if v6 else frames.ETH_P_IP, packet[:-100]),
        lost=mib(net, "server", "IpExtInTruncatedPkts", "Ip6InTruncatedPkts", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


CAUSES = (*udp_checksum, *tcp_checksum, *icmp_checksum, *ip_checksum, *truncated)
