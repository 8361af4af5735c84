# SPDX-License-Identifier: MIT
"""`pktdrop trace` as a user runs it: started, awaited, interrupted, and its output read."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pktdrop.demo.namespace import Namespace
from pktdrop.rules.identities import Identities
from tests.kit.process import DEADLINE, launch, wait_until

READY = "Tracing "
NO_PACKET = "no network packet"
"""How the reason ends why something is noise that is nothing sent over a network: pktdrop/data/layers.tsv."""


class Trace:
    """A running or ended `pktdrop trace`."""

    def __init__(self, *arguments: str, style: str = "json") -> None:
        """Start it with arguments and "--format" `style`; be sure to call `kill` at the end."""
        # files, not pipes: nothing blocks however much is written, and both can be read while it runs
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        self.process = launch(
            "trace", "--format", style, *arguments, stdin=subprocess.DEVNULL, stdout=self._stdout, stderr=self._stderr
        )

    @staticmethod
    def _text(file: Any) -> str:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._text(self._stdout)

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return self._text(self._stderr)

    def became_ready(self) -> bool:
        """Wait until all probes are attached, which the start line says; False if it ended instead."""

        def decided() -> bool:
            return self.process.poll() is not None or self._started()

        wait_until(decided, "the start line", DEADLINE)
        return self._started()

    def _started(self) -> bool:
        return any(line.startswith(READY) for line in self.stderr.splitlines())

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """End it with a signal; return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._stdout.close()
        self._stderr.close()

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the JSON objects of one type: start, interval or summary."""
        written = [json.loads(line) for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in written if line["type"] == kind]

    @property
    def intervals(self) -> list[dict[str, Any]]:
        """The intervals written so far."""
        return self.lines("interval")

    @property
    def summary(self) -> dict[str, Any]:
        """The last line of the output, which must be the only summary."""
        (summary,) = self.lines("summary")
        assert summary == json.loads(self.stdout.splitlines()[-1])
        return summary


@contextmanager
def tracing(*arguments: str, style: str = "json") -> Iterator[Trace]:
    """Trace around a block, from the start line on; the block ends it, or it is killed."""
    trace = Trace(*arguments, style=style)
    try:
        if not trace.became_ready():
            raise AssertionError(f"pktdrop ended with {trace.process.returncode}:\n{trace.stderr}")
        yield trace
    finally:
        trace.kill()


def inside(drops: Iterable[Mapping[str, Any]], namespaces: Iterable[Namespace]) -> list[dict[str, Any]]:
    """Return the drops that happened in some namespaces.

    Without what is no packet: a tool may fail to connect to a daemon over AF_UNIX, which older kernels call a drop.
    """
    inodes = {namespace.inode for namespace in namespaces}
    return [dict(drop) for drop in drops if drop["netns"] in inodes and not drop["noise"].endswith(NO_PACKET)]


def without_times(drops: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return drops whose samples have no time: each tracer brings the kernel's clock to the wall clock for itself."""
    return [{**drop, "samples": [{**one, "time": None} for one in drop["samples"]]} for drop in drops]


def total(drops: Sequence[Mapping[str, Any]]) -> int:
    """Return how many packets these drops are."""
    return sum(drop["count"] for drop in drops)


def function_of(call_site: str) -> str:
    """Return the function of a call site: no offset, no module, no suffix of the compiler's."""
    return call_site.split(" ")[0].split("+")[0].split(".")[0]


def entries(lines: Iterable[Mapping[str, Any]], inodes: set[int]) -> list[dict[str, Any]]:
    """The ledger entries of some namespaces."""
    return [entry for line in lines for entry in line["ledger"] if entry["scope"].get("netns") in inodes]


def losses(found: Iterable[dict[str, Any]], identities: Identities) -> list[dict[str, Any]]:
    """Those that tell of lost packets, and are no hints; a doubt is neither."""
    return [
        one for one in found
        if one["status"] == "silent"
        or (one["status"] != "doubt" and identities.counters[one["counter"]].loss != "no")
    ]  # fmt: skip


def finish(trace: Trace, how: signal.Signals = signal.SIGINT) -> dict[str, Any]:
    """End a trace, expect that it ends well, and return its summary."""
    assert trace.stop(how) == 0, trace.stderr
    assert "Traceback" not in trace.stderr
    return trace.summary
