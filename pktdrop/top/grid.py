# SPDX-License-Identifier: MIT
"""Rows of values under titles, sorted, searched and fitted to the width of a terminal. No I/O."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pktdrop.text.escaping import safe
from pktdrop.text.table import cut
from pktdrop.text.wording import number
from pktdrop.top.series import Series, sparkline

GAP: Final = 1
MOST_TREND: Final = 30


class Row(NamedTuple):
    """One row: its values, one for each column, and what tells it from others."""

    key: Hashable
    values: tuple[Any, ...]
    mark: str = " "
    """ "!" loses packets now, "*" is no loss, "?" is unexplained: the same that colour says."""
    words: str = ""
    """What a filter looks in, in lower case."""


@dataclass(frozen=True)
class Column:
    """How the values under a title are shown and sorted."""

    title: str
    show: Callable[[Any], str] = str
    """Writes a value."""
    right: bool = False
    """Numbers stand at the right, and are sorted from the highest to the lowest."""
    least: int | None = None
    """Characters that are enough where there is no room for all; None: it cannot be cut."""
    rank: int = 0
    """Columns with the highest rank are left out first where there is no room; those with 0 never."""
    keep_end: bool = False
    order: Callable[[Any], Any] | None = None
    """Gives what is compared in place of a value."""
    fit: Callable[[Any, int], str] | None = None
    """Writes a value in so many characters, in place of `show` and cutting."""
    most: int | None = None
    """Takes the room that is left, up to so many characters."""

    def text(self, value: Any, width: int) -> str:
        """Write a value in exactly `width` characters."""
        text = self.fit(value, width) if self.fit else cut(safe(self.show(value)), width, self.keep_end)
        return text.rjust(width) if self.right else text.ljust(width)

    def sorted_by(self, row: Row, position: int) -> tuple[bool, Any]:
        """Return what a row is compared by: what has no value comes last."""
        value = row.values[position]
        if value is None:
            return (not self.right, 0 if self.right else "")
        return (self.right, value if self.order is None else self.order(value))


@dataclass(frozen=True)
class Sort:
    """By which column, and whether against its usual direction."""

    title: str
    reverse: bool = False


def arrange(columns: Sequence[Column], rows: Sequence[Row], sort: Sort, search: str) -> list[Row]:
    """Return the rows that have all words of `search`, sorted; equal ones by what they are called."""
    wanted = search.lower().split()
    found = [row for row in rows if all(word in row.words for word in wanted)] if wanted else list(rows)
    position, column = next(
        ((position, column) for position, column in enumerate(columns) if column.title == sort.title), (0, columns[0])
    )
    found.sort(key=lambda row: row.words)
    found.sort(key=lambda row: column.sorted_by(row, position), reverse=column.right != sort.reverse)
    return found


def widths(columns: Sequence[Column], rows: Sequence[Row], room: int) -> list[int]:
    """Return the width of each column, 0 for one that is left out, so that all lines fit if they can."""
    natural = [
        len(column.title) + 1 if column.most else max(
            [len(column.title) + 1, *(len(safe(column.show(row.values[position]))) for row in rows)]
        )
        for position, column in enumerate(columns)
    ]  # fmt: skip
    least = [
        wide if column.least is None else min(wide, max(column.least, len(column.title) + 1))
        for column, wide in zip(columns, natural, strict=True)
    ]
    shown = _that_fit(columns, least, room)
    given = [wide if position in shown else 0 for position, wide in enumerate(natural)]
    excess = sum(given) + GAP * (len(shown) - 1) - room
    while excess > 0:
        spare, position = max((given[position] - least[position], -position) for position in shown)
        if spare <= 0:
            break
        given[-position] -= 1
        excess -= 1
    for position in shown:
        most = columns[position].most
        if most and excess < 0:
            more = min(most - given[position], -excess)
            given[position] += more
            excess += more
    return given


def _that_fit(columns: Sequence[Column], least: Sequence[int], room: int) -> list[int]:
    shown = list(range(len(columns)))
    while sum(least[position] for position in shown) + GAP * (len(shown) - 1) > room:
        position = max(shown, key=lambda position: columns[position].rank)
        if columns[position].rank == 0:
            break
        shown.remove(position)
    return shown


def numbers(title: str, rank: int = 0) -> Column:
    """Return a column of counts or rates; nothing is shown for none."""
    return Column(title, lambda value: number(value) if value else "-", right=True, rank=rank)


def names(title: str, least: int, rank: int = 0) -> Column:
    """Return a column with one or several names: all if there is room, else the first and how many more."""
    return Column(title, ",".join, least=least, rank=rank, fit=_some)


def _some(value: Sequence[str], width: int) -> str:
    whole = safe(",".join(value))
    if len(whole) <= width or len(value) < 2:
        return cut(whole, width)
    more = f" +{len(value) - 1}"
    return cut(safe(value[0]), max(1, width - len(more))) + more if width > len(more) + 1 else cut(whole, width)


def ranges(cpus: Sequence[int]) -> str:
    """Write numbers that follow each other as one: "0-3,7"."""
    parts: list[str] = []
    first = last = -2
    for cpu in sorted(cpus):
        if cpu == last + 1:
            last = cpu
            parts[-1] = f"{first}-{last}"
        else:
            first = last = cpu
            parts.append(str(cpu))
    return ",".join(parts)


def ago(seconds: float | None) -> str:
    """Write how long ago something was: "now", "5s", "3m", "2h"."""
    if seconds is None or seconds < 0:
        return "-"
    if seconds < 1:
        return "now"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def trend(now: float, marks: str) -> Column:
    """Return the column of sparklines up to a time, sorted by the highest rate in them."""

    def draw(series: Series, width: int) -> str:
        return sparkline(series.cells(now, width), marks).rjust(width)

    return Column(
        "trend", lambda _: "", right=True, least=6, rank=1, fit=draw, most=MOST_TREND,
        order=lambda series: max(series.cells(now, 1)),
    )  # fmt: skip
