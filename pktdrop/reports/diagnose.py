# SPDX-License-Identifier: MIT
"""The report of `pktdrop diagnose`: watch for a while, then say what was seen. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pktdrop import __version__, filters
from pktdrop.account import Account
from pktdrop.diagnosis.diagnosis import CONDITIONS, Circumstances, diagnosis_of, failures
from pktdrop.diagnosis.stations import Peaks
from pktdrop.diagnosis.values import HostValues
from pktdrop.diagnosis.who import Seen
from pktdrop.errors import PktdropError, WrongUse
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.extras import Extras
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.pcap import Instruction
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.limits import Limit
from pktdrop.observe.observer import Observer
from pktdrop.process.clock import Clock
from pktdrop.process.messages import say
from pktdrop.process.output import Output
from pktdrop.run import probes, run
from pktdrop.views.diagnose import as_json, as_text, status
from pktdrop.watch import Watch

STEP = 1.0
"""Seconds between two looks: a queue is full for a moment only, and namespaces come and go."""
FAILED = 3
"""Exit status where a condition of --fail-on holds."""


@dataclass(frozen=True)
class DiagnoseSettings:
    """What to watch and what to show."""

    duration: float
    """Seconds."""
    all_netns: bool
    style: str
    """ "table" or "json"."""
    fail_on: tuple[str, ...]
    """CONDITIONS, or patterns of drop reasons."""
    program: Sequence[Instruction] = ()
    """The program of a filter of packets; empty: there is none."""


@dataclass
class DiagnoseReport:
    """Says while it watches how much was lost, then what was seen, and what to change."""

    watch: Watch
    refused: PktdropError | None
    """The error for which nothing is traced; None: drops are traced."""
    settings: DiagnoseSettings
    output: Output
    _peaks: Peaks = field(default_factory=Peaks)
    _seen: Seen = field(default_factory=Seen)
    _elapsed: float = 0.0
    _lost: int = 0

    def start(self) -> str:
        """Return what to say of the run; nothing is shown before its end."""
        return f"Watching for {self.settings.duration:g} s ({probes(self.watch.kernel.rungs)}). Ctrl-C to end."

    def step(self, step: Account) -> None:
        """Show how much was lost so far."""
        self._peaks.look(step.counters)
        self._seen.add(step)
        self._elapsed += step.interval.seconds
        self._lost += sum(step.ledger.lost.values())
        self.output.status(status(self._elapsed, self.settings.duration, self._lost, self.output.width))

    def end(self) -> None:
        """Judge, while namespaces are as they were; `show` is for when the probes are detached."""
        watch, known, kernel = self.watch, self.watch.look.namespaces, self.watch.kernel
        untraced = () if self.refused is None else (Limit("untraced", why=self.refused.what, do=self.refused.do),)
        limits = (*untraced, *watch.limits)
        how = Circumstances(
            kernel.rungs, limits, known.present, known.sees_host, self._peaks, self._seen, bool(self.settings.program)
        )
        self._whole = watch.whole()
        host = HostValues(self._whole.look, watch.ask)
        self._judged = diagnosis_of(self._whole, how, host, watch.rules)

    def show(self) -> int:
        """Write the diagnosis; return the exit status."""
        judged = self._judged
        failed = failures(judged, self._whole, self.settings.fail_on)
        if self.settings.style == "json":
            self.output.write(as_json(judged, failed, __version__))
        else:
            self.output.write(as_text(judged, self.output.width))
        if failed:
            say(f"Failed, as --fail-on asks: {', '.join(failed)}.")
        return FAILED if failed else 0


def watch_and_judge(settings: DiagnoseSettings, output: Output) -> int:
    """Watch, write the diagnosis, and return the exit status.

    Raises WrongUse where --fail-on names a reason that this kernel does not have, PktdropError where it, or a
    filter, asks for what only traced drops can tell and they cannot be traced, OutputClosed.
    """
    _check(settings.fail_on)
    namespaces = Namespaces()
    with ExitStack() as stack:
        try:
            tracer, refused = stack.enter_context(Tracer(namespaces, extras=Extras(program=settings.program))), None
        except PktdropError as error:
            if settings.program:
                raise
            tracer, refused = None, error
            _require_no_tracing(settings.fail_on, error)
        observer = Observer(namespaces, tracer, settings.all_netns, at_start=None)
        watch = Watch(observer)
        report = DiagnoseReport(watch, refused, settings, output)
        clock = stack.enter_context(Clock(min(STEP, settings.duration), None, settings.duration, output.descriptor))
        observer.is_over = clock.is_over
        run(watch, report, clock, tell=lambda _: None)  # the diagnosis has the limits
    return report.show()


def _reasons(conditions: Sequence[str]) -> list[str]:
    return [one for one in conditions if one.lower() not in CONDITIONS]


def _check(conditions: Sequence[str]) -> None:
    """Raise WrongUse for a reason that no drop on this kernel has: its condition would never hold."""
    wanted = _reasons(conditions)
    if not wanted:
        return
    try:
        for one in wanted:
            if one.startswith("!"):
                raise WrongUse(f"{one!r} excludes a reason; there is nothing to exclude from.", "--fail-on")
        filters.check_reasons(wanted, KernelFacts.read().reasons)
    except WrongUse as unknown:
        raise WrongUse(f"{unknown.why} Or give one of {', '.join(CONDITIONS)}.", "--fail-on") from None


def _require_no_tracing(conditions: Sequence[str], refused: PktdropError) -> None:
    """Raise PktdropError where a condition asks for what only traced drops tell: it could never hold."""
    blind = [*_reasons(conditions), *(one for one in conditions if one.lower() == "unexplained")]
    if blind:
        raise PktdropError(f"--fail-on {blind[0]} needs drops to be traced: {refused.what}", refused.do)
