# SPDX-License-Identifier: MIT
"""When to look: ticks at a steady pace, until it is time to end."""

import math
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType

_LONGEST_WAIT = 3600.0
"""Seconds; poll(2) counts milliseconds in an int."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Clock:
    """Wakes up its owner every `interval` seconds, and at once where the run must end.

    It ends after `count` ticks, after `duration` seconds, on Ctrl-C, SIGTERM or SIGHUP, and when nobody reads
    `output` any more (a file descriptor: a closed pipe is noticed without writing to it). A second signal does what
    it does by default. SIGHUP stays ignored where it is (nohup(1)). To be used as a context manager in the main thread.
    """

    def __init__(self, interval: float, count: int | None, duration: float | None, output: int) -> None:
        """Take seconds; None is without end."""
        self._interval = interval
        self._count = count
        self._duration = duration
        self._output = output
        self.interrupted = False
        """A signal, or a closed output, ended the run."""
        self.is_last = False
        """Whether this tick is the last one."""
        self._due = self._ends_at = math.inf

    def __enter__(self) -> "Clock":
        """Catch the signals that end a run."""
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # by the C handler, at once: one in Python waits for a poll(2) that a signal came too early to interrupt
        self._waked_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        before = {number: signal.getsignal(number) for number in _ENDING}
        self._before = {number: handler for number, handler in before.items() if not _is_nohup(number, handler)}
        for number in self._before:
            signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the signals."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._waked_before)
        os.close(self._wake)
        os.close(self._waker)

    def ticks(self) -> Iterator[None]:
        """Yield when an interval is over; the last one, cut short by the end of the run, too."""
        start = time.monotonic()
        self._ends_at = math.inf if self._duration is None else start + self._duration
        self._due = start
        done = 0
        while not self.is_last and done != self._count:
            done += 1
            # an interval that took too long to show is not made up for: the next one starts now
            self._due = max(self._due, time.monotonic() - self._interval) + self._interval
            self._sleep_until(min(self._due, self._ends_at))
            # asked before the look: a signal that comes in during it gets one more
            self.is_last = self.interrupted or done == self._count or self.is_over()
            yield

    @property
    def keeps_up(self) -> bool:
        """Whether what was done since the last tick took less than an interval so far."""
        return time.monotonic() <= self._due + self._interval

    def stop(self) -> None:
        """Make the next tick the last one, at once."""
        self._ends_at = -math.inf

    def is_over(self) -> bool:
        """Tell whether it is time to end: what takes long asks this, to leave the rest undone."""
        return self.interrupted or time.monotonic() >= self._ends_at

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(number, self._before[signal.Signals(number)])

    def _sleep_until(self, due: float) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._output, 0)  # POLLERR and POLLHUP always come: the reading end was closed
        while not self.interrupted and (left := due - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(1000 * min(left, _LONGEST_WAIT)):
                if descriptor == self._wake:
                    os.read(self._wake, 512)  # some signal: `_end` has run by the next turn if it was one to end by
                else:
                    self.interrupted = True


def _is_nohup(number: signal.Signals, handler: object) -> bool:
    return number is signal.SIGHUP and handler is signal.SIG_IGN
