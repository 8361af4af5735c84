# SPDX-License-Identifier: MIT
"""The run of `pktdrop trace`: the account of each interval, filtered, handed to a report."""

import os
from typing import TYPE_CHECKING, Protocol

from pktdrop import __version__
from pktdrop.clock import Clock
from pktdrop.filters import Filters, Selection
from pktdrop.messages import say, say_ending
from pktdrop.model import Amounts
from pktdrop.output import Output
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView

if TYPE_CHECKING:
    from pktdrop.watch import Account, Watch


class Report(Protocol):
    """What becomes of the results."""

    def start(self, watch: "Watch") -> None:
        """Tell that the probes are attached."""

    def interval(self, step: "Account", selection: Selection) -> None:
        """Show one interval."""

    def summary(self, whole: "Account", selection: Selection) -> None:
        """Show the whole run."""


class JsonReport:
    """Results as JSON lines."""

    def __init__(self, view: JsonView, output: Output) -> None:
        """Take what renders and what writes."""
        self._view = view
        self._output = output

    def start(self, watch: "Watch") -> None:
        """Write the line "start"."""
        kernel = os.uname().release
        self._output.write(self._view.start(watch.start, __version__, kernel, watch.rungs, watch.limits))

    def interval(self, step: "Account", selection: Selection) -> None:
        """Write the line of an interval, quiet or not."""
        for piece in self._view.interval(step.interval, selection, step.ledger):
            self._output.write(piece)

    def summary(self, whole: "Account", selection: Selection) -> None:
        """Write the line "summary"."""
        for piece in self._view.interval(whole.interval, selection, whole.ledger, kind="summary"):
            self._output.write(piece)


class TableReport:
    """Results as tables; while there are none, a status line."""

    def __init__(self, view: TableView, output: Output) -> None:
        """Take what renders and what writes."""
        self._view = view
        self._output = output
        self._elapsed = 0.0
        self._quiet = 0.0
        self._so_far = Amounts(0, 0)

    def start(self, watch: "Watch") -> None:
        """Show nothing: the start line on stderr says it."""

    def interval(self, step: "Account", selection: Selection) -> None:
        """Show the drops of an interval and what was lost without, or for how long there was nothing."""
        self._elapsed += step.interval.seconds
        text = self._view.interval(step.interval, selection, step.ledger, self._output.width)
        if text:
            self._quiet = 0.0
            self._so_far = self._so_far.plus(Amounts.of(selection.drops))
            self._output.write(text)
        else:
            self._quiet += step.interval.seconds
            self._output.status(self._view.status(self._elapsed, self._so_far, self._quiet, self._output.width))

    def summary(self, whole: "Account", selection: Selection) -> None:
        """Show the totals."""
        self._output.write(self._view.summary(whole.interval, selection, whole.ledger, self._output.width))


def run(watch: "Watch", clock: Clock, filters: Filters, report: Report) -> None:
    """Trace until the clock ends. Raises OutputClosed when nobody reads the results."""
    said = watch.limits
    report.start(watch)
    rungs = ", ".join(f"{probe}: {rung}" for probe, rung in watch.rungs.items())
    say(*(f"Limit: {limit}" for limit in said), f"Tracing drops ({rungs}). Ctrl-C to end.")
    kept_up = True
    watch.is_over = clock.is_over
    for _ in clock.ticks():
        say_ending(clock.is_last and clock.interrupted)
        if kept_up and not clock.keeps_up:
            kept_up = False
            say("Limit: pktdrop cannot keep up: a look took longer than an interval. Intervals are as long as shown.")
        step = watch.step(clock.is_last)
        report.interval(step, filters.select(step.interval.drops))
        del step  # with tens of thousands of kinds it takes 30 MB: not while the next one is made
        say(*(f"Limit: {limit}" for limit in watch.limits if limit not in said))
        said = watch.limits
    whole = watch.whole()
    report.summary(whole, filters.select(whole.interval.drops))
