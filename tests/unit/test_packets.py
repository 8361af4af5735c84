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
from pktdrop.model.sample import Owner
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

    def __init__(
        self,
        file: Path,
        most: int | None = None,
        rate: int = 1000,
        reason: str = "*",
        processes: tuple[str, ...] = (),
    ) -> None:
        """Start."""
        self._file = file
        self._stream = file.open("w", encoding="utf-8")
        output = Output(self._stream)
        self.clock = Clock(0.25, None, None, output.descriptor)
        filters, settings = Filters((reason_filter((reason,)),)), PacketsSettings(most, rate, processes)
        self.report = PacketsReport(
            self.source,  # type: ignore[arg-type]
            *(filters, settings, Protocols.load(), None, None, output, self.clock),
        )

    def close(self) -> None:
        """Close its file."""
        self._stream.close()

    def step(self, *kinds: DropKey, seconds: float = 0.25, owner: Owner | None = None) -> None:
        """Take a look after so many seconds, with one sample of each kind, in this order."""
        samples = {kind: [make_sample(key=kind, time=NOON + at, owner=owner)] for at, kind in enumerate(kinds)}
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


@pytest.mark.parametrize(
    ("processes", "shown_of"),
    [((), [1, 1, 1]), (("dnsmasq",), [1, 0, 0]), (("812", "php*"), [1, 1, 0]), (("!dns*",), [0, 1, 1]),
     (("*", "!7"), [1, 0, 0]), (("71",), [0, 0, 0])],
)  # fmt: skip
def test_packets_of_a_process(
    show: Show, capfd: pytest.CaptureFixture[str], processes: tuple[str, ...], shown_of: list[int]
) -> None:
    """By name, pattern or number; how many of those looked at were of others is said."""
    shown = show(processes=processes)
    for owner, lines in zip((Owner(812, "dnsmasq"), Owner(7, "php-fpm"), None), shown_of, strict=True):
        before = len(shown.lines)
        shown.step(CLOSED, owner=owner)
        assert len(shown.lines) - before == lines
    shown.report.end()
    others = f", {3 - sum(shown_of)} of 3 looked at of other processes" if processes else ""
    assert said(capfd) == f"{sum(shown_of)} packets shown, of 30 dropped{others}."


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
