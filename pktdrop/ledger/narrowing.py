# SPDX-License-Identifier: MIT
"""Which CPU, socket and queueing discipline lost packets.

Events say why, but not which socket or queueing discipline; their counters say which. Where both agree, or only one
is possible, the whereabouts of a loss name that one; else they name all that are possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from pktdrop.counters.increments import Increments
from pktdrop.ledger.loss import Loss, Whereabouts
from pktdrop.model.drops import Netns

_DATAGRAM: Final = ("udp", "raw")
_LISTENER: Final = ("tcp",)
#: Sockets or queueing disciplines that a loss is split between: any user may open ten thousand sockets, and have
#: packets sent to all of them.
_MOST: Final = 256
Late = Callable[[Loss], int]
"""Takes a loss; returns how many of its packets were lost while counters were read, which may not have them yet."""


def narrowed(losses: Sequence[Loss], increments: Increments, late: Late) -> list[Loss]:
    """Return the losses, with the CPU, socket or queueing discipline that lost them, if its counters tell."""
    found = _at_backlogs(losses, increments)
    found = _at_sockets(found, increments, "socket", _DATAGRAM, late)
    found = _at_sockets(found, increments, "listener", _LISTENER, late)
    return _at_qdiscs(found, increments, late)


def _at_backlogs(found: Sequence[Loss], increments: Increments) -> list[Loss]:
    """Give backlog drops whose target CPU is not known to the CPUs that counted them, if the sums agree."""
    risen = {
        Whereabouts(cpu=scope.cpu): counted["dropped"]
        for scope, counted in increments.get("softnet", {}).items()
        if counted.get("dropped")
    }
    unknown = [loss for loss in found if "cpu" in loss.cause.words and loss.whereabouts.cpu is None]
    known_packets = sum(
        loss.packets for loss in found if "cpu" in loss.cause.words and loss.whereabouts.cpu is not None
    )
    if len(unknown) != 1 or known_packets or sum(risen.values()) != unknown[0].packets:
        return [*found]
    (loss,) = unknown
    others = [one for one in found if one is not loss]
    parts = []
    for whereabouts, count in risen.items():
        part, loss = loss.split(count)
        parts.append(part._replace(whereabouts=part.whereabouts._replace(cpu=whereabouts.cpu)))
    return [*others, *parts]


def _at_sockets(
    found: Sequence[Loss], increments: Increments, word: str, protocols: tuple[str, ...], late: Late
) -> list[Loss]:
    if not any(word in loss.cause.words for loss in found):
        return [*found]
    risen: dict[Netns | None, dict[Whereabouts, int]] = {}
    for scope, counted in increments.get("socket", {}).items():
        if counted.get("drops") and (scope.socket or "").partition(" ")[0] in protocols:
            risen.setdefault(scope.netns, {})[Whereabouts(netns=scope.netns, sockets=(scope,))] = counted["drops"]
    known: list[Loss] = []
    by_netns: dict[Netns | None, list[Loss]] = {}
    for loss in found:
        if word in loss.cause.words and not loss.whereabouts.sockets:
            by_netns.setdefault(loss.whereabouts.netns, []).append(loss)
        else:
            known.append(loss)
    for netns, group in by_netns.items():
        known += _split(group, risen.get(netns, {}), late)
    return known


def _at_qdiscs(found: Sequence[Loss], increments: Increments, late: Late) -> list[Loss]:
    if not any("qdisc" in loss.cause.words for loss in found):
        return [*found]
    risen: dict[tuple[Netns | None, str | None], dict[Whereabouts, int]] = {}
    for scope, counted in increments.get("qdisc", {}).items():
        if counted.get("drops") and scope.qdisc is not None:
            whereabouts = Whereabouts(netns=scope.netns, interface=scope.interface, qdiscs=(scope.qdisc,))
            risen.setdefault((scope.netns, scope.interface), {})[whereabouts] = counted["drops"]
    known: list[Loss] = []
    at: dict[tuple[Netns | None, str | None], list[Loss]] = {}
    for loss in found:
        if "qdisc" in loss.cause.words and not loss.whereabouts.qdiscs:
            at.setdefault((loss.whereabouts.netns, loss.whereabouts.interface), []).append(loss)
        else:
            known.append(loss)
    for where, group in at.items():
        known += _split(group, risen.get(where, {}), late)
    return known


def _split(group: Sequence[Loss], risen: Mapping[Whereabouts, int], late: Late) -> Iterator[Loss]:
    """Give losses to the whereabouts that counted them; each at most what it counted, or would have a moment later.

    With one loss or one socket there is no doubt. Else all that is known is that it was some of these sockets.
    """
    if len(group) > 1 and len(risen) > _MOST:
        yield from group
        return
    if len(group) > 1 and len(risen) > 1:
        several = _united(risen)
        yield from (loss._replace(whereabouts=several) for loss in group)
        return
    more = sum(late(loss) for loss in group) if len(risen) == 1 else 0
    room = {whereabouts: counted + more for whereabouts, counted in risen.items()}
    for loss in sorted(group, key=lambda one: -one.packets):
        left = loss
        for whereabouts in sorted(room, key=lambda one: -room[one])[:_MOST]:
            taken = min(left.packets, room[whereabouts])
            if taken:
                room[whereabouts] -= taken
                part, left = left.split(taken)
                yield part._replace(whereabouts=whereabouts)
        if left.packets:
            yield left


def _united(risen: Mapping[Whereabouts, int]) -> Whereabouts:
    ranked = sorted(risen, key=lambda whereabouts: -risen[whereabouts])
    return ranked[0]._replace(
        sockets=tuple(scope for whereabouts in ranked for scope in whereabouts.sockets),
        qdiscs=tuple(name for whereabouts in ranked for name in whereabouts.qdiscs),
    )
