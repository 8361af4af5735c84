# SPDX-License-Identifier: MIT
"""`pktdrop diagnose` as a user runs it, and what it found."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pktdrop.demo.causes.cause import Traffic
from pktdrop.demo.namespace import Namespace
from tests.kit.process import DEADLINE, as_nobody, command, wait_until
from tests.kit.provoked import N

READY = "Watching for "


class Run:
    """A running or ended `pktdrop diagnose`."""

    def __init__(self, arguments: Sequence[str], called: Sequence[str]) -> None:
        """Start it, the way pktdrop is `called`."""
        self._stdout, self._stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  until kill()
        self.process = subprocess.Popen(
            [*called, "diagnose", *arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
        )

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return os.pread(self._stdout.fileno(), os.fstat(self._stdout.fileno()).st_size, 0).decode()

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return os.pread(self._stderr.fileno(), os.fstat(self._stderr.fileno()).st_size, 0).decode()

    def wait_until_ready(self) -> None:
        """Wait for the first look, which the start line stands for."""
        wait_until(lambda: READY in self.stderr or self.process.poll() is not None, "the start line", DEADLINE)
        assert self.process.poll() is None, self.stderr

    def stop(self) -> int:
        """End it with Ctrl-C; return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._stdout.close()
        self._stderr.close()


@contextmanager
def diagnosing(*arguments: str, style: str = "json", called: Sequence[str] = ()) -> Iterator[Run]:
    """Diagnose around a block, for an hour unless the block ends it; `called` as another user, say."""
    made = Run(["-d", "3600", "--format", style, *arguments], called or command())
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.kill()


def lose(traffic: Traffic, count: int = N) -> None:
    """Lose packets; return when the witness has seen them all."""
    before = traffic.lost()
    for _ in range(count):
        traffic.lose()
    wait_until(lambda: traffic.lost() - before == count, f"the witness to see {count} lost packets")


def judged(made: Run, status: int = 0) -> dict[str, Any]:
    """End it as Ctrl-C does; return the object it wrote, whose numbers must add up."""
    assert made.stop() == status, made.stderr
    assert "Traceback" not in made.stderr
    data: dict[str, Any] = json.loads(made.stdout)
    assert data["packets"] == sum(loss["packets"] for loss in data["losses"])
    assert data["packets"] == sum(station["packets"] for station in data["stations"])
    return data


def of(data: dict[str, Any], namespace: Namespace) -> list[dict[str, Any]]:
    """The losses in a namespace."""
    return [loss for loss in data["losses"] if loss["netns"] == namespace.inode]


def commands(loss: dict[str, Any]) -> list[str]:
    """What to type about a loss."""
    return [one["command"] for one in loss["advice"] if one["command"]]


def unable_in(namespace: Namespace) -> list[str]:
    """Return how pktdrop is called in a namespace without root and BPF."""
    return ["ip", "netns", "exec", namespace.name, *as_nobody()]
