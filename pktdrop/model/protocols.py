# SPDX-License-Identifier: MIT
"""Protocols above IP, by their numbers (IANA: Assigned Internet Protocol Numbers)."""

from typing import Final

ICMP, IPIP, TCP, UDP, IPV6_IN_IP, GRE, ICMPV6, SCTP, UDPLITE = 1, 4, 6, 17, 41, 47, 58, 132, 136
_NAMES: Final = {
    ICMP: "ICMP", 2: "IGMP", IPIP: "IPIP", TCP: "TCP", UDP: "UDP", 33: "DCCP", IPV6_IN_IP: "IPv6", GRE: "GRE",
    50: "ESP", 51: "AH", ICMPV6: "ICMPv6", 59: "nothing", 88: "EIGRP", 89: "OSPF", 103: "PIM", 112: "VRRP",
    115: "L2TP", SCTP: "SCTP", UDPLITE: "UDPLite",
}  # fmt: skip


def protocol_name(number: int) -> str:
    """Return the name of a protocol above IP, "UDP"; of one that has none here "IP 200"."""
    return _NAMES.get(number) or f"IP {number}"
