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

InterfaceKey = tuple[Netns | None, str | None]
"""Namespace and name of an interface."""
_Value = TypeVar("_Value")


class InterfaceAt(NamedTuple):
    """An interface in a network namespace."""

    netns: Netns
    ifindex: int
    interface: Interface

    @property
    def key(self) -> InterfaceKey:
        """Return the namespace and name that the interface's counters are found under."""
        return self.netns, self.interface.name


class Moves(NamedTuple):
    """What became of interfaces from one reading to the next."""

    moved_to: Mapping[InterfaceKey, InterfaceKey | None]
    """Keys of interfaces that moved to another namespace or have another name, and their keys now; None: gone."""
    left: tuple[InterfaceAt, ...]
    """Interfaces that are gone, and may turn up in a namespace that was not read."""
    back: Mapping[InterfaceAt, InterfaceKey]
    """Interfaces that left before and are there again, and their keys now."""


def moves(
    before: Interfaces, now: Interfaces, rows: Mapping[Scope, Row], rows_now: Mapping[Scope, Row],
    left_before: Mapping[InterfaceAt, Row | None] = MappingProxyType({}),
) -> Moves:  # fmt: skip
    """Compare two readings: interfaces, and their counters of "links". `left_before`: of what left earlier."""
    moved_to: dict[InterfaceKey, InterfaceKey | None] = {}
    left: dict[InterfaceAt, Row | None] = {}
    for netns in before.keys() & now.keys():
        for ifindex, one in before[netns].items():
            same = now[netns].get(ifindex)
            if same is None:
                moved_to[netns, one.name] = None
                left[InterfaceAt(netns, ifindex, one)] = rows.get(Scope(netns=netns, interface=one.name))
            elif same.name != one.name:
                moved_to[netns, one.name] = netns, same.name
    back: dict[InterfaceAt, InterfaceKey] = {}
    for new in _came(before, now):
        old = _origin(new, {**left_before, **left}, rows_now.get(Scope(netns=new.netns, interface=new.interface.name)))
        if old is None:
            continue
        if left.pop(old, None) is not None:
            moved_to[old.key] = new.key
        else:
            back[old] = new.key
    return Moves(moved_to, tuple(one for one in left if one.interface.address is not None), back)


def rename(rows: dict[Scope, _Value], moved: Mapping[InterfaceKey, InterfaceKey | None]) -> None:
    """Put what is known of interfaces under their keys of now; drop what is known of those that are gone."""
    taken = {scope: rows.pop(scope) for scope in [one for one in rows if (one.netns, one.interface) in moved]}
    for scope, value in taken.items():
        key = moved[scope.netns, scope.interface]
        if key is not None:
            rows[scope._replace(netns=key[0], interface=key[1])] = value


def _came(before: Interfaces, now: Interfaces) -> Iterator[InterfaceAt]:
    for netns, here in now.items():
        known = before.get(netns, {})
        yield from (InterfaceAt(netns, ifindex, one) for ifindex, one in here.items() if ifindex not in known)


def _origin(new: InterfaceAt, left: Mapping[InterfaceAt, Row | None], row: Row | None) -> InterfaceAt | None:
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
