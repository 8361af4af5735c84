# SPDX-License-Identifier: MIT
"""Packets that pktdrop.demo.frames has no use for: TCP segments of any kind, fragments, ICMP, options."""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from pktdrop.demo.causes.parts import Wire
from pktdrop.demo.frames import ETH_P_IP, ETH_P_IPV6, TCP, checksum

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
UDPLITE, FRAGMENT6, OPTIONS6 = 136, 44, 60  # include/uapi/linux/in.h, in6.h


def pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    """What is checksummed with a packet of a transport protocol (RFC 793, RFC 8200)."""
    if ":" in source:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
        return ends + struct.pack("!II", length, protocol)
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, length)


@dataclass(frozen=True)
class Segment:
    """One TCP segment."""

    source_port: int
    port: int
    seq: int
    ack: int = 0
    flags: int = SYN
    window: int = 1024
    options: bytes = b""
    payload: bytes = b""
    header_words: int | None = None
    """What it says of the length of its header, where that is wrong."""

    def bytes(self, source: str, destination: str) -> bytes:
        """Return it with its checksum."""
        options = self.options + b"\1" * (-len(self.options) % 4)
        words = self.header_words or 5 + len(options) // 4
        seq, ack = self.seq & 0xFFFFFFFF, self.ack & 0xFFFFFFFF
        head = struct.pack("!HHIIBBH", self.source_port, self.port, seq, ack, words << 4, self.flags, self.window)
        rest = struct.pack("!H", 0) + options + self.payload
        length = len(head) + 2 + len(rest)
        right = checksum(pseudo(source, destination, TCP, length) + head + b"\0\0" + rest)
        return head + struct.pack("!H", right) + rest

    def but(self, **changes: object) -> "Segment":
        """Return another one that differs."""
        return replace(self, **changes)  # type: ignore[arg-type]


def timestamps(value: int, echo: int) -> bytes:
    """TCP option (RFC 7323)."""
    return struct.pack("!BBBBII", 1, 1, 8, 10, value & 0xFFFFFFFF, echo & 0xFFFFFFFF)


def icmp(kind: int, code: int, rest: bytes, whole: bytes = b"") -> bytes:
    """One ICMP message; `whole` is the pseudo header of ICMPv6."""
    right = checksum(whole + struct.pack("!BBH", kind, code, 0) + rest)
    return struct.pack("!BBH", kind, code, right) + rest


def header4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    ident: int = 0,
    fragment: int = 0,
    tos: int = 0,
    version: int = 4,
) -> bytes:
    """One IPv4 packet with any header; `fragment` are the flags and the offset."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    words = 5 + len(options) // 4
    fields = (version << 4 | words, tos, 4 * words + len(payload), ident, fragment, 64, protocol)
    right = checksum(struct.pack("!BBHHHBBH", *fields, 0) + addresses + options)
    return struct.pack("!BBHHHBBH", *fields, right) + addresses + options + payload


def fragment6(following: int, payload: bytes, *, ident: int, offset: int, more: bool) -> bytes:
    """The fragment header of IPv6 and what follows; `offset` in bytes."""
    return struct.pack("!BBHI", following, 0, offset | more, ident) + payload


def payload(line: Wire, packet: bytes) -> Callable[[], int]:
    """Return a function that sends a whole IP packet."""
    return line.frame(*line.macs, ETH_P_IPV6 if line.v6 else ETH_P_IP, packet)
