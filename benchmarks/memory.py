# SPDX-License-Identifier: MIT
"""Resident memory of `pktdrop trace`, and whether it grows with events once their keys are known."""

import time

from benchmarks.processes import cpu_seconds, memory, sender, tracing
from benchmarks.report import Row, limit_row, ratio_row

_KEYS = 63_000
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
    """Read it after the start, after a million events with 63,000 keys, and after a million more.

    Whether it grows is told by its peak: between two looks the resident set is anywhere below that, as far as Python
    gave memory back.
    """
    with sender(0) as source, tracing() as process:
        time.sleep(1.0)
        start, _ = memory(process.pid)
        source.send("ethertypes", _EVENTS, _KEYS)
        _settle(process.pid)
        first, first_peak = memory(process.pid)
        source.send("ethertypes", _EVENTS, _KEYS)
        _settle(process.pid)
        second, second_peak = memory(process.pid)
    return [
        limit_row("resident after the start", "MB", start, 150),
        limit_row(f"resident after {_EVENTS:,} events, {_KEYS:,} keys", "MB", first, 150),
        ratio_row(f"resident after {_EVENTS:,} more", "MB", second, "before", first),
        limit_row("peak", "MB", second_peak, 150),
        ratio_row("  is the memory flat: peak of the second million", "MB", second_peak, "first", first_peak, 1.05),
    ]
