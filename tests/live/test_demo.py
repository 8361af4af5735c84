# SPDX-License-Identifier: MIT
"""`pktdrop demo` as a user runs it, beside `pktdrop trace`; and that nothing of it stays, however it ends."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.choice import USUAL
from pktdrop.demo.claim import RECORDS
from pktdrop.demo.namespace import RUN, Namespace
from pktdrop.demo.net import one_ns
from tests.kit.process import DEADLINE, command, launch, run, wait_until
from tests.kit.trace import function_of, total, tracing

READY = "Causing "
RATE, SECONDS = 30, 2
"""So few that a demo sends all of them however late it is: what is due in one turn."""


class Demo:
    """A running or ended `pktdrop demo`."""

    def __init__(self, *arguments: str, style: str = "json", before: tuple[str, ...] = ()) -> None:
        """Start it; be sure to call `kill` at the end."""
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        self.process = subprocess.Popen(
            [*before, *command(), "demo", "--format", style, *arguments],
            cwd="/", stdin=subprocess.DEVNULL, stdout=self._stdout, stderr=self._stderr,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id, which its namespaces have in their names."""
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return os.pread(self._stdout.fileno(), 1 << 24, 0).decode()

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return os.pread(self._stderr.fileno(), 1 << 24, 0).decode()

    def wait_for_start(self) -> None:
        """Return when it sends."""

        def decided() -> bool:
            return self.process.poll() is not None or self._started()

        wait_until(decided, "the start line", DEADLINE)
        assert self._started(), self.stderr

    def _started(self) -> bool:
        return any(line.startswith(READY) for line in self.stderr.splitlines())

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """End it with a signal; return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """Make sure that it is gone, and that its namespaces are."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        for name in namespaces(self.pid):
            Namespace(name).delete()
        (RECORDS / str(self.pid)).unlink(missing_ok=True)
        self._stdout.close()
        self._stderr.close()

    def line(self, kind: str) -> dict[str, Any]:
        """Return the JSON object of a type: start or summary."""
        (found,) = [one for one in map(json.loads, self.stdout.splitlines()) if one["type"] == kind]
        return dict(found)


@contextmanager
def demonstrating(*arguments: str, **how: Any) -> Iterator[Demo]:
    """Run a demo around a block; whatever is left of it at the end goes."""
    demo = Demo(*arguments, **how)
    try:
        yield demo
    finally:
        demo.kill()


def namespaces(pid: int) -> list[str]:
    """Return the namespaces that a demo has, by ip-netns(8)."""
    listed = [line.split()[0] for line in run("ip", "netns", "list").splitlines()]
    return [name for name in listed if str(pid) in name.split("-") and name.startswith("demo-")]


def left_of(pid: int) -> list[str]:
    """Return all that is still there of a demo: names of namespaces, mounts, records."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"-{pid}" in line]
    return [*namespaces(pid), *mounts, *(str(path) for path in RECORDS.glob(str(pid)))]


def counted(drops: list[dict[str, Any]], told: dict[str, Any]) -> int:
    """Return how many drops of a cause trace has seen: by reason, or where the kernel has no such, by call site."""
    here = [drop for drop in drops if drop["netns"] == told["netns"]]
    if told["reason"] is not None:
        return total([drop for drop in here if drop["reason"] == told["reason"]])
    functions = {cause.name: cause.functions for cause in CAUSES}[told["cause"]]
    return total([drop for drop in here if function_of(drop["location"]) in functions])


# --- beside trace


def test_trace_counts_what_the_demo_says() -> None:
    """For every cause that works here, trace has as many drops of that reason, there, as the demo's witness."""
    with tracing() as trace, demonstrating("*", "--rate", str(RATE), "-d", str(SECONDS)) as demo:
        assert demo.process.wait(2 * DEADLINE) == 0, demo.stderr
        assert trace.stop() == 0, trace.stderr
        summary, drops = demo.line("summary"), trace.summary["drops"]
        done = {one["cause"]: one for one in summary["causes"]}
        assert set(USUAL) <= set(done)
        limits = [line for line in demo.stderr.splitlines() if line.startswith("Limit: ")]
        assert {cause.name for cause in CAUSES} - set(done) == {line.split()[1] for line in limits}
        assert {name: counted(drops, one) for name, one in done.items()} == {
            name: one["count"] for name, one in done.items()
        }
        assert {RATE * SECONDS} == {one["sent"] for one in done.values()}
        assert {one["count"] - one["sent"] for one in done.values()} <= {0, 1}  # one to know that it is full


@pytest.mark.parametrize("name", ["udp_closed_port", "nftables_input", "no_route", "udp_checksum"])
def test_a_cause_is_nothing_but_that(name: str) -> None:
    """In all namespaces of a cause that fills nothing, trace sees drops of that kind and no other loss."""
    with tracing() as trace, demonstrating(name) as demo:
        demo.wait_for_start()
        inodes = {Namespace(each).inode for each in namespaces(demo.pid)}
        wait_until(lambda: '"interval"' in demo.stdout, "a second to be over", DEADLINE)
        assert demo.stop() == 0, demo.stderr
        assert trace.stop() == 0, trace.stderr
        (cause,) = demo.line("summary")["causes"]
        drops = [drop for drop in trace.summary["drops"] if drop["netns"] in inodes and not drop["noise"]]
        known = () if cause["reason"] is None else ("reason", "layer")
        told = {key: cause[key] for key in (*known, "interface", "protocol", "netns")}
        assert [told] * len(drops) == [{key: drop[key] for key in told} for drop in drops]
        assert cause["count"] == cause["sent"] == sum(drop["count"] for drop in drops) >= 20


def test_the_table_says_the_same_as_json(kernel_reasons: frozenset[str]) -> None:
    """For people: at the start what is to be seen, at the end how much, in 80 columns."""
    reason = "NO_SOCKET" if "NO_SOCKET" in kernel_reasons else "NO_SOCKET?"
    with demonstrating("udp_closed_port", "--rate", "30", "-d", "1", style="table") as demo:
        assert demo.process.wait(DEADLINE) == 0
        lines = demo.stdout.splitlines()
        name = f"demo-closed-{demo.pid}"
        assert ["udp_closed_port", reason, "socket", "lo", name] == lines[1].split()
        assert ["30", "30", "udp_closed_port", reason, name] in [line.split() for line in lines]
        assert max(map(len, [*lines, *demo.stderr.splitlines()])) <= 80


# --- ends


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name)
def test_a_signal_ends_it_in_good_order(how: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP are normal ends: a summary, exit 0, and nothing stays."""
    with demonstrating() as demo:
        demo.wait_for_start()
        assert len(namespaces(demo.pid)) >= len(USUAL)
        assert demo.stop(how) == 0, demo.stderr
        assert {one["cause"] for one in demo.line("summary")["causes"]} == set(USUAL)
        assert left_of(demo.pid) == []


def test_a_signal_during_the_set_up_leaves_nothing() -> None:
    """Ctrl-C before all is set up ends it as well."""
    with demonstrating("*") as demo:
        wait_until(lambda: bool(namespaces(demo.pid)), "its first namespace", DEADLINE)
        assert demo.stop() == 0, demo.stderr
        assert READY not in demo.stderr
        assert "Traceback" not in demo.stderr
        assert left_of(demo.pid) == []


def test_ctrl_c_of_a_terminal_reaches_it_alone() -> None:
    """A terminal sends Ctrl-C to the whole process group: the commands that clean up do not get it."""
    process = launch(
        *("demo", "no_route", "--format", "json"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: bool(namespaces(process.pid)), "its first namespace", DEADLINE)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
        assert left_of(process.pid) == []
    finally:
        process.kill()
        process.wait()


def test_a_closed_pipe_ends_it_quietly() -> None:
    """When the reader of the output goes away, as "head" does, it ends and cleans up: no complaint, exit 0."""
    process = launch("demo", "no_route", "--format", "json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
        said = process.stderr.read()
        assert b"Error" not in said
        assert b"Traceback" not in said
        assert left_of(process.pid) == []
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_a_killed_one_leaves_the_next_one_removes() -> None:
    """After kill -9 the next demo says how much was left and removes it; a running demo's stays."""
    with demonstrating("no_route", "shaper_full") as killed, demonstrating("no_route") as running:
        killed.wait_for_start()
        running.wait_for_start()
        killed.stop(signal.SIGKILL)
        assert len(namespaces(killed.pid)) == 5
        with demonstrating("tap_full", "-d", "0.2") as following:
            assert following.process.wait(DEADLINE) == 0, following.stderr
            assert "Removed 5 namespaces" in following.stderr
            assert left_of(killed.pid) == []
            assert len(namespaces(running.pid)) == 3
        assert running.stop() == 0, running.stderr
        (cause,) = running.line("summary")["causes"]
        assert cause["count"] == cause["sent"] > 0
        assert left_of(running.pid) == []


def test_only_its_own_are_removed() -> None:
    """A dead demo's record never makes the next one delete a namespace that no demo has made."""
    dead = "999999999"  # more than PID_MAX_LIMIT
    with one_ns(names=lambda role: f"demo-mine-{os.getpid()}") as net:
        RECORDS.mkdir(parents=True, exist_ok=True)
        record = RECORDS / dead
        record.write_text(f"{net['host'].name}\n../../etc/passwd\n\nmine\n")
        with demonstrating("tap_full", "-d", "0.2") as demo:
            assert demo.process.wait(DEADLINE) == 0, demo.stderr
            assert not record.exists()
            assert "Removed" not in demo.stderr
        assert net["host"].exists


def test_two_at_once() -> None:
    """Two demos neither share nor disturb anything: each counts its own."""
    with demonstrating("-d", "2") as one, demonstrating("-d", "2") as other:
        for demo in (one, other):
            assert demo.process.wait(DEADLINE) == 0, demo.stderr
            assert {cause["count"] - cause["sent"] for cause in demo.line("summary")["causes"]} <= {0, 1}
            assert {40} == {cause["sent"] for cause in demo.line("summary")["causes"]}
        inodes = [{cause["netns"] for cause in demo.line("start")["causes"]} for demo in (one, other)]
        assert inodes[0].isdisjoint(inodes[1])
        assert left_of(one.pid) == left_of(other.pid) == []


# --- what it leaves alone, and what it can do without


def outside(namespace: Namespace) -> tuple[object, ...]:
    """Return links, addresses, routes, rules, qdiscs and settings of a namespace."""
    tables = [["link"], ["address"], ["route", "show", "table", "all"], ["rule"], ["neighbour"]]
    settings = {}
    with namespace.entered():
        for path in sorted(Path("/proc/sys/net").rglob("*")):
            if path.is_file() and path.stat().st_mode & 0o400 and path.name != "stable_secret":  # EIO until it is set
                settings[str(path)] = path.read_text(errors="replace")
    shown = [namespace.ip(*words) for words in tables]
    return *shown, namespace.run("nft", "list", "ruleset"), namespace.run("tc", "qdisc"), settings


def test_nothing_outside_its_namespaces_is_touched() -> None:
    """While it runs and afterwards, where it was started has the same links, rules, queues and settings as before."""
    with one_ns() as net:
        home = net["host"]
        before = outside(home)
        several = (*USUAL, "nftables_forward", "neighbour_failed6", "tap_full")
        with demonstrating(*several, before=("nsenter", f"--net={RUN / home.name}", "--")) as demo:
            demo.wait_for_start()
            assert outside(home) == before
            assert demo.stop() == 0, demo.stderr
            assert outside(home) == before
            assert left_of(demo.pid) == []


@pytest.fixture
def without_nft(tmp_path: Path) -> tuple[str, ...]:
    """A command before pktdrop, which has all tools but nft."""
    for tool in ("env", "ip", "tc", "nstat"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    return ("env", f"PATH={tmp_path}")


def test_without_a_tool_the_rest_works(without_nft: tuple[str, ...]) -> None:
    """Where nft is not installed, what needs it is left out, and said; the others go on."""
    with demonstrating("-d", "1", before=without_nft) as demo:
        assert demo.process.wait(DEADLINE) == 0
        said = " ".join(demo.stderr.split())
        assert "nftables_input is left out. The command nft is not installed. Install the package nftables." in said
        assert {one["cause"] for one in demo.line("summary")["causes"]} == set(USUAL) - {"nftables_input"}
        assert left_of(demo.pid) == []


def test_without_what_it_needs_it_says_so(without_nft: tuple[str, ...]) -> None:
    """Where nothing that was asked for works: status 1, what is missing, no results, nothing left."""
    with demonstrating("nftables_*", before=without_nft) as demo:
        assert demo.process.wait(DEADLINE) == 1
        assert demo.stdout == ""
        assert demo.stderr.splitlines()[-2:] == [
            "Error: None of the causes works on this host.",
            "  See the limits above.",
        ]
        assert "Traceback" not in demo.stderr
        assert left_of(demo.pid) == []
