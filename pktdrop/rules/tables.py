# SPDX-License-Identifier: MIT
"""Tables of facts: tab-separated text with a header line, `#` comments, and a source in each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

DATA = Path(__file__).parent.parent / "data"
"""Where the tables that come with pktdrop are."""
NOTHING: Final = "-"
"""Stands in a cell that says nothing."""

_Row = TypeVar("_Row")


class Cells:
    """The cells of one row by their columns. Whatever reads one raises ValueError, naming the line, if it is wrong."""

    def __init__(self, columns: Sequence[str], cells: Sequence[str], line: int) -> None:
        """Take as many cells as columns, and the number of the line, from 1."""
        self.line: Final = line
        self._cells = dict(zip(columns, cells, strict=True))

    def __getitem__(self, column: str) -> str:
        """Return a cell as it is."""
        return self._cells[column]

    def given(self, column: str) -> str | None:
        """Return a cell; None if the cell says nothing."""
        return None if self[column] == NOTHING else self[column]

    def number(self, column: str) -> int | None:
        """Return a number; None if the cell says nothing."""
        text = self.given(column)
        if text is not None and not text.isdecimal():
            raise self.wrong(f"{column} {text!r} is no number")
        return None if text is None else int(text)

    def short(self, column: str, width: int) -> str:
        """Return a text of so many characters at the most."""
        if len(self[column]) > width:
            raise self.wrong(f"{column} is longer than {width} characters")
        return self[column]

    def one_of(self, what: str, known: Iterable[str], value: str | None = None) -> str:
        """Return a word that must be known: a cell, or a value that is a part of one."""
        word = self[what] if value is None else value
        if word not in known:
            raise self.wrong(f"unknown {what} {word!r}")
        return word

    def wrong(self, why: str) -> ValueError:
        """Return what to raise."""
        return ValueError(f"line {self.line}: {why}")


@dataclass(frozen=True)
class Table(Generic[_Row]):
    """A file in DATA: its name, its columns, and what makes a row of cells."""

    file: str
    """Name of the file in DATA."""
    columns: str
    """Titles of the columns, with blanks between them."""
    row: Callable[[Cells], _Row]
    """Makes a row; raises ValueError, naming the line, if a cell is wrong."""

    def parse(self, lines: Iterable[str]) -> tuple[_Row, ...]:
        """Return the rows in a text. Raises ValueError that names the line at fault, also for an empty cell."""
        columns = self.columns.split()
        header_seen = False
        made: list[_Row] = []
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if not text.strip() or text.startswith("#"):
                continue
            cells = [cell.strip() for cell in text.split("\t")]
            if not header_seen:
                if cells != columns:
                    raise ValueError(f"line {number}: expected the header {self.columns}")
                header_seen = True
                continue
            if len(cells) != len(columns):
                raise ValueError(f"line {number}: {len(cells)} columns, expected {len(columns)} separated by tabs")
            if "" in cells:
                raise ValueError(f"line {number}: column {columns[cells.index('')]} is empty")
            made.append(self.row(Cells(columns, cells, number)))
        if not made:
            raise ValueError("no rows: the file is empty or has only a header")
        return tuple(made)

    def load(self, path: Path | None = None) -> tuple[_Row, ...]:
        """Read a file with these columns, by default the one that comes with pktdrop.

        Raises ValueError, naming file and line, if it is malformed; OSError if it cannot be read.
        """
        path = path or DATA / self.file
        try:
            return self.parse(path.read_text("utf-8").splitlines())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
