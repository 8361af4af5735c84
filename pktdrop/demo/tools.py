# SPDX-License-Identifier: MIT
"""Commands of other packages, and waiting."""

import shutil
import subprocess
import time
from collections.abc import Callable

from pktdrop.errors import PktdropError

_PACKAGES = {"ip": "iproute2", "nstat": "iproute2", "tc": "iproute2 (Fedora: iproute-tc)", "nft": "nftables"}
_DEADLINE = 30.0
"""Seconds for what takes milliseconds."""


def need(*tools: str) -> None:
    """Raise PktdropError where one of these commands is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise PktdropError(
                f"The command {tool} is not installed.", f"Install the package {_PACKAGES.get(tool, tool)}."
            )


def run(*command: str, stdin: str = "", seconds: float = _DEADLINE) -> str:
    """Run a command, return what it printed. Raises PktdropError with the command's complaint, or if it hangs.

    It has a session of its own: Ctrl-C ends pktdrop in good order, not the commands that this takes.
    """
    need(command[0])
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=seconds, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise PktdropError(
            f"'{' '.join(command)}' does not end.", "See what keeps the kernel busy: 'dmesg', 'top'."
        ) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise PktdropError(f"'{' '.join(command)}' failed: {said}.", "Try that command by hand.")
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _DEADLINE) -> None:
    """Poll until the condition holds. Raises TimeoutError that names `what` was awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.005)  # the pause between two looks, no guess at how long things take
