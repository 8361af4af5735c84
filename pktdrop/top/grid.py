# SPDX-License-Identifier: MIT
"""Rows of values under titles, sorted, searched and fitted to the width of a terminal. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pktdrop.text.escaping import safe
from pktdrop.text.table import MARK, Column, cut
from pktdrop.text.wording import number
from pktdrop.top.series import Series, sparkline
from pktdrop.top.subjects import Subject

GAP: Final = 1
MOST_TREND: Final = 30


class GridRow(NamedTuple):
    """One row of a table of top: its values, one for each column, and its subject."""

    subject: Subject
    values: tuple[Any, ...]
    mark: str = " "
    """ "!" loses packets now, "*" is no loss, "?" is unexplained: the same that colour says."""
    words: str = ""
    """What a filter looks in, in lower case."""


@dataclass(frozen=True)
class Sort:
    """By which column, and whether against its usual direction."""

    title: str
    reverse: bool = False


def arrange(columns: Sequence[Column], rows: Sequence[GridRow], sort: Sort, search: str) -> list[GridRow]:
    """Return the rows that have all words of `search`, sorted; equal ones by what they are called; noise comes last."""
    wanted = search.lower().split()
    found = [row for row in rows if all(word in row.words for word in wanted)] if wanted else list(rows)
    titles = [column.title for column in columns]
    position = titles.index(sort.title) if sort.title in titles else 0
    is_right, order = is_number(columns[position]), columns[position].order

    def turn(row: GridRow) -> tuple[bool, Any]:
        value = row.values[position]
        if value is None:  # comes last
            return (not is_right, 0 if is_right else "")
        return (is_right, value if order is None else order(value))

    found.sort(key=lambda row: row.words)
    found.sort(key=turn, reverse=is_right != sort.reverse)
    found.sort(key=lambda row: row.mark == MARK)
    return found


def is_number(column: Column) -> bool:
    """Tell whether a column is sorted from the highest to the lowest."""
    return column.align == "right"


def numbers(title: str, rank: int = 0) -> Column:
    """Return a column of counts or rates; nothing is shown for none."""
    return Column(title, show=lambda value: number(value) if value else "-", align="right", rank=rank)


def names(title: str, least: int, rank: int = 0) -> Column:
    """Return a column with one or several names: all if there is room, else the first and how many more."""
    return Column(title, show=",".join, least=least, rank=rank, fit=_some)


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


def trend(since: float, now: float, marks: str) -> Column:
    """Return the column of sparklines between two times, sorted by the highest rate in them."""

    def draw(series: Series, width: int) -> str:
        return sparkline(series.cells(now, width, since), marks).rjust(width)

    return Column(
        "trend", "right", least=6, rank=1, fit=draw, most=MOST_TREND,
        order=lambda series: max(series.cells(now, 1)),
    )  # fmt: skip
