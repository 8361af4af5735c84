# SPDX-License-Identifier: MIT
"""pktdrop and other commands as processes of their own: started, awaited, their errors read."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo import tools
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0 * PATIENCE
"""Seconds for what takes one: a machine may be busy, or an emulated one that needs more patience."""
_RUN_CHECKOUT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pktdrop.start import main; main()"


def command() -> list[str]:
    """Return how pktdrop is called: $PKTDROP if set, else this interpreter on this checkout."""
    given = os.environ.get("PKTDROP")
    return shlex.split(given) if given else [sys.executable, "-I", "-c", _RUN_CHECKOUT, str(ROOT)]


def as_nobody(*arguments: str) -> list[str]:
    """Return how the user nobody calls pktdrop, also where a directory above this checkout is closed to others.

    The checkout is mounted elsewhere for that, in a mount namespace of its own. Needs root, unshare and setpriv.
    """
    elsewhere = "/mnt"
    called = [part.replace(str(ROOT), elsewhere) for part in command()]
    drop = "exec setpriv --reuid=65534 --regid=65534 --clear-groups --"
    enter = f'mkdir -p {elsewhere} && mount --bind "$0" {elsewhere} && {drop} "$@"'
    return ["unshare", "--mount", "--", "sh", "-c", enter, str(ROOT), *called, *arguments]


def launch(*arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    """Start pktdrop, not waiting for anything."""
    return subprocess.Popen([*command(), *arguments], cwd="/", **options)


def error(stderr: str) -> tuple[str, str]:
    """Return of an error the sentence what is the matter and the one what to do; both may be wrapped."""
    lines = stderr.splitlines()
    (start,) = (index for index, line in enumerate(lines) if line.startswith("Error: "))
    of_what = [lines[start].removeprefix("Error: ")]
    while lines[start + len(of_what)].startswith(" " * 7):
        of_what.append(lines[start + len(of_what)].strip())
    of_do = lines[start + len(of_what) :]
    assert of_do
    assert all(line.startswith("  ") for line in of_do), stderr
    return " ".join(of_what), " ".join(line.strip() for line in of_do)


def run(*command: str, stdin: str = "", seconds: float = DEADLINE) -> str:
    """Run a command and return what it printed. Raises PktdropError that says what went wrong, or that it hangs."""
    return tools.run(*command, stdin=stdin, seconds=seconds)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Poll until the condition holds. Raises TimeoutError that names `what` was awaited."""
    tools.wait_until(condition, what, seconds)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def need(*tools: str) -> None:
    """Skip where one of them is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
