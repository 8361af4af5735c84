# SPDX-License-Identifier: MIT
"""The processes that are measured, seen from outside through /proc."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BPFTRACE = ("bpftrace", "-e", "tracepoint:skb:kfree_skb { @[args->reason, cpu] = count(); }")
START_LINE = "Tracing"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_DEADLINE = 60.0


class Run(NamedTuple):
    """How long a BPF program ran in all, and how often."""

    nanoseconds: int
    runs: int


def pktdrop() -> list[str]:
    """Return the command that is pktdrop here: the one in the virtual environment, or that of the checkout."""
    installed = ROOT / ".venv/bin/pktdrop"
    if installed.exists():
        return [str(installed)]
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pktdrop.start import main; main()"
    return [sys.executable, "-I", "-c", start]


@contextmanager
def started(command: Sequence[str], **streams: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a command; it is killed at the end, also where the benchmark itself is."""
    process = subprocess.Popen(
        command, text=True, preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), **streams
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def tracing(*options: str, stdout: int | IO[str] = subprocess.DEVNULL) -> Iterator["subprocess.Popen[str]"]:
    """Run `pktdrop trace` and wait until it traces."""
    with started([*pktdrop(), "trace", *options], stdout=stdout, stderr=subprocess.PIPE) as process:
        wait_for_line(process.stderr, START_LINE)
        yield process


def wait_for_line(stream: IO[str] | None, start: str) -> None:
    """Read until a line starts so. Raises RuntimeError where none does."""
    said = []
    for line in stream or ():
        if line.startswith(start):
            return
        said.append(line)
    raise RuntimeError(f"no line {start!r}, but: {''.join(said).strip()}")


def wait_until(condition: Callable[[], bool], what: str, slowness: float = 1.0) -> None:
    """Poll every millisecond, so many times as long as usual. Raises TimeoutError."""
    seconds = slowness * _DEADLINE
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.001)


def programs(process: int) -> dict[int, Run]:
    """Return the BPF programs whose descriptors a process holds, by descriptor (proc(5), fdinfo)."""
    found = {}
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            if os.readlink(link) == "anon_inode:bpf-prog":
                found[int(link.name)] = program_run(process, int(link.name))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def program_run(process: int, descriptor: int) -> Run:
    """Return the statistics of one program; they stand still while BPF statistics are off."""
    text = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return Run(int(fields["run_time_ns"]), int(fields["run_cnt"]))


def memory(process: int) -> tuple[float, float]:
    """Return resident set and its peak in MB (VmRSS and VmHWM of proc(5), status)."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return int(fields["VmRSS"].split()[0]) / 1000, int(fields["VmHWM"].split()[0]) / 1000


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process with one thread (sched-stats: time on the CPU in ns)."""
    return int(Path(f"/proc/{process}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


class Sender:
    """A sender of packets that are dropped, see sender.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Take the process and learn its namespace."""
        self._process = process
        self.netns = int(self.answer()["netns"])

    def start(self, what: str, count: int, keys: int = 0) -> None:
        """Let it send; `answer` waits for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, "count": count, "keys": keys}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return {"sent", "no_ports", "seconds", "cpu_seconds"}."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the sender ended; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def send(self, what: str, count: int, keys: int = 0) -> dict[str, Any]:
        """Send and wait for the end."""
        self.start(what, count, keys)
        return self.answer()


@contextmanager
def sender(cpu: int) -> Iterator[Sender]:
    """Start a sender on one CPU, in a namespace of its own."""
    command = [sys.executable, "-I", "-m", "benchmarks.sender", str(cpu)]
    with started(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Sender(process)
