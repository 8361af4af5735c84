# SPDX-License-Identifier: MIT
"""What pktdrop reads of packets is what Wireshark reads of them: hundreds, put together at random."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktdrop.model.packet import IPV4, IPV6, Packet, decode_frame
from tests.kit.frames import ether, ipv4, ipv6, tcp, udp
from tests.kit.patience import PATIENCE

FIELDS = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport", "tcp.srcport", "tcp.dstport",
          "tcp.flags", "tcp.seq_raw", "tcp.window_size_value", "sctp.srcport", "sctp.dstport", "vlan.id", "ip.ttl",
          "ipv6.hlim", "ip.id")  # fmt: skip
BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
COUNT = 600


def _transport(dice: random.Random, deep: int) -> tuple[int, bytes]:
    ports = dice.randrange(61000, 65000), dice.randrange(20000, 60000)  # none that Wireshark knows better
    rest = bytes(dice.randrange(64))
    kind = dice.choice(("udp", "tcp", "sctp", "icmp", "vxlan", "gre", "ipip"))
    if kind == "tcp":
        options = dice.choice((b"", b"\2\4\5\xb4", b"\1\1\4\2"))
        return 6, tcp(*ports, bits=dice.randrange(256), options=options, rest=rest)
    if kind == "sctp":
        return 132, struct.pack("!HHII", *ports, 0, 0) + b"\1\0\0\x14" + bytes(16)
    if kind == "vxlan" and deep:
        return 17, udp(ports[0], 4789, struct.pack("!II", 0x08000000, 42 << 8) + _frame(dice, deep - 1))
    if kind == "gre" and deep:
        return 47, struct.pack("!HH", 0, IPV4) + _packet(dice, IPV4, deep - 1)
    if kind == "ipip" and deep:
        return 4, _packet(dice, IPV4, deep - 1)
    return 17, udp(*ports, rest)


def _packet(dice: random.Random, ethertype: int, deep: int) -> bytes:
    protocol, rest = _transport(dice, deep)
    if ethertype == IPV4:
        source, destination = (f"10.{dice.randrange(256)}.1.{dice.randrange(256)}" for _ in "ab")
        return ipv4(
            protocol, rest, source, destination, dice.choice((b"", b"\x94\4\0\0")), 0x4000, dice.randrange(1 << 16)
        )
    source, destination = (f"2001:db8::{dice.randrange(1 << 16):x}" for _ in "ab")
    if dice.random() < 0.5:  # a hop-by-hop header with padding
        return ipv6(0, struct.pack("!BBBB4x", protocol, 0, 1, 4) + rest, source, destination)
    return ipv6(protocol, rest, source, destination)


def _frame(dice: random.Random, deep: int) -> bytes:
    ethertype = dice.choice((IPV4, IPV6))
    vlans = tuple(dice.randrange(1, 4095) for _ in range(dice.choice((0, 0, 1, 2))))
    return ether(ethertype, _packet(dice, ethertype, deep), vlans)


def _layers(packet: Packet | None) -> Iterator[Packet]:
    while packet is not None:
        yield packet
        packet = packet.inner


def _ours(frame: bytes) -> dict[str, list[str]]:
    """What is read of a frame, by the names that tshark has for it, from the outside to the inside."""
    found: dict[str, list[str]] = {field: [] for field in FIELDS}
    for packet in _layers(decode_frame(frame)):
        found["vlan.id"] += map(str, packet.vlans)
        if packet.source is None or packet.destination is None:
            continue
        four = ":" not in packet.source
        for name, value in (("src", packet.source), ("dst", packet.destination)):
            found[f"{'ip' if four else 'ipv6'}.{name}"].append(value)
        found["ip.ttl" if four else "ipv6.hlim"].append(str(packet.ttl))
        if four:
            found["ip.id"].append(f"{packet.identification:#06x}")
        protocol = (packet.protocol or "").lower()
        if protocol in ("udp", "tcp", "sctp"):
            found[f"{protocol}.srcport"].append(str(packet.source_port))
            found[f"{protocol}.dstport"].append(str(packet.destination_port))
        if protocol == "tcp":
            found["tcp.flags"].append(f"{sum(BITS[flag] for flag in packet.flags):#06x}")
            found["tcp.seq_raw"].append(str(packet.sequence))
            found["tcp.window_size_value"].append(str(packet.window))
    return found


def test_as_wireshark_reads_them(tmp_path: Path) -> None:
    """Addresses, ports, flags, tags, in tunnels, too: no difference."""
    if shutil.which("tshark") is None:
        pytest.skip("there is no tshark to compare with")
    dice = random.Random(16)
    frames = [_frame(dice, 2) for _ in range(COUNT)]
    records = (struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)
    capture = tmp_path / "frames.pcap"
    capture.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    wanted = [part for field in FIELDS for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", capture, "-T", "fields", "-E", "separator=;", "-E", "aggregator=,", *wanted],
        capture_output=True, text=True, check=True, timeout=60 * PATIENCE,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == COUNT
    for frame, line in zip(frames, lines, strict=True):
        theirs = {field: cell.split(",") if cell else [] for field, cell in zip(FIELDS, line.split(";"), strict=True)}
        assert _ours(frame) == theirs, frame.hex()
