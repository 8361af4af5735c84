# SPDX-License-Identifier: MIT
"""What `pktdrop packets` shows: no more than is asked for, none twice, and how many it held back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pktdrop.filters import Filters, reason_filter
from pktdrop.model.drops import Count, DropKey
from pktdrop.process.clock import Clock
from pktdrop.process.output import Output
from pktdrop.reports.packets import Packets, PacketsReport, PacketsSettings
from pktdrop.rules.protocols import Protocols
from tests.unit.make import JUDGE, NOON, make_drop, make_interval, make_sample

CLOSED, OTHER = make_drop(), make_drop(reason="TCP_CSUM")


class Shown:
    """A report with settings, and what it wrote."""

    source: ClassVar = None
    """It is only asked at the start."""

    def __init__(self, file: Path, most: int | None = None, rate: int = 1000, reason: str = "*") -> None:
        """Start."""
        self._file = file
        self._stream = file.open("w", encoding="utf-8")
        output = Output(self._stream)
        self.clock = Clock(0.25, None, None, output.descriptor)
        filters, settings = Filters((reason_filter((reason,)),)), PacketsSettings(most, rate)
        self.report = PacketsReport(
            self.source,  # type: ignore[arg-type]
            *(filters, settings, Protocols.load(), None, None, output, self.clock),
        )

    def close(self) -> None:
        """Close its file."""
        self._stream.close()

    def step(self, *kinds: DropKey, seconds: float = 0.25) -> None:
        """Take a look after so many seconds, with one sample of each kind, in this order."""
        samples = {kind: [make_sample(key=kind, time=NOON + at)] for at, kind in enumerate(kinds)}
        drops = dict.fromkeys(kinds, Count(10, 760))
        self.report.step(Packets(make_interval(drops, seconds=seconds), samples, JUDGE))

    @property
    def lines(self) -> list[str]:
        """What was written so far."""
        self._stream.flush()
        return self._file.read_text(encoding="utf-8").splitlines()


Show = Callable[..., Shown]


@pytest.fixture(name="show")
def _show(tmp_path: Path) -> Iterator[Show]:
    """Makes a report that writes to a file of its own."""
    with ExitStack() as stack:

        def show(**settings: Any) -> Shown:
            shown = Shown(tmp_path / "out", **settings)
            stack.callback(shown.close)
            return shown

        yield show


def kinds(many: int) -> list[DropKey]:
    """So many kinds of drops."""
    return [make_drop(cpu=cpu) for cpu in range(many)]


def said(capfd: pytest.CaptureFixture[str]) -> str:
    """What was said, on one line."""
    return " ".join(capfd.readouterr().err.split())


def test_each_sample_is_a_line(show: Show, capfd: pytest.CaptureFixture[str]) -> None:
    """In the order of time; at the end it is said of how many drops they are."""
    shown = show()
    shown.step(OTHER, CLOSED)
    shown.step(CLOSED)
    assert ["TCP_CSUM" in line for line in shown.lines] == [True, False, False]
    shown.report.end()
    assert said(capfd) == "3 packets shown, of 30 dropped."


def test_only_what_is_asked_for(show: Show, capfd: pytest.CaptureFixture[str]) -> None:
    """A filter chooses kinds; how many packets were of others is said."""
    shown = show(reason="TCP_*")
    shown.step(OTHER, CLOSED)
    assert [("TCP_CSUM" in line) for line in shown.lines] == [True]
    shown.report.end()
    assert said(capfd) == "1 packets shown, of 10 dropped; filtered: 10."


def test_no_more_than_a_number(show: Show) -> None:
    """Then it ends, at once."""
    shown = show(most=3)
    shown.step(*kinds(2))
    assert not shown.clock.is_over()
    shown.step(*kinds(2))
    assert len(shown.lines) == 3
    assert shown.clock.is_over()


def test_no_more_than_a_rate(show: Show, capfd: pytest.CaptureFixture[str]) -> None:
    """As many as in a second may come at once; quiet seconds are not saved up for later ones."""
    shown = show(rate=4)
    shown.step(*kinds(6))
    assert len(shown.lines) == 4
    shown.step(*kinds(6))  # a quarter of a second later there is room for one
    assert len(shown.lines) == 5
    shown.step(seconds=60.0)
    shown.step(*kinds(6))
    assert len(shown.lines) == 9
    shown.report.end()
    assert said(capfd) == "9 packets shown, 9 held back (--rate), of 180 dropped."
