# SPDX-License-Identifier: MIT
"""Tables of facts: tab-separated text with a header line, `#` comments, and a source in each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

DATA = Path(__file__).parent.parent / "data"
"""Where the tables that come with pktdrop are."""

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")


def rows(lines: Iterable[str], columns: Sequence[str], make: Callable[[list[str], int], Row]) -> tuple[Row, ...]:
    """Return what `make` makes of the cells and the line number (from 1) of each row.

    Raises ValueError that names the line at fault: another header, another number of cells, an empty cell.
    """
    header_seen = False
    made: list[Row] = []
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text.strip() or text.startswith("#"):
            continue
        cells = [cell.strip() for cell in text.split("\t")]
        if not header_seen:
            if cells != [*columns]:
                raise ValueError(f"line {number}: expected the header {' '.join(columns)}")
            header_seen = True
            continue
        if len(cells) != len(columns):
            raise ValueError(f"line {number}: {len(cells)} columns, expected {len(columns)} separated by tabs")
        if "" in cells:
            raise ValueError(f"line {number}: column {columns[cells.index('')]} is empty")
        made.append(make(cells, number))
    if not made:
        raise ValueError("no rows: the file is empty or has only a header")
    return tuple(made)


def one_of(what: str, value: str, known: Iterable[str], number: int) -> str:
    """Return a cell that must be one of the known words. Raises ValueError that names the line."""
    if value not in known:
        raise ValueError(f"line {number}: unknown {what} {value!r}")
    return value


def load(path: Path, parse: Callable[[Iterable[str]], Parsed]) -> Parsed:
    """Parse a file. Raises ValueError that names file and line; OSError where it cannot be read."""
    try:
        return parse(path.read_text("utf-8").splitlines())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
