# SPDX-License-Identifier: MIT
"""A program behind NFQUEUE that does not read: one packet lost at its full queue is one, and messages are none."""

import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import one_ns
from tests.kit.process import run, wait_until
from tests.kit.trace import inside, total, tracing

N, ROOM, QUEUE, PORT = 20, 3, 7, 5000
_NETFILTER, _CONFIG = 12, 3 << 8 | 2  # include/uapi/linux/netlink.h; NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
# include/uapi/linux/netfilter/nfnetlink_queue.h: NFQA_CFG_CMD (BIND), NFQA_CFG_PARAMS (COPY_PACKET), QUEUE_MAXLEN
_BIND = struct.pack("=HHBxxx", 8, 1, 1)
_PARAMS = struct.pack("=HH", 9, 2) + struct.pack(">IB", 0xFFFF, 2) + bytes(3)
_ROOM = struct.pack("=HH", 8, 3) + struct.pack(">I", ROOM)


@contextmanager
def _sleeper(here: Namespace) -> Iterator[None]:
    """Serve the queue without ever reading from it."""
    with here.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as served:
        served.settimeout(5)
        served.bind((0, 0))
        for attribute in (_BIND, _PARAMS, _ROOM):
            body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(QUEUE)) + attribute
            served.send(struct.pack("=IHHII", 16 + len(body), _CONFIG, 0x5, 1, 0) + body)  # NLM_F_REQUEST | NLM_F_ACK
            (error,) = struct.unpack_from("=i", served.recv(4096), 16)
            assert error == 0, f"NFQNL_MSG_CONFIG: errno {-error}"
        yield


def _dropped(here: Namespace) -> int:
    """Return what the kernel counts as lost at the full queue: nfnetlink_queue.c seq_show, column 6."""
    with here.entered():
        (line,) = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines()
    return int(line.split()[5])


def test_a_packet_at_a_full_queue_is_one_loss() -> None:
    """Three wait, the rest is lost; the messages made for the queue are no packets."""
    if shutil.which("iptables-legacy") is None:
        pytest.skip("no iptables-legacy")
    with one_ns() as net:
        here = net["host"]
        rule = ("-p", "udp", "--dport", str(PORT), "-j", "NFQUEUE", "--queue-num", str(QUEUE))
        run("ip", "netns", "exec", here.name, "iptables-legacy", "-A", "INPUT", *rule)
        with (
            _sleeper(here),
            here.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
            here.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            tracing("--all-netns") as trace,
        ):
            listener.bind(("127.0.0.1", PORT))
            for _ in range(N):
                sender.sendto(b"x", ("127.0.0.1", PORT))
            wait_until(lambda: _dropped(here) == N - ROOM, "the queue to lose packets")
            assert trace.stop() == 0
            drops = trace.summary["drops"]
            lost = [drop for drop in inside(drops, [here]) if not drop["noise"]]
    assert total(lost) == N - ROOM, lost
    assert all(not drop["doubt"] for drop in lost)
    assert not [drop for drop in drops if "nfqnl" in drop["location"] and not drop["noise"]]
