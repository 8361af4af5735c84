# SPDX-License-Identifier: MIT
"""By how much counters rose from one reading to the next, where a reading may leave namespaces out."""

from collections.abc import Collection, Mapping
from functools import partial

from pktdrop.counters.collect import NOTHING, Counters, Width, difference
from pktdrop.counters.model import Row, Scope
from pktdrop.model import Netns

Moved = Mapping[str, Mapping[Scope, Mapping[str, int]]]
"""Counters that rose, by source, scope and name."""


class Increments:
    """Remembers each counter as it was last read, and adds up what they rose by."""

    def __init__(self, first: Counters, unread: Collection[Netns] = ()) -> None:
        """Take the first reading, and the namespaces that were there but not in it."""
        self.unread = frozenset(unread)
        """Namespaces that were there at the first reading, and in none so far."""
        self._last: dict[str, dict[Scope, Row]] = {source: dict(rows) for source, rows in first.rows.items()}
        self._read_at = dict(first.read_at)
        self.seconds: Mapping[Netns | None, float] = {}
        """In how many seconds the counters of each namespace rose by what add() last returned; None: of the host."""
        self.total: dict[str, dict[Scope, dict[str, int]]] = {}
        """By how much counters rose since the first reading."""

    def add(self, now: Counters, width: Width) -> Moved:
        """Take the next reading; return by how much counters rose since each was last read.

        What was not there before counts from zero: an interface, a socket or a namespace that was made meanwhile. CPUs
        that come back have kept their counters, and namespaces that were never read have a past: these count from now.
        """
        self.seconds = {
            netns: moment - self._read_at[netns] for netns, moment in now.read_at.items() if netns in self._read_at
        }
        self._read_at.update(now.read_at)
        moved: dict[str, dict[Scope, dict[str, int]]] = {}
        for source, rows in now.rows.items():
            last = self._last.setdefault(source, {})
            for scope, row in rows.items():
                before = last.get(scope)
                if before is None:
                    before = row if source == "softnet" or scope.netns in self.unread else NOTHING
                if before != row:
                    rise = difference(before, row, partial(width, source, scope))
                    risen = {name: by for name, by in zip(rise.names, rise.values, strict=True) if by}
                    if risen:
                        moved.setdefault(source, {})[scope] = risen
                last[scope] = row
            if source != "softnet" and source not in now.failed:
                for scope in [one for one in last if one.netns in now.netns and one not in rows]:
                    del last[scope]
        self.unread -= now.netns
        self._add_up(moved)
        return moved

    def _add_up(self, moved: Moved) -> None:
        for source, rows in moved.items():
            for scope, risen in rows.items():
                total = self.total.setdefault(source, {}).setdefault(scope, {})
                for name, increment in risen.items():
                    total[name] = total.get(name, 0) + increment
