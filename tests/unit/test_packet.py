# SPDX-License-Identifier: MIT
"""Dropped packets taken apart: what is told of each, and that nothing a sender makes is too much."""

from __future__ import annotations

import struct
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.model.packet import ARP, IPV4, IPV6, Packet, decode, decode_frame
from pktdrop.rules.protocols import Protocols
from pktdrop.samples.words import describe
from tests.kit.frames import MAC_A, MAC_B, ether, ipv4, ipv6, tcp, udp

NAMES = Protocols.load()
SYN_OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")
VXLAN = struct.pack("!II", 0x08000000, 42 << 8)
GENEVE = struct.pack("!BBHI", 1, 0, 0x6558, 43 << 8) + b"\0\0\0\0"
REQUEST = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + b"\2\0\0\0\0\x0a\x0a\0\0\5" + b"\0" * 6 + b"\x0a\0\0\x09"
HOP_BY_HOP = struct.pack("!BB6x", 44, 0)
CASES = {
    "udp": (ether(IPV4, ipv4(17, udp())), "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B"),
    "tcp": (
        ether(IPV4, ipv4(6, tcp(bits=0x12, rest=b"abc"))),
        "10.0.0.5:43210 > 10.0.0.9:443 TCP SYN+ACK 3 B",
    ),
    "ipv6": (ether(IPV6, ipv6(17, udp())), "[fd00::5]:43210 > [fd00::9]:8125 UDP 48 B"),
    "vlans": (ether(IPV4, ipv4(17, udp()), (100, 42)), "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B VLAN 100.42"),
    "options": (ether(IPV4, ipv4(17, udp(), options=b"\x94\4\0\0")), "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B"),
    "first fragment": (
        ether(IPV4, ipv4(17, udp(), fragment=0x2000)),
        "10.0.0.5:43210 > 10.0.0.9:8125 UDP fragment at 0 48 B",
    ),
    "later fragment": (ether(IPV4, ipv4(17, b"x" * 64, fragment=185)), "10.0.0.5 > 10.0.0.9 UDP fragment at 1480 64 B"),
    "extension headers": (
        ether(IPV6, ipv6(0, HOP_BY_HOP + struct.pack("!BBHI", 17, 0, 0, 9) + udp())),
        "[fd00::5]:43210 > [fd00::9]:8125 UDP fragment at 0 48 B",
    ),
    "echo": (ether(IPV4, ipv4(1, b"\10\0" + b"x" * 62)), "10.0.0.5 > 10.0.0.9 ICMP echo request 56 B"),
    "unreachable": (
        ether(IPV4, ipv4(1, b"\3\3" + bytes(6) + ipv4(17, udp(5, 53, b""), "10.0.0.9", "10.0.0.5"))),
        "10.0.0.5 > 10.0.0.9 ICMP port unreachable 28 B (10.0.0.9:5 > 10.0.0.5:53 UDP 0 B)",
    ),
    "too big": (
        ether(IPV6, ipv6(58, b"\2\0" + bytes(6) + ipv6(6, tcp()))),
        "fd00::5 > fd00::9 ICMPv6 packet too big 60 B ([fd00::5]:43210 > [fd00::9]:443 TCP SYN 0 B)",
    ),
    "neighbour": (ether(IPV6, ipv6(58, b"\x87\0" + bytes(22))), "fd00::5 > fd00::9 ICMPv6 neighbour solicitation 16 B"),
    "sctp": (
        ether(IPV4, ipv4(132, struct.pack("!HHII", 9, 2905, 0, 0) + b"\1\0\0\x14" + bytes(16))),
        "10.0.0.5:9 > 10.0.0.9:2905 SCTP INIT 20 B",
    ),
    "gre": (
        ether(IPV4, ipv4(47, struct.pack("!HHI", 0x2000, 0x0800, 5) + ipv4(17, udp(), "192.168.0.1", "192.168.0.2"))),
        "10.0.0.5 > 10.0.0.9 GRE 76 B (192.168.0.1:43210 > 192.168.0.2:8125 UDP 48 B)",
    ),
    "ipip": (
        ether(IPV4, ipv4(4, ipv4(17, udp(), "192.168.0.1", "192.168.0.2"))),
        "10.0.0.5 > 10.0.0.9 IPIP 76 B (192.168.0.1:43210 > 192.168.0.2:8125 UDP 48 B)",
    ),
    "vxlan": (
        ether(IPV4, ipv4(17, udp(1, 4789, VXLAN + ether(IPV4, ipv4(6, tcp(), "192.168.0.1", "192.168.0.2"))))),
        "10.0.0.5:1 > 10.0.0.9:4789 UDP VXLAN 42 62 B (192.168.0.1:43210 > 192.168.0.2:443 TCP SYN 0 B)",
    ),
    "geneve": (
        ether(IPV4, ipv4(17, udp(1, 6081, GENEVE + ether(IPV6, ipv6(17, udp()))))),
        "10.0.0.5:1 > 10.0.0.9:6081 UDP Geneve 43 122 B ([fd00::5]:43210 > [fd00::9]:8125 UDP 48 B)",
    ),
    "arp": (ether(ARP, REQUEST), "10.0.0.5 > 10.0.0.9 ARP who has"),
    "lldp": (ether(0x88CC, b"\2\7"), f"{MAC_A} > {MAC_B} LLDP"),
    "no name": (ether(0x6666), f"{MAC_A} > {MAC_B} 0x6666"),
    "802.3": (ether(38, b"\x42\x42\3" + bytes(35)), f"{MAC_A} > {MAC_B} 38 B"),
    "ospf": (ether(IPV4, ipv4(89, bytes(44))), "10.0.0.5 > 10.0.0.9 OSPF 44 B"),
    "number": (ether(IPV4, ipv4(200, bytes(4))), "10.0.0.5 > 10.0.0.9 IP 200 4 B"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_line(name: str) -> None:
    """Who sent what to whom, in a line."""
    frame, line = CASES[name]
    assert describe(decode_frame(frame), NAMES.name) == line


def test_all_of_a_syn() -> None:
    """What is read of a segment with options."""
    packet = decode_frame(ether(IPV4, ipv4(6, tcp(options=SYN_OPTIONS)), (3,)))
    assert packet == Packet(
        ethertype=IPV4, link_source=MAC_A, link_destination=MAC_B, vlans=(3,), source="10.0.0.5",
        destination="10.0.0.9", protocol="TCP", source_port=43210, destination_port=443, flags=("SYN",), sequence=1000,
        acknowledged=None, window=512, option_bytes=SYN_OPTIONS, ttl=64,
        identification=7, payload=0,
    )  # fmt: skip
    assert packet.options == ("mss 1460", "sackOK", "timestamp 1", "wscale 7")


def test_without_a_frame() -> None:
    """From the network header on, by ethertype, or IP as it says of itself; with the tag that a device took out."""
    for ethertype in (0, IPV4):
        packet = decode(ipv4(17, udp()), ethertype, tag=7)
        assert (packet.source, packet.destination_port, packet.vlans, packet.link_source) == (
            "10.0.0.5",
            8125,
            (7,),
            None,
        )
    assert decode(ipv6(17, udp())).source == "fd00::5"
    assert decode(b"\x10" + bytes(40)) == Packet()
    assert decode(ipv4(17, udp()), 0x88CC) == Packet(ethertype=0x88CC)


def test_a_header_that_lies() -> None:
    """Lengths that cannot be are not told, and what is not IP is not taken for it."""
    broken = bytearray(ipv4(17, udp()))
    broken[2:4] = b"\0\0"  # as of a segment larger than a packet can be
    assert decode(bytes(broken)).payload == 48
    broken[24:26] = b"\0\1"
    assert decode(bytes(broken)).payload is None
    assert decode(b"\x44" + ipv4(17, udp())[1:], IPV4).source is None  # four words of header
    assert decode(ipv6(17, udp()), IPV4).source is None


def _values(packet: Packet | None) -> dict[str, Any]:
    return {} if packet is None else asdict(packet)


def _grew(less: dict[str, Any], more: dict[str, Any]) -> bool:
    """Whether nothing of a packet is told otherwise once more of it is there."""
    for name, value in less.items():
        full = more[name]
        if name == "inner":
            if value is not None and not _grew(value, full or {}):
                return False
        elif name == "payload" or value in (None, (), b"", False):  # of another header, when one more is known
            continue
        elif value != full and not (isinstance(value, tuple | bytes) and full[: len(value)] == value):
            return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_cut_off_anywhere(name: str) -> None:
    """Of a packet that is cut off, less is known, and nothing else."""
    frame, _ = CASES[name]
    whole = _values(decode_frame(frame))
    for end in range(len(frame)):
        assert _grew(_values(decode_frame(frame[:end])), whole), (end, decode_frame(frame[:end]))


@given(st.sampled_from(sorted(CASES)), st.data())
def test_bytes_turned_over(name: str, data: st.DataObject) -> None:
    """Whatever a sender puts in any byte of any packet, there is an answer, and a line."""
    frame = bytearray(CASES[name][0])
    for _ in range(data.draw(st.integers(1, 6))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(frame)))
    for packet in (decode_frame(bytes(frame[:end])), decode(bytes(frame[14:end]), data.draw(st.integers(0, 0xFFFF)))):
        assert len(describe(packet, NAMES.name)) < 600
        assert all(packet.options)


@given(st.binary(max_size=256), st.integers(0, 0xFFFF))
def test_any_bytes(data: bytes, ethertype: int) -> None:
    """Noise is no reason to fail."""
    describe(decode_frame(data), NAMES.name)
    describe(decode(data, ethertype), NAMES.name)


def test_tunnels_in_tunnels_end() -> None:
    """A packet in a packet in a packet... is followed for some headers."""
    packet = ipv4(17, udp())
    for _ in range(20):
        packet = ipv4(4, packet)
    found, depth = decode(packet), 0
    while found.inner is not None:
        found, depth = found.inner, depth + 1
    assert 1 < depth < 10
