# SPDX-License-Identifier: MIT
"""Which CPU, socket and queueing discipline lost packets.

Events say why, but not which socket or queueing discipline; their counters say which. Where both agree, or only one
place is possible, a loss is given to its place; else all places that are possible are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pktdrop.counters.increments import Moved
from pktdrop.ledger.loss import Loss, Place
from pktdrop.model.drops import Netns

_DATAGRAM: Final = ("udp", "raw")
_LISTENER: Final = ("tcp",)
#: Places that a loss is split into: any user may open ten thousand sockets, and have packets sent to all of them.
_MOST: Final = 256
Late = Callable[[Loss], int]
"""Takes a loss; returns how many of its packets were lost while counters were read: they may not have them yet."""


def placed(losses: Sequence[Loss], moved: Moved, late: Late) -> list[Loss]:
    """Give losses to the CPUs, sockets and queueing disciplines whose counters tell that it was them."""
    found = _at_backlogs(losses, moved)
    found = _at_sockets(found, moved, "socket", _DATAGRAM, late)
    found = _at_sockets(found, moved, "listener", _LISTENER, late)
    return _at_qdiscs(found, moved, late)


def _at_backlogs(found: Sequence[Loss], moved: Moved) -> list[Loss]:
    """Give backlog drops whose target CPU is not known to the CPUs that counted them, if the sums agree."""
    risen = {
        Place(cpu=scope.cpu): counted["dropped"]
        for scope, counted in moved.get("softnet", {}).items()
        if counted.get("dropped")
    }
    unplaced = [loss for loss in found if "cpu" in loss.cause.words and loss.place.cpu is None]
    are_placed = sum(loss.packets for loss in found if "cpu" in loss.cause.words and loss.place.cpu is not None)
    if len(unplaced) != 1 or are_placed or sum(risen.values()) != unplaced[0].packets:
        return [*found]
    (loss,) = unplaced
    others = [one for one in found if one is not loss]
    parts = []
    for place, count in risen.items():
        part, loss = loss.split(count)
        parts.append(replace(part, place=replace(part.place, cpu=place.cpu)))
    return [*others, *parts]


def _at_sockets(found: Sequence[Loss], moved: Moved, word: str, protocols: tuple[str, ...], late: Late) -> list[Loss]:
    if not any(word in loss.cause.words for loss in found):
        return [*found]
    risen: dict[Netns | None, dict[Place, int]] = {}
    for scope, counted in moved.get("socket", {}).items():
        if counted.get("drops") and (scope.socket or "").partition(" ")[0] in protocols:
            risen.setdefault(scope.netns, {})[Place(netns=scope.netns, sockets=(scope,))] = counted["drops"]
    known: list[Loss] = []
    by_netns: dict[Netns | None, list[Loss]] = {}
    for loss in found:
        if word in loss.cause.words and not loss.place.sockets:
            by_netns.setdefault(loss.place.netns, []).append(loss)
        else:
            known.append(loss)
    for netns, group in by_netns.items():
        known += _split(group, risen.get(netns, {}), late)
    return known


def _at_qdiscs(found: Sequence[Loss], moved: Moved, late: Late) -> list[Loss]:
    if not any("qdisc" in loss.cause.words for loss in found):
        return [*found]
    risen: dict[tuple[Netns | None, str | None], dict[Place, int]] = {}
    for scope, counted in moved.get("qdisc", {}).items():
        if counted.get("drops") and scope.qdisc is not None:
            place = Place(netns=scope.netns, interface=scope.interface, qdiscs=(scope.qdisc,))
            risen.setdefault((scope.netns, scope.interface), {})[place] = counted["drops"]
    known: list[Loss] = []
    at: dict[tuple[Netns | None, str | None], list[Loss]] = {}
    for loss in found:
        if "qdisc" in loss.cause.words and not loss.place.qdiscs:
            at.setdefault((loss.place.netns, loss.place.interface), []).append(loss)
        else:
            known.append(loss)
    for where, group in at.items():
        known += _split(group, risen.get(where, {}), late)
    return known


def _split(group: Sequence[Loss], risen: Mapping[Place, int], late: Late) -> Iterator[Loss]:
    """Give losses to the places that counted them; each at most what it counted, or would have a moment later.

    With one loss or one place there is no doubt. Else all that is known is that it was some of these places.
    """
    if len(group) > 1 and len(risen) > _MOST:
        yield from group
        return
    if len(group) > 1 and len(risen) > 1:
        several = _united(risen)
        yield from (replace(loss, place=several) for loss in group)
        return
    more = sum(late(loss) for loss in group) if len(risen) == 1 else 0
    room = {place: counted + more for place, counted in risen.items()}
    for loss in sorted(group, key=lambda one: -one.packets):
        left = loss
        for place in sorted(room, key=lambda one: -room[one])[:_MOST]:
            taken = min(left.packets, room[place])
            if taken:
                room[place] -= taken
                part, left = left.split(taken)
                yield replace(part, place=place)
        if left.packets:
            yield left


def _united(risen: Mapping[Place, int]) -> Place:
    ranked = sorted(risen, key=lambda place: -risen[place])
    return replace(
        ranked[0],
        sockets=tuple(scope for place in ranked for scope in place.sockets),
        qdiscs=tuple(name for place in ranked for name in place.qdiscs),
    )
