# SPDX-License-Identifier: MIT
"""The rates of the last minutes, and how they look in a row of characters."""

from array import array
from collections.abc import Sequence
from typing import Final

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
PLAIN: Final = " .:-=+*#@"
"""For terminals that show only ASCII."""
ARROWS: Final = ("↓↑", "><")
"""From the highest to the lowest, and the other way round; the same for those terminals."""


class Series:
    """The highest rate in each of the last BINS stretches of time. Takes the same memory whatever happens."""

    BINS: Final = 60

    def __init__(self, seconds: float) -> None:
        """Take the length of a stretch."""
        self._seconds = seconds
        self._rates = array("d", bytes(8 * self.BINS))
        self._newest = 0
        """Number of the last stretch that has a rate; stretch 0 begins at time 0."""

    def add(self, start: float, end: float, rate: float) -> None:
        """Take the rate between two times, in seconds; never before what was added last."""
        first, last = int(start // self._seconds), int(end // self._seconds)
        if end - start <= self._seconds:  # it belongs where most of it lies
            first = last = int((start + end) / 2 // self._seconds)
        for stretch in range(max(first, last - self.BINS + 1), last + 1):
            self._forget(stretch)
            position = stretch % self.BINS
            self._rates[position] = max(self._rates[position], rate)

    def _forget(self, stretch: int) -> None:
        """Make room up to a stretch."""
        for passed in range(max(self._newest, stretch - self.BINS) + 1, stretch + 1):
            self._rates[passed % self.BINS] = 0.0
        self._newest = max(self._newest, stretch)

    def cells(self, now: float, width: int, since: float | None = None) -> list[float]:
        """Return the highest rates in `width` equal parts of the time up to `now`, the last one not yet over.

        They are as short as they can be if all of the time `since` is to be seen; without it, all that is kept. Parts
        begin at fixed times, so that the picture moves by whole cells.
        """
        width = min(width, self.BINS)
        newest = int(max(0.0, now / self._seconds - 0.5))  # of one that has just begun there is nothing yet
        first = newest - self.BINS + 1 if since is None else int(since // self._seconds)
        each = -(-min(self.BINS, newest - first + 1) // width)
        return [
            max(self._rate(part * each + step, newest) for step in range(each))
            for part in range(newest // each - width + 1, newest // each + 1)
        ]

    def _rate(self, stretch: int, newest: int) -> float:
        is_kept = max(0, newest - self.BINS + 1, self._newest - self.BINS + 1) <= stretch <= self._newest
        return self._rates[stretch % self.BINS] if is_kept else 0.0

    def copy(self) -> "Series":
        """Return a series that does not change with this one."""
        other = Series(self._seconds)
        other._rates, other._newest = self._rates[:], self._newest
        return other


def sparkline(rates: Sequence[float], marks: str = BLOCKS) -> str:
    """Draw rates, the highest one full; whatever is above 0 shows."""
    most = max(rates, default=0.0)
    if not most:
        return " " * len(rates)
    steps = len(marks) - 1
    return "".join(marks[max(1, round(rate / most * steps)) if rate else 0] for rate in rates)
