# SPDX-License-Identifier: MIT
"""The run of `pktdrop trace`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pktdrop.clock import Clock
from pktdrop.filters import Filters, Selection
from pktdrop.trace import run
from tests.unit.accounts import make_account

if TYPE_CHECKING:
    from pktdrop.watch import Account, Watch


class Slow:
    """A Watch whose looks take so many seconds, and a Report that keeps nothing."""

    rungs = {"kfree_skb": "tp_btf"}  # noqa: RUF012
    limits = ()

    def __init__(self, seconds: float) -> None:
        """Take how slow it is."""
        self._seconds = seconds

    def step(self, is_last: bool) -> Account:
        """Look."""
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            pass
        return make_account()

    def whole(self) -> Account:
        """Sum up."""
        return make_account()

    def start(self, watch: Watch) -> None:
        """Begin the report."""

    def interval(self, step: Account, selection: Selection) -> None:
        """Show nothing."""

    def summary(self, whole: Account, selection: Selection) -> None:
        """Show nothing."""


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 0), (0.15, 1)])
def test_looks_that_take_longer_than_an_interval_are_said_once(
    seconds: float, times: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says that pktdrop cannot keep up, however often it cannot."""
    slow = Slow(seconds)
    reading, writing = os.pipe()
    try:
        with Clock(0.1, 4, None, writing) as clock:
            run(slow, clock, Filters(()), slow)  # type: ignore[arg-type]
    finally:
        os.close(reading)
        os.close(writing)
    assert capfd.readouterr().err.count("cannot keep up") == times
