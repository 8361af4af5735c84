# SPDX-License-Identifier: MIT
"""Capture files, as Wireshark reads them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pktdrop.model.drops import Netns
from pktdrop.model.packet import ARP, IPV4, IPV6
from pktdrop.model.sample import Sample, Socket
from pktdrop.samples.pcapng import Pcapng
from tests.kit.frames import ether, ipv4, ipv6, udp
from tests.kit.patience import PATIENCE
from tests.unit.make import NOON, make_drop, make_sample

BLUE, GREEN = Netns(4026532281, 7), Netns(4026532290, 9)
DATAGRAM = ether(IPV4, ipv4(17, udp()))
REQUEST = bytes.fromhex("00010800060400010200000000050a0000050000000000000a000009")
SENT = Socket(2, 43210, 8125, 17, 7, 812, None)


def read(samples: list[tuple[Sample, int]], tmp_path: Path) -> tuple[list[dict[str, Any]], str]:
    """Write samples, each with how many were dropped before; return the packets that tshark finds, and complaints."""
    if shutil.which("tshark") is None:
        pytest.skip("there is no tshark to read with")
    made, path = Pcapng(), tmp_path / "drops.pcapng"
    parts = [made.header("pktdrop 1")]
    for sample, dropped in samples:
        key = sample.key
        parts += made.packet(
            sample, key.interface or "?", key.netns_name or "?", f"{key.reason} on CPU {key.cpu}", dropped
        )
    path.write_bytes(b"".join(parts))
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "json"], capture_output=True, text=True, check=True, timeout=60 * PATIENCE
    )
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)], "\n".join(complaints)


def test_what_wireshark_shows(tmp_path: Path) -> None:
    """Each packet with its time, interface, comment, direction and what was dropped before; nothing to complain of."""
    samples = [
        (make_sample(DATAGRAM, time=NOON + 0.25), 0),
        (make_sample(DATAGRAM[:40], length=1400, key=make_drop(interface="eth0", cpu=3)), 12_296),
        (make_sample(ipv6(17, udp()), has_mac=False, network=0, key=make_drop(protocol=IPV6), received=False,
                     socket=SENT), 0),
        (make_sample(DATAGRAM, tag=42, key=make_drop(netns=GREEN, netns_name="green")), 0),
        (make_sample(REQUEST, has_mac=False, network=0, key=make_drop(protocol=ARP)), 0),
        (make_sample(b"", has_mac=False, network=0, length=0, key=make_drop(protocol=0), received=False), 0),
    ]  # fmt: skip
    packets, complaints = read(samples, tmp_path)
    assert complaints == ""
    assert len(packets) == len(samples)
    first, cut, raw, tagged, arp, nothing = packets
    assert first["frame"]["frame.time_epoch"].startswith("1700000000.25")
    assert first["frame"]["frame.interface_id_tree"]["frame.interface_name"] == "lo (blue)"
    assert first["frame"]["frame.packet_flags_tree"]["frame.packet_flags_direction"] in ("1", "0x00000001", "0x0001")
    assert first["pkt_comment"]["frame.comment"] == "NO_SOCKET on CPU 0"
    assert (first["ip"]["ip.src"], first["udp"]["udp.dstport"]) == ("10.0.0.5", "8125")
    assert (cut["frame"]["frame.len"], cut["frame"]["frame.cap_len"]) == ("1400", "40")
    assert cut["frame"]["frame.drop_count"] == "12296"
    assert cut["frame"]["frame.interface_id_tree"]["frame.interface_name"] == "eth0 (blue)"
    assert raw["ipv6"]["ipv6.src"] == "fd00::5"
    assert "eth" not in raw
    assert raw["frame"]["frame.packet_flags_tree"]["frame.packet_flags_direction"] in ("2", "0x00000002", "0x0002")
    assert (tagged["vlan"]["vlan.id"], tagged["ip"]["ip.dst"]) == ("42", "10.0.0.9")
    assert tagged["frame"]["frame.len"] == str(len(DATAGRAM) + 4)
    assert tagged["frame"]["frame.interface_id_tree"]["frame.interface_name"] == "lo (green)"
    assert arp["arp"]["arp.src.proto_ipv4"] == "10.0.0.5"
    assert nothing["frame"]["frame.protocols"].startswith("sll")
    interfaces = [packet["frame"]["frame.interface_id"] for packet in packets]
    assert len(set(interfaces)) == 5  # the last two are alike


def test_packets_are_not_called_cut_by_the_capture() -> None:
    """An interface description block says of how many octets packets are at most; 0: of any number (section 4.2)."""
    interface, *_ = Pcapng().packet(make_sample(DATAGRAM), "eth0", "blue", "", 0)
    kind, _, _, _, most = struct.unpack_from("=IIHHI", interface)
    assert (kind, most) == (1, 0)
