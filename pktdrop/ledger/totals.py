# SPDX-License-Identifier: MIT
"""How many packets were lost in each layer: each packet once, however many counters and events show it."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pktdrop.layers import LAYERS
from pktdrop.ledger.entry import CLASS_LAYERS, FOLDED, PEER, SETTLED, Entry
from pktdrop.ledger.identities import ANY_LAYER, Counter, Identities
from pktdrop.model import Count, DropKey, Netns

#: Layers whose packets never had an event: what their counters say comes on top of all events.
_BEFORE_EVENTS: Final = ("nic-fifo", "nic-ring")
#: rtnl_link_stats64 fields that the driver and the rest of the kernel both count in.
_RECEIVED, _SENT = _SHARED_FIELDS = ("links.rx_dropped", "links.tx_dropped")
_ERRORS: Final = "links.rx_errors"
_NO_ROOM: Final = ("links.rx_missed_errors", "links.rx_fifo_errors", "links.rx_over_errors")
_NUMBER: Final = re.compile(r"[0-9]+")

_Nic = dict[tuple[Netns | None, str, str], int]
"""Packets by network namespace, interface and layer."""


def totals(
    entries: Iterable[Entry],
    drops: Mapping[DropKey, Count],
    identities: Identities,
    hardware: Mapping[tuple[Netns | None, str], Mapping[str, int]] | None = None,
) -> dict[str, int]:
    """Return packets lost by layer, each packet in one layer, in the order of LAYERS; layers without loss left out.

    Events count in their layer. To these come the rests of counters: what is lost without events, and what is
    unexplained. What the NIC lost comes from ``hardware``, which has packets by class for each (netns, interface)
    (Drivers.nic_loss); without it, from the largest counter of each layer and interface, as several may count the same
    packets. In the layers driver and tx it is not known whether such packets had events: there only what exceeds the
    events of the interface is added.
    """
    entries = tuple(entries)
    lost: Tally[str] = Tally()
    for key, (packets, _) in drops.items():
        if key.is_loss:
            lost[key.layer] += packets
    nic = _largest(entries, identities) if hardware is None else _by_layer(hardware)
    seen = _seen_at(nic, drops)
    for place, packets in nic.items():
        lost[place[2]] += max(0, packets - seen[place])
    for entry, packets in rests(entries, identities):
        counted = 0
        if entry.scope.interface is not None:
            counted = nic.get((entry.scope.netns, entry.scope.interface, entry.layer), 0)
        lost[entry.layer] += max(0, packets - counted)
    return {layer: lost[layer] for layer in LAYERS if lost[layer]}


def _by_layer(hardware: Mapping[tuple[Netns | None, str], Mapping[str, int]]) -> _Nic:
    nic: _Nic = {}
    for (netns, interface), by_class in hardware.items():
        for kind, packets in by_class.items():
            layer = CLASS_LAYERS.get(kind)
            if layer is not None:
                nic[netns, interface, layer] = nic.get((netns, interface, layer), 0) + packets
    return nic


def _largest(entries: Iterable[Entry], identities: Identities) -> _Nic:
    """Find the largest counter of each layer and interface; names that differ only by numbers are parts of one."""
    groups: Tally[tuple[Netns | None, str, str, str]] = Tally()
    for entry in entries:
        if (
            entry.counter not in identities.counters
            and entry.status == "no-event"
            and entry.scope.interface is not None
        ):
            shape = _NUMBER.sub("#", entry.counter)
            groups[entry.scope.netns, entry.scope.interface, entry.layer, shape] += entry.delta
    nic: _Nic = {}
    for (netns, interface, layer, _), packets in groups.items():
        nic[netns, interface, layer] = max(packets, nic.get((netns, interface, layer), 0))
    return nic


def _seen_at(nic: _Nic, drops: Mapping[DropKey, Count]) -> Tally[tuple[Netns | None, str, str]]:
    """Count the events that may be what a driver counts, too."""
    seen: Tally[tuple[Netns | None, str, str]] = Tally()
    if all(layer in _BEFORE_EVENTS for _, _, layer in nic):
        return seen
    for key, (packets, _) in drops.items():
        if key.is_loss and key.interface is not None and key.layer not in _BEFORE_EVENTS:
            seen[key.netns, key.interface, key.layer] += packets
    return seen


# ---------------------------------------------------------------------------------- what counters say beyond events

_PART: Final = "part"
_Pool = tuple[str, str, Netns | None]
"""Counter, in what way it has the packets of others too, and network namespace, None: of any."""


def rests(entries: Iterable[Entry], identities: Identities) -> Iterator[tuple[Entry, int]]:
    """Give what counters counted beyond the events that are losses, each packet with one, in the layer that lost it.

    A rest that another counter contains too is taken out of that: by part_of in loss_counters.tsv; what one end of a
    veth pair had no room for out of what the other end could not send; what interfaces counted out of a bond; what a
    NIC had no room for out of rx_errors, if its driver counts that there once more (driver_links.tsv).
    """
    entries = tuple(entries)
    facts, missed = identities.counters, _missed(entries)
    known = [(facts[entry.counter], entry) for entry in entries if entry.counter in facts]
    known.sort(key=lambda pair: _turn(pair[0], pair[1], identities))
    inside: Tally[_Pool] = Tally()
    for fact, entry in known:
        left = _rest(fact, entry) + (entry.revealed if fact.loss != "no" else 0)
        if fact.name == _ERRORS:
            left = max(0, left - missed[entry.scope.netns, entry.scope.interface, entry.kind])
        if entry.kind == SETTLED:
            left = 0
        _put(inside, fact, entry, left, identities)
        for pool in _pools(fact, entry):
            taken = min(left, inside[pool])
            inside[pool] -= taken
            left -= taken
        if left:
            yield _in_its_layer(fact, entry), left


def _missed(entries: Iterable[Entry]) -> Mapping[tuple[Netns | None, str | None, str | None], int]:
    """Return the largest counter of each interface and class of loss that only the driver counts.

    Where it is not known what a driver has in rx_errors (class None), the fields for frames that it had no room for may
    be in there; rx_over_errors and rx_fifo_errors may be the same (include/uapi/linux/if_link.h).
    """
    largest: Tally[tuple[Netns | None, str | None, str | None]] = Tally()
    fields: dict[tuple[Netns | None, str | None], dict[str, int]] = {}
    for entry in entries:
        if entry.is_hardware and entry.counter != _ERRORS:
            place = entry.scope.netns, entry.scope.interface, entry.kind
            largest[place] = max(entry.delta, largest[place])
            if entry.counter in _NO_ROOM:
                fields.setdefault(place[:2], {})[entry.counter] = entry.delta
    for (netns, interface), found in fields.items():
        missed, *full = (found.get(name, 0) for name in _NO_ROOM)
        largest[netns, interface, None] = missed + max(full)
    return largest


def _turn(fact: Counter, entry: Entry, identities: Identities) -> tuple[int, bool, bool]:
    """Return what counters are sorted by, so that parts come before what contains them."""
    return -_depth(fact, identities), entry.kind == FOLDED, fact.name == _SENT


def _put(inside: Tally[_Pool], fact: Counter, entry: Entry, rest: int, identities: Identities) -> None:
    """Say which counters have the packets of this one, too."""
    netns = entry.scope.netns
    if fact.part_of is not None:
        of_host = identities.counters[fact.part_of].scope == "global"
        inside[fact.part_of, _PART, None if of_host else netns] += rest
    if entry.kind == PEER:
        if fact.name == _RECEIVED:  # drivers/net/veth.c veth_xmit, v6.12: the sending end may be in any namespace
            inside[_SENT, PEER, None] += rest
    elif fact.scope == "interface" and entry.kind != FOLDED:
        inside[fact.name, FOLDED, netns] += entry.delta


def _pools(fact: Counter, entry: Entry) -> Iterator[_Pool]:
    """Give what may be in a counter of the packets of others."""
    yield fact.name, _PART, entry.scope.netns
    if entry.scope.netns is not None:
        yield fact.name, _PART, None
    if entry.kind == PEER and fact.name == _SENT:
        yield _SENT, PEER, None
        yield _RECEIVED, _PART, None  # the backlog was full, and the receiving end is in a namespace that was not read
    if entry.kind == FOLDED:
        yield fact.name, FOLDED, entry.scope.netns


def _in_its_layer(fact: Counter, entry: Entry) -> Entry:
    """Return an entry with the layer of its rest: that of the driver, if it counts in a field of several layers."""
    layer = CLASS_LAYERS.get(entry.kind or "", entry.layer) if fact.layer == ANY_LAYER else entry.layer
    return entry if layer == entry.layer else replace(entry, layer=layer)


def _rest(fact: Counter, entry: Entry) -> int:
    """Return how many packets a counter says were lost that no event shows."""
    if entry.status == "unexplained" or fact.name in _SHARED_FIELDS:
        return 0 if fact.loss == "no" else max(0, entry.unexplained)
    if fact.loss == "own" or (fact.loss == "shown" and entry.status == "no-event"):
        return max(0, entry.unexplained)
    return 0


def _depth(fact: Counter, identities: Identities) -> int:
    depth = 0
    while fact.part_of is not None:
        fact = identities.counters[fact.part_of]
        depth += 1
    return depth
