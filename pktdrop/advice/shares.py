# SPDX-License-Identifier: MIT
"""Lost packets by place and cause: each packet in one share, so that the shares add up to what the ledger says.

Events say why, but not which socket or queueing discipline; their counters say which. Where both agree, or only one
place is possible, a loss is given to its place; else all places that are possible are named.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, TypeVar

from pktdrop.advice.causes import Cause, Causes
from pktdrop.counters.model import Scope
from pktdrop.layers import LAYERS, Layers
from pktdrop.ledger.entry import CLASS_LAYERS
from pktdrop.model import DropKey, Netns
from pktdrop.watch import Account

#: Layers whose packets never had an event.
_BEFORE_EVENTS: Final = ("nic-fifo", "nic-ring")
#: Where drivers count what the kernel also sees, the classes of counters most likely to be those events come first.
_SEEN_FIRST: Final = ("software", "xdp", "error", "tx", "alloc")
_DATAGRAM: Final = ("udp", "raw")
_LISTENER: Final = ("tcp",)
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Place:
    """Where packets were lost, as far as it is known."""

    netns: Netns | None = None
    interface: str | None = None
    queues: tuple[tuple[int, int], ...] = ()
    """RX queue and packets, most first."""
    cpu: int | None = None
    """Whose backlog it was."""
    sources: tuple[int, ...] = ()
    """CPUs that had packets for that backlog, most first."""
    sockets: tuple[Scope, ...] = ()
    """The socket; if there are several, one or some of these, it is not known which."""
    qdiscs: tuple[str, ...] = ()
    """As sockets."""


@dataclass(frozen=True)
class Share:
    """Packets lost at one place for one cause."""

    packets: int
    layer: str
    kind: str
    """One of layers.KINDS."""
    cause: Cause
    place: Place
    reasons: tuple[str, ...] = ()
    """Drop reasons, those of most packets first."""
    counters: tuple[str, ...] = ()
    """Where the number is from, if it is from no events."""
    is_guess: bool = False
    """The driver is not known: what its counters mean is guessed from their names."""
    note: str = ""
    """Why counters rose by what nothing explains; empty if it is explained."""
    late: int = 0
    """Packets of these that were lost while counters were read for the last time: they may not have them yet."""


@dataclass
class _Sum:
    """Events of one share, while they are added up."""

    reasons: Tally[str] = field(default_factory=Tally)
    interfaces: Tally[tuple[Netns | None, str | None]] = field(default_factory=Tally)
    sources: Tally[int] = field(default_factory=Tally)
    late: int = 0


def shares(account: Account, causes: Causes, layers: Layers) -> tuple[Share, ...]:
    """Split what the ledger of a window has as lost; in the order of layers, the largest first."""
    found = [*_events(account, causes, layers), *_nics(account, causes), *_rests(account, causes)]
    found = _at_backlogs(found, account)
    found = _at_sockets(found, account, "socket", _DATAGRAM)
    found = _at_sockets(found, account, "listener", _LISTENER)
    found = _at_qdiscs(found, account)
    return tuple(sorted(found, key=lambda share: (LAYERS.index(share.layer), -share.packets, share.cause.name)))


# ----------------------------------------------------------------------------------------------------------- events


def _events(account: Account, causes: Causes, layers: Layers) -> Iterator[Share]:
    @cache
    def judged(subsystem: str, reason: str, location: str, protocol: bool, layer: str) -> tuple[str, Cause]:
        kind = layers.verdict(subsystem, reason, location, protocol).kind
        return kind, causes.of_event(layer, kind, subsystem, reason, location)

    sums: dict[tuple[str, str, Cause, Place], _Sum] = {}
    for key, count in account.interval.drops.items():
        if not key.is_loss or not count.packets:
            continue
        kind, cause = judged(key.subsystem, key.reason, key.location, key.protocol != 0, key.layer)
        total = sums.setdefault((key.layer, kind, cause, _place_of(cause, key)), _Sum())
        total.reasons[_name(key)] += count.packets
        total.interfaces[key.netns, key.interface] += count.packets
        total.sources[key.cpu] += count.packets
        in_time = account.bracket.inner.get(key)
        total.late += count.packets - (in_time.packets if in_time else 0)
    for (layer, kind, cause, place), total in sums.items():
        if "cpu" in cause.words:
            (netns, interface), _ = _ranked(total.interfaces)[0]
            cpus = tuple(cpu for cpu, _ in _ranked(total.sources)) if place.cpu is not None else ()
            place = replace(place, netns=netns, interface=interface, sources=cpus)
        reasons = tuple(reason for reason, _ in _ranked(total.reasons))
        yield Share(total.reasons.total(), layer, kind, cause, place, reasons, late=total.late)


def _place_of(cause: Cause, key: DropKey) -> Place:
    """Return the place of an event as far as its cause is told apart by it."""
    if "cpu" in cause.words:
        return Place(cpu=key.target_cpu)
    if "nic" in cause.words:
        return Place(netns=key.netns, interface=key.interface)
    return Place(netns=key.netns)


def _name(key: DropKey) -> str:
    return key.reason if key.subsystem == "core" else f"{key.subsystem}/{key.reason}"


# --------------------------------------------------------------------------------------------------------- counters


def _nics(account: Account, causes: Causes) -> Iterator[Share]:
    """Losses that drivers count, without those in the layers driver and tx that were events, too: ledger.totals."""
    seen = _seen(account)
    for (netns, interface), losses in account.ledger.nics.items():
        for loss in sorted(losses, key=lambda one: _SEEN_FIRST.index(one.kind) if one.kind in _SEEN_FIRST else -1):
            layer, cause = CLASS_LAYERS.get(loss.kind), causes.of_driver(loss.kind)
            if layer is None or cause is None:
                continue
            known = 0 if layer in _BEFORE_EVENTS else min(loss.packets, seen[netns, interface, layer])
            seen[netns, interface, layer] -= known
            if loss.packets > known:
                yield Share(
                    packets=loss.packets - known,
                    layer=layer,
                    kind=cause.kind or "unspecified",
                    cause=cause,
                    place=Place(netns, interface, queues=_ranked({q: n for q, n in loss.queues.items() if n})),
                    counters=loss.counters,
                    is_guess=loss.confidence == "generic",
                )


def _seen(account: Account) -> Tally[tuple[Netns | None, str | None, str]]:
    """Count events by network namespace, interface and layer."""
    seen: Tally[tuple[Netns | None, str | None, str]] = Tally()
    for key, count in account.interval.drops.items():
        if key.is_loss:
            seen[key.netns, key.interface, key.layer] += count.packets
    return seen


def _rests(account: Account, causes: Causes) -> Iterator[Share]:
    """Losses that other counters show beyond the events, without what drivers count: ledger.totals."""
    at_nic: Tally[tuple[Netns | None, str | None, str]] = Tally()
    for (netns, interface), losses in account.ledger.nics.items():
        for loss in losses:
            if loss.kind in CLASS_LAYERS:
                at_nic[netns, interface, CLASS_LAYERS[loss.kind]] += loss.packets
    for entry, beyond in account.ledger.without_event:
        scope = entry.scope
        packets = beyond - (at_nic[scope.netns, scope.interface, entry.layer] if scope.interface is not None else 0)
        if packets <= 0:
            continue
        cause = causes.of_counter(entry.counter)
        yield Share(
            packets=packets,
            layer=entry.layer,
            kind=cause.kind or "unspecified",
            cause=cause,
            place=Place(
                netns=scope.netns,
                interface=scope.interface,
                cpu=scope.cpu,
                sockets=(scope,) if scope.socket is not None else (),
                qdiscs=(scope.qdisc,) if scope.qdisc is not None else (),
            ),
            counters=(entry.counter,),
            note=(entry.note or "nothing explains it") if entry.status == "unexplained" else "",
        )


# ----------------------------------------------------------------------------------------- which CPU, socket, qdisc


def _at_backlogs(found: Sequence[Share], account: Account) -> list[Share]:
    """Give backlog drops whose target CPU is not known to the CPUs that counted them, if the sums agree."""
    risen = {
        Place(cpu=scope.cpu): counted["dropped"]
        for scope, counted in account.moved.get("softnet", {}).items()
        if counted.get("dropped")
    }
    unplaced = [share for share in found if "cpu" in share.cause.words and share.place.cpu is None]
    placed = sum(share.packets for share in found if "cpu" in share.cause.words and share.place.cpu is not None)
    if len(unplaced) != 1 or placed or sum(risen.values()) != unplaced[0].packets:
        return [*found]
    (share,) = unplaced
    others = (one for one in found if one is not share)
    parts = (replace(share, packets=count, place=replace(share.place, cpu=place.cpu)) for place, count in risen.items())
    return [*others, *parts]


def _at_sockets(found: Sequence[Share], account: Account, word: str, protocols: tuple[str, ...]) -> list[Share]:
    risen: dict[Netns | None, dict[Place, int]] = {}
    for scope, counted in account.moved.get("socket", {}).items():
        if counted.get("drops") and (scope.socket or "").partition(" ")[0] in protocols:
            risen.setdefault(scope.netns, {})[Place(netns=scope.netns, sockets=(scope,))] = counted["drops"]
    placed: list[Share] = []
    by_netns: dict[Netns | None, list[Share]] = {}
    for share in found:
        if word in share.cause.words and not share.place.sockets:
            by_netns.setdefault(share.place.netns, []).append(share)
        else:
            placed.append(share)
    for netns, group in by_netns.items():
        placed += _split(group, risen.get(netns, {}))
    return placed


def _at_qdiscs(found: Sequence[Share], account: Account) -> list[Share]:
    risen: dict[tuple[Netns | None, str | None], dict[Place, int]] = {}
    for scope, counted in account.moved.get("qdisc", {}).items():
        if counted.get("drops") and scope.qdisc is not None:
            place = Place(netns=scope.netns, interface=scope.interface, qdiscs=(scope.qdisc,))
            risen.setdefault((scope.netns, scope.interface), {})[place] = counted["drops"]
    placed: list[Share] = []
    at: dict[tuple[Netns | None, str | None], list[Share]] = {}
    for share in found:
        if "qdisc" in share.cause.words and not share.place.qdiscs:
            at.setdefault((share.place.netns, share.place.interface), []).append(share)
        else:
            placed.append(share)
    for where, group in at.items():
        placed += _split(group, risen.get(where, {}))
    return placed


def _split(group: Sequence[Share], risen: Mapping[Place, int]) -> Iterator[Share]:
    """Give losses to the places that counted them; each at most what it counted, or would have a moment later.

    With one loss or one place there is no doubt. Else all that is known is that it was some of these places.
    """
    if len(group) > 1 and len(risen) > 1:
        several = _united(risen)
        yield from (replace(share, place=several) for share in group)
        return
    late = sum(share.late for share in group) if len(risen) == 1 else 0
    room = {place: counted + late for place, counted in risen.items()}
    for share in sorted(group, key=lambda one: -one.packets):
        left = share.packets
        for place in sorted(room, key=lambda one: -room[one]):
            taken = min(left, room[place])
            if taken:
                room[place] -= taken
                left -= taken
                yield replace(share, packets=taken, place=place)
        if left:
            yield replace(share, packets=left)


def _united(risen: Mapping[Place, int]) -> Place:
    ranked = sorted(risen, key=lambda place: -risen[place])
    return replace(
        ranked[0],
        sockets=tuple(scope for place in ranked for scope in place.sockets),
        qdiscs=tuple(name for place in ranked for name in place.qdiscs),
    )


def _ranked(tally: Mapping[_Key, int]) -> tuple[tuple[_Key, int], ...]:
    return tuple(sorted(tally.items(), key=lambda item: (-item[1], str(item[0]))))
