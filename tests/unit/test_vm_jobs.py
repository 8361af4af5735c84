# SPDX-License-Identifier: MIT
"""Kernels are run side by side: what is printed, what is left out, and that nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm import jobs

DEADLINE = 60.0
ROOT = Path(__file__).resolve().parents[2]


def test_each_line_has_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    """Both streams of all commands come line by line behind their names; exit statuses are told."""
    commands = {
        "a": ["sh", "-c", "echo one; echo two >&2"],
        "b": ["sh", "-c", "echo three; exit 3"],
    }
    assert jobs.run(commands, 2) == {"a": True, "b": False}
    assert sorted(capfd.readouterr().out.splitlines()) == ["a: one", "a: two", "b: three"]


def test_they_run_at_the_same_time(tmp_path: Path) -> None:
    """Two commands that wait for each other both end."""
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    commands = {
        "a": ["sh", "-c", f"echo > {tmp_path}/a; cat {tmp_path}/b"],
        "b": ["sh", "-c", f"cat {tmp_path}/a; echo > {tmp_path}/b"],
    }
    assert jobs.run(commands, 2) == {"a": True, "b": True}


def test_what_would_end_too_late_is_left_out() -> None:
    """The first is run whatever time there is; the next only where as much is left as the longest took."""
    commands = {"a": ["true"], "b": ["true"]}
    assert jobs.run(commands, 1, minutes=0) == {"a": True, "b": None}
    assert jobs.run(commands, 1, minutes=10) == {"a": True, "b": True}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_nothing_stays_behind(how: signal.Signals, tmp_path: Path) -> None:
    """However the process ends, its commands end at once, those that run and those that would come next."""
    program = f"""
import signal, sys
sys.path.insert(0, {str(ROOT)!r})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
from tests.vm import jobs
jobs.run({{"a": ["sh", "-c", "echo $$; exec sleep 1000"], "b": ["touch", "{tmp_path}/begun"]}}, 1)
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
