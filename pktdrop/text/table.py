# SPDX-License-Identifier: MIT
"""Tables for a terminal: safe, aligned, and as wide as there is room. All tables are laid out here."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pktdrop.text.escaping import safe

GAP = 2
CUT = ".."
MARK = "*"
"""Behind the name of a reason: its drops are noise."""
DOUBT = "?"
"""Behind the name of a reason: it is not known whether its drops are losses."""


@dataclass(frozen=True)
class Column:
    """How the values under a title are written. Where there is no room, those that may be cut are; numbers never."""

    title: str
    align: Literal["left", "right"] = "left"
    least: int | None = None
    """Characters that are enough where there is no room for all; None: values of this column cannot be cut."""
    keep_end: bool = False
    """Cut in the middle, so that the last characters stay (the offset of a call site)."""
    wrap: bool = False
    """Go on in the next line rather than cut."""
    show: Callable[[Any], str] = str
    """Writes a value as text."""
    fit: Callable[[Any, int], str] | None = None
    """Writes a value in so many characters, in place of `show` and cutting."""
    rank: int = 0
    """Columns with the highest rank are left out first where there is no room; those with 0 never."""
    most: int | None = None
    """Characters that the column may take of the room that is left, whatever its values need."""
    order: Callable[[Any], Any] | None = None
    """Gives what is compared in place of a value."""

    def whole(self, value: Any) -> str:
        """Write a value in full, however long it is."""
        return safe(self.show(value))

    def text(self, value: Any, width: int) -> str:
        """Write a value in exactly `width` characters."""
        return self.pad(self.cell(value, width), width)

    def cell(self, value: Any, width: int) -> str:
        """Write a value in at most `width` characters, or in lines of no more."""
        if self.wrap:
            return "\n".join(textwrap.wrap(self.whole(value), width, break_on_hyphens=False))
        return self.fit(value, width) if self.fit else cut(self.whole(value), width, self.keep_end)

    def pad(self, text: str, width: int) -> str:
        """Fill a text up to `width` characters."""
        return text.rjust(width) if self.align == "right" else text.ljust(width)


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


def table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], width: int) -> str:
    """Lay out rows under their titles in at most `width` columns, if the columns that may shrink allow it."""
    from tabulate import tabulate  # nothing that comes before the first table needs it

    given = widths(columns, rows, width)
    fitted = [
        [column.cell(value, wide) for column, value, wide in zip(columns, row, given, strict=True)] for row in rows
    ]
    text = tabulate(
        [[column.title for column in columns], *fitted],  # as headers, tabulate would widen them
        tablefmt="plain",
        disable_numparse=True,
        colalign=[column.align for column in columns],
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def widths(
    columns: Sequence[Column], rows: Sequence[Sequence[Any]], room: int, gap: int = GAP, beside: int = 0
) -> list[int]:
    """Return the width of each column, 0 for one that is left out, so that lines fit into the room if they can.

    Beside each title is room for so many characters. Columns with most to spare give way first, of equal ones the
    last.
    """
    titles = [len(column.title) + beside for column in columns]
    natural = [
        max([title, *(len(column.whole(row[position])) for row in rows)]) if column.most is None else title
        for position, (title, column) in enumerate(zip(titles, columns, strict=True))
    ]
    least = [
        wide if column.least is None else min(wide, max(column.least, title))
        for column, wide, title in zip(columns, natural, titles, strict=True)
    ]
    shown = _that_fit(columns, least, room, gap)
    given = [wide if position in shown else 0 for position, wide in enumerate(natural)]
    excess = sum(given) + gap * (len(shown) - 1) - room
    while excess > 0:
        spare, position = max((given[position] - least[position], position) for position in shown)
        if not spare:
            break
        given[position] -= 1
        excess -= 1
    for position in shown:
        more = max(0, min((columns[position].most or 0) - given[position], -excess))
        given[position] += more
        excess += more
    return given


def _that_fit(columns: Sequence[Column], least: Sequence[int], room: int, gap: int) -> list[int]:
    shown = list(range(len(columns)))
    while sum(least[position] for position in shown) + gap * (len(shown) - 1) > room:
        position = max(shown, key=lambda position: columns[position].rank)
        if columns[position].rank == 0:
            break
        shown.remove(position)
    return shown
