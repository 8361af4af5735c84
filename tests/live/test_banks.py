# SPDX-License-Identifier: MIT
"""No kind of drop blinds pktdrop to others, and giving kinds up loses no count."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.snapshots import Interval, interval
from tests.kit import taps
from tests.kit.trace import finish, total, tracing


class Sender:
    """A running taps.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take the process and learn its namespace."""
        self._process = process
        self.netns: int = self._read()["netns"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self) -> None:
        """Let it send."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> int:
        """Wait until it has sent all; return how many, as the kernel counted them, too."""
        answer = self._read()
        assert answer["sent"] == answer["dropped"]
        return int(answer["sent"])


@contextmanager
def sender(cpu: int, interfaces: int, rounds: int) -> Iterator[Sender]:
    """Make the devices."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun to make interfaces with")
    command = [sys.executable, "-I", taps.__file__, *map(str, (cpu, interfaces, rounds))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Sender(process)
        finally:
            process.kill()


def packets_of(step: Interval, netns: set[int]) -> int:
    """Return the sum of the drops in some namespaces, and of those that are not known to be in another one."""
    return sum(count.packets for key, count in step.drops.items() if key.netns and key.netns.inode in netns)


def test_giving_up_all_the_time_loses_nothing() -> None:
    """Two CPUs drop 200 kinds each as fast as they can while the bank is given up again and again: exact to the packet.

    Intervals add up to the whole, and no kind is told apart from itself.
    """
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with Tracer(Namespaces()) as tracer:
        with sender(cpus[0], 20, 2000) as one, sender(cpus[-1], 20, 2000) as other:
            first = last = tracer.snapshot()
            for each in (one, other):
                each.start()
            netns, gave_up, summed = {one.netns, other.netns}, 0, 0
            while packets_of(interval(first, last), netns) < 2 * 20 * 2000 * len(taps.PROTOCOLS):
                tracer.give_up(at_once=True)
                gave_up += 1
                before, last = last, tracer.snapshot()
                summed += packets_of(interval(before, last), netns)
                assert gave_up < 10_000
            sent = one.finish() + other.finish()
            whole = interval(first, tracer.snapshot())
        assert sent == packets_of(whole, netns) == summed
        assert {2000} == {count.packets for key, count in whole.drops.items() if key.netns and key.netns.inode in netns}
        assert gave_up > 3
        assert whole.uncounted == (0, 0)


def test_what_finds_no_room_counts_at_other_places() -> None:
    """With a full map, drops count by reason and call site: none is lost, and none is called so."""
    room, interfaces = 100, 200
    with sender(0, interfaces, 3) as source, tracing("--map-entries", str(room)) as trace:
        source.start()
        sent = source.finish()
        summary = finish(trace)
    call_sites = {drop["location"] for drop in summary["drops"] if drop["netns"] == source.netns}
    assert len(call_sites) == 1
    there = [drop for drop in summary["drops"] if drop["netns"] == source.netns]
    others = [drop for drop in summary["drops"] if drop["other_places"] and drop["location"] in call_sites]
    assert sent == total(there) + total(others)
    assert {(None, None, "UNHANDLED_PROTO")} == {(one["netns"], one["interface"], one["reason"]) for one in others}
    assert len(others) <= len(taps.PROTOCOLS)
    assert summary["lost"] == {"map_full": total(others), "missed": 0}
