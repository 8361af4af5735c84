# SPDX-License-Identifier: MIT
"""The reports of `pktdrop trace`: each interval, filtered, and the whole run, as JSON lines or tables."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pktdrop import __version__
from pktdrop.account import Account
from pktdrop.filters import Filters
from pktdrop.model.drops import Amounts
from pktdrop.process.output import Output
from pktdrop.run import Report, probes
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView
from pktdrop.watch import Watch

if TYPE_CHECKING:
    from pktdrop.reports.capture import Capture
    from pktdrop.samples.flows import Standouts


def _opening(watch: Watch) -> str:
    return f"Tracing drops ({probes(watch.kernel.rungs)}). Ctrl-C to end."


@dataclass
class JsonReport:
    """Results as JSON lines."""

    watch: Watch
    filters: Filters
    view: JsonView
    output: Output

    def start(self) -> str:
        """Write the line "start"."""
        watch, kernel = self.watch, self.watch.kernel
        self.output.write(self.view.start(watch.start, __version__, kernel.release, kernel.rungs, watch.limits))
        return _opening(watch)

    def step(self, step: Account, kind: str = "interval") -> None:
        """Write the line of an interval, quiet or not."""
        selection = self.filters.select(step.interval.drops, step.judge)
        for piece in self.view.interval(
            step.interval, selection, step.ledger, kind, step.samples, step.sampled, step.flows
        ):
            self.output.write(piece)

    def end(self) -> None:
        """Write the line "summary"."""
        self.step(self.watch.whole(), "summary")


@dataclass
class Capturing:
    """A report, of which the packets go into a file, too."""

    report: Report[Account]
    filters: Filters
    capture: "Capture"

    def start(self) -> str | None:
        """Start the report."""
        return self.report.start()

    def step(self, step: Account) -> None:
        """Write the packets of a look, and show it."""
        self.capture.add(self.filters.select(step.interval.drops, step.judge).drops, step.samples, step.judge)
        self.report.step(step)

    def end(self) -> None:
        """End the report."""
        self.report.end()


@dataclass
class TableReport:
    """Results as tables; until something is dropped, a status line."""

    watch: Watch
    filters: Filters
    view: TableView
    output: Output
    _elapsed: float = 0.0
    _quiet: float = 0.0
    _so_far: Amounts = field(default_factory=lambda: Amounts(0, 0))
    _who: "Standouts | None" = None

    def start(self) -> str:
        """Return what to say of the run; nothing is shown before the first interval."""
        return _opening(self.watch)

    def step(self, step: Account) -> None:
        """Show the drops of an interval and what was lost without, or for how long there was nothing."""
        selection = self.filters.select(step.interval.drops, step.judge)
        self._elapsed += step.interval.seconds
        if step.samples:
            from pktdrop.samples.flows import Standouts  # nothing that comes before the first packet needs it

            self._who = self._who or Standouts()
            self._who.add(step.samples, selection.drops, selection.judge)
        text = self.view.interval(step.interval, selection, step.ledger, self.output.width, step.samples, step.flows)
        if text:
            self._quiet = 0.0
            self._so_far = self._so_far.plus(Amounts.of(selection.drops, selection.judge))
            self.output.write(text)
        else:
            self._quiet += step.interval.seconds
            self.output.status(self.view.status(self._elapsed, self._so_far, self._quiet, self.output.width))

    def end(self) -> None:
        """Show the totals."""
        whole = self.watch.whole()
        selection = self.filters.select(whole.interval.drops, whole.judge)
        self.output.write(
            self.view.summary(whole.interval, selection, whole.ledger, self.output.width, self._who, whole.flows)
        )
