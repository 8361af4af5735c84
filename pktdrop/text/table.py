# SPDX-License-Identifier: MIT
"""Text for a terminal: safe, aligned, and as wide as there is room."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pktdrop.text.escaping import safe

GAP = 2
CUT = ".."
MARK = "*"
"""Behind a name: it is noise."""
DOUBT = "?"
"""Behind a name: it is not known whether it is a loss."""


@dataclass(frozen=True)
class Column:
    """A column of a table. One that may shrink gives up width, down to `least`, where the table is too wide."""

    title: str
    align: Literal["left", "right"] = "left"
    least: int | None = None
    keep_end: bool = False
    """Cut in the middle, so that the last characters stay (the offset of a call site)."""
    wrap: bool = False
    """Go on in the next line rather than cut."""

    def fit(self, text: str, width: int) -> str:
        """Make a cell fit."""
        if self.wrap:
            return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))
        return cut(text, width, self.keep_end)


def cut(text: str, width: int, keep_end: bool = False) -> str:
    """Shorten a text to `width` characters, with ".." where something is missing.

    Numbers and addresses differ at their end, so that stays; so does a mark at the end. Where there is no room for a
    single character besides, nothing is left but dots.
    """
    if len(text) <= width:
        return text
    if width <= len(CUT):
        return CUT[:width]
    if text.isdigit() or (text.startswith("0x") and "+" not in text):
        return CUT + text[len(text) - (width - len(CUT)) :]
    if keep_end:
        return _cut_site(text, width)
    mark = text[-1] if text.endswith((MARK, DOUBT)) else ""
    return text[: width - len(CUT + mark)] + CUT + mark


def _cut_site(text: str, width: int) -> str:
    """Shorten "symbol+offset [module]": first by the module, then in the middle of the symbol."""
    symbol, plus, tail = text.partition("+")
    offset, _, module = tail.partition(" [")
    if module:
        tail = offset + CUT + module.partition("]")[2]
        if len(symbol + plus + tail) <= width:
            return symbol + plus + tail
    room = width - len(plus + tail + CUT)
    return text[: width - len(CUT)] + CUT if room < 4 else symbol[:room] + CUT + plus + tail


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> str:
    """Lay out rows under their titles in at most `width` columns, if the columns that may shrink allow it."""
    from tabulate import tabulate  # nothing that comes before the first table needs it

    cells = [[safe(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, width)
    fitted = [
        [column.fit(cell, room) for cell, room, column in zip(row, widths, columns, strict=True)] for row in cells
    ]
    text = tabulate(
        [[column.title for column in columns], *fitted],  # as headers, tabulate would widen them
        tablefmt="plain",
        disable_numparse=True,
        colalign=[column.align for column in columns],
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = [max([len(column.title), *(len(row[index]) for row in rows)]) for index, column in enumerate(columns)]
    floors = [
        room if column.least is None else min(room, max(column.least, len(column.title)))
        for column, room in zip(columns, widths, strict=True)
    ]
    excess = sum(widths) + GAP * (len(columns) - 1) - width
    while excess > 0:
        spare, index = max((widths[index] - floors[index], index) for index in range(len(widths)))
        if spare == 0:
            break
        widths[index] -= 1
        excess -= 1
    return widths
