# SPDX-License-Identifier: MIT
"""Judge one counter that moved by the events given to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Final, NamedTuple, Protocol

from pktdrop.ledger.entry import FOLDED, PEER, STAT_CLASS_LAYERS, Entry
from pktdrop.ledger.events import Drops, Events, Group, Packets
from pktdrop.ledger.lines import Line
from pktdrop.rules.identities import ANY_LAYER, Identities
from pktdrop.rules.layers import LAYERS

#: A counter that was only read at another moment than the events.
_APART: Final = "apart"
_NOT_TRACED: Final = "drops are not traced here: the counter stands alone"
_SUM_OVER_CPUS: Final = "sum over all CPUs: it is not known for which CPU the dropped packets were"
_DRIVER_TOO: Final = "the driver counts its own drops here too"
_FOLDED: Final = "what the interfaces below it count is counted here once more"


class Between(Protocol):
    """Events of two windows, one inside and one around the time between the readings of the counters."""

    @property
    def inner(self) -> Drops:
        """Return what surely happened between the readings."""

    @property
    def outer(self) -> Drops:
        """Return what may have happened between them."""


class Bracket(NamedTuple):
    """Both windows, worked out."""

    inner: Drops
    outer: Drops


class Windows:
    """What a counter can have been at the moments it was read; worked out when the first one is asked for."""

    def __init__(self, events: Events, bracket: Between | None) -> None:
        """Take the events, which learn the keys of the windows."""
        self._events = events
        self._bracket = bracket
        self._floating: dict[str, int] = {}

    @cached_property
    def _packets(self) -> tuple[Packets, Packets]:
        if self._bracket is None:
            return (), ()
        inner, outer = self._events.count(self._bracket.inner), self._events.count(self._bracket.outer)
        return inner + [0] * (len(outer) - len(inner)), outer  # both know all groups of the window, which is in outer

    def hold(self, line: Line, open_ended: bool) -> bool:
        """Tell whether a counter is between the events of the inner and those of the outer window."""
        if self._bracket is None:
            return False
        inner, outer = self._packets
        low = high = 0
        for claim in self._events.at.get(line.key, ()):
            high += outer[claim.group]
            if claim.row.relation in ("=", "<=") and len(claim.row.counters) == 1:
                low += inner[claim.group]
        high += line.earlier
        return low <= line.delta and (open_ended or line.delta <= high + self._elsewhere(line.fact.name))

    def inner(self, group: Group, packets: int) -> int:
        """Return how many of the packets of a group surely came between the readings of the counters."""
        return packets if self._bracket is None else self._packets[0][group.number]

    def may_come_later(self, group: Group) -> bool:
        """Tell whether the counters may have been read before any of these events."""
        return self._bracket is not None and not self._packets[0][group.number]

    def _elsewhere(self, counter: str) -> int:
        """Return the events of the outer window that may have moved a counter in any scope."""
        if counter not in self._floating:
            _, outer = self._packets
            self._floating[counter] = sum(outer[claim.group] for claim in self._events.floating.get(counter, ()))
        return self._floating[counter]


class Judge:
    """Says of each counter what its increments are."""

    def __init__(self, identities: Identities) -> None:
        """Take the rows of both tables."""
        self._has_events = cache(identities.has_events)
        self._may_exceed = cache(identities.may_exceed)
        self._slack = cache(identities.slack)

    def entry(self, line: Line, windows: Windows | None, summed: bool) -> Entry:
        """Return the entry of a counter. `windows` None: there are no events, as nothing is traced."""
        status, note = self._verdict(line, windows)
        is_open = status == _APART
        explained = min(line.delta, line.total)
        if summed:
            note = f"{_SUM_OVER_CPUS}; {note}" if note else _SUM_OVER_CPUS
        return Entry(
            layer=_layer(line, line.delta - explained),
            counter=line.fact.name,
            scope=line.scope,
            delta=line.delta,
            explained=explained,
            unexplained=line.delta - explained,
            status="bound" if is_open else status,
            by=_most_first(line.reasons),
            note=note,
            stat_class=line.stat_class,
            is_open=is_open,
            revealed=sum(line.revealed.values()) if line.revealing else 0,
        )

    def _verdict(self, line: Line, windows: Windows | None) -> tuple[str, str]:
        """Return status, or _APART, and note."""
        name, delta = line.fact.name, line.delta
        if windows is None:
            return "no-event", _NOT_TRACED
        if delta == line.equal == line.total:
            return "exact", ""
        slack = self._slack(name)
        if not self._has_events(name):
            return "no-event", slack
        open_ended = self._may_exceed(name)
        if line.sure <= delta and (delta <= line.total or open_ended):
            if not line.total and line.fact.loss in ("own", "no"):
                return "no-event", slack
            return "bound", line.note if delta <= line.total and line.note else slack
        if windows.hold(line, open_ended):
            return _APART, _read_apart(delta - line.total)
        if line.stat_class is not None and line.sure <= delta:
            return ("bound" if line.total else "no-event"), _FOLDED if line.stat_class == FOLDED else _DRIVER_TOO
        if line.total > delta:
            return "silent", f"{line.total - delta} more events than it counted"
        return "unexplained", slack


def _most_first(reasons: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    if len(reasons) == 1:
        return tuple(reasons.items())
    return tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _read_apart(difference: int) -> str:
    side = "more than the events" if difference > 0 else "less than the events"
    return f"{abs(difference)} {side}, as it was read at another moment"


def _layer(line: Line, rest: int) -> str:
    """Return the layer of a counter; if several layers count in it, the one that lost most of its packets."""
    if line.fact.layer != ANY_LAYER:
        return line.fact.layer
    if line.layers and max(line.layers.values()) >= rest:
        return max(line.layers, key=lambda layer: (line.layers[layer], -LAYERS.index(layer)))
    if line.stat_class is not None and line.stat_class != PEER:
        return STAT_CLASS_LAYERS.get(line.stat_class, "driver")
    if ".tx_" in line.fact.name:
        return "tx"
    return "stack" if line.stat_class is None else "driver"
