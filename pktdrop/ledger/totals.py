# SPDX-License-Identifier: MIT
"""How many packets were lost in each layer."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pktdrop.layers import LAYERS
from pktdrop.ledger.entry import CLASS_LAYERS, Entry
from pktdrop.ledger.identities import Counter, Identities
from pktdrop.model import Count, DropKey

#: Layers whose packets never had an event: what their counters say comes on top of all events.
_BEFORE_EVENTS: Final = ("nic-fifo", "nic-ring")
#: rtnl_link_stats64 fields that the driver and the rest of the kernel both count in.
_SHARED_FIELDS: Final = ("links.rx_dropped", "links.tx_dropped")
_NUMBER: Final = re.compile(r"[0-9]+")


def totals(
    entries: Iterable[Entry],
    drops: Mapping[DropKey, Count],
    identities: Identities,
    hardware: Mapping[tuple[int | None, str], Mapping[str, int]] | None = None,
) -> dict[str, int]:
    """Return packets lost by layer, each packet in one layer, in the order of LAYERS; layers without loss left out.

    Events count in their layer. To these come the rests of counters: what is lost without events, and what is
    unexplained. A rest that another counter contains too (part_of) is taken out of that. What the NIC lost comes from
    ``hardware``, which has packets by class for each (netns, interface) (Drivers.nic_loss); without it, from the
    largest counter of each layer and interface, as several may count the same packets. In the layers driver and tx it
    is not known whether such packets had events: there only what exceeds the events of the interface is added.
    """
    entries = tuple(entries)
    lost: Tally[str] = Tally()
    at_interface: Tally[tuple[int | None, str | None, str]] = Tally()
    for key, count in drops.items():
        if key.noise is None:
            lost[key.layer] += count.packets
            at_interface[key.netns, key.interface, key.layer] += count.packets
    nic = _largest(entries, identities) if hardware is None else _by_layer(hardware)
    for (netns, interface, layer), packets in nic.items():
        with_events = 0 if layer in _BEFORE_EVENTS else at_interface[netns, interface, layer]
        lost[layer] += max(0, packets - with_events)
    for entry, packets in rests(entries, identities):
        counted = 0
        if entry.scope.interface is not None:
            counted = nic.get((entry.scope.netns, entry.scope.interface, entry.layer), 0)
        lost[entry.layer] += max(0, packets - counted)
    return {layer: lost[layer] for layer in LAYERS if lost[layer]}


_Nic = dict[tuple[int | None, str, str], int]


def _by_layer(hardware: Mapping[tuple[int | None, str], Mapping[str, int]]) -> _Nic:
    nic: _Nic = {}
    for (netns, interface), by_class in hardware.items():
        for kind, packets in by_class.items():
            layer = CLASS_LAYERS.get(kind)
            if layer is not None:
                nic[netns, interface, layer] = nic.get((netns, interface, layer), 0) + packets
    return nic


def _largest(entries: Iterable[Entry], identities: Identities) -> _Nic:
    """Find the largest counter of each layer and interface; names that differ only by numbers are parts of one."""
    groups: Tally[tuple[int | None, str, str, str]] = Tally()
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


def rests(entries: Iterable[Entry], identities: Identities) -> Iterator[tuple[Entry, int]]:
    """Give what counters counted beyond the events, each packet with one of them."""
    known = [(identities.counters[entry.counter], entry) for entry in entries if entry.counter in identities.counters]
    known.sort(key=lambda pair: -_depth(pair[0], identities))  # parts before what contains them
    inside: Tally[tuple[str, int | None]] = Tally()
    for fact, entry in known:
        rest = _rest(fact, entry)
        if fact.part_of is not None:
            netns = entry.scope.netns if identities.counters[fact.part_of].scope != "global" else None
            inside[fact.part_of, netns] += rest
        left = rest
        for pool in dict.fromkeys(((fact.name, entry.scope.netns), (fact.name, None))):
            taken = min(left, inside[pool])
            inside[pool] -= taken
            left -= taken
        if left:
            yield entry, left


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
