# SPDX-License-Identifier: MIT
"""Run the benchmarks and print one table; exit status 1 where a budget is not kept or was not measured."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import budgets, netns
from benchmarks.processes import pktdrop
from benchmarks.report import Row, Verdicts

_README = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
_TRACEFS = Path("/sys/kernel/tracing")

PARTS = {
    "kernel": "kernel_time",
    "filter": "filter",
    "start": "startup",
    "reading": "reading",
    "counters": "counters",
    "ledger": "ledger",
    "memory": "memory",
    "churn": "churn",
    "crowd": "crowd",
    "storm": "storm",
    "idle": "idle",
    "top": "top",
    "rungs": "rungs",
}
"""The module of each part. Imported when it is run: not all need the same libraries."""
SHORT = ("reading", "memory", "churn")


def _mount_tracefs() -> None:
    """Enter a mount namespace of our own, with tracefs, which bpftrace cannot do without."""
    if Path(_TRACEFS, "events").exists():
        return
    try:
        netns.own_mounts()
        netns.mount("tracefs", str(_TRACEFS))
    except OSError as error:
        sys.exit(f"tracefs cannot be mounted: {error.strerror}")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), os.uname().machine)
    return f"Linux {os.uname().release}, {os.cpu_count()} CPUs, {model}, Python {sys.version.split()[0]}"


def _measure(names: Sequence[str], short: bool) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        start = time.monotonic()
        part = import_module(f"benchmarks.{PARTS[name]}")
        rows += part.measure_short() if short and hasattr(part, "measure_short") else part.measure()
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def _record(measured: str) -> None:
    before, rest = _README.read_text(encoding="utf-8").split(_BEGIN)
    _README.write_text(f"{before}{_BEGIN}{measured}\n{_END}{rest.split(_END)[1]}", encoding="utf-8")


def main() -> int:
    """Run all parts, or those named."""
    options = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    options.add_argument("--only", action="append", choices=list(PARTS), help="run this part; may be given again")
    options.add_argument(
        "--short", action="store_true", help=f"only {', '.join(SHORT)}, shorter, and judge counts, bytes and ratios"
    )
    options.add_argument("--record", action="store_true", help="write what all parts measure into benchmarks/README.md")
    given = options.parse_args()
    if given.record and (given.only or given.short):
        options.error("only all parts together are recorded")
    if os.geteuid() != 0:
        sys.exit("The benchmarks need root. Start them with sudo.")
    if not given.short:
        _mount_tracefs()
    where = f"{time.strftime('%Y-%m-%d')}, {_machine()}."
    print(f"{where}\n{' '.join(pktdrop())}\n", flush=True)
    rows = _measure(given.only or (SHORT if given.short else list(PARTS)), given.short)
    verdicts = Verdicts(budgets.load(), given.short)
    print(verdicts.text(rows))
    if given.record:
        _record(f"{where}\n\n{verdicts.text(rows)}")
    over, missing = verdicts.over(rows), [] if given.only else verdicts.missing(rows)
    for what, names in (("OVER", over), ("not measured", missing)):
        if names:
            print(f"{what}: {', '.join(names)}", file=sys.stderr)
    return int(bool(over or missing))


if __name__ == "__main__":
    sys.exit(main())
