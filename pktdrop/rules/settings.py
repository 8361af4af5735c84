# SPDX-License-Identifier: MIT
"""Settings of the kernel: where they are, in which network namespaces they can be set, what they are by default.

They are data: ``data/settings.tsv``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pktdrop.rules import tables

#: Every network namespace has its own, or only the kernel's first one can change it.
SET_IN: Final = ("netns", "first")

_COLUMNS: Final = ("setting", "file", "word", "set_in", "default", "source")


@dataclass(frozen=True)
class Setting:
    """One row of settings.tsv; ``line`` is its number there, counted from 1."""

    name: str
    file: str | None
    """Below /proc/sys/net; None: it is no sysctl."""
    word: int
    set_in: str
    """One of SET_IN."""
    default: int | None
    """The least that kernels have; None: it depends on the machine."""
    source: str
    line: int


def parse(lines: Iterable[str]) -> tuple[Setting, ...]:
    """Return the rows in the text of a settings.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _setting)


def load(path: Path | None = None) -> dict[str, Setting]:
    """Read a table by name, by default the one that comes with pktdrop.

    Raises ValueError, naming file and line, if it is malformed; OSError if it cannot be read.
    """
    return {row.name: row for row in tables.load(path or tables.DATA / "settings.tsv", parse)}


def _setting(cells: list[str], number: int) -> Setting:
    name, file, word, set_in, default, source = cells
    for cell in (word, default):
        if not cell.isdecimal() and cell != "-":
            raise ValueError(f"line {number}: {cell!r} is no number")
    return Setting(
        name=name,
        file=None if file == "-" else file,
        word=int(word),
        set_in=tables.one_of("set_in", set_in, SET_IN, number),
        default=None if default == "-" else int(default),
        source=source,
        line=number,
    )
