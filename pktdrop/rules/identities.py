# SPDX-License-Identifier: MIT
"""Which drop events and which counters are moved by the same packets.

Two data files: ``data/identities.tsv`` has the relations between events and counters, ``data/loss_counters.tsv`` says
of each counter what it belongs to, where the packet was lost, and whether events show it at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pktdrop.rules.layers import LAYERS
from pktdrop.rules.match import ANY, Event, Pattern, Patterns, is_nameless
from pktdrop.rules.tables import NOTHING, Cells, Table

#: = : the events are the increments of the counter. <= : they are at most these, some increments have no event.
#: >= : they are at least these, some events are not counted. ~ : both, neither bounds the other. other: some events are
#: counted, if need be at another interface or in another namespace than theirs. lost: as other; and of events that
#: layers.tsv calls no loss, those that are counted are losses all the same.
RELATIONS: Final = ("=", "<=", ">=", "~", "other", "lost")
#: By what an event is found to belong to a counter: the CPU whose backlog it was, the interface in its network
#: namespace, the network namespace, or nothing (the counter is the host's). A qdisc is compared by its interface, a
#: socket by its namespace: events know no more.
SCOPES: Final = ("cpu", "interface", "netns", "global", "qdisc", "socket")
#: shown: its packets have events. own: at least some are lost without any. either: its packets have events, and not
#: all are lost: where drops are not traced, it is not known which. no: what it counts is no lost packet, or no more
#: than another counter tells.
LOSSES: Final = ("shown", "own", "either", "no")
#: Counter of events that none counts, in identities.tsv.
NO_COUNTER: Final = "none"
#: In loss_counters.tsv: packets of several layers are counted there.
ANY_LAYER: Final = "*"
#: In loss_counters.tsv: the function that frees packets of TCP's input; kernels without reasons raise no event for it.
TCP_DROP: Final = "tcp_drop"
#: Longest note, in characters.
NOTE_WIDTH: Final = 100

_NO_EVENT: Final = "this kernel frees the input that TCP drops without an event"
_PROTOCOLS: Final = (ANY, "none", "IPv4", "IPv6")
_COUNTER: Final = re.compile(r"[a-z_]+\.\w+")


@dataclass(frozen=True)
class Identity:
    """One row of identities.tsv; ``line`` is its number there, counted from 1."""

    reason: str
    """Glob over "REASON" (core) or "subsystem/REASON"."""
    function: str
    """Glob over the function that freed the packet."""
    protocol: str
    """"*", or a name of a protocol."""
    counters: tuple[str, ...]
    """Counters of which one counts each event: the first that has room. Empty: no counter does."""
    relation: str
    note: str
    source: str
    line: int
    without: str = ""
    """A core reason: the row is only for kernels that lack this reason. Empty: for all."""


@dataclass(frozen=True)
class Counter:
    """One row of loss_counters.tsv; ``line`` is its number there, counted from 1."""

    name: str
    """"source.name"."""
    scope: str
    layer: str
    loss: str
    part_of: str | None
    """Counter that counts each of these packets, too; None: no counter does."""
    is_tcp_drop: bool
    """Whether the counter counts packets that tcp_drop() frees."""
    note: str
    source: str
    line: int

    @property
    def tells_loss(self) -> bool:
        """Tell whether all packets that the counter counts were lost, perhaps as another counter tells, too."""
        return self.loss in ("shown", "own")


def _note(cells: Cells) -> str:
    note = cells.short("note", NOTE_WIDTH)
    return "" if note == NOTHING else note


def _name(text: str, cells: Cells) -> str:
    if _COUNTER.fullmatch(text) is None:
        raise cells.wrong(f"counter {text!r} is not source.name")
    return text


def _identity(cells: Cells) -> Identity:
    reason, _, without = cells["reason"].partition(" without ")
    names = [] if cells["counter"] == NO_COUNTER else cells["counter"].split("|")
    return Identity(
        reason=reason,
        function=cells["function"],
        protocol=cells.one_of("protocol", _PROTOCOLS),
        counters=tuple(_name(name, cells) for name in names),
        relation=cells.one_of("relation", RELATIONS if names else (NOTHING,)),
        note=_note(cells),
        source=cells["source"],
        line=cells.line,
        without=without,
    )


def _counter(cells: Cells) -> Counter:
    part_of = cells.given("part_of")
    return Counter(
        name=_name(cells["counter"], cells),
        scope=cells.one_of("scope", SCOPES),
        layer=cells.one_of("layer", (ANY_LAYER, *LAYERS)),
        loss=cells.one_of("loss", LOSSES),
        part_of=None if part_of is None else _name(part_of, cells),
        is_tcp_drop=cells.one_of("freed_by", (NOTHING, TCP_DROP)) == TCP_DROP,
        note=_note(cells),
        source=cells["source"],
        line=cells.line,
    )


TABLE: Final = Table("identities.tsv", "reason function protocol counter relation note source", _identity)
COUNTERS: Final = Table("loss_counters.tsv", "counter scope layer loss part_of freed_by note source", _counter)


class Identities:
    """The rows, ready to be asked."""

    def __init__(
        self,
        identities: Iterable[Identity],
        counters: Iterable[Counter],
        tcp_input_has_events: bool = True,
        reasons: Collection[str] = (),
    ) -> None:
        """Take the rows, and what the kernel does: `reasons` are the core's that it has.

        Raises ValueError, naming the line, if rows do not fit together.
        """
        self.rows: Final = tuple(row for row in identities if not row.without or row.without not in reasons)
        named = _by_name(counters)
        without_events = {name for name, counter in named.items() if counter.is_tcp_drop and not tcp_input_has_events}
        named |= {name: _without_events(named[name]) for name in without_events}
        self.counters: Final[Mapping[str, Counter]] = MappingProxyType(named)
        for row in self.rows:
            unknown = [name for name in row.counters if name not in self.counters]
            if unknown:
                raise ValueError(f"line {row.line}: no row of loss_counters.tsv describes {unknown[0]}")
            if len({self.counters[name].scope for name in row.counters}) > 1:
                raise ValueError(f"line {row.line}: counters of one row must have the same scope")
        self._patterns = Patterns(Pattern.of(row, row.reason, row.function, row.protocol) for row in self.rows)
        open_ended = {name for row in self.rows if row.relation in ("<=", "~") for name in row.counters}
        bounded = {name for row in self.rows if row.relation in ("=", ">=") for name in row.counters}
        self._open = frozenset(open_ended | without_events | (self.counters.keys() - bounded))
        self._with_events = frozenset(name for row in self.rows for name in row.counters)

    @classmethod
    def load(cls, tcp_input_has_events: bool = True, reasons: Collection[str] = ()) -> Identities:
        """Read the tables that come with pktdrop, for a kernel that frees TCP's input with events or without.

        `reasons` are those of the core that the kernel has. Raises as Table.load() does.
        """
        return cls(TABLE.load(), COUNTERS.load(), tcp_input_has_events, reasons)

    def of(self, event: Event) -> tuple[Identity, ...]:
        """Return the rows that hold for an event, one for each counter: the first that matches.

        A row with no counter ends the search: what stands below it does not hold for its events. Where the call site
        has no name, rows of any function hold, but only explain.
        """
        found: list[Identity] = []
        taken: set[str] = set()
        nameless = is_nameless(event.function)
        for pattern in self._patterns.fitting(event.name, protocol=event.protocol):
            row = pattern.row
            if not taken.isdisjoint(row.counters):
                continue
            if not pattern.function(event.function):
                if not (nameless and row.counters):
                    continue
                row = replace(row, relation="other")
            if not row.counters:
                return tuple(found) or (row,)
            found.append(row)
            taken.update(row.counters)
        return tuple(found)

    def has_events(self, counter: str) -> bool:
        """Tell whether there are events that a counter counts."""
        return counter in self._with_events

    def may_exceed(self, counter: str) -> bool:
        """Tell whether a counter can rise by something that has no event."""
        fact = self.counters.get(counter)
        return counter in self._open or (fact is not None and fact.loss == "own")

    def slack(self, counter: str) -> str:
        """Say why a counter can rise without an event; empty if it cannot."""
        fact = self.counters.get(counter)
        if fact is not None and fact.note and fact.loss != "either":
            return fact.note
        notes = (row.note for row in self.rows if counter in row.counters and row.relation in ("<=", "~"))
        return next(notes, "")


def _by_name(counters: Iterable[Counter]) -> dict[str, Counter]:
    named: dict[str, Counter] = {}
    for counter in counters:
        if counter.name in named:
            raise ValueError(f"line {counter.line}: {counter.name} is described a second time")
        named[counter.name] = counter
    for counter in named.values():
        if counter.part_of is not None and counter.part_of not in named:
            raise ValueError(f"line {counter.line}: {counter.name} is part of {counter.part_of}, which has no row")
        if _contains_itself(counter, named):
            raise ValueError(f"line {counter.line}: {counter.name} is part of itself")
    return named


def _without_events(counter: Counter) -> Counter:
    loss = "own" if counter.loss == "shown" else counter.loss
    return replace(counter, loss=loss, note=counter.note or _NO_EVENT)


def _contains_itself(counter: Counter, named: Mapping[str, Counter]) -> bool:
    seen = {counter.name}
    above = counter.part_of
    while above is not None and above in named:
        if above in seen:
            return True
        seen.add(above)
        above = named[above].part_of
    return False
