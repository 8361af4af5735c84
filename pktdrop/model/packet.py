# SPDX-License-Identifier: MIT
"""The beginning of a packet, taken apart: what can be known of it, whatever the bytes are, and never an exception.

Senders choose every byte, and often only some are there. So each header is read only where it is whole, what is behind
the end is not known (None), and nothing is looked for deeper than some headers. Numbers are those of IANA's registries
(protocol-numbers, icmp-parameters, icmpv6-parameters), formats those of the RFCs named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop
from struct import unpack_from
from typing import Any

from pktdrop.model.protocols import GRE, ICMP, ICMPV6, IPIP, IPV6_IN_IP, SCTP, TCP, UDP, UDPLITE, protocol_name

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
_VLANS = frozenset({0x8100, 0x88A8, 0x9100})  # IEEE 802.1Q, 802.1ad, and what came before it
_TRANSPARENT_BRIDGING = 0x6558  # RFC 1701: an Ethernet frame
_LEAST_ETHERTYPE = 0x600  # IEEE 802.3: below, it is a length
_MOST_TAGS, _MOST_EXTENSIONS, _MOST_INNER = 4, 16, 3
_EXTENSIONS = frozenset({0, 43, 60, 135, 139, 140})  # RFC 8200, 6275, 7401, 5533: all of one form
_FRAGMENT, _AUTHENTICATION = 44, 51
_FLAGS = (
    (0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG"), (0x40, "ECE"),
    (0x80, "CWR"),
)  # fmt: skip
"""Of TCP, RFC 9293, in the order in which they are named."""
_FLAG_SETS = [tuple(name for bit, name in _FLAGS if bits & bit) for bits in range(256)]
_VXLAN_PORTS = frozenset({4789, 8472})  # IANA's, and the first that Linux had (drivers/net/vxlan)
_GENEVE_PORT = 6081
_UNREACHABLE = {0: "net", 1: "host", 2: "protocol", 3: "port", 4: "needs fragmentation", 13: "prohibited"}
_UNREACHABLE6 = {0: "no route", 1: "prohibited", 3: "address", 4: "port", 6: "reject"}
_ICMP_TYPES = {
    0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 9: "router advertisement",
    10: "router solicitation", 11: "time exceeded", 12: "parameter problem", 13: "timestamp", 14: "timestamp reply",
}  # fmt: skip
_ICMPV6_TYPES = {
    1: "unreachable", 2: "packet too big", 3: "time exceeded", 4: "parameter problem", 128: "echo request",
    129: "echo reply", 130: "listener query", 131: "listener report", 132: "listener done",
    133: "router solicitation", 134: "router advertisement", 135: "neighbour solicitation",
    136: "neighbour advertisement", 137: "redirect", 143: "listener report v2",
}  # fmt: skip
_QUOTING = {ICMP: frozenset({3, 4, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}
_SCTP_CHUNKS = {
    0: "DATA", 1: "INIT", 2: "INIT ACK", 3: "SACK", 4: "HEARTBEAT", 5: "HEARTBEAT ACK", 6: "ABORT", 7: "SHUTDOWN",
    8: "SHUTDOWN ACK", 9: "ERROR", 10: "COOKIE ECHO", 11: "COOKIE ACK", 14: "SHUTDOWN COMPLETE",
}  # fmt: skip
_TCP_OPTIONS: Mapping[int, tuple[str, int, str]] = {
    2: ("mss", 4, "!H"), 3: ("wscale", 3, "!B"), 4: ("sackOK", 2, ""), 8: ("timestamp", 10, "!I"),
}  # fmt: skip
"""By kind: name, length, and how the value is read that is told."""


@dataclass(slots=True)
class Packet:
    """What is known of a packet. None: not in it, or not in the bytes that are there."""

    ethertype: int | None = None
    link_source: str | None = None
    """MAC address of the sender."""
    link_destination: str | None = None
    vlans: tuple[int, ...] = ()
    source: str | None = None
    """IP address; of ARP, that of who asks or answers."""
    destination: str | None = None
    protocol: str | None = None
    """"TCP", "UDP", "ARP"...; "IP 200" for a protocol of IP without a name here."""
    source_port: int | None = None
    destination_port: int | None = None
    flags: tuple[str, ...] = ()
    """Flags of TCP: "SYN", "ACK"."""
    sequence: int | None = None
    acknowledged: int | None = None
    window: int | None = None
    option_bytes: bytes = b""
    """Options of TCP as they are in the packet; see `options`."""
    ttl: int | None = None
    """Time to live of IPv4, hop limit of IPv6."""
    identification: int | None = None
    """Of an IPv4 packet, or of a fragment of IPv6."""
    fragment: int | None = None
    """Offset of a fragment in its packet, in bytes; None: no fragment."""
    more_fragments: bool = False
    payload: int | None = None
    """Bytes behind the innermost header that is known, as the headers say; so it may be a lie."""
    what: str | None = None
    """Kind of an ICMP or SCTP message, of an ARP request; "VXLAN 42" where `inner` is what a tunnel carries."""
    inner: "Packet | None" = None
    """The packet that an ICMP error quotes, or that a tunnel carries."""

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options of TCP that are known: "mss 1460", "sackOK"."""
        return _tcp_options(self.option_bytes)

    def learn(self, **facts: Any) -> "Packet":
        """Note what a header says, while the packet is taken apart; return itself."""
        for name, value in facts.items():
            setattr(self, name, value)
        return self


def decode(data: bytes, ethertype: int = 0, tag: int | None = None) -> Packet:
    """Take apart a packet from its network header on. An ethertype of 0 is not known: IP tells itself.

    `tag` is the VLAN that a device took out of the frame.
    """
    return _network(Packet(vlans=() if tag is None else (tag,)), data, 0, ethertype, 0)


def decode_frame(data: bytes, tag: int | None = None) -> Packet:
    """Take apart a packet from its Ethernet header on."""
    return _frame(Packet(vlans=() if tag is None else (tag,)), data, 0, 0)


def _frame(known: Packet, data: bytes, at: int, depth: int) -> Packet:
    """Read an Ethernet header, IEEE 802.3 and 802.1Q."""
    if len(data) < at + 14:
        return known
    destination, source = data[at : at + 6].hex(":"), data[at + 6 : at + 12].hex(":")
    (ethertype,) = unpack_from("!H", data, at + 12)
    vlans, at = [*known.vlans], at + 14
    while ethertype in _VLANS and len(vlans) < _MOST_TAGS and len(data) >= at + 4:
        tag, ethertype = unpack_from("!HH", data, at)
        vlans.append(tag & 0xFFF)
        at += 4
    known.link_source, known.link_destination, known.vlans = source, destination, tuple(vlans)
    if ethertype in _VLANS:  # cut off, or more tags than anybody has
        return known
    if ethertype < _LEAST_ETHERTYPE:
        return known.learn(payload=ethertype)
    return _network(known, data, at, ethertype, depth)


def _network(known: Packet, data: bytes, at: int, ethertype: int, depth: int) -> Packet:
    if not ethertype and len(data) > at:
        ethertype = {4: IPV4, 6: IPV6}.get(data[at] >> 4, 0)
    known.ethertype = ethertype or None
    reads = _NETWORKS.get(ethertype)
    return known if reads is None else reads(known, data, at, depth)


def _arp(known: Packet, data: bytes, at: int, depth: int) -> Packet:
    """RFC 826, for Ethernet and IPv4."""
    known.learn(protocol="ARP")
    if len(data) < at + 28 or unpack_from("!HHBB", data, at) != (1, IPV4, 6, 4):
        return known
    (operation,) = unpack_from("!H", data, at + 6)
    source, target = _ipv4_text(data, at + 14), _ipv4_text(data, at + 24)
    what = {1: "who has", 2: "is at"}.get(operation, f"operation {operation}")
    return known.learn(source=source, destination=target, what=what)


def _ipv4_text(data: bytes, at: int) -> str:
    return inet_ntop(AF_INET, data[at : at + 4])


def _ipv4(known: Packet, data: bytes, at: int, depth: int) -> Packet:
    """RFC 791."""
    if len(data) < at + 20 or data[at] >> 4 != 4 or data[at] & 15 < 5:
        return known
    total, identification, fragment, ttl, protocol = unpack_from("!HHHBB", data, at + 2)
    header, offset, more = 4 * (data[at] & 15), 8 * (fragment & 0x1FFF), bool(fragment & 0x2000)
    known.source, known.destination = _ipv4_text(data, at + 12), _ipv4_text(data, at + 16)
    known.ttl, known.identification = ttl, identification
    if offset or more:
        known.fragment, known.more_fragments = offset, more
    # 0: a segment that was larger than a packet can be (BIG TCP), or is to be filled in
    size = total - header if total >= header else None
    return _transport(known, data, at + header, protocol, size, depth)


def _ipv6_text(data: bytes, at: int) -> str:
    return inet_ntop(AF_INET6, data[at : at + 16])


def _ipv6(known: Packet, data: bytes, at: int, depth: int) -> Packet:
    """RFC 8200, with extension headers."""
    if len(data) < at + 40 or data[at] >> 4 != 6:
        return known
    size: int | None
    size, following, hops = unpack_from("!HBB", data, at + 4)
    known.learn(source=_ipv6_text(data, at + 8), destination=_ipv6_text(data, at + 24), ttl=hops)
    size = size or None  # 0: a jumbogram, or BIG TCP
    at += 40
    for _ in range(_MOST_EXTENSIONS):
        if following not in _EXTENSIONS and following not in (_FRAGMENT, _AUTHENTICATION):
            break
        if len(data) < at + 8:
            return known
        length = 8 * (data[at + 1] + 1)
        if following == _FRAGMENT:
            field, identification = unpack_from("!HI", data, at + 2)
            known.learn(fragment=field & 0xFFF8, more_fragments=bool(field & 1), identification=identification)
            length = 8
        elif following == _AUTHENTICATION:  # RFC 4302
            length = 4 * (data[at + 1] + 2)
        following, at = data[at], at + length
        size = None if size is None else max(size - length, 0)
    return _transport(known, data, at, following, size, depth)


def _transport(known: Packet, data: bytes, at: int, protocol: int, size: int | None, depth: int) -> Packet:
    known.protocol, known.payload = protocol_name(protocol), size
    if known.fragment:  # what is here is of the middle of something
        return known
    reads = _TRANSPORTS.get(protocol)
    if reads is not None:
        return reads(known, data, at, size, depth)
    if protocol in _CARRIED and depth < _MOST_INNER:
        inner = _network(Packet(), data, at, _CARRIED[protocol], depth + 1)
        return known.learn(inner=inner, what=known.protocol)
    return known


def _rest(size: int | None, header: int) -> int | None:
    return None if size is None else max(size - header, 0)


def _ports(known: Packet, data: bytes, at: int) -> Packet:
    if len(data) < at + 4:
        return known
    known.source_port, known.destination_port = unpack_from("!HH", data, at)
    return known


def _tcp(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    """RFC 9293. An ICMP error may quote no more than ports and sequence number."""
    _ports(known, data, at)
    if len(data) >= at + 8:
        known.sequence, known.payload = unpack_from("!I", data, at + 4)[0], None
    if len(data) < at + 20:
        return known
    acknowledged, offset, bits, window = unpack_from("!IBBH", data, at + 8)
    header = 4 * (offset >> 4)
    known.flags = _FLAG_SETS[bits]
    known.acknowledged, known.window = acknowledged if bits & 0x10 else None, window
    known.option_bytes = data[at + 20 : at + header]
    known.payload = _rest(size, header)
    return known


def _tcp_options(data: bytes) -> tuple[str, ...]:
    found: list[str] = []
    at = 0
    while at < len(data) and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        kind, length = data[at], data[at + 1]
        if length < 2 or at + length > len(data):
            break
        name, expected, form = _TCP_OPTIONS.get(kind, ("", 0, ""))
        if length == expected:
            found.append(name + (f" {unpack_from(form, data, at + 2)[0]}" if form else ""))
        at += length
    return tuple(found)


def _udp(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    """RFC 768; VXLAN is RFC 7348, Geneve RFC 8926."""
    _ports(known, data, at)
    if len(data) < at + 8:
        return known
    (length,) = unpack_from("!H", data, at + 4)
    known.payload = length - 8 if length >= 8 else _rest(size, 8)
    at += 8
    if depth >= _MOST_INNER or len(data) < at + 8:
        return known
    if known.destination_port in _VXLAN_PORTS and data[at] & 8:
        number = int.from_bytes(data[at + 4 : at + 7], "big")
        return known.learn(what=f"VXLAN {number}", inner=_frame(Packet(), data, at + 8, depth + 1))
    if known.destination_port == _GENEVE_PORT and data[at] >> 6 == 0:
        number = int.from_bytes(data[at + 4 : at + 7], "big")
        (ethertype,) = unpack_from("!H", data, at + 2)
        start = at + 8 + 4 * (data[at] & 0x3F)
        return known.learn(what=f"Geneve {number}", inner=_carried(data, start, ethertype, depth + 1))
    return known


def _udplite(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    """RFC 3828: the length is of what the checksum covers."""
    return _ports(known, data, at).learn(payload=_rest(size, 8))


def _carried(data: bytes, at: int, ethertype: int, depth: int) -> Packet:
    if ethertype == _TRANSPARENT_BRIDGING:
        return _frame(Packet(), data, at, depth)
    return _network(Packet(), data, at, ethertype, depth)


def _gre(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    """RFC 2784 and 2890, version 0."""
    if len(data) < at + 4 or depth >= _MOST_INNER:
        return known
    bits, ethertype = unpack_from("!HH", data, at)
    if bits & 7:
        return known
    start = at + 4 + 4 * sum(bool(bits & bit) for bit in (0x8000, 0x2000, 0x1000))
    return known.learn(what="GRE", payload=_rest(size, start - at), inner=_carried(data, start, ethertype, depth + 1))


def _icmp(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    return _message(known, data, at, size, depth, ICMP, _ICMP_TYPES, _UNREACHABLE)


def _icmpv6(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    return _message(known, data, at, size, depth, ICMPV6, _ICMPV6_TYPES, _UNREACHABLE6)


def _message(
    known: Packet, data: bytes, at: int, size: int | None, depth: int,
    protocol: int, kinds: Mapping[int, str], unreachable: Mapping[int, str],
) -> Packet:  # fmt: skip
    """RFC 792 and 4443: of errors, with the packet that they are about."""
    if len(data) < at + 2:
        return known
    kind, code = data[at], data[at + 1]
    what = kinds.get(kind, f"type {kind} code {code}")
    if what == "unreachable":
        what = f"{unreachable.get(code, f'code {code}')} unreachable"
    known.learn(what=what, payload=_rest(size, 8))
    if kind not in _QUOTING[protocol] or depth >= _MOST_INNER or len(data) <= at + 8:
        return known
    ethertype = IPV4 if protocol == ICMP else IPV6
    return known.learn(inner=_network(Packet(), data, at + 8, ethertype, depth + 1))


def _sctp(known: Packet, data: bytes, at: int, size: int | None, depth: int) -> Packet:
    """RFC 9260: the first chunk tells what it is about."""
    known = _ports(known, data, at).learn(payload=_rest(size, 12))
    if len(data) <= at + 12:
        return known
    chunk = data[at + 12]
    return known.learn(what=_SCTP_CHUNKS.get(chunk, f"chunk {chunk}"))


_NETWORKS: Mapping[int, Callable[[Packet, bytes, int, int], Packet]] = {IPV4: _ipv4, IPV6: _ipv6, ARP: _arp}
_Read = Callable[[Packet, bytes, int, int | None, int], Packet]
_TRANSPORTS: Mapping[int, _Read] = {
    ICMP: _icmp, TCP: _tcp, UDP: _udp, UDPLITE: _udplite, GRE: _gre, ICMPV6: _icmpv6, SCTP: _sctp,
}  # fmt: skip
_CARRIED = {IPIP: IPV4, IPV6_IN_IP: IPV6}
