#!/usr/bin/python3 -I
# SPDX-License-Identifier: MIT
"""The README's walk through a VM, run inside it as root: trace, cause drops, compare each count with the kernel's own.

Exit status 0 if the trace names every drop that `pktdrop demo` caused, and counts it to the packet, else 1.
"""

import json
import signal
import subprocess
import sys
from typing import Any

SECONDS = 5
KEYS = ("reason", "layer", "interface", "netns", "protocol")


def demo(*options: str) -> list[dict[str, Any]]:
    """Run `pktdrop demo` to its end; the causes in its last line."""
    command = ["pktdrop", "demo", "--format", "json", *options]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    causes: list[dict[str, Any]] = json.loads(output.splitlines()[-1])["causes"]
    return causes


def main() -> int:
    """Run demo beside trace and print a line per cause."""
    with subprocess.Popen(["pktdrop", "trace", "--format", "json"], stdout=subprocess.PIPE, text=True) as trace:
        try:
            assert trace.stdout is not None
            first = trace.stdout.readline()
            if not first:  # it could not start, and has said why
                return 1
            started = json.loads(first)
            print(f"Linux {started['kernel']}, probes {started['probes']}", flush=True)
            causes = demo("--duration", str(SECONDS))
            trace.send_signal(signal.SIGINT)
            summary = json.loads(trace.stdout.readlines()[-1])
        finally:
            trace.kill()
    # demo leaves out, and says so, what does not work on a host; here all must
    usual = {cause["cause"] for cause in demo("--list") if cause["usual"]}
    left_out = usual - {cause["cause"] for cause in causes}
    wrong = bool(left_out)
    for cause in causes:
        traced = sum(drop["count"] for drop in summary["drops"] if all(drop[key] == cause[key] for key in KEYS))
        right = traced == cause["count"] > 0
        wrong |= not right
        verdict = "equal" if right else "WRONG"
        print(f"{cause['cause']:<20} {cause['reason']:<15} kernel {cause['count']:>5}  pktdrop {traced:>5}  {verdict}")
    print(f"causes left out: {sorted(left_out)}, drops not counted: {summary['lost']}")
    return int(wrong or any(summary["lost"].values()))


if __name__ == "__main__":
    sys.exit(main())
