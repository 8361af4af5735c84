# SPDX-License-Identifier: MIT
"""By how much counters rose from one reading to the next, where a reading may leave namespaces out."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from pktdrop.counters.collect import NOTHING, Counters, Width, difference
from pktdrop.counters.model import Row, Scope
from pktdrop.counters.moves import At, moves, rename
from pktdrop.model import Netns

Moved = Mapping[str, Mapping[Scope, Mapping[str, int]]]
"""Counters that rose, by source, scope and name."""


_LEFT = 256
"""Interfaces that are remembered after they left."""


class Increments:
    """Remembers each counter as it was last read, and adds up what they rose by."""

    def __init__(self, first: Counters, unread: Collection[Netns] = ()) -> None:
        """Take the first reading, and the namespaces that were there but not in it."""
        self.unread = frozenset(unread)
        """Namespaces that were there at the first reading, and in none so far."""
        self._last: dict[str, dict[Scope, Row]] = {source: dict(rows) for source, rows in first.rows.items()}
        self._interfaces = dict(first.interfaces)
        self._left: dict[At, dict[str, dict[Scope, Row]]] = {}
        """What was last read of interfaces that left, the last ones: they may be in a namespace that was not read."""
        self._read_at = dict(first.read_at)
        self.seconds: Mapping[Netns | None, float] = {}
        """In how many seconds the counters of each namespace rose by what add() last returned; None: of the host."""
        self.total: dict[str, dict[Scope, dict[str, int]]] = {}
        """By how much counters rose since the first reading."""

    def add(self, now: Counters, width: Width) -> Moved:
        """Take the next reading; return by how much counters rose since each was last read.

        What was not there before counts from zero: an interface, a socket or a namespace that was made meanwhile. CPUs
        that come back have kept their counters, and namespaces that were never read have a past: these count from now.
        An interface that is renamed is the same one; one that moves to another namespace goes on counting there.
        """
        self._follow(now)
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

    def keep(self, is_present: Callable[[Netns], bool]) -> None:
        """Drop what was last read of namespaces that are gone; what their counters rose by stays in `total`."""
        for rows in self._last.values():
            for scope in [one for one in rows if one.netns is not None and not is_present(one.netns)]:
                del rows[scope]
        for netns in [one for one in self._read_at if one is not None and not is_present(one)]:
            del self._read_at[netns]
        self._interfaces = {netns: known for netns, known in self._interfaces.items() if is_present(netns)}
        self.unread = frozenset(netns for netns in self.unread if is_present(netns))

    def _follow(self, now: Counters) -> None:
        """Let what is remembered of interfaces follow them."""
        rows_left = {one: rows.get("links", {}).get(_scope(one)) for one, rows in self._left.items()}
        rows = self._last.get("links", {}), now.rows.get("links", {})
        found = moves(self._interfaces, now.interfaces, *rows, rows_left)
        places = found.places
        if "links" in now.failed:  # one may be missing, so none is gone but those that were seen elsewhere
            places = {old: new for old, new in places.items() if new is not None}
            for netns, here in now.interfaces.items():
                self._interfaces[netns] = {**self._interfaces.get(netns, {}), **here}
        else:
            self._interfaces.update(now.interfaces)
            for one in found.left:
                self._left[one] = {source: _at(rows, one) for source, rows in self._last.items()}
        for rows_of in self._last.values() if places else ():
            rename(rows_of, places)
        for one, place in found.back.items():
            for source, kept in self._left.pop(one).items():
                rename(kept, {one.place: place})
                self._last.setdefault(source, {}).update(kept)
        while len(self._left) > _LEFT:
            del self._left[next(iter(self._left))]

    def _add_up(self, moved: Moved) -> None:
        for source, rows in moved.items():
            for scope, risen in rows.items():
                total = self.total.setdefault(source, {}).setdefault(scope, {})
                for name, increment in risen.items():
                    total[name] = total.get(name, 0) + increment


def _at(rows: Mapping[Scope, Row], one: At) -> dict[Scope, Row]:
    return {scope: row for scope, row in rows.items() if (scope.netns, scope.interface) == one.place}


def _scope(one: At) -> Scope:
    return Scope(netns=one.netns, interface=one.interface.name)
