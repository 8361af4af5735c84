# SPDX-License-Identifier: MIT
"""From process start to attached, pktdrop and bpftrace in turn; and where pktdrop's time goes."""

import json
import subprocess
import sys
import time
from statistics import median

from benchmarks.processes import BPFTRACE, ROOT, programs, started, tracing, wait_until
from benchmarks.report import Row, ratio_row, spread

_ROUNDS = 12
_PART_ROUNDS = 5


def _pktdrop_ms(*options: str) -> float:
    start = time.monotonic()
    with tracing(*options):
        return (time.monotonic() - start) * 1000


def _bpftrace_ms() -> float:
    """Attached is when its program is there: the one call that is left takes microseconds."""
    start = time.monotonic()
    with started(BPFTRACE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: bool(programs(process.pid)), "bpftrace")
        return (time.monotonic() - start) * 1000


def _parts(*options: str) -> list[Row]:
    """Return the parts of the start in ms, see startup_parts.py: the medians of some profiled ones."""
    profiles = []
    for _ in range(_PART_ROUNDS):
        command = [sys.executable, "-I", str(ROOT / "benchmarks/startup_parts.py"), str(time.monotonic()), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        profiles.append(json.loads(done.stdout.splitlines()[-1]))
    whole = median(profile["whole"] for profile in profiles)
    rows = []
    for name in profiles[0]:
        value = median(profile[name] for profile in profiles)
        rows.append(Row(f"    {name}", f"{value:.3g} ms", "of the whole", value / whole))
    return rows


def measure() -> list[Row]:
    """Measure in turn, so that all meet the same other load."""
    cached, first, theirs = [], [], []
    _pktdrop_ms()  # fills the cache
    for _ in range(_ROUNDS):
        cached.append(_pktdrop_ms())
        first.append(_pktdrop_ms("--no-cache"))
        theirs.append(_bpftrace_ms())
    return [
        ratio_row("start to attached", "ms", median(cached), "bpftrace", median(theirs), 1.0),
        ratio_row("  the first start on a kernel, compiling", "ms", median(first), "bpftrace", median(theirs)),
        Row("  median (least to most)", f"{spread(cached)} ms", f"bpftrace: {spread(theirs)} ms"),
        Row("  parts of a start:", ""),
        *_parts(),
        Row("  parts of a first start:", ""),
        *_parts("--no-cache"),
    ]
