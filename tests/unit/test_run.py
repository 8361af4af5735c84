# SPDX-License-Identifier: MIT
"""The one run: what a report is handed in which order, and what is said meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import pytest

from pktdrop.model.limits import Limit
from pktdrop.process.clock import Clock
from pktdrop.run import run


class Steps:
    """A source that gives numbers, slowly, and a report that keeps what it is handed."""

    def __init__(self, seconds: float = 0.0, limits: Sequence[tuple[Limit, ...]] = ((),)) -> None:
        """Take how long a look takes, and the limits after each; those of the last one stay."""
        self._seconds = seconds
        self._limits = list(limits)
        self._done = 0
        self.handed: list[object] = []

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Return those of now."""
        return self._limits[min(self._done, len(self._limits) - 1)]

    def start(self) -> str:
        """Begin."""
        self.handed.append("start")
        return "It runs."

    def end(self) -> None:
        """End."""
        self.handed.append("end")

    def step(self, given: bool | int) -> int:
        """Look, as a source (asked whether it is the last look), or keep the number of a look, as a report."""
        if isinstance(given, bool):
            end = time.monotonic() + self._seconds
            while time.monotonic() < end:
                pass
            self._done += 1
            self.handed.append(given)
            return self._done
        self.handed.append(given)
        return 0


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Four ticks, 0.1 s apart."""
    reading, writing = os.pipe()
    try:
        with Clock(0.1, 4, None, writing) as four:
            yield four
    finally:
        os.close(reading)
        os.close(writing)


def test_each_look_is_handed_to_the_report_before_the_next(clock: Clock) -> None:
    """Start, then look and step in turn, of which the source knows the last one, then the end."""
    steps = Steps()
    run(steps, steps, clock)
    assert steps.handed == ["start", False, 1, False, 2, False, 3, True, 4, "end"]


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 0), (0.15, 1)])
def test_looks_that_take_longer_than_an_interval_are_said_once(
    seconds: float, times: int, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says that pktdrop cannot keep up, however often it cannot."""
    slow = Steps(seconds)
    run(slow, slow, clock)
    assert capfd.readouterr().err.count("Limit: pktdrop cannot keep up") == times


def test_a_single_look_that_takes_too_long_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """Its interval, too, is longer than was asked for."""
    reading, writing = os.pipe()
    try:
        with Clock(0.1, 1, None, writing) as once:
            slow = Steps(0.15)
            run(slow, slow, once)
    finally:
        os.close(reading)
        os.close(writing)
    assert capfd.readouterr().err.count("Limit: pktdrop cannot keep up") == 1


ONE, TWO = Limit("missing", ("one",)), Limit("missing", ("two",))
LIMITS = ((ONE,), (ONE, TWO), (TWO,), (ONE, TWO))


def test_a_limit_is_said_when_it_turns_up(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    """Those of the start before the line that it runs; one that went and came back again, those that stay once."""
    steps = Steps(limits=LIMITS)
    run(steps, steps, clock)
    assert capfd.readouterr().err.splitlines() == [
        "Limit: one is missing.",
        "It runs.",
        "Limit: two is missing.",
        "Limit: one is missing.",
    ]


def test_limits_go_where_they_are_wanted(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    """A report that shows limits itself is told them, and none is said."""
    steps, told = Steps(limits=LIMITS), list[Limit]()
    run(steps, steps, clock, told.extend)
    assert told == [ONE, TWO, ONE]
    assert capfd.readouterr().err == "It runs.\n"
