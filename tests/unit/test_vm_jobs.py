# SPDX-License-Identifier: MIT
"""Kernels are run side by side: what is printed, what is left out, and that nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.patience import PATIENCE
from tests.vm.__main__ import summarize
from tests.vm.jobs import Ended, Job, run

DEADLINE = 60.0 * PATIENCE
ROOT = Path(__file__).resolve().parents[2]


def shell(name: str, script: str) -> Job:
    """A job that should take a second."""
    return Job(name, ["sh", "-c", script], 1.0)


def went_well(jobs: list[Job], at_once: int, minutes: float | None = None) -> dict[str, bool | None]:
    """Run jobs; return whether each ended well, None if it was left out."""
    return {name: end and end.well for name, end in run(jobs, at_once, minutes).items()}


def test_each_line_has_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams of all commands come line by line behind their names; exit statuses are told, and the last lines."""
    ended = run([shell("a", "echo one; echo two >&2"), shell("b", "echo three; exit 3")], 2)
    assert ended == {"a": Ended(True, ("one", "two")), "b": Ended(False, ("three",))}
    assert sorted(capfd.readouterr().out.splitlines()) == ["a: one", "a: two", "b: three"]


def test_they_run_at_the_same_time(tmp_path: Path) -> None:
    """Two commands that wait for each other both end."""
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    first = shell("a", f"echo > {tmp_path}/a; cat {tmp_path}/b")
    second = shell("b", f"cat {tmp_path}/a; echo > {tmp_path}/b")
    assert went_well([first, second], 2) == {"a": True, "b": True}


def test_what_would_end_too_late_is_left_out() -> None:
    """A job that is known to take longer than there is time is not begun; a shorter one behind it is."""
    long = Job("long", ["true"], 3600)
    assert went_well([long, shell("short", "true")], 1, minutes=30) == {"long": None, "short": True}
    assert went_well([long], 1, minutes=90) == {"long": True}
    assert went_well([long._replace(always=True)], 1, minutes=30) == {"long": True}


def test_a_slow_machine_leaves_out_more() -> None:
    """What took longer than it should makes others be expected to, as well."""
    late = Job("late", ["true"], 1e-6)  # a process takes a thousand times as long at least
    assert went_well([late, Job("next", ["true"], 60)], 1, minutes=30) == {"late": True, "next": None}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_stays_behind(how: signal.Signals, tmp_path: Path) -> None:
    """However the process ends, its commands end at once, those that run and those that would come next."""
    program = f"""
import signal, sys
sys.path.insert(0, {str(ROOT)!r})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background command would ignore
from tests.vm.jobs import Job, run
run([Job("a", ["sh", "-c", "echo $$; exec sleep 1000"], 1), Job("b", ["touch", "{tmp_path}/begun"], 1)], 1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().removeprefix(b"a: "))
        process.send_signal(how)
        process.wait(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def test_what_failed_is_said_last(capfd: pytest.CaptureFixture[str]) -> None:
    """Where the output of several is mixed, the end of what failed is found at the end of all."""
    ended = {"a": Ended(True, ("fine",)), "b": Ended(False, ("one", "two")), "c": None}
    assert not summarize(ended, 5)
    assert capfd.readouterr().err.splitlines() == [
        "vm: c: left out, 5 minutes are too short",
        "vm: b failed; the last 2 lines of it:",
        *("one", "two"),
        "vm: failed: b",
    ]
    assert summarize({"a": Ended(True, ()), "c": None}, 5)
