# SPDX-License-Identifier: MIT
"""Frames put together from headers, by the RFCs, for what takes them apart."""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_pton

MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def ether(ethertype: int, rest: bytes = b"", vlans: tuple[int, ...] = ()) -> bytes:
    """An Ethernet frame from MAC_A to MAC_B, with VLAN tags."""
    tags = b"".join(struct.pack("!HH", 0x8100, tag) for tag in vlans)
    addresses = bytes.fromhex(MAC_B.replace(":", "")) + bytes.fromhex(MAC_A.replace(":", ""))
    return addresses + tags + struct.pack("!H", ethertype) + rest


def ipv4(protocol: int, rest: bytes = b"", source: str = "10.0.0.5", destination: str = "10.0.0.9",
         options: bytes = b"", fragment: int = 0, identification: int = 7) -> bytes:  # fmt: skip
    """An IPv4 packet; `fragment` is the field with flags and offset, options are a multiple of four bytes."""
    header = 20 + len(options)
    addresses = inet_pton(AF_INET, source) + inet_pton(AF_INET, destination)
    first = struct.pack(
        "!BBHHHBBH", 0x40 | header // 4, 0, header + len(rest), identification, fragment, 64, protocol, 0
    )
    return first + addresses + options + rest


def ipv6(following: int, rest: bytes = b"", source: str = "fd00::5", destination: str = "fd00::9") -> bytes:
    """An IPv6 packet."""
    addresses = inet_pton(AF_INET6, source) + inet_pton(AF_INET6, destination)
    return struct.pack("!IHBB", 0x60000000, len(rest), following, 63) + addresses + rest


def udp(source: int = 43210, destination: int = 8125, rest: bytes = b"x" * 48) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source, destination, 8 + len(rest), 0) + rest


def tcp(source: int = 43210, destination: int = 443, bits: int = 2, options: bytes = b"", rest: bytes = b"") -> bytes:
    """A TCP segment; options are a multiple of four bytes."""
    header = 20 + len(options)
    return (
        struct.pack("!HHIIBBHHH", source, destination, 1000, 2000, header // 4 << 4, bits, 512, 0, 0) + options + rest
    )
