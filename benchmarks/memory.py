# SPDX-License-Identifier: MIT
"""Resident memory of `pktdrop trace`, and whether it grows with events once their keys are known."""

import time

from benchmarks.processes import cpu_seconds, memory, sender, tracing
from benchmarks.report import Row, limit_row, ratio_row

_KINDS = 65_536
_EVENTS = 1_000_000
_LOOKS = 3


def _settle(process: int) -> None:
    """Wait until it has looked at everything: three looks in which it used the CPU and then slept."""
    quiet, before = 0, cpu_seconds(process)
    while quiet < _LOOKS:
        time.sleep(1.0)
        now = cpu_seconds(process)
        quiet, before = (quiet + 1 if now - before < 0.9 else 0), now


def measure() -> list[Row]:
    """Read it after the start, after a million events of 65,536 kinds, and after a million more, as JSON is written.

    Whether it grows is told by its peak: between two looks the resident set is anywhere below that, as far as Python
    gave memory back.
    """
    with sender(0) as source, tracing("1", "--format", "json") as process:
        time.sleep(1.0)
        start, _ = memory(process.pid)
        source.send("kinds", _EVENTS, _KINDS)
        _settle(process.pid)
        first, first_peak = memory(process.pid)
        source.send("kinds", _EVENTS, _KINDS)
        _settle(process.pid)
        second, second_peak = memory(process.pid)
    return [
        Row("resident after the start", f"{start:.3g} MB"),
        limit_row(f"resident after {_EVENTS:,} events of {_KINDS:,} kinds, JSON on", "MB", first, "kinds.resident"),
        limit_row(f"  after {_EVENTS:,} more", "MB", second, "kinds.resident"),
        limit_row("  at most", "MB", second_peak, "kinds.peak"),
        ratio_row("  at most in the second million", "MB", second_peak, "in the first", first_peak, "kinds.flat"),
    ]
