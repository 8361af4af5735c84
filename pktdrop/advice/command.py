# SPDX-License-Identifier: MIT
"""The run of `pktdrop diagnose`: watch for a while, then say what was seen. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pktdrop import __version__, filters
from pktdrop.advice.diagnosis import CONDITIONS, Circumstances, Diagnosis, Tables, diagnose, failures
from pktdrop.advice.host import Host
from pktdrop.advice.stations import Peaks
from pktdrop.clock import Clock
from pktdrop.errors import PktdropError, WrongUse
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.tracer import Tracer
from pktdrop.messages import say, say_ending
from pktdrop.namespaces import Namespaces
from pktdrop.output import Output
from pktdrop.views.diagnose import as_json, as_text, status
from pktdrop.watch import Account, Watch

STEP = 1.0
"""Seconds between two looks: a queue is full for a moment only, and namespaces come and go."""
FAILED = 3
"""Exit status where a condition of --fail-on holds."""


@dataclass(frozen=True)
class Settings:
    """What to watch and what to show."""

    duration: float
    """Seconds."""
    all_netns: bool
    style: str
    """ "table" or "json"."""
    fail_on: tuple[str, ...]
    """CONDITIONS, or patterns of drop reasons."""


def run(settings: Settings, output: Output) -> int:
    """Watch, write the diagnosis, and return the exit status.

    Raises WrongUse where --fail-on names a reason that this kernel does not have, PktdropError where it asks
    for what only traced drops can tell and they cannot be traced, OutputClosed.
    """
    _check(settings.fail_on)
    namespaces = Namespaces()
    with ExitStack() as stack:
        try:
            tracer, refused = stack.enter_context(Tracer(namespaces)), None
        except PktdropError as error:
            tracer, refused = None, error
            _require_no_tracing(settings.fail_on, error)
        watch = Watch(namespaces, tracer, settings.all_netns, at_start=None)
        probes = ", ".join(f"{probe}: {rung}" for probe, rung in watch.rungs.items())
        clock = stack.enter_context(Clock(min(STEP, settings.duration), None, settings.duration, output.descriptor))
        say(f"Watching for {settings.duration:g} s ({probes}). Ctrl-C to end.")
        account, peaks = _watch(watch, clock, settings, output)
        limits = (*(() if refused is None else (_without_events(refused),)), *watch.limits)
        present = frozenset(namespaces.paths())
        sees_all = namespaces.sees_host
        how = Circumstances(watch.rungs, limits, present, sees_all, peaks)
        judged = diagnose(account, how, Host(namespaces, account.counters), Tables.load(watch.reasons))
    return _report(judged, account, settings, output)


def _watch(watch: Watch, clock: Clock, settings: Settings, output: Output) -> tuple[Account, Peaks]:
    peaks = Peaks()
    watch.is_over = clock.is_over
    elapsed, lost = 0.0, 0
    for _ in clock.ticks():
        say_ending(clock.is_last and clock.interrupted)
        step = watch.step(clock.is_last)
        peaks.look(step.counters)
        elapsed += step.interval.seconds
        lost += sum(step.ledger.lost.values())
        output.status(status(elapsed, settings.duration, lost, output.width))
    return watch.whole(), peaks


def _report(judged: Diagnosis, account: Account, settings: Settings, output: Output) -> int:
    failed = failures(judged, account, settings.fail_on)
    if settings.style == "json":
        output.write(as_json(judged, failed, __version__))
    else:
        output.write(as_text(judged, output.width))
    if failed:
        say(f"Failed, as --fail-on asks: {', '.join(failed)}.")
    return FAILED if failed else 0


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


def _without_events(refused: PktdropError) -> str:
    return (
        f"Drops could not be traced: {refused.what} Losses are known as far as counters show them; their reasons, the "
        f"CPUs they were dropped on, and drops that no counter shows are not. {refused.do}"
    )
