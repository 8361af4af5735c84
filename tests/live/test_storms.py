# SPDX-License-Identifier: MIT
"""Whatever a sender does, by number or by kind, what others lose is counted and seen, and memory is what it was."""

import os
import socket
import subprocess
import sys
from typing import Any

from pktdrop.demo import frames
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import mac, two_ns
from tests.kit import storm
from tests.kit.process import DEADLINE, on_cpu, wait_until
from tests.kit.trace import Trace, finish, inside, total, tracing

STORM = 800_000
BUDGET = 4
"""Samples of each kind and CPU in a look, as `trace --packets` has by default."""
RARE = {
    "LLDP": 0x88CC, "EAPOL": 0x888E, "PTP": 0x88F7, "FCoE": 0x8906, "BATMAN": 0x4305, "LOOP": 0x9000,
    "PPPoE-D": 0x8863, "PPPoE": 0x8864, "MACsec": 0x88E5, "TIPC": 0x88CA,
}  # fmt: skip
"""Ten protocols that nobody speaks here, by their names in pktdrop/data/ethertypes.tsv: a kind of drops each."""
UNKNOWN = frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop")


def storming(sender: Namespace, cpu: int, count: int, frame: bytes, *how: int) -> "subprocess.Popen[bytes]":
    """Start sending frames fast."""
    arguments = [str(one) for one in (cpu, "eth0", count, frame.hex(), *how)]
    enter = ["ip", "netns", "exec", sender.name]
    return subprocess.Popen([*enter, sys.executable, "-I", storm.__file__, *arguments], stdout=subprocess.PIPE)


def drops_of(trace: Trace, receiver: Namespace) -> list[dict[str, Any]]:
    """What a namespace lost, in the end; nothing is missing."""
    summary = finish(trace)
    assert summary["lost"] == {"map_full": 0, "missed": 0}
    return inside(summary["drops"], [receiver])


def test_a_storm_hides_nobody() -> None:
    """Ten kinds that lose a packet a second beside 800,000 of another one have their samples, of each look."""
    cpus = sorted(os.sched_getaffinity(0))
    with two_ns() as net, tracing("1") as trace, on_cpu(cpus[0]):
        client, server = net["client"], net["server"]
        rare = net.keep(client.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        rare.bind(("eth0", 0))
        senders = [storming(client, cpu, STORM // len(cpus), UNKNOWN, 1, 0) for cpu in cpus]
        rounds = 0
        while running := [sender for sender in senders if sender.poll() is None]:
            for ethertype in RARE.values():
                rare.send(frames.ethernet(mac(0, 2), mac(0, 1), ethertype, b"rare"))
            rounds += 1
            try:
                running[0].wait(1)
            except subprocess.TimeoutExpired:
                continue  # the next second
        sent = sum(int(sender.communicate(timeout=4 * DEADLINE)[0]) for sender in senders)
        assert sent == STORM // len(cpus) * len(cpus)
        wait_until(lambda: server.link("eth0", "rx.dropped") >= sent + rounds * len(RARE), "the last frame")
        drops = drops_of(trace, server)
        looks = len(trace.intervals) + 1
    for name in RARE:
        ours = [drop for drop in drops if drop["protocol"] == name]
        assert total(ours) == rounds, name
        # a slow machine has more than BUDGET of them between two looks
        assert min(rounds, looks) <= sum(drop["sampled"] for drop in ours) <= rounds, name
    flood = [drop for drop in drops if drop["protocol"] not in RARE and drop["layer"] == "stack"]
    assert total(flood) == sent
    assert sum(drop["sampled"] for drop in flood) <= BUDGET * len(cpus) * looks
