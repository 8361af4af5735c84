# SPDX-License-Identifier: MIT
"""Run the benchmarks and print one table; exit status 1 where a budget is not kept."""

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import counters, idle, kernel_time, ledger, memory, reading, rungs, startup, storm, top
from benchmarks.processes import pktdrop
from benchmarks.report import Row, text

_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_MS_REC_SLAVE = 0x4000 | 1 << 19  # include/uapi/linux/mount.h
_TRACEFS = b"/sys/kernel/tracing"

PARTS: dict[str, Callable[[], list[Row]]] = {
    "kernel": kernel_time.measure,
    "start": startup.measure,
    "reading": reading.measure,
    "counters": counters.measure,
    "ledger": ledger.measure,
    "memory": memory.measure,
    "storm": storm.measure,
    "idle": idle.measure,
    "top": top.measure,
    "rungs": rungs.measure,
}


def _mount_tracefs() -> None:
    """Enter a mount namespace of our own, with tracefs, which bpftrace cannot do without."""
    if Path(_TRACEFS.decode(), "events").exists():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for result in (
        libc.unshare(_CLONE_NEWNS),
        libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_SLAVE), None),
        libc.mount(b"tracefs", _TRACEFS, b"tracefs", ctypes.c_ulong(0), None),
    ):
        if result != 0:
            sys.exit(f"tracefs cannot be mounted: {os.strerror(ctypes.get_errno())}")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)
    return f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {model}, Python {sys.version.split()[0]}"


def main() -> int:
    """Run all parts, or those named."""
    options = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    options.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be given again")
    chosen = options.parse_args().only or list(PARTS)
    if os.geteuid() != 0:
        sys.exit("The benchmarks need root. Start them with sudo.")
    _mount_tracefs()
    print(f"{time.strftime('%Y-%m-%d')}, {_machine()}\n{' '.join(pktdrop())}\n", flush=True)
    rows: list[Row] = []
    for name in chosen:
        start = time.monotonic()
        rows += PARTS[name]()
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(text(rows))
    return int(any(row.within is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
