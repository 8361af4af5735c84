# SPDX-License-Identifier: MIT
"""Where on the screen the table, the detail and the pages go."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from pktdrop.text.escaping import safe
from pktdrop.text.table import Column, widths
from pktdrop.top.grid import GAP, GridRow, Sort, is_number
from pktdrop.top.help import help_page
from pktdrop.top.lines import EMPTY, Piece, ScreenLine

_BEFORE = 3
"""Characters before the first column: the cursor, the mark, and a space."""


@dataclass(frozen=True)
class Spots:
    """What is where, for the mouse: lines and columns count from 0."""

    titles: int = -1
    """The line with the titles of the table; its rows follow."""
    rows: int = 0
    first: int = 0
    """Position of the first row shown."""
    columns: tuple[tuple[int, int, str], ...] = ()
    """First and last column of each title."""
    bar: tuple[tuple[int, int, str], ...] = ()
    """First and last column of each key in the last line, and what it does."""


@dataclass(frozen=True)
class Listed:
    """The columns and rows that a table shows, and its cursor."""

    columns: Sequence[Column]
    rows: Sequence[GridRow]
    sort: Sort
    cursor: int
    """Position of the row that is chosen."""
    first: int
    """Place of the row that was shown first; it is kept if the cursor is then on the screen."""
    empty: str
    """Line that is shown where there are no rows."""
    arrows: str
    """Beside the title of the column that is sorted by: from the highest to the lowest, and the other way round."""


def table(listed: Listed, above: int, width: int, room: int) -> tuple[list[ScreenLine], Spots]:
    """Return the titles, below so many lines, and as many rows as there is room for, the one with the cursor too."""
    height = max(0, room - 1)
    first = max(0, min(max(listed.first, listed.cursor - height + 1), listed.cursor, len(listed.rows) - 1))
    shown = listed.rows[first : first + height]
    given = widths(listed.columns, [row.values for row in shown], width - _BEFORE, GAP, beside=1)
    titles, columns = _titles(listed, given)
    body = [_line(listed.columns, row, given, first + index == listed.cursor) for index, row in enumerate(shown)]
    if not listed.rows:
        body = [((f"  {listed.empty}", "quiet"),)]
    return [titles, *body][:room], Spots(above, len(shown), first, tuple(columns))


def _titles(listed: Listed, given: Sequence[int]) -> tuple[ScreenLine, list[tuple[int, int, str]]]:
    pieces: list[Piece] = [(" " * _BEFORE, "title")]
    spots: list[tuple[int, int, str]] = []
    at = _BEFORE
    for column, wide in zip(listed.columns, given, strict=True):
        if not wide:
            continue
        is_sorted = column.title == listed.sort.title
        down = is_number(column) != listed.sort.reverse
        text = column.title + ((listed.arrows[0] if down else listed.arrows[1]) if is_sorted else "")
        pieces.append((column.pad(text, wide)[:wide], "strong" if is_sorted else "title"))
        pieces.append((" " * GAP, "title"))
        spots.append((at, at + wide - 1, column.title))
        at += wide + GAP
    return tuple(pieces), spots


def _line(columns: Sequence[Column], row: GridRow, given: Sequence[int], is_chosen: bool) -> ScreenLine:
    style = {"!": "loss", "*": "quiet", "?": "odd"}.get(row.mark, "")
    cells = [column.text(value, wide) for column, value, wide in zip(columns, row.values, given, strict=True) if wide]
    text = (" " * GAP).join(cells)
    if is_chosen:
        return ((f">{row.mark} ", "cursor"), (text, "cursor"))
    return ((" ", ""), (f"{row.mark} ", style), (text, "" if style == "loss" else style))


def page(name: str, limits: Sequence[str], width: int) -> list[ScreenLine]:
    """Return what is shown in place of the table: "limits", or the help."""
    if name != "limits":
        return help_page(width)
    title = "What this run cannot know" if limits else "There is nothing that this run cannot know."
    text = [part for limit in limits for part in textwrap.wrap(safe(limit), width - 4, subsequent_indent="  ")]
    return [((title, "strong"),), EMPTY, *((("  " + part, ""),) for part in text)]


def from_line(lines: Sequence[ScreenLine], start: int, height: int) -> list[ScreenLine]:
    """Return `height` lines from one on, or the last ones."""
    start = max(0, min(start, len(lines) - height))
    return list(lines[start : start + height])
