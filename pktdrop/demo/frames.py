# SPDX-License-Identifier: MIT
"""Frames made byte by byte, correct or wrong where a case needs them wrong."""

import socket
import struct

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
UNKNOWN_ETHERTYPE = 0x88B5  # IEEE 802 local experimental ethertype 1: no handler in the kernel
UNKNOWN_PROTOCOL = 253  # RFC 3692: for experiments


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: str, source: str, ethertype: int, payload: bytes) -> bytes:
    """One Ethernet frame, padded to the least length."""
    addresses = bytes.fromhex((destination + source).replace(":", ""))
    return (addresses + struct.pack("!H", ethertype) + payload).ljust(60, b"\0")


def ip4(
    source: str, destination: str, protocol: int, payload: bytes, *, ttl: int = 64, df: bool = False, wrong: int = 0
) -> bytes:
    """One IPv4 packet; `wrong` is added to its checksum."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    fields = (0x45, 0, 20 + len(payload), 0, 0x4000 if df else 0, ttl, protocol)
    right = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses)
    return struct.pack("!BBHHHBBH", *fields, (right + wrong) & 0xFFFF) + addresses + payload


def ip6(source: str, destination: str, protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    """One IPv6 packet."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + ends + payload


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
        return ends + struct.pack("!II", length, protocol)
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, length)


def udp(source: str, destination: str, port: int, payload: bytes = b"pktdrop!", *, wrong: int = 0) -> bytes:
    """One UDP datagram from port 4000; `wrong` is added to its checksum."""
    head = struct.pack("!HHH", 4000, port, 8 + len(payload))
    right = checksum(_pseudo_header(source, destination, UDP, 8 + len(payload)) + head + b"\0\0" + payload)
    return head + struct.pack("!H", (right + wrong) & 0xFFFF) + payload


def tcp_syn(source: str, destination: str, port: int, *, wrong: int = 0) -> bytes:
    """One TCP SYN from port 4000; `wrong` is added to its checksum."""
    head, tail = struct.pack("!HHIIBBH", 4000, port, 1, 0, 5 << 4, 2, 1024), struct.pack("!H", 0)
    right = checksum(_pseudo_header(source, destination, TCP, 20) + head + b"\0\0" + tail)
    return head + struct.pack("!H", (right + wrong) & 0xFFFF) + tail


def echo_request(source: str, destination: str, *, wrong: int = 0) -> bytes:
    """One ICMP or ICMPv6 echo request; `wrong` is added to its checksum."""
    kind, pseudo = (128, _pseudo_header(source, destination, ICMPV6, 8)) if ":" in source else (8, b"")
    right = checksum(pseudo + struct.pack("!BBHHH", kind, 0, 0, 1, 1))
    return struct.pack("!BBHHH", kind, 0, (right + wrong) & 0xFFFF, 1, 1)
