# SPDX-License-Identifier: MIT
"""What is said of exceptions that nobody caught, and messages that nobody can get."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pktdrop.errors import PktdropError
from pktdrop.process import faults
from pktdrop.process.clock import Clock
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]
DEADLINE = 60 * PATIENCE


def _os_error(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "what", "do"),
    [
        (PktdropError("It is gone.", "Look for it."), "It is gone.", "Look for it."),
        (MemoryError(), "not enough memory", "ulimit -v"),
        (_os_error(errno.ENOMEM), "not enough memory", "ulimit -v"),
        (ImportError("libffi.so.8: failed to map segment from shared object"), "not enough memory", "ulimit -v"),
        (OSError("libz.so.1: cannot map zero-fill pages: Cannot allocate memory"), "not enough memory", "ulimit -v"),
        (_os_error(errno.EMFILE, "/proc/stat"), "may not open more files", "ulimit -n"),
        (_os_error(errno.ENFILE), "may not open more files", "fs.file-max"),
        (_os_error(errno.EAGAIN), "No more processes or threads", "ulimit -u"),
        (RuntimeError("can't start new thread"), "No more processes or threads", "ulimit -u"),
        (ModuleNotFoundError("No module named 'tabulate'", name="tabulate"), "tabulate", "apt install"),
        (_os_error(errno.EACCES, "/a\x1b[31m"), "'/a\\x1b[31m': Permission denied", "PKTDROP_TRACEBACK=1"),
        (OSError("of no number"), "pktdrop has a fault: OSError: of no number", "Report"),
        (ValueError("one\ntwo"), "pktdrop has a fault: ValueError: one (", "Report"),
        (KeyError(), "pktdrop has a fault: KeyError (", "Report"),
        (ModuleNotFoundError("No module named 'pktdrop.x'", name="pktdrop.x"), "pktdrop has a fault", "Report"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_one_sentence_what_and_one_what_to_do(error: Exception, what: str, do: str) -> None:
    """What the host lacks is named, with the way to it; what is pktdrop's own fault says so, and how to report it."""
    said = faults.sentences(error)
    assert what in said[0]
    assert do in said[1]
    assert all(sentence.endswith(".") and sentence.isprintable() for sentence in said)


def test_a_fault_says_where_it_is(tmp_path: Path) -> None:
    """The innermost places of pktdrop are told, as a fault may not come again."""
    with pytest.raises(PktdropError) as refused, Clock(1.0, 1, None, -5) as clock:
        raise PktdropError("x", "y")
    assert clock is not None
    assert faults.source_lines(refused.value.__traceback__) == "at the start"  # no frame of pktdrop's
    with pytest.raises(AttributeError) as broken:
        list(Clock(1.0, 1, None, 1).ticks())  # it was not entered
    assert "clock.py:" in faults.sentences(broken.value)[0]


def _run(code: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


_BROKEN = "import pktdrop.cli\ndef main(**_): raise LookupError('no such')\npktdrop.cli.main = main\n"
_START = "from pktdrop.start import main; main()"


@pytest.mark.parametrize("wanted", ["", "1"])
def test_the_traceback_is_for_the_report(wanted: str) -> None:
    """A fault ends with status 1 and two sentences; the traceback comes where it was asked for."""
    done = _run(_BROKEN + _START, PKTDROP_TRACEBACK=wanted)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: pktdrop has a fault: LookupError: no such (")
    assert ("Traceback" in done.stderr) == bool(wanted)


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_standard_error_that_takes_nothing(redirect: str) -> None:
    """The status is the right one, nothing is said among the results, and no other file becomes standard error."""
    code = "import os\nfrom pktdrop import start\nfrom pktdrop.process import messages\n"
    code += "start._open_standard_files()\nmessages.never_fail()\n"
    code += "assert os.open('/', os.O_RDONLY) > 2\nmessages.say('lost')\nprint('result')\nraise SystemExit(7)"
    done = _run(code, redirect)
    assert (done.returncode, done.stdout, done.stderr) == (7, "result\n", "")


def test_messages_of_a_non_blocking_terminal_are_not_lost() -> None:
    """Standard error that somebody made non-blocking is waited for."""
    code = "import os\nfrom pktdrop.process import messages\nos.set_blocking(2, False)\nmessages.never_fail()\n"
    code += "messages.say(*['x' * 70] * 5000)"
    assert _run(code).stderr == ("x" * 70 + "\n") * 5000


def test_sighup_stays_ignored_under_nohup() -> None:
    """nohup(1) lets a run go on when its terminal is closed; the other signals still end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Clock(0.1, 2, None, 1) as clock:
            os.kill(os.getpid(), signal.SIGHUP)
            assert len(list(clock.ticks())) == 2
            assert not clock.interrupted
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
