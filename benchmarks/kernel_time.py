# SPDX-License-Identifier: MIT
"""Kernel time per drop: what the kernel's own BPF statistics say of each program, attached alone, in turn.

As a user would run it: of programs attached together, whoever comes second finds packet and devices in the cache. The
rounds are interleaved. Packets are sent one a system call, as most programs do, and 64 a call, where caches stay hot.
The statistics themselves take part of what they show: that is what the empty program costs. And they do not see what
the kernel does around a program: perf's buffer, which bpftrace's tracepoint goes through. So the sender's own time per
drop is compared, too, with one tool attached at a time and no statistics.
"""

import ctypes
import os
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from statistics import median

from benchmarks.processes import BPFTRACE, Run, program_run, programs, sender, started, tracing, wait_until
from benchmarks.report import Row, ratio_row
from pktdrop.kernel import sysbpf
from pktdrop.kernel.facts import KernelFacts

_DROPS = 200_000
_ROUNDS = 5
_ADDED_ROUNDS = 9
_BPF_ENABLE_STATS = 32  # enum bpf_cmd; BPF_STATS_RUN_TIME is 0
_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
_RETURN_0 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit

_Reader = Callable[[], Run]


@contextmanager
def statistics() -> Iterator[None]:
    """Switch BPF statistics on while a descriptor is open, so that no setting of the host is touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(8)
    number = _BPF_SYSCALL[os.uname().machine]
    descriptor = libc.syscall(ctypes.c_long(number), _BPF_ENABLE_STATS, ctypes.byref(attributes), 8)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "BPF_ENABLE_STATS: " + os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _empty(facts: KernelFacts) -> Iterator[_Reader]:
    """Attach a program that does nothing to the same hook: the floor, which includes the statistics themselves."""
    hook = (sysbpf.AttachType.TRACE_RAW_TP, facts.tracepoint_id)
    program = sysbpf.program_load(sysbpf.ProgramType.TRACING, _RETURN_0, "empty", *hook)
    try:
        link = sysbpf.raw_tracepoint_open(program)
        try:
            yield lambda: program_run(os.getpid(), program)
        finally:
            os.close(link)
    finally:
        os.close(program)


def _busiest(process: int) -> Run:
    return max(programs(process).values(), key=lambda run: run.runs)


@contextmanager
def pktdrop(rung: str, *options: str) -> Iterator[_Reader]:
    """Trace by one rung; yield what reads the time that the program has run."""
    with tracing("--probe", rung, *options) as process:
        yield lambda: _busiest(process.pid)


@contextmanager
def _bpftrace() -> Iterator[_Reader]:
    quiet = subprocess.DEVNULL
    with started(BPFTRACE, stdout=quiet, stderr=quiet) as process:
        wait_until(lambda: bool(programs(process.pid)), "bpftrace")
        yield lambda: _busiest(process.pid)


def _rounds(what: str, tools: Mapping[str, Callable[[], AbstractContextManager[_Reader]]]) -> dict[str, float]:
    """Attach each in turn, alone, under the same traffic; return the median ns per drop of each."""
    found: dict[str, list[float]] = {name: [] for name in tools}
    with sender(0) as source, statistics():
        for _ in range(_ROUNDS):
            for name, tool in tools.items():
                with tool() as read:
                    source.send(what, _DROPS // 10)
                    before = read()
                    source.send(what, _DROPS)
                    now = read()
                runs = now.runs - before.runs
                if runs < _DROPS:
                    raise RuntimeError(f"{name} ran {runs} times for {_DROPS} drops")
                found[name].append((now.nanoseconds - before.nanoseconds) / runs)
    return {name: median(values) for name, values in found.items()}


def measure() -> list[Row]:
    """Compare pktdrop's programs with bpftrace's, and all with an empty one."""
    facts = KernelFacts.read()
    tools: dict[str, Callable[[], AbstractContextManager[_Reader]]] = {
        "empty": lambda: _empty(facts),
        "tp_btf": lambda: pktdrop("tp_btf"),
        "bpftrace": _bpftrace,
    }
    others = {
        "raw": lambda: pktdrop("raw"),
        "by port": lambda: pktdrop("tp_btf", "--by", "port"),
        "by flow": lambda: pktdrop("tp_btf", "--by", "flow"),
    }
    cost = _rounds("calls", {**tools, **others})
    packed = _rounds("udp", tools)
    net_ours, net_theirs = cost["tp_btf"] - cost["empty"], cost["bpftrace"] - cost["empty"]
    what = "kernel time per drop"
    return [
        ratio_row(f"{what}, tp_btf", "ns", cost["tp_btf"], "bpftrace", cost["bpftrace"], "drop.time"),
        ratio_row(f"{what}, raw (fallback)", "ns", cost["raw"], "bpftrace", cost["bpftrace"]),
        ratio_row(f"{what}, empty program (floor)", "ns", cost["empty"], "bpftrace", cost["bpftrace"]),
        ratio_row(f"{what}, tp_btf, above the floor", "ns", net_ours, "bpftrace", net_theirs),
        ratio_row(f"{what}, tp_btf, 64 packets a call", "ns", packed["tp_btf"], "bpftrace", packed["bpftrace"]),
        *(
            ratio_row(f"{what}, --{name}", "ns", cost[name], "without", cost["tp_btf"], budget)
            for name, budget in (("by port", "drop.port"), ("by flow", "drop.flow"))
        ),
        *_added_to_sender(),
        _dropwatch(),
        _tcpdrop(),
    ]


@contextmanager
def _nothing() -> Iterator[_Reader]:
    yield lambda: Run(0, 0)


def _added_to_sender() -> list[Row]:
    """Compare what tracing adds to the sender's own CPU time per drop, the tools attached in turn, each alone.

    The least of all rounds is taken: other load only ever adds, and the difference is small against the whole.
    """
    tools = {"untraced": _nothing, "tp_btf": lambda: pktdrop("tp_btf"), "bpftrace": _bpftrace}
    taken: dict[str, list[float]] = {name: [] for name in tools}
    with sender(0) as source:
        source.send("udp", _DROPS // 10)
        for _ in range(_ADDED_ROUNDS):
            for name, tool in tools.items():
                with tool():
                    taken[name].append(source.send("udp", _DROPS // 2)["cpu_seconds"] / (_DROPS // 2) * 1e9)
    cost = {name: min(values) for name, values in taken.items()}
    kept = median(plain / traced for plain, traced in zip(taken["untraced"], taken["tp_btf"], strict=True))
    theirs_kept = median(plain / traced for plain, traced in zip(taken["untraced"], taken["bpftrace"], strict=True))
    flood = Row("packets of a flood per CPU second of its sender, traced, of those untraced", f"{kept:.3f}",
                f"bpftrace: {theirs_kept:.3f}", kept, "drop.flood", kept)  # fmt: skip
    ours, theirs = cost["tp_btf"] - cost["untraced"], cost["bpftrace"] - cost["untraced"]
    what = "added to the sender's CPU time per drop, tp_btf"
    untraced = Row("  that time, untraced", f"{cost['untraced']:.4g} ns")
    if min(ours, theirs) <= 0:
        return [
            Row(what, f"{ours:.3g} ns", f"bpftrace: {theirs:.3g} ns: this host is too busy to tell"),
            untraced,
            flood,
        ]
    return [ratio_row(what, "ns", ours, "bpftrace", theirs), untraced, flood]


def _dropwatch() -> Row:
    """Tell whether dropwatch runs. Its kernel side is net/core/drop_monitor.c: BPF statistics do not see it."""
    why_not = _why_not("dropwatch", "-l", "kas")
    return Row("kernel time per drop, dropwatch", "no BPF program: nothing counts its time", why_not)


def _tcpdrop() -> Row:
    """Tell whether bcc's tcpdrop runs; where it does, it handles TCP drops only."""
    return Row("kernel time per drop, bcc tcpdrop", "TCP only, an event each", _why_not("tcpdrop-bpfcc"))


def _why_not(*command: str) -> str:
    """Run a tool for two seconds at most; return the line that says why it cannot run, or "runs here"."""
    try:
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=5
        ).stdout
    except FileNotFoundError:
        return "not installed"
    except subprocess.TimeoutExpired:
        return "runs here"
    lines = [line for line in said.splitlines() if line.startswith("Unable")] or said.splitlines() or ["says nothing"]
    return f"does not run here: {lines[0].split('. ')[0]}"
