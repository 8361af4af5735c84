# SPDX-License-Identifier: MIT
"""The run of `pktdrop trace`: Snapshots at each tick, subtracted, filtered, handed to a report."""

import os
import sys
import textwrap
from typing import Protocol

from pktdrop import __version__
from pktdrop.clock import Clock
from pktdrop.filters import Filters, Selection
from pktdrop.kernel.tracer import Tracer
from pktdrop.model import Amounts, Interval, interval
from pktdrop.output import Output
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView

_WIDTH = 80


class Report(Protocol):
    """What becomes of the results."""

    def start(self, moment: float, tracer: Tracer) -> None:
        """Tell that the probes are attached, at a wall-clock time."""

    def interval(self, step: Interval, selection: Selection) -> None:
        """Show one interval."""

    def summary(self, whole: Interval, selection: Selection) -> None:
        """Show the whole run."""


class JsonReport:
    """Results as JSON lines."""

    def __init__(self, view: JsonView, output: Output) -> None:
        """Take what renders and what writes."""
        self._view = view
        self._output = output

    def start(self, moment: float, tracer: Tracer) -> None:
        """Write the line "start"."""
        kernel = os.uname().release
        self._output.write(self._view.start(moment, __version__, kernel, tracer.rungs, tracer.limits))

    def interval(self, step: Interval, selection: Selection) -> None:
        """Write the line of an interval, quiet or not."""
        self._output.write(self._view.interval(step, selection))

    def summary(self, whole: Interval, selection: Selection) -> None:
        """Write the line "summary"."""
        self._output.write(self._view.interval(whole, selection, kind="summary"))


class TableReport:
    """Results as tables; while there are none, a status line."""

    def __init__(self, view: TableView, output: Output) -> None:
        """Take what renders and what writes."""
        self._view = view
        self._output = output
        self._elapsed = 0.0
        self._quiet = 0.0
        self._so_far = Amounts(0, 0)

    def start(self, moment: float, tracer: Tracer) -> None:
        """Show nothing: the start line on stderr says it."""

    def interval(self, step: Interval, selection: Selection) -> None:
        """Show the drops of an interval, or for how long there were none."""
        self._elapsed += step.seconds
        if selection.drops:
            self._quiet = 0.0
            self._so_far = self._so_far.plus(Amounts.of(selection.drops))
            self._output.write(self._view.interval(step, selection, self._output.width))
        else:
            self._quiet += step.seconds
            self._output.status(self._view.status(self._elapsed, self._so_far, self._quiet, self._output.width))

    def summary(self, whole: Interval, selection: Selection) -> None:
        """Show the totals."""
        self._output.write(self._view.summary(whole, selection, self._output.width))


def run(tracer: Tracer, clock: Clock, filters: Filters, report: Report) -> None:
    """Trace until the clock ends. Raises OutputClosed when nobody reads the results."""
    first = before = tracer.start
    said = tracer.limits
    report.start(first.time, tracer)
    rungs = ", ".join(f"{probe}: {rung}" for probe, rung in tracer.rungs.items())
    say(*(f"Limit: {limit}" for limit in said), f"Tracing drops ({rungs}). Ctrl-C to end.")
    for _ in clock.ticks():
        now = tracer.snapshot()
        step = interval(before, now)
        report.interval(step, filters.select(step.drops))
        say(*(f"Limit: {limit}" for limit in tracer.limits if limit not in said))
        said = tracer.limits
        before = now
    whole = interval(first, before)
    report.summary(whole, filters.select(whole.drops))


def say(*sentences: str) -> None:
    """Write sentences to standard error: results are on standard output only."""
    for sentence in sentences:
        print(textwrap.fill(sentence, _WIDTH, subsequent_indent="  "), file=sys.stderr, flush=True)
