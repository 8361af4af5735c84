# SPDX-License-Identifier: MIT
"""From process start to attached, pktdrop and bpftrace in turn; and where pktdrop's time goes."""

import json
import subprocess
import sys
import time
from statistics import median
from typing import NamedTuple

from benchmarks.processes import (
    BPFTRACE,
    ROOT,
    START_LINE,
    memory,
    pktdrop,
    programs,
    started,
    wait_for_line,
    wait_until,
)
from benchmarks.report import Row, limit_row, ratio_row, spread

_ROUNDS = 12
_PART_ROUNDS = 5


class Start(NamedTuple):
    """One start of pktdrop: ms to attached and to its start line, then MB resident and at most."""

    attached: float
    line: float
    resident: float
    peak: float


def _attached_ms(process: "subprocess.Popen[str]", start: float) -> float:
    """Attached is when a program is there: the one call that is left takes microseconds."""
    wait_until(lambda: bool(programs(process.pid)), "a BPF program")
    return (time.monotonic() - start) * 1000


def _pktdrop(*options: str) -> Start:
    start = time.monotonic()
    command = [*pktdrop(), "trace", *options]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        attached = _attached_ms(process, start)
        wait_for_line(process.stderr, START_LINE)
        return Start(attached, (time.monotonic() - start) * 1000, *memory(process.pid))


def _bpftrace_ms() -> float:
    start = time.monotonic()
    with started(BPFTRACE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return _attached_ms(process, start)


def _parts(*options: str) -> list[Row]:
    """Return the parts of the start in ms, see startup_parts.py: the medians of some profiled ones."""
    profiles = []
    for _ in range(_PART_ROUNDS):
        command = [sys.executable, "-I", str(ROOT / "benchmarks/startup_parts.py"), str(time.monotonic()), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        profiles.append(json.loads(done.stdout.splitlines()[-1]))
    whole = median(profile["whole, to the start line"] for profile in profiles)
    rows = []
    for name in profiles[0]:
        value = median(profile[name] for profile in profiles)
        rows.append(Row(f"    {name}", f"{value:.3g} ms", "of the whole", value / whole))
    return rows


def measure() -> list[Row]:
    """Measure in turn, so that all meet the same other load."""
    cached, first, theirs = [], [], []
    _pktdrop()  # fills the cache
    for _ in range(_ROUNDS):
        cached.append(_pktdrop())
        first.append(_pktdrop("--no-cache"))
        theirs.append(_bpftrace_ms())
    attached, bpftrace = [one.attached for one in cached], median(theirs)
    first_attached = [one.attached for one in first]
    return [
        ratio_row("start to attached", "ms", median(attached), "bpftrace", bpftrace, "start.attached"),
        Row("  median (least to most)", f"{spread(attached)} ms", f"bpftrace: {spread(theirs)} ms"),
        ratio_row(
            "  the first start on a kernel, compiling",
            "ms",
            median(first_attached),
            "bpftrace",
            bpftrace,
            "start.first",
        ),
        Row("  median (least to most)", f"{spread(first_attached)} ms"),
        Row("start to the start line, with the first look at the counters", f"{spread([s.line for s in cached])} ms"),
        limit_row("resident after a start from the cache", "MB", max(one.resident for one in cached), "start.resident"),
        limit_row("  its peak", "MB", max(one.peak for one in cached), "start.resident"),
        limit_row(
            "  peak of a first start, without the compiler process",
            "MB",
            max(one.peak for one in first),
            "start.resident",
        ),
        Row("  parts of a start:", ""),
        *_parts(),
        Row("  parts of a first start:", ""),
        *_parts("--no-cache"),
    ]
