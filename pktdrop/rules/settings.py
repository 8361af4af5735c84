# SPDX-License-Identifier: MIT
"""Settings of the kernel: where they are, in which network namespaces they can be set, what they are by default.

They are data: ``data/settings.tsv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pktdrop.rules.tables import Cells, Table

#: Every network namespace has its own, or only the kernel's first one can change it.
SET_IN: Final = ("netns", "first")


@dataclass(frozen=True)
class Setting:
    """One row of settings.tsv; ``line`` is its number there, counted from 1."""

    name: str
    file: str | None
    """File of the sysctl, below /proc/sys/net; None: the setting is no sysctl."""
    word: int
    set_in: str
    """In which network namespaces the setting can be set, one of SET_IN."""
    default: int | None
    """The lowest default of kernels; None: the default depends on the machine."""
    source: str
    line: int


def _setting(cells: Cells) -> Setting:
    return Setting(
        name=cells["setting"],
        file=cells.given("file"),
        word=cells.number("word") or 0,
        set_in=cells.one_of("set_in", SET_IN),
        default=cells.number("default"),
        source=cells["source"],
        line=cells.line,
    )


TABLE: Final = Table("settings.tsv", "setting file word set_in default source", _setting)


def load(path: Path | None = None) -> dict[str, Setting]:
    """Read a table by name, as Table.load() does."""
    return {row.name: row for row in TABLE.load(path)}
