# SPDX-License-Identifier: MIT
"""Commands side by side, each line of their output behind a name, and none of them outlives this process."""

import subprocess
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

_LAST_LINES = 80


class Job(NamedTuple):
    """A command, and how long it takes where nothing else runs."""

    name: str
    command: Sequence[str]
    seconds: float
    always: bool = False
    """Whether it is run however little time is left."""


class Ended(NamedTuple):
    """Whether a command's exit status was 0, and the end of what it printed."""

    well: bool
    last_lines: Sequence[str]


def run(jobs: Sequence[Job], at_once: int, minutes: float | None = None) -> dict[str, Ended | None]:
    """Run jobs in their order, so many at once; return by name how each ended, None if it was left out.

    Left out is what need not be run and likely would not end in so many minutes: jobs take as much longer as others
    did so far.
    """
    deadline = None if minutes is None else time.monotonic() + minutes * 60
    slowness = 1.0
    running: list[subprocess.Popen[str]] = []

    def one(job: Job) -> Ended | None:
        nonlocal slowness
        begun = time.monotonic()
        last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        if deadline is not None and not job.always and begun + job.seconds * slowness > deadline:
            return None
        # a process ends with the thread that started it
        command = ["setpriv", "--pdeathsig", "KILL", "--", *job.command]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            running.append(process)
            for line in process.stdout or ():
                print(f"{job.name}: {line}", end="", flush=True)
                last_lines.append(line.rstrip("\n"))
        slowness = max(slowness, (time.monotonic() - begun) / job.seconds)
        return Ended(process.returncode == 0, tuple(last_lines))

    pool = ThreadPoolExecutor(at_once)
    try:
        return dict(zip((job.name for job in jobs), pool.map(one, jobs), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.kill()  # does nothing to one that has ended
        pool.shutdown()
