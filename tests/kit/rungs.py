# SPDX-License-Identifier: MIT
"""Tracers on every pair of rungs that this kernel offers, all at once: each must count the same drops alike."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from tests.kit.process import DEADLINE, command
from tests.kit.trace import Trace

KFREE_SKB = ("tp_btf", "raw")
BACKLOG = ("fentry", "kprobe", "none")


class Rungs(NamedTuple):
    """How both probes are attached."""

    kfree_skb: str
    enqueue_to_backlog: str

    def __str__(self) -> str:
        return f"{self.kfree_skb}+{self.enqueue_to_backlog}"


def doctor() -> dict[str, Any]:
    """Return what `pktdrop doctor` says, its checks by their names."""
    said = subprocess.run(
        [*command(), "doctor", "--format", "json"], cwd="/", capture_output=True, timeout=4 * DEADLINE
    )
    diagnosis: dict[str, Any] = json.loads(said.stdout)
    return {check["name"]: check for check in diagnosis["checks"]}


def offered() -> list[Rungs]:
    """Return the pairs of rungs that `pktdrop doctor` says can be stood on here."""
    checks = doctor()

    def works(probe: str, rung: str) -> bool:
        return rung == "none" or checks[f"{probe} {rung}"]["status"] == "ok"

    return [
        Rungs(kfree_skb, backlog)
        for kfree_skb in KFREE_SKB
        for backlog in BACKLOG
        if works("kfree_skb", kfree_skb) and works("enqueue_to_backlog", backlog)
    ]


@contextmanager
def tracing_by_all(interval: str = "60") -> Iterator[dict[Rungs, Trace]]:
    """Trace around a block by every pair of rungs, from the last start line on; whoever still runs then is killed.

    The interval is in seconds, as a user gives it.
    """
    with ExitStack() as stack:
        traces = {}
        for rungs in offered():
            probes = ("--probe", rungs.kfree_skb, "--probe", rungs.enqueue_to_backlog)
            trace = traces[rungs] = Trace(interval, *probes)
            stack.callback(trace.kill)
        for rungs, trace in traces.items():
            if not trace.became_ready():
                raise AssertionError(f"{rungs} ended with {trace.process.returncode}:\n{trace.stderr}")
            assert rungs._asdict() == trace.lines("start")[0]["probes"]
        yield traces


def ended(traces: Mapping[Rungs, Trace]) -> dict[Rungs, dict[str, Any]]:
    """End all of them as Ctrl-C does; return their summaries."""
    for trace in traces.values():
        assert trace.stop() == 0, trace.stderr
        assert "Traceback" not in trace.stderr
    return {rungs: trace.summary for rungs, trace in traces.items()}
