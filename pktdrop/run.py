# SPDX-License-Identifier: MIT
"""The one run: a source looked at at a steady pace, each step handed to a report, and each limit said once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from pktdrop.model.limits import Limit
from pktdrop.process.messages import say, say_ending
from pktdrop.views.limits import sentences

Step = TypeVar("Step")
_Given = TypeVar("_Given", covariant=True)
_Taken = TypeVar("_Taken", contravariant=True)
Tell = Callable[[Sequence[Limit]], None]
"""Is called with limits that did not hold before."""
LATE: Final = Limit("late")


class Source(Protocol[_Given]):
    """What is looked at: drops and counters (watch.Watch), or counters alone. It has looked once when it is made."""

    @property
    def limits(self) -> Sequence[Limit]:
        """What cannot be known, and why. More may turn up with each step."""

    def step(self, is_last: bool) -> _Given:
        """Look again; return what lies between this look and the one before."""


class Ticks(Protocol):
    """When to look: clock.Clock, or the pace of a screen."""

    is_last: bool
    """Whether this tick is the last one."""
    interrupted: bool
    """Whether somebody asked for the end of the run."""

    @property
    def keeps_up(self) -> bool:
        """Whether what was done since the last tick took less than an interval so far."""

    def ticks(self) -> Iterator[None]:
        """Yield each time when it is time to look."""


class Report(Protocol[_Taken]):
    """Shows the results of a run."""

    def start(self) -> str | None:
        """Show what is known before the first step; return what to say of what runs now."""

    def step(self, step: _Taken) -> None:
        """Show what lies between two looks."""

    def end(self) -> None:
        """Show the results of the whole run."""


def probes(rungs: Mapping[str, str]) -> str:
    """Say by which rung each probe is attached."""
    return ", ".join(f"{probe}: {rung}" for probe, rung in rungs.items())


def say_limits(limits: Sequence[Limit]) -> None:
    """Write limits to standard error."""
    say(*(f"Limit: {limit}" for limit in sentences(limits)))


class Limits:
    """Tells each limit once, when it turns up."""

    def __init__(self, tell: Tell = say_limits) -> None:
        """Take what becomes of those that are new."""
        self._tell = tell
        self._known: Sequence[Limit] = ()

    def now(self, limits: Sequence[Limit]) -> None:
        """Tell the limits that did not hold at the look before."""
        self._tell([limit for limit in limits if limit not in self._known])
        self._known = limits


def steps(source: Source[Step], clock: Ticks) -> Iterator[tuple[Step, tuple[Limit, ...]]]:
    """Look at each tick until the clock ends; yield the step, and all limits so far."""
    is_late = False
    for number, _ in enumerate(clock.ticks()):
        say_ending(clock.is_last and clock.interrupted)
        step = source.step(clock.is_last)
        is_forgiven = clock.is_last and number > 0  # the last look reads more than others
        is_late |= not (clock.keeps_up or is_forgiven)
        yield step, (*source.limits, *[LATE][:is_late])
        del step  # with tens of thousands of kinds it takes 30 MB: not while the next one is made
        is_late |= not (clock.keeps_up or is_forgiven)  # it takes its time to be shown, too


def run(source: Source[Step], report: Report[Step], clock: Ticks, tell: Tell = say_limits) -> None:
    """Hand each look to a report. Raises OutputClosed when nobody reads the results."""
    limits = Limits(tell)
    limits.now(source.limits)
    opening = report.start()
    if opening is not None:
        say(opening)
    for step, known in steps(source, clock):
        report.step(step)
        del step
        limits.now(known)
    report.end()
