# SPDX-License-Identifier: MIT
"""Judge one counter that rose by the events given to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Final, Protocol

from pktdrop.ledger.entry import FOLDED, PEER, STAT_CLASS_LAYERS, Entry
from pktdrop.ledger.events import DropCounts, EventGroup, Events, GroupPackets
from pktdrop.ledger.matches import Match
from pktdrop.rules.identities import ANY_LAYER, Identities
from pktdrop.rules.layers import LAYERS

#: A counter that was only read at another moment than the events.
_APART: Final = "apart"
_NOT_TRACED: Final = "drops are not traced here: the counter stands alone"
_SUM_OVER_CPUS: Final = "sum over all CPUs: it is not known for which CPU the dropped packets were"
_DRIVER_TOO: Final = "the driver counts its own drops here too"
_FOLDED: Final = "what the interfaces below it count is counted here once more"


class Windows(Protocol):
    """Events of two windows, one inside and one around the time between the readings of the counters."""

    @property
    def inner(self) -> DropCounts:
        """Return the events that surely happened between the readings."""

    @property
    def outer(self) -> DropCounts:
        """Return the events that may have happened between the readings."""


class WindowBounds:
    """What a counter can have been at the moments it was read; worked out when the first one is asked for."""

    def __init__(self, events: Events, windows: Windows | None) -> None:
        """Take the events, which learn the keys of the windows."""
        self._events = events
        self._windows = windows
        self._floating: dict[str, int] = {}

    @cached_property
    def _packets(self) -> tuple[GroupPackets, GroupPackets]:
        if self._windows is None:
            return (), ()
        inner, outer = self._events.count(self._windows.inner), self._events.count(self._windows.outer)
        return inner + [0] * (len(outer) - len(inner)), outer  # both know all groups of the window, which is in outer

    def hold(self, match: Match, open_ended: bool) -> bool:
        """Tell whether a counter is between the events of the inner and those of the outer window."""
        if self._windows is None:
            return False
        inner, outer = self._packets
        low = high = 0
        for candidate in self._events.at.get(match.key, ()):
            high += outer[candidate.group]
            if candidate.row.relation in ("=", "<=") and len(candidate.row.counters) == 1:
                low += inner[candidate.group]
        high += match.earlier
        return low <= match.delta and (open_ended or match.delta <= high + self._elsewhere(match.fact.name))

    def inner(self, group: EventGroup, packets: int) -> int:
        """Return how many of the packets of a group surely came between the readings of the counters."""
        return packets if self._windows is None else self._packets[0][group.number]

    def may_come_later(self, group: EventGroup) -> bool:
        """Tell whether the counters may have been read before any events of this group."""
        return self._windows is not None and not self._packets[0][group.number]

    def _elsewhere(self, counter: str) -> int:
        """Return the events of the outer window that may have moved a counter in any scope."""
        if counter not in self._floating:
            _, outer = self._packets
            self._floating[counter] = sum(
                outer[candidate.group] for candidate in self._events.floating.get(counter, ())
            )
        return self._floating[counter]


class CounterJudge:
    """Says of each counter that rose how well events explain it."""

    def __init__(self, identities: Identities) -> None:
        """Take the rows of both tables."""
        self._has_events = cache(identities.has_events)
        self._may_exceed = cache(identities.may_exceed)
        self._slack = cache(identities.slack)

    def entry(self, match: Match, bounds: WindowBounds | None, summed: bool) -> Entry:
        """Return the entry of a counter. `bounds` None: nothing is traced, so there are no events."""
        status, note = self._verdict(match, bounds)
        is_open = status == _APART
        explained = min(match.delta, match.total)
        if summed:
            note = f"{_SUM_OVER_CPUS}; {note}" if note else _SUM_OVER_CPUS
        return Entry(
            layer=_layer(match, match.delta - explained),
            counter=match.fact.name,
            scope=match.scope,
            delta=match.delta,
            explained=explained,
            unexplained=match.delta - explained,
            status="bound" if is_open else status,
            by=_most_first(match.reasons),
            note=note,
            stat_class=match.stat_class,
            is_open=is_open,
            revealed=sum(match.revealed.values()) if match.revealing else 0,
        )

    def _verdict(self, match: Match, bounds: WindowBounds | None) -> tuple[str, str]:
        """Return status, or _APART, and note."""
        name, delta = match.fact.name, match.delta
        if bounds is None:
            return "no-event", _NOT_TRACED
        if delta == match.equal == match.total:
            return "exact", ""
        slack = self._slack(name)
        if not self._has_events(name):
            return "no-event", slack
        open_ended = self._may_exceed(name)
        if match.sure <= delta and (delta <= match.total or open_ended):
            if not match.total and match.fact.loss in ("own", "no"):
                return "no-event", slack
            return "bound", match.note if delta <= match.total and match.note else slack
        if bounds.hold(match, open_ended):
            return _APART, _read_apart(delta - match.total)
        if match.stat_class is not None and match.sure <= delta:
            return ("bound" if match.total else "no-event"), _FOLDED if match.stat_class == FOLDED else _DRIVER_TOO
        if match.total > delta:
            return "silent", f"{match.total - delta} more events than it counted"
        return "unexplained", slack


def _most_first(reasons: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    if len(reasons) == 1:
        return tuple(reasons.items())
    return tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _read_apart(difference: int) -> str:
    side = "more than the events" if difference > 0 else "less than the events"
    return f"{abs(difference)} {side}, as it was read at another moment"


def _layer(match: Match, rest: int) -> str:
    """Return the layer of a counter; if several layers count in it, the one that lost most of its packets."""
    if match.fact.layer != ANY_LAYER:
        return match.fact.layer
    if match.layers and max(match.layers.values()) >= rest:
        return max(match.layers, key=lambda layer: (match.layers[layer], -LAYERS.index(layer)))
    if match.stat_class is not None and match.stat_class != PEER:
        return STAT_CLASS_LAYERS.get(match.stat_class, "driver")
    if ".tx_" in match.fact.name:
        return "tx"
    return "stack" if match.stat_class is None else "driver"
