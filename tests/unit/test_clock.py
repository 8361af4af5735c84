# SPDX-License-Identifier: MIT
"""When to look, and when to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktdrop.process.clock import Clock
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]
DEADLINE = 10.0 * PATIENCE
"""Seconds after which something that should have come has not."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe."""
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:  # the test closed it
            continue


def _ticks(clock: Clock) -> list[float]:
    """When each tick came, in seconds since the first was asked for."""
    start = time.monotonic()
    with clock:
        return [time.monotonic() - start for _ in clock.ticks()]


def test_count_ends(pipe: tuple[int, int]) -> None:
    """COUNT ticks come, each when its interval is over and not before."""
    ticks = _ticks(Clock(0.1, 3, None, pipe[1]))
    assert len(ticks) == 3
    assert all(moment >= 0.1 * number - 0.001 for number, moment in enumerate(ticks, 1))


def test_duration_ends(pipe: tuple[int, int]) -> None:
    """The last interval is cut short where the duration is no multiple of it."""
    ticks = _ticks(Clock(0.2, None, 0.3, pipe[1]))
    assert len(ticks) == 2
    assert ticks[-1] >= 0.299


def test_a_duration_shorter_than_the_interval_has_one_tick(pipe: tuple[int, int]) -> None:
    """A run that ends within its first interval looks once, at its end."""
    ticks = _ticks(Clock(3600.0, None, 0.1, pipe[1]))
    assert len(ticks) == 1
    assert 0.099 <= ticks[0] < DEADLINE


def test_what_comes_first_ends(pipe: tuple[int, int]) -> None:
    """Count and duration may both be given; the earlier one ends the run."""
    assert len(_ticks(Clock(0.1, 1, 3600.0, pipe[1]))) == 1
    assert len(_ticks(Clock(0.1, 1000, 0.25, pipe[1]))) == 3


def test_a_slow_reader_gets_no_burst(pipe: tuple[int, int]) -> None:
    """Time that a look took too long is not made up for by intervals that are shorter."""
    seen = []
    with Clock(0.1, 3, None, pipe[1]) as clock:
        for _ in clock.ticks():
            seen.append(time.monotonic())
            while len(seen) == 1 and time.monotonic() < seen[0] + 0.35:
                pass  # a look that takes 3.5 intervals
    assert seen[2] - seen[1] >= 0.099


def test_what_takes_longer_than_an_interval_is_noticed(pipe: tuple[int, int]) -> None:
    """It is known at once whether what was done since a tick took longer than an interval, the first one too."""
    clock = Clock(0.1, 4, None, pipe[1])
    kept_up = []
    with clock:
        for number, _ in enumerate(clock.ticks()):
            if number == 0:
                late = time.monotonic() + 0.15
                while time.monotonic() < late:
                    pass
            kept_up.append(clock.keeps_up)
    assert kept_up[:2] == [False, True]


@pytest.mark.parametrize("far", [3_000_000.0, 1e12, float("inf")])
def test_an_interval_may_be_longer_than_poll_can_wait(pipe: tuple[int, int], far: float) -> None:
    """An interval of years is no error, and what ends a run still ends it."""
    os.close(pipe[0])
    assert len(_ticks(Clock(far, None, None, pipe[1]))) == 1


def test_a_duration_may_be_longer_than_poll_can_wait(pipe: tuple[int, int]) -> None:
    """A duration of years is no error, and COUNT still ends the run."""
    assert len(_ticks(Clock(0.1, 1, 1e12, pipe[1]))) == 1
    assert len(_ticks(Clock(0.1, 1, float("inf"), pipe[1]))) == 1


def test_a_reader_that_goes_is_noticed(pipe: tuple[int, int]) -> None:
    """When the reading end of the output is closed, the run ends without writing to it."""
    start = time.monotonic()
    with Clock(3600.0, None, DEADLINE, pipe[1]) as clock:
        os.close(pipe[0])
        assert len(list(clock.ticks())) == 1
        assert clock.interrupted
    assert time.monotonic() - start < DEADLINE


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize("name", ["/dev/null", "file"])
def test_outputs_that_are_no_pipes_do_not_end_a_run(tmp_path: Path, name: str, flags: int) -> None:
    """Files and devices never close: only count, duration and signals end such a run."""
    output = os.open(tmp_path / name, flags | os.O_CREAT)
    try:
        assert len(_ticks(Clock(0.1, 2, None, output))) == 2
    finally:
        os.close(output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_at_once(pipe: tuple[int, int], number: signal.Signals) -> None:
    """A signal that comes while waiting ends the wait, with one tick for what was counted until then."""
    start = time.monotonic()
    with Clock(3600.0, None, DEADLINE, pipe[1]) as clock:
        os.kill(os.getpid(), number)
        assert len(list(clock.ticks())) == 1
        assert clock.interrupted
    assert time.monotonic() - start < DEADLINE


def test_a_signal_that_interrupts_no_wait_ends_it_too(pipe: tuple[int, int]) -> None:
    """A signal just before the wait, or one that another thread was interrupted by, is not slept through."""
    waits = threading.Event()

    def interrupt() -> None:
        waits.wait()  # then the main thread holds the interpreter until its wait begins
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    start = time.monotonic()
    for _ in range(20):
        waits.clear()
        other = threading.Thread(target=interrupt)
        with Clock(DEADLINE, None, None, pipe[1]) as clock:
            other.start()
            waits.set()
            assert len(list(clock.ticks())) == 1
            assert clock.interrupted
        other.join()
    assert time.monotonic() - start < DEADLINE


def test_a_signal_that_ends_nothing_does_not_wake(pipe: tuple[int, int]) -> None:
    """Signals of others, such as that a child ended, change no tick."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with Clock(0.3, 1, None, pipe[1]) as clock:
            start = time.monotonic()
            os.kill(os.getpid(), signal.SIGCHLD)
            list(clock.ticks())
            assert time.monotonic() - start >= 0.299
            assert not clock.interrupted
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_signal_during_a_look_gets_a_last_one(pipe: tuple[int, int]) -> None:
    """What was counted since a look during which the signal came is looked at once more."""
    done = 0
    with Clock(0.1, None, None, pipe[1]) as clock:
        for _ in clock.ticks():
            done += 1
            if done == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert done < 10
    assert done == 3


def test_signals_are_given_back(pipe: tuple[int, int]) -> None:
    """After the run each signal does what it did before; no descriptor stays open."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    descriptors = set(os.listdir("/proc/self/fd"))
    with Clock(0.1, 1, None, pipe[1]) as clock:
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
        list(clock.ticks())
    assert {number: signal.getsignal(number) for number in before} == before
    assert set(os.listdir("/proc/self/fd")) == descriptors


_CHILD = """
import sys
from pktdrop.process.clock import Clock
with Clock(3600.0, None, None, sys.stdout.fileno()) as clock:
    print("ready", flush=True)
    for _ in clock.ticks():
        print("tick", flush=True)
        {then}
print("end", flush=True)
"""


def _start(then: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_is_a_normal_end(number: signal.Signals) -> None:
    """A process that is told to end looks once more, goes on behind the loop and ends with status 0."""
    child = _start("pass")
    os.kill(child.pid, number)
    output, errors = child.communicate(timeout=DEADLINE)
    assert (output, errors, child.returncode) == ("tick\nend\n", "", 0)


def test_a_second_signal_does_what_it_does_by_default() -> None:
    """Who does not want to wait for the end can have it now."""
    child = _start("import signal; signal.pause()")
    assert child.stdout is not None
    os.kill(child.pid, signal.SIGTERM)
    assert child.stdout.readline() == "tick\n"
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=DEADLINE)
    assert child.returncode == -signal.SIGTERM
