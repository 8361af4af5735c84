# SPDX-License-Identifier: MIT
"""All reading, in one thread of its own: the screen never waits, and only that thread enters namespaces."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from threading import TIMEOUT_MAX, Event
from typing import TYPE_CHECKING, NamedTuple

from pktdrop.account import Account
from pktdrop.errors import PktdropError
from pktdrop.model.limits import Limit
from pktdrop.run import steps
from pktdrop.top.advice import advised
from pktdrop.watch import Watch

if TYPE_CHECKING:
    from pktdrop.diagnosis.diagnosis import Advised


class Shown(NamedTuple):
    """What the screen gets of a look."""

    account: Account
    limits: tuple[Limit, ...] = ()
    losses: "tuple[Advised, ...] | None" = None
    """All losses so far, with advice; None: nobody asked for advice."""


class ScreenPace:
    """Ticks at an interval that the user may change, until it is stopped."""

    is_last = interrupted = False

    def __init__(self, interval: float) -> None:
        """Take seconds."""
        self._interval = interval
        self._changed = Event()
        self._due = 0.0
        self.is_over = False

    def ticks(self) -> Iterator[None]:
        """Yield when an interval is over; one that took too long is not made up for."""
        self._due = time.monotonic()
        while not self.is_over:
            self._due = max(self._due, time.monotonic() - self._interval) + self._interval
            if self._changed.wait(min(max(0.0, self._due - time.monotonic()), TIMEOUT_MAX)):
                self._changed.clear()
                self._due = time.monotonic() - self._interval  # the new pace begins with a look
            else:
                yield

    @property
    def keeps_up(self) -> bool:
        """Whether what was done since the last tick took less than an interval so far."""
        return time.monotonic() <= self._due + self._interval

    def change(self, interval: float) -> None:
        """Look now, and from now on at another interval in seconds."""
        self._interval = interval
        self._changed.set()

    def stop(self) -> None:
        """End the ticks."""
        self.is_over = True
        self._changed.set()


class Feed:
    """A Watch as the screen shows it. What cannot be read is told in place of it, and tried again."""

    def __init__(self, watch: Watch) -> None:
        """Take what is watched."""
        self.watch = watch
        self.wants_advice = False
        """Whether losses are to be judged: it costs more than the look."""

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What this run cannot know."""
        return self.watch.limits

    def step(self, is_last: bool) -> Shown | str:
        """Look again; return what to show, or what could not be read."""
        try:
            account = self.watch.step()
            losses = advised(self.watch) if self.wants_advice else None
            return Shown(account, (), losses)
        except (OSError, PktdropError) as failed:
            return failed.what if isinstance(failed, PktdropError) else str(failed)


class Reader:
    """Starts what is looked at at once, without waiting for it. To be closed."""

    def __init__(self, start: Callable[[ExitStack], Feed], interval: float) -> None:
        """Take what makes the Feed, and leaves on the stack what is to be closed; and the seconds between two."""
        self.pace = ScreenPace(interval)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pktdrop-reader")
        self._stack = ExitStack()
        self._starting = self._thread.submit(start, self._stack)

    def started(self) -> Feed:
        """Wait for the Feed. Raises what its start raised."""
        return self._starting.result()

    def look(self, is_advice_wanted: bool = False) -> "Future[Shown | str]":
        """Wait for the next time, and look: what there is to see, or why it cannot be read."""
        return self._thread.submit(self._look, is_advice_wanted)

    def close(self) -> None:
        """Cut short what is being read, detach the probes and end the thread."""
        self.pace.stop()
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()

    @cached_property
    def _steps(self) -> "Iterator[tuple[Shown | str, tuple[Limit, ...]]]":
        return steps(self.started(), self.pace)

    def _look(self, is_advice_wanted: bool) -> Shown | str:
        self.started().wants_advice = is_advice_wanted
        look, limits = next(self._steps, ("it is closed", ()))
        return look if isinstance(look, str) else look._replace(limits=limits)
