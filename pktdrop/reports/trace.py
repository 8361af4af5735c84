# SPDX-License-Identifier: MIT
"""The reports of `pktdrop trace`: each interval, filtered, and the whole run, as JSON lines or tables."""

import os

from pktdrop import __version__
from pktdrop.filters import Filters
from pktdrop.model import Amounts
from pktdrop.output import Output
from pktdrop.run import probes
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView
from pktdrop.watch import Account, Watch


def _opening(watch: Watch) -> str:
    return f"Tracing drops ({probes(watch.rungs)}). Ctrl-C to end."


class JsonReport:
    """Results as JSON lines."""

    def __init__(self, watch: Watch, filters: Filters, view: JsonView, output: Output) -> None:
        """Take what is watched, what is shown of it, what renders and what writes."""
        self._watch = watch
        self._filters = filters
        self._view = view
        self._output = output

    def start(self) -> str:
        """Write the line "start"."""
        watch, kernel = self._watch, os.uname().release
        self._output.write(self._view.start(watch.start, __version__, kernel, watch.rungs, watch.limits))
        return _opening(watch)

    def step(self, step: Account, kind: str = "interval") -> None:
        """Write the line of an interval, quiet or not."""
        selection = self._filters.select(step.interval.drops, step.judge)
        for piece in self._view.interval(step.interval, selection, step.ledger, kind):
            self._output.write(piece)

    def end(self) -> None:
        """Write the line "summary"."""
        self.step(self._watch.whole(), "summary")


class TableReport:
    """Results as tables; while there are none, a status line."""

    def __init__(self, watch: Watch, filters: Filters, view: TableView, output: Output) -> None:
        """Take what is watched, what is shown of it, what renders and what writes."""
        self._watch = watch
        self._filters = filters
        self._view = view
        self._output = output
        self._elapsed = 0.0
        self._quiet = 0.0
        self._so_far = Amounts(0, 0)

    def start(self) -> str:
        """Show nothing: what is said tells it."""
        return _opening(self._watch)

    def step(self, step: Account) -> None:
        """Show the drops of an interval and what was lost without, or for how long there was nothing."""
        selection = self._filters.select(step.interval.drops, step.judge)
        self._elapsed += step.interval.seconds
        text = self._view.interval(step.interval, selection, step.ledger, self._output.width)
        if text:
            self._quiet = 0.0
            self._so_far = self._so_far.plus(Amounts.of(selection.drops, selection.judge))
            self._output.write(text)
        else:
            self._quiet += step.interval.seconds
            self._output.status(self._view.status(self._elapsed, self._so_far, self._quiet, self._output.width))

    def end(self) -> None:
        """Show the totals."""
        whole = self._watch.whole()
        selection = self._filters.select(whole.interval.drops, whole.judge)
        self._output.write(self._view.summary(whole.interval, selection, whole.ledger, self._output.width))
