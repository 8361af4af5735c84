# SPDX-License-Identifier: MIT
"""What all tables of the live view have in common."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pktdrop.rules.protocols import Protocols
from pktdrop.text.table import Column
from pktdrop.top.grid import GridRow, ago
from pktdrop.top.history import History
from pktdrop.views.scope import Name


@dataclass(frozen=True)
class Context:
    """What views need besides the history."""

    netns_name: Name
    marks: str
    """Characters of a sparkline."""
    protocols: Protocols
    noise: bool = True
    """Whether drops that are no loss are shown."""


@dataclass(frozen=True)
class View:
    """One of the tables of the live view."""

    name: str
    sort: str
    """Title of the column that rows are sorted by at first."""
    columns: Callable[[History, Context], tuple[Column, ...]]
    rows: Callable[[History, Context], Iterator[GridRow]]
    empty: str = "nothing lost so far"
    """Line that is shown where there are no rows."""


def seen(history: History) -> Column:
    """Return the column that tells when packets of a row were counted last."""
    return Column("seen", "right", show=lambda seen: ago(history.elapsed - seen if seen >= 0 else None), rank=2)


def listed(names: Iterable[str]) -> list[str]:
    """Sort names; bare numbers, which say least, come last."""
    return sorted(names, key=lambda name: (name[:1].isdigit(), name)) or ["-"]
