# SPDX-License-Identifier: MIT
"""The report of `pktdrop packets`: each sampled packet, as it is dropped."""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from pktdrop import __version__
from pktdrop.counters.owners import Owners
from pktdrop.filters import Filters, process_choice
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.drops import Judge, Verdict
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Sample
from pktdrop.model.snapshots import Interval, interval
from pktdrop.process.clock import Clock
from pktdrop.process.messages import say
from pktdrop.process.output import Output
from pktdrop.reports.capture import Capture
from pktdrop.rules.layers import Layers
from pktdrop.rules.protocols import Protocols
from pktdrop.run import probes
from pktdrop.samples.gather import ByKind, by_kind, by_time
from pktdrop.text.wording import number
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.packets import as_json, line

INTERVAL = 0.25
"""Seconds between two looks."""


class Packets(NamedTuple):
    """What was dropped between two looks, and the samples of it."""

    interval: Interval
    samples: ByKind
    judge: Judge


class PacketsSource:
    """Looks at drops and their samples alone: no counter is read."""

    def __init__(self, namespaces: Namespaces, tracer: Tracer) -> None:
        """Begin with no drop."""
        self._namespaces = namespaces
        self._tracer = tracer
        self._owners = Owners(namespaces)
        self._last = tracer.start
        self._judge = Layers.load(reasons=tracer.reasons).of
        self.rungs = tracer.rungs

    @property
    def limits(self) -> Sequence[Limit]:
        """What cannot be known, and why."""
        return self._tracer.limits

    def step(self, is_last: bool) -> Packets:
        """Look again; return the drops since the look before, and their samples."""
        self._namespaces.look()
        if not is_last:
            self._tracer.give_up()
        before, self._last = self._last, self._tracer.snapshot()
        taken = self._tracer.samples()
        self._owners.find(taken)
        step = interval(before, self._last)
        return Packets(step, by_kind(taken, step.drops), self._judge)


class PacketsSettings(NamedTuple):
    """How many packets to show, and how fast."""

    most: int | None
    """Packets after which the command ends; None: it goes on."""
    rate: int
    """Packets a second at most."""
    processes: tuple[str, ...] = ()
    """Names or numbers of processes, as process_choice() takes them; empty: packets of all."""


class PacketsReport:
    """Shows packets, a line each."""

    def __init__(
        self,
        source: PacketsSource,
        filters: Filters,
        settings: PacketsSettings,
        protocols: Protocols,
        view: JsonView | None,
        capture: Capture | None,
        output: Output,
        clock: Clock,
    ) -> None:
        """Take what makes JSON, None: lines of text, and only where there is no capture. Stops the clock at the end."""
        self._source = source
        self._filters = filters
        self._settings = settings
        self._protocols = protocols
        self._view = view
        self._capture = capture
        self._output = output
        self._clock = clock
        self._is_of_process = process_choice(settings.processes)
        self._shown = self._held = self._dropped = self._filtered = self._looked_at = self._of_others = 0
        self._allowed = float(settings.rate)

    def start(self) -> str:
        """Write the first line of JSON; return what runs."""
        if self._view is not None:
            source, kernel = self._source, os.uname().release
            self._output.write(self._view.start(time.time(), __version__, kernel, source.rungs, source.limits))
        return f"Showing dropped packets ({probes(self._source.rungs)}). Ctrl-C to end."

    def step(self, step: Packets) -> None:
        """Show the samples of a look, in the order in which they were taken."""
        selection = self._filters.select(step.interval.drops, step.judge)
        self._filtered += selection.filtered
        self._dropped += sum(count.packets for count in selection.drops.values())
        found = by_time(step.samples, selection.drops)
        chosen = [one for one in found if self._is_of_process(one.owner)]
        self._looked_at += len(found)
        self._of_others += len(found) - len(chosen)
        # as many as in a second may come at once
        self._allowed = min(self._allowed + step.interval.seconds * self._settings.rate, self._settings.rate)
        shown = chosen[: int(self._allowed)]
        self._allowed -= len(shown)
        self._held += len(chosen) - len(shown)
        if self._settings.most is not None:
            shown = shown[: self._settings.most - self._shown]
        self._shown += len(shown)
        if self._capture is not None:
            self._capture.add(selection.drops, by_kind(shown, selection.drops), step.judge)
        if shown and (self._view is not None or self._capture is None):
            self._output.write("".join(self._line(one, step.judge(one.key)) for one in shown))
        if self._shown == self._settings.most:
            self._clock.stop()

    def _line(self, sample: Sample, verdict: Verdict) -> str:
        if self._view is not None:
            return as_json(sample, verdict, self._view)
        return line(sample, verdict, self._protocols)

    def end(self) -> None:
        """Say how many packets were dropped, and how many of these were shown, held back and filtered."""
        held = f", {number(self._held)} held back (--rate)" if self._held else ""
        others = f", {number(self._of_others)} of {number(self._looked_at)} looked at of other processes"
        say(
            f"{number(self._shown)} packets shown{held}, of {number(self._dropped)} dropped"
            + (others if self._settings.processes else "")
            + (f"; filtered: {number(self._filtered)}." if self._filtered else ".")
        )
