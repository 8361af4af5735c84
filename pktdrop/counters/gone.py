# SPDX-License-Identifier: MIT
"""Where counters and drops go on of what is gone, so that sums stay exact and memory does not grow with what was."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from pktdrop.model.counters import Scope
from pktdrop.model.drops import THE_GONE, Count, DropKey, Netns

_GONE: Final = "gone "
"""Begins what stands for interfaces and sockets that are gone: no interface has a space (dev_valid_name())."""
_ANY: Final = "interfaces"


def together(scope: Scope, netns: Netns | None, driver: str | None) -> Scope:
    """Return what a counter of something gone is added up under: in `netns`, by the driver of its interface."""
    return Scope(
        netns=netns,
        interface=None if scope.interface is None else f"{_GONE}{driver or _ANY}",
        socket=None if scope.socket is None else f"{_GONE}sockets",
    )


def driver_of(interface: str | None) -> str | None:
    """Return the driver of interfaces that are gone, if the name stands for such; None for every other name."""
    if interface is None or not interface.startswith(_GONE):
        return None
    driver = interface.removeprefix(_GONE)
    return None if driver == _ANY else driver


def stands_for_gone(scope: Scope) -> bool:
    """Tell whether a scope stands for several interfaces or sockets that are gone."""
    return (scope.interface or scope.socket or "").startswith(_GONE)


class Together:
    """Sums drops up as the counters of gone interfaces and namespaces are, so that they still explain each other."""

    def __init__(self, is_kept: Callable[[Netns], bool], interfaces: Collection[tuple[Netns | None, str]]) -> None:
        """Take which namespaces and interfaces are told apart, and under what counters stand."""
        self._is_kept = is_kept
        self._interfaces = interfaces
        self._has_gone = {netns for netns, interface in interfaces if stands_for_gone(Scope(interface=interface))}

    def __call__(self, drops: Mapping[DropKey, Count]) -> Mapping[DropKey, Count]:
        """Return drops, those together whose interfaces or namespaces are not told apart any more."""
        found: dict[DropKey, Count] = {}
        for key, count in drops.items():
            called = self._called(key)
            before = found.get(called)
            found[called] = count if before is None else before.plus(count)
        return found

    def _called(self, key: DropKey) -> DropKey:
        netns, interface = key.netns, key.interface
        if netns is None:
            return key
        if not self._is_kept(netns):
            return key._replace(netns=THE_GONE, netns_name=None, ifindex=None, interface=None)
        is_gone = netns in self._has_gone and interface is not None and (netns, interface) not in self._interfaces
        return key._replace(ifindex=None, interface=None) if is_gone else key
