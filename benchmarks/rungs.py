# SPDX-License-Identifier: MIT
"""Each way of attaching that this kernel offers: how long a start takes, and how much a drop costs the kernel.

Made for virtual machines (`./bootstrap test --vm KERNEL -- benchmarks/run --only rungs`), where kernels have more ways
than the one that the other parts measure, and time is dear: few drops, few rounds. The cost of a drop is that of all
programs together, as the probe of enqueue_to_backlog() runs for packets that nobody drops, too: here, once for each
datagram, and for each ICMP answer. So bpftrace has that probe as well where pktdrop does, a kprobe.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from statistics import median
from subprocess import DEVNULL

from benchmarks.kernel_time import statistics
from benchmarks.processes import BPFTRACE, programs, sender, started, tracing, wait_until
from benchmarks.report import Row, ratio_row
from pktdrop.kernel.facts import KernelFacts
from tests.kit.rungs import Rungs, offered

_DROPS = 20_000
_ROUNDS = 3
_NO_REASON = "tracepoint:skb:kfree_skb { @[args->location, cpu] = count(); }"
_TARGET_CPU = "kprobe:enqueue_to_backlog { @target[arg1, cpu] = count(); }"

_Tool = Callable[[], AbstractContextManager[Callable[[], int]]]


def _nanoseconds(process: int) -> int:
    """Return how long all programs of a process ran so far."""
    return sum(run.nanoseconds for run in programs(process).values())


@contextmanager
def _pktdrop(rungs: Rungs) -> Iterator[Callable[[], int]]:
    with tracing("--probe", rungs.kfree_skb, "--probe", rungs.enqueue_to_backlog) as process:
        yield partial(_nanoseconds, process.pid)


@contextmanager
def _bpftrace(command: Sequence[str], probes: int) -> Iterator[Callable[[], int]]:
    with started(command, stdout=DEVNULL, stderr=DEVNULL) as process:
        wait_until(lambda: len(programs(process.pid)) >= probes, "bpftrace")
        yield partial(_nanoseconds, process.pid)


def measure() -> list[Row]:
    """Run all of them in turn, each alone; return a row for the start and one for the cost of each."""
    command, option, drops = BPFTRACE
    script = drops if KernelFacts.read().arguments > 2 else _NO_REASON
    found = offered()
    tools: dict[str, _Tool] = {str(rungs): partial(_pktdrop, rungs) for rungs in found}
    tools["bpftrace"] = partial(_bpftrace, (command, option, script), 1)
    if any(rungs.enqueue_to_backlog == "kprobe" for rungs in found):
        tools["bpftrace, both"] = partial(_bpftrace, (command, option, f"{script} {_TARGET_CPU}"), 2)
    start: dict[str, list[float]] = {name: [] for name in tools}
    cost: dict[str, list[float]] = {name: [] for name in tools}
    with sender(0) as source, statistics():
        for tool in tools.values():  # caches are filled
            with tool():
                source.send("calls", _DROPS // 10)
        for _ in range(_ROUNDS):
            for name, tool in tools.items():
                begun = time.monotonic()
                with tool() as read:
                    start[name].append((time.monotonic() - begun) * 1000)
                    before = read()
                    source.send("calls", _DROPS)
                    cost[name].append((read() - before) / _DROPS)
    rows = []
    for rungs in found:
        rival = "bpftrace" if rungs.enqueue_to_backlog == "none" else "bpftrace, both"
        if rival not in tools:  # no kprobes here
            rival = "bpftrace"
        for what, unit, values in (("start to the start line", "ms", start), ("kernel time per drop", "ns", cost)):
            rows.append(ratio_row(f"{rungs}: {what}", unit, median(values[str(rungs)]), rival, median(values[rival])))
    return rows
