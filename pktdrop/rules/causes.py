# SPDX-License-Identifier: MIT
"""Why packets are lost: the cause of each drop event, and of each counter that stands for packets without one.

The causes are data: ``data/loss_causes.tsv``. What to do about each is in ``data/remedies.tsv``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Final

from pktdrop.model.drops import full_reason
from pktdrop.rules import tables
from pktdrop.rules.layers import NATURES, function_of

#: What a match can begin with.
MATCHES: Final = ("event", "nature", "counter", "driver")
#: Words that a place is made of (pktdrop.diagnosis.words).
PLACE_WORDS: Final = ("nic", "netns", "socket", "listener", "qdisc", "cpu", "queues", "sources")
#: Longest texts, in characters.
PLACE_WIDTH: Final = 60
WHY_WIDTH: Final = 120

_COLUMNS: Final = ("cause", "nature", "match", "place", "why", "source")
_Test = Callable[[str, str], bool]


@dataclass(frozen=True)
class Cause:
    """One row of loss_causes.tsv; ``line`` is its number there, counted from 1."""

    name: str
    nature: str | None
    """Nature of what only counters show, one of layers.NATURES; None: it has events only."""
    matches: tuple[tuple[str, str], ...]
    """Pairs of one of MATCHES and a glob."""
    place: str
    why: str
    source: str
    line: int

    @cached_property
    def words(self) -> frozenset[str]:
        """What its place is told by: losses that differ in it are different losses."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.place) if name)


#: What is said of events where nobody asks for their causes.
UNTOLD: Final = Cause("unknown", None, (), "in {netns}", "Nothing is said of the cause.", "-", 0)


def parse(lines: Iterable[str]) -> tuple[Cause, ...]:
    """Return the rows in the text of a loss_causes.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _cause)


def _cause(cells: list[str], number: int) -> Cause:
    name, nature, match, place, why, source = cells
    for text, width in ((place, PLACE_WIDTH), (why, WHY_WIDTH)):
        if len(text) > width:
            raise ValueError(f"line {number}: {text!r} is longer than {width} characters")
    row = Cause(
        name=name,
        nature=None if nature == "-" else tables.one_of("nature", nature, NATURES, number),
        matches=tuple(_match(text, number) for text in match.split(",")),
        place=place,
        why=why,
        source=source,
        line=number,
    )
    for word in row.words:
        tables.one_of("word", word, PLACE_WORDS, number)
    return row


def _match(text: str, number: int) -> tuple[str, str]:
    what, colon, glob = text.partition(":")
    if not colon or not glob:
        raise ValueError(f"line {number}: {text!r} is not what:glob")
    return tables.one_of("match", what, MATCHES, number), glob


class Causes:
    """The rows, ready to be asked."""

    def __init__(self, rows: Iterable[Cause]) -> None:
        """Take the rows; the first that matches decides. Raises ValueError if some loss has no cause."""
        self.rows: Final = tuple(rows)
        self._tests = tuple((what, _test(glob), row) for row in self.rows for what, glob in row.matches)
        for what, anything in (("nature", "layer/nature"), ("counter", "source.name")):
            if self._first(**{what: (anything, "")}) is None:
                raise ValueError(f"no row matches every {what}")

    @classmethod
    def load(cls, path: Path | None = None) -> Causes:
        """Read a table, by default the one that comes with pktdrop.

        Raises ValueError, naming file and line, if it is malformed; OSError if it cannot be read.
        """
        return cls(tables.load(path or tables.DATA / "loss_causes.tsv", parse))

    def of_event(self, layer: str, nature: str, subsystem: str, reason: str, call_site: str) -> Cause:
        """Return the cause of a drop event: layer and nature as in layers.tsv, the rest as for layers.Layers.rule()."""
        name = full_reason(subsystem, reason)
        return (
            self._first(event=(name, function_of(call_site)), **{"nature": (f"{layer}/{nature}", "")}) or self.rows[-1]
        )

    def of_counter(self, counter: str) -> Cause:
        """Return the cause of what a counter ("mib.UdpNoPorts") counts."""
        return self._first(counter=(counter, "")) or self.rows[-1]

    def of_driver(self, stat_class: str) -> Cause | None:
        """Return the cause of what a driver counts in a stat_class of drivers.tsv; None for what is no loss."""
        return self._first(driver=(stat_class, ""))

    def _first(self, **asked: tuple[str, str]) -> Cause | None:
        return next((row for what, test, row in self._tests if what in asked and test(*asked[what])), None)


def _test(glob: str) -> _Test:
    """Return a test of a name, and of a function where the glob has one behind an "@"."""
    name, at, function = glob.partition("@")
    names, functions = re.compile(translate(name)), re.compile(translate(function if at else "*"))
    return lambda text, call_site: names.match(text) is not None and functions.match(call_site) is not None
