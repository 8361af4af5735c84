# SPDX-License-Identifier: MIT
"""Interfaces that were renamed, moved to another network namespace, or are gone, between two readings.

An interface is its index in its namespace. One that moves gets a new one where that is taken, and keeps its hardware
address and its counters (__dev_change_net_namespace() in net/core/dev.c): by these it is known again.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from pktdrop.model.counters import Interface, Interfaces, Row, Scope
from pktdrop.model.drops import Netns

Place = tuple[Netns | None, str | None]
"""Namespace and name of an interface."""
_Value = TypeVar("_Value")


class At(NamedTuple):
    """An interface in its place."""

    netns: Netns
    ifindex: int
    interface: Interface

    @property
    def place(self) -> Place:
        """Return where its counters are found."""
        return self.netns, self.interface.name


class Moves(NamedTuple):
    """What became of interfaces."""

    places: Mapping[Place, Place | None]
    """Where those are now that are somewhere else or have another name; None: gone from where it was."""
    left: tuple[At, ...]
    """Those that are gone, and may turn up in a namespace that was not read."""
    back: Mapping[At, Place]
    """Where those are that left before."""


def moves(
    before: Interfaces, now: Interfaces, rows: Mapping[Scope, Row], rows_now: Mapping[Scope, Row],
    left_before: Mapping[At, Row | None] = MappingProxyType({}),
) -> Moves:  # fmt: skip
    """Compare two readings: interfaces, and their counters of "links". `left_before`: of what left earlier."""
    places: dict[Place, Place | None] = {}
    left: dict[At, Row | None] = {}
    for netns in before.keys() & now.keys():
        for ifindex, one in before[netns].items():
            same = now[netns].get(ifindex)
            if same is None:
                places[netns, one.name] = None
                left[At(netns, ifindex, one)] = rows.get(Scope(netns=netns, interface=one.name))
            elif same.name != one.name:
                places[netns, one.name] = netns, same.name
    back: dict[At, Place] = {}
    for new in _came(before, now):
        old = _origin(new, {**left_before, **left}, rows_now.get(Scope(netns=new.netns, interface=new.interface.name)))
        if old is None:
            continue
        if left.pop(old, None) is not None:
            places[old.place] = new.place
        else:
            back[old] = new.place
    return Moves(places, tuple(one for one in left if one.interface.address is not None), back)


def rename(rows: dict[Scope, _Value], moved: Mapping[Place, Place | None]) -> None:
    """Put what is known of interfaces where they are now; drop it of those that are gone."""
    taken = {scope: rows.pop(scope) for scope in [one for one in rows if (one.netns, one.interface) in moved]}
    for scope, value in taken.items():
        place = moved[scope.netns, scope.interface]
        if place is not None:
            rows[scope._replace(netns=place[0], interface=place[1])] = value


def _came(before: Interfaces, now: Interfaces) -> Iterator[At]:
    for netns, here in now.items():
        known = before.get(netns, {})
        yield from (At(netns, ifindex, one) for ifindex, one in here.items() if ifindex not in known)


def _origin(new: At, left: Mapping[At, Row | None], row: Row | None) -> At | None:
    """Find the interface that came: the only one with its address that left, or the one with its index, too."""
    address = new.interface.address
    alike = [one for one in left if one.interface.address == address and one.netns != new.netns] if address else []
    found = [one for one in alike if one.ifindex == new.ifindex] or alike
    return found[0] if len(found) == 1 and _goes_on(left[found[0]], row) else None


def _goes_on(before: Row | None, now: Row | None) -> bool:
    """Tell whether counters may be a later state of others: they do not fall."""
    if before is None or now is None or before.names != now.names:
        return False
    return all(was <= value for was, value in zip(before.values, now.values, strict=True))
