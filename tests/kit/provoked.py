# SPDX-License-Identifier: MIT
"""Packets of a cause that are sent and lost, and what shows that they were."""

import os
import socket
from typing import Any

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import DemoCause, Traffic
from pktdrop.demo.net import Net
from tests.kit import provoke
from tests.kit.process import DEADLINE, on_cpu, wait_until
from tests.kit.trace import function_of

EVERY = (*CAUSES, *provoke.CAUSES)
N = 23
"""How many packets a test loses."""
LAST_CPU = max(os.sched_getaffinity(0))


def send(traffic: Traffic, lose: int, spare: int, cpu: int) -> None:
    """Send packets of both kinds from one CPU; return when the witnesses have seen them all."""
    lost, spared = traffic.lost(), traffic.spared()
    with on_cpu(cpu):
        for turn in range(max(lose, spare)):
            if turn < spare:
                traffic.spare()
            if turn < lose:
                traffic.lose()
    wait_until(lambda: traffic.lost() - lost >= lose, f"the witness to see {lose} lost packets", DEADLINE)
    wait_until(lambda: traffic.spared() - spared >= spare, f"{spare} spared packets to come through", DEADLINE)
    assert (lose, spare) == (traffic.lost() - lost, traffic.spared() - spared)


def is_answer(drop: dict[str, Any], cause: DemoCause) -> bool:
    """Whether this is the ICMPv6 error that told a sender of its loss.

    icmpv6_rcv() of v5.10 and v6.1 frees as dropped what it has delivered (net/ipv6/icmp.c).
    """
    return function_of(drop["location"]) == "icmpv6_rcv" and "icmpv6_rcv" not in cause.functions


def send_udp(net: Net, role: str, count: int, to: tuple[str, int], payload: bytes = b"hello") -> int:
    """Send datagrams; return the port that they came from."""
    sender = net.keep(net[role].socket(socket.AF_INET, socket.SOCK_DGRAM))
    with on_cpu(LAST_CPU):
        for _ in range(count):
            try:
                sender.sendto(payload, to)
            except ConnectionRefusedError:  # told of the one before
                sender.sendto(payload, to)
    return int(sender.getsockname()[1])
