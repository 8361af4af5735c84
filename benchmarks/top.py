# SPDX-License-Identifier: MIT
"""What `pktdrop top` costs: start to first paint, a refresh, a quiet host, memory; beside other full-screen tools."""

import asyncio
import fcntl
import os
import pty
import shutil
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.counters import populated
from benchmarks.processes import BPFTRACE, memory, pktdrop, sender, started
from benchmarks.report import Row, limit_row, ratio_row
from pktdrop.filters import Filters
from pktdrop.host.namespaces import Namespaces
from pktdrop.host.netns import inside
from pktdrop.kernel.tracer import Tracer
from pktdrop.observe.observer import Observer
from pktdrop.top.app import TopApp
from pktdrop.top.panel import Run
from pktdrop.top.reader import Shown
from pktdrop.top.screen import Screen
from pktdrop.watch import Watch

_SIZE = (120, 40)
_STARTS = 7
_ROUNDS = 10
_LINKS = 300
_SECONDS = 10
_DEADLINE = 60.0
_PAINTED = b"nic-fifo"
_PRINTING = f"{BPFTRACE[-1]} interval:s:1 {{ print(@); }}"


class _Screen:
    """A terminal that swallows all that is shown, and counts it."""

    def __init__(self, master: int) -> None:
        """Read from a pseudo terminal in a thread."""
        self.bytes = 0
        self.painted = threading.Event()
        self._master = master
        self._tail = b""
        threading.Thread(target=self._swallow, daemon=True).start()

    def _swallow(self) -> None:
        try:
            while data := os.read(self._master, 1 << 16):
                self.bytes += len(data)
                if _PAINTED in self._tail + data:
                    self.painted.set()
                self._tail = data[-len(_PAINTED) :]
        except OSError:  # the other end was closed
            return


@contextmanager
def _shown(command: Sequence[str]) -> Iterator[tuple[int, _Screen]]:
    """Run a command in a terminal; give its process and what it shows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _SIZE[1], _SIZE[0], 0, 0))
    screen = _Screen(master)
    environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    with started(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        yield process.pid, screen


def _cpu(process: int) -> float:
    """Return the CPU time of all threads of a process, in seconds."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _first_paint() -> list[Row]:
    spent = []
    for _ in range(_STARTS):
        start = time.monotonic()
        with _shown([*pktdrop(), "top"]) as (_, screen):
            if not screen.painted.wait(_DEADLINE):
                raise RuntimeError("pktdrop top painted nothing")
            spent.append(time.monotonic() - start)
    return [limit_row("top: start to first paint", "s", median(spent), "top.paint")]


def _refreshes(keys: int, budget: str) -> list[Row]:
    """Return the CPU time of whole refreshes with all keys moving, and of their parts."""
    namespaces = Namespaces()
    looks, reading = [], []
    with populated(_LINKS) as path, inside(path), sender(0) as source, Tracer(namespaces) as tracer:
        watch = Watch(Observer(namespaces, tracer))
        source.send("kinds", keys * 2, keys)
        watch.step()
        for _ in range(_ROUNDS):
            source.send("kinds", keys * 2, keys)
            start = time.process_time()
            looks.append(Shown(watch.step(), watch.limits))
            reading.append((time.process_time() - start) * 1000)
    showing = asyncio.run(_show(looks))
    whole = [one + other for one, other in zip(reading, showing, strict=True)]
    return [
        limit_row(f"top: a refresh with {keys:,} moving kinds and {_LINKS} links, CPU", "ms", median(whole), budget),
        Row("  of which reading and the ledger", f"{median(reading):.3g} ms"),
        Row("  of which history, rows, lines and textual", f"{median(showing):.3g} ms"),
    ]


async def _show(looks: Sequence[Shown]) -> list[float]:
    app = TopApp(Screen(Run("host", "kernel", "tp_btf"), Filters([]), 1.0), None)
    spent = []
    async with app.run_test(size=_SIZE) as pilot:
        app.take(looks[0])
        await pilot.pause()
        for look in looks:
            start = time.process_time()
            app.take(look)
            await pilot.pause()
            spent.append((time.process_time() - start) * 1000)
    return spent


def _quiet() -> list[Row]:
    """Return CPU time and memory of full-screen tools side by side, at one refresh a second."""
    others = {
        "top -d 1": ["top", "-d", "1"],
        "top -b -d 1": ["top", "-b", "-d", "1"],
        "htop -d 10": ["htop", "-d", "10"],
        "bpftrace, printing": [*BPFTRACE[:-1], _PRINTING],
    }
    with ExitStack() as stack:
        own, screen = stack.enter_context(_shown([*pktdrop(), "top", "1"]))
        if not screen.painted.wait(_DEADLINE):
            raise RuntimeError("pktdrop top painted nothing")
        running = {
            name: stack.enter_context(_shown(command)) for name, command in others.items() if shutil.which(command[0])
        }
        time.sleep(5.0)
        sent = screen.bytes
        sent_by = {name: shown.bytes for name, (_, shown) in running.items()}
        start, before = time.monotonic(), _cpu(own)
        before_of = {name: _cpu(process) for name, (process, _) in running.items()}
        time.sleep(_SECONDS)
        seconds = time.monotonic() - start
        percent = 100 * (_cpu(own) - before) / seconds
        rows = [
            limit_row("top: idle at one look a second", "% of a CPU", percent, "top.idle"),
            Row("  sent to the terminal", f"{(screen.bytes - sent) / seconds:.0f} bytes/s"),
        ]
        for name, (process, shown) in running.items():
            theirs = 100 * (_cpu(process) - before_of[name]) / seconds
            bytes_ = (shown.bytes - sent_by[name]) / seconds
            rows.append(
                ratio_row("  beside", "% of a CPU", percent, f"{name} ({bytes_:.0f} bytes/s)", max(theirs, 1e-3))
            )
        rows += [
            Row(f"  {command[0]}", "not installed") for command in others.values() if shutil.which(command[0]) is None
        ]
        rows.append(limit_row("top: resident", "MB", memory(own)[0], "top.resident"))
        for name, (process, _) in running.items():
            rows.append(ratio_row("  beside", "MB", memory(own)[0], name, memory(process)[0]))
    return rows


def measure() -> list[Row]:
    """Measure all of it."""
    print(f"terminal of {_SIZE[0]}x{_SIZE[1]}", file=sys.stderr)
    return [*_first_paint(), *_refreshes(100, "look.top"), *_refreshes(10_000, "top.many"), *_quiet()]
