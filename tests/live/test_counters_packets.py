# SPDX-License-Identifier: MIT
"""A capture that does not read: its drops as ss(8) has them, and nothing lost."""

import re
import socket

from pktdrop.counters import packets
from pktdrop.demo.net import one_ns
from pktdrop.model.drops import Netns
from tests.kit.diagnosed import diagnosing, judged, of
from tests.kit.process import wait_until

N = 2000


def test_a_capture_that_overflows_loses_copies_only() -> None:
    """Datagrams reach their program; what the capture had no room for is in its own count."""
    with one_ns() as net:
        here = net["host"]
        with (
            here.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as capture,
            here.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
            here.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            diagnosing("--all-netns") as made,
        ):
            capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            program.bind(("127.0.0.1", 4711))
            for _ in range(N):
                sender.sendto(b"x", ("127.0.0.1", 4711))
                assert program.recv(1) == b"x"

            def shown() -> int:
                return sum(map(int, re.findall(r",d([0-9]+)\)", here.read("ss", "-0", "-m", "-H", "-a", "-n"))))

            wait_until(lambda: shown() >= N, "the capture to overflow")
            with here.entered():
                (row,) = packets.PacketSocketReader().read(Netns(here.inode)).rows.values()
            assert row.values == (shown(),)
            copies = shown()
            data = judged(made)
        assert of(data, here) == []
        told = [one for one in data["noise"] if "capture" in one["why"]]  # copies with an event of their own, and all
        assert sum(one["packets"] for one in told) == copies
        assert any(one["reason"] == "packet_socket.drops" for one in told)
