# SPDX-License-Identifier: MIT
"""Beside 500 namespaces with 2,500 interfaces: whether pktdrop ends when it is to, and how long a diagnosis takes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import netns
from benchmarks.processes import ROOT, pktdrop, started, tracing, wait_for_line
from benchmarks.report import Row, limit_row

_NAMESPACES, _PAIRS = 500, 2
"""With lo each has 5 interfaces."""
_MAC = bytes.fromhex("020000000003")
_WATCHED = 5.0


@contextmanager
def crowd() -> Iterator[None]:
    """Let a process make them, with one more process in each; all end with it."""
    command = [sys.executable, "-I", "-m", "benchmarks.crowd"]
    with started(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        wait_for_line(keeper.stdout, "ready")
        yield


def _make() -> None:
    """Make the namespaces, say so, and keep them until standard input ends. A child in each stands for a container."""
    home = netns.own()
    for _ in range(_NAMESPACES):
        here = netns.make()
        netns.without_ipv6()
        for pair in range(_PAIRS):
            netns.route(netns.veth(f"a{pair}", _MAC, f"b{pair}", here))
            netns.route(netns.link_up(socket.if_nametoindex(f"b{pair}")))
        if os.fork() == 0:
            netns.end_with_parent()
            signal.pause()
        os.close(here)
        netns.enter(home)
    print("ready", flush=True)
    sys.stdin.read()


def _ends(*options: str, how: signal.Signals | None = None) -> float:
    """Return how long a trace takes to end, from when it is to: a signal after a look, or the end of "-d 1"."""
    with tracing(*options, "--format", "json", stdout=subprocess.PIPE) as process:
        begun = time.monotonic()
        if how is not None:
            wait_for_line(process.stdout, '{"type":"interval"')
            begun = time.monotonic()
            process.send_signal(how)
        assert process.stdout is not None
        process.stdout.read()
        process.wait()
        return time.monotonic() - begun


def _diagnosis() -> float:
    start = time.monotonic()
    subprocess.run([*pktdrop(), "diagnose", "-d", f"{_WATCHED:g}"], capture_output=True, check=True)
    return time.monotonic() - start


def measure() -> list[Row]:
    """Measure all ends in one crowd."""
    with crowd():
        duration = _ends("1", "-d", "1") - 1
        interrupt, terminate = (_ends("1", how=how) for how in (signal.SIGINT, signal.SIGTERM))
        diagnosis = _diagnosis()
    links = _NAMESPACES * (2 * _PAIRS + 1)
    return [
        limit_row(
            f"{_NAMESPACES} namespaces, {links:,} interfaces: `trace -d 1` ends late by",
            "s",
            duration,
            "crowd.duration",
        ),
        limit_row("  it ends after SIGINT in", "s", interrupt, "crowd.interrupt"),
        limit_row("  it ends after SIGTERM in", "s", terminate, "crowd.terminate"),
        limit_row(f"  `diagnose -d {_WATCHED:g}` takes", "s", diagnosis, "crowd.diagnose"),
    ]


if __name__ == "__main__":
    _make()
