# SPDX-License-Identifier: MIT
"""By how much counters rose from one reading to the next, where a reading may leave namespaces out."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

from pktdrop.counters import gone
from pktdrop.counters.collect import Width, difference
from pktdrop.counters.moves import InterfaceAt, moves, rename
from pktdrop.model.counters import NOTHING, Counters, Row, Scope
from pktdrop.model.drops import THE_GONE, Netns

Increments = Mapping[str, Mapping[Scope, Mapping[str, int]]]
"""By how much counters rose: by source, scope and name of the counter."""


_LEFT = 256
"""Interfaces whose last counters are remembered after they left."""
_GONE = 256
"""Interfaces and sockets of namespaces that are there whose sums are told apart after they are gone: the last ones."""
_MANY = 1024
"""Sums beyond twice those that fold() left: with so many more, fold() is worth its time."""
Gone = tuple[Netns, str | None, str | None]
"""An interface or socket that is gone: its namespace, its interface's name, its socket's name."""


class CounterKeeper:
    """Remembers each counter as it was last read, and adds up what they rose by."""

    def __init__(self, first: Counters) -> None:
        """Take the first reading."""
        self._last: dict[str, dict[Scope, Row]] = {source: dict(rows) for source, rows in first.rows.items()}
        self._interfaces = dict(first.interfaces)
        self._left: dict[InterfaceAt, dict[str, dict[Scope, Row]]] = {}
        """Last counters of interfaces that left, the last 256: each may turn up in a namespace that was not read."""
        self._read_at = dict(first.read_at)
        self.seconds: Mapping[Netns | None, float] = {}
        """In how many seconds the counters of each namespace rose by what add() last returned; None: of the host."""
        self.total: dict[str, dict[Scope, dict[str, int]]] = {}
        """By how much counters rose since the first reading."""
        self._gone: dict[Gone, None] = {}
        """Interfaces and sockets that are gone whose sums are still told apart; those that left last are last."""
        self._folded = 0
        """How many sums fold() left."""
        self.has_folded = False
        """Whether fold() ever put the sums of several interfaces, sockets or namespaces together."""

    def add(self, now: Counters, width: Width, unread: Collection[Netns] = ()) -> Increments:
        """Take the next reading; return by how much counters rose since each was last read.

        `unread` are the namespaces that were there at the first reading, and in none before this one.

        What was not there before counts from zero: an interface, a socket or a namespace that was made meanwhile. CPUs
        that come back have kept their counters, and namespaces that were never read have a past: these count from now.
        An interface that is renamed is the same one; one that moves to another namespace goes on counting there.
        """
        self._follow(now)
        self.seconds = {
            netns: moment - self._read_at[netns] for netns, moment in now.read_at.items() if netns in self._read_at
        }
        self._read_at.update(now.read_at)
        increments: dict[str, dict[Scope, dict[str, int]]] = {}
        for source, rows in now.rows.items():
            last = self._last.setdefault(source, {})
            for scope, row in rows.items():
                before = last.get(scope)
                if before is None:
                    before = row if source == "softnet" or scope.netns in unread else NOTHING
                if before != row:
                    rise = difference(before, row, partial(width, source, scope))
                    risen = {name: by for name, by in zip(rise.names, rise.values, strict=True) if by}
                    if risen:
                        increments.setdefault(source, {})[scope] = risen
                last[scope] = row
            if len(last) > len(rows) and source != "softnet" and source not in now.failed:
                for scope in [one for one in last if one.netns in now.netns and one not in rows]:
                    del last[scope]
        self._add_up(increments)
        return increments

    def keep(self, is_present: Callable[[Netns], bool]) -> None:
        """Drop what was last read of namespaces that are gone; what their counters rose by stays in `total`."""
        for rows in self._last.values():
            for scope in [one for one in rows if one.netns is not None and not is_present(one.netns)]:
                del rows[scope]
        for netns in [one for one in self._read_at if one is not None and not is_present(one)]:
            del self._read_at[netns]
        self._interfaces = {netns: known for netns, known in self._interfaces.items() if is_present(netns)}

    @property
    def is_crowded(self) -> bool:
        """Tell whether there are so many sums that fold() is worth its time."""
        return sum(map(len, self.total.values())) > 2 * self._folded + _MANY

    def fold(self, is_kept: Callable[[Netns], bool], driver: Callable[[Scope], str | None]) -> None:
        """Put sums of what is gone together, so that memory does not grow with what was.

        Those of namespaces that are not kept, and in the others of interfaces and sockets, but for the last ones.
        """
        found: dict[Gone, None] = {}
        for rows in self.total.values():
            found.update((key, None) for scope in rows if (key := self._key_if_gone(scope)) is not None)
        self._gone = {**{key: None for key in self._gone if key in found}, **found}
        old = set(list(self._gone)[:-_GONE])
        for rows in self.total.values():
            for scope in list(rows):
                netns = scope.netns
                if netns is None or netns == THE_GONE:
                    continue
                if not is_kept(netns):
                    netns = THE_GONE
                elif self._key_if_gone(scope) not in old:
                    continue
                _add(rows.setdefault(gone.together(scope, netns, driver(scope)), {}), rows.pop(scope))
                self.has_folded = True
        for key in old:
            del self._gone[key]
        self._folded = sum(map(len, self.total.values()))

    def _key_if_gone(self, scope: Scope) -> Gone | None:
        """Return an interface or a socket that is gone from a namespace that is there."""
        netns = scope.netns
        if netns is None or netns not in self._interfaces or gone.stands_for_gone(scope):
            return None
        if scope.interface is not None:
            is_there = Scope(netns=netns, interface=scope.interface) in self._last.get("links", ())
        else:
            is_there = scope.socket is None or scope in self._last.get("socket", ())
        return None if is_there else (netns, scope.interface, scope.socket)

    def interfaces(self) -> set[tuple[Netns | None, str]]:
        """Return the interfaces that are told apart: those that are there, and those that have sums of their own."""
        found: set[tuple[Netns | None, str]] = set()
        for netns, known in self._interfaces.items():
            found.update((netns, one.name) for one in known.values())
        for rows in self.total.values():
            found.update((scope.netns, scope.interface) for scope in rows if scope.interface is not None)
        return found

    def _follow(self, now: Counters) -> None:
        """Let remembered counters follow interfaces that got another name or went to another namespace."""
        rows_left = {one: rows.get("links", {}).get(_scope(one)) for one, rows in self._left.items()}
        rows = self._last.get("links", {}), now.rows.get("links", {})
        found = moves(self._interfaces, now.interfaces, *rows, rows_left)
        moved_to = found.moved_to
        if "links" in now.failed:  # one may be missing, so none is gone but those that were seen elsewhere
            moved_to = {old: new for old, new in moved_to.items() if new is not None}
            for netns, here in now.interfaces.items():
                self._interfaces[netns] = {**self._interfaces.get(netns, {}), **here}
        else:
            self._interfaces.update(now.interfaces)
            for one in found.left:
                self._left[one] = {source: _at(rows, one) for source, rows in self._last.items()}
        for rows_of in self._last.values() if moved_to else ():
            rename(rows_of, moved_to)
        for one, key in found.back.items():
            for source, kept in self._left.pop(one).items():
                rename(kept, {one.key: key})
                self._last.setdefault(source, {}).update(kept)
        while len(self._left) > _LEFT:
            del self._left[next(iter(self._left))]

    def _add_up(self, increments: Increments) -> None:
        for source, rows in increments.items():
            for scope, risen in rows.items():
                _add(self.total.setdefault(source, {}).setdefault(scope, {}), risen)


def _add(sums: dict[str, int], risen: Mapping[str, int]) -> None:
    for name, increment in risen.items():
        sums[name] = sums.get(name, 0) + increment


def _at(rows: Mapping[Scope, Row], one: InterfaceAt) -> dict[Scope, Row]:
    return {scope: row for scope, row in rows.items() if (scope.netns, scope.interface) == one.key}


def _scope(one: InterfaceAt) -> Scope:
    return Scope(netns=one.netns, interface=one.interface.name)
