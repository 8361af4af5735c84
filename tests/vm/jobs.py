# SPDX-License-Identifier: MIT
"""Commands side by side, each line of their output behind a name, and none of them outlives this process."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor


def run(commands: Mapping[str, Sequence[str]], at_once: int, minutes: float | None = None) -> dict[str, bool | None]:
    """Run commands by name, so many at once; return whether each went well, None where it was left out.

    Left out is what likely would not end in so many minutes: as long as the longest took so far.
    """
    started = time.monotonic()
    longest = 0.0
    running: list[subprocess.Popen[str]] = []

    def one(name: str) -> bool | None:
        nonlocal longest
        begun = time.monotonic()
        if minutes is not None and longest and begun + longest > started + minutes * 60:
            return None
        # a process ends with the thread that started it
        command = ["setpriv", "--pdeathsig", "KILL", "--", *commands[name]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            running.append(process)
            for line in process.stdout or ():
                print(f"{name}: {line}", end="", flush=True)
        longest = max(longest, time.monotonic() - begun)
        return process.returncode == 0

    pool = ThreadPoolExecutor(at_once)
    try:
        return dict(zip(commands, pool.map(one, commands), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.kill()  # does nothing to one that has ended
        pool.shutdown()
