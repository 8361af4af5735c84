# SPDX-License-Identifier: MIT
"""Which processes have sockets open."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_SEARCH = 1.0
"""Seconds for a search of all open files."""
_AT_ONCE = 512
"""Files between two looks at the clock."""


class Process(NamedTuple):
    """A process, by its number and the name of its program."""

    pid: int
    comm: str


def of_sockets(
    inodes: Collection[int], proc: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
) -> dict[int, Process]:
    """Find the process that has each socket open: the first of several. It looks through the files of all processes.

    Sockets of the kernel and those of processes that may not be looked into (root may) are left out, and what is not
    found in a second: anybody may have a million files open.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Process] = {}
    end = clock() + _SEARCH
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        process = proc / str(pid)
        if not wanted or clock() >= end:
            break
        try:
            opened = {link for link in _links(process / "fd", lambda: clock() >= end) if link in wanted}
            if opened:
                comm = (process / "comm").read_bytes().rstrip(b"\n").decode(errors="backslashreplace")
                found.update({wanted.pop(link): Process(pid, comm) for link in opened})
        except OSError:  # it ended, or belongs to somebody else
            continue
    return found


def _links(files: Path, is_over: Callable[[], bool]) -> Iterator[str]:
    """Yield where the files of a process lead, until it is over."""
    with os.scandir(files) as entries:
        for number, entry in enumerate(entries):
            if number % _AT_ONCE == 0 and is_over():
                return
            with suppress(FileNotFoundError):  # closed meanwhile
                yield os.readlink(entry.path)
