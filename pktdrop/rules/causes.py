# SPDX-License-Identifier: MIT
"""Why packets are lost: the cause of each drop event, and of each counter that stands for packets without one.

The causes are data: ``data/loss_causes.tsv``. What to do about each is in ``data/remedies.tsv``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Final

from pktdrop.rules.layers import NATURES
from pktdrop.rules.match import ANY, Event, Pattern, Patterns
from pktdrop.rules.tables import Cells, Table

#: What a match can begin with.
MATCHES: Final = ("event", "nature", "counter", "driver")
#: What the words for where are made of (pktdrop.diagnosis.words).
WHERE_WORDS: Final = ("nic", "netns", "socket", "listener", "qdisc", "cpu", "queues", "sources")
#: Longest texts, in characters.
WHERE_WIDTH: Final = 60
WHY_WIDTH: Final = 120


@dataclass(frozen=True)
class Cause:
    """One row of loss_causes.tsv; ``line`` is its number there, counted from 1."""

    name: str
    nature: str | None
    """Nature of what only counters show, one of layers.NATURES; None: it has events only."""
    matches: tuple[tuple[str, str], ...]
    """Pairs of one of MATCHES and a pattern, with "@" and a pattern of the function behind it where events match."""
    where: str
    why: str
    source: str
    line: int

    @cached_property
    def words(self) -> frozenset[str]:
        """What the words for where name: losses that differ in one of these are different losses."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.where) if name)


def _cause(cells: Cells) -> Cause:
    nature = cells.given("nature")
    row = Cause(
        name=cells["cause"],
        nature=None if nature is None else cells.one_of("nature", NATURES),
        matches=tuple(_match(text, cells) for text in cells["match"].split(",")),
        where=cells.short("where", WHERE_WIDTH),
        why=cells.short("why", WHY_WIDTH),
        source=cells["source"],
        line=cells.line,
    )
    for word in row.words:
        cells.one_of("word", WHERE_WORDS, word)
    return row


def _match(text: str, cells: Cells) -> tuple[str, str]:
    what, colon, glob = text.partition(":")
    if not colon or not glob:
        raise cells.wrong(f"{text!r} is not what:glob")
    return cells.one_of("match", MATCHES, what), glob


TABLE: Final = Table("loss_causes.tsv", "cause nature match where why source", _cause)


class Causes:
    """The rows, ready to be asked."""

    def __init__(self, rows: Iterable[Cause]) -> None:
        """Take the rows; the first that matches decides. Raises ValueError if some loss has no cause."""
        self.rows: Final = tuple(rows)
        self._patterns = Patterns(_pattern(what, glob, row) for row in self.rows for what, glob in row.matches)
        for what, anything in (("nature", "layer/nature"), ("counter", "source.name")):
            if self._patterns.first(f"{what}:{anything}") is None:
                raise ValueError(f"no row matches every {what}")

    @classmethod
    def load(cls, path: Path | None = None) -> Causes:
        """Read a table, as Table.load() does."""
        return cls(TABLE.load(path))

    def of_event(self, layer: str, nature: str, event: Event) -> Cause:
        """Return the cause of a drop event, by its layer and nature as in layers.tsv."""
        found = self._patterns.first(f"event:{event.name}", f"nature:{layer}/{nature}", function=event.function)
        return found or self.rows[-1]

    def of_counter(self, counter: str) -> Cause:
        """Return the cause of what a counter ("mib.UdpNoPorts") counts."""
        return self._patterns.first(f"counter:{counter}") or self.rows[-1]

    def of_driver(self, stat_class: str) -> Cause | None:
        """Return the cause of what a driver counts in a stat_class of drivers.tsv; None for what is no loss."""
        return self._patterns.first(f"driver:{stat_class}")


def _pattern(what: str, glob: str, row: Cause) -> Pattern[Cause]:
    name, _, function = glob.partition("@")
    return Pattern.of(row, f"{what}:{name}", function or ANY)
