# SPDX-License-Identifier: MIT
"""What counters counted beyond the drop events, each lost packet once however many counters have it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pktdrop.ledger.entry import FOLDED, PEER, SETTLED, STAT_CLASS_LAYERS, Entry
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import ANY_LAYER, Counter, Identities

#: rtnl_link_stats64 fields that the driver and the rest of the kernel both count in.
_RECEIVED, _SENT = SHARED_FIELDS = ("links.rx_dropped", "links.tx_dropped")
_ERRORS: Final = "links.rx_errors"
_NO_ROOM: Final = ("links.rx_missed_errors", "links.rx_fifo_errors", "links.rx_over_errors")
_PART: Final = "part"
#: Counters whose events came first that are remembered.
_KEPT: Final = 4_096

_Pool = tuple[str, str, Netns | None]
"""Counter, in what way it has the packets of others too, and network namespace, None: of any."""


class Rests:
    """Finds lost packets that counters show beyond the events, one interval after the other.

    Events that come before their counter is read make up for what it has beyond them later. So do packets that are in
    a counter of another namespace, too, which may be read much later.
    """

    def __init__(self, identities: Identities, is_traced: bool = True) -> None:
        """Take the rows of both tables, and whether there are events: without them what was sent tells more."""
        self._identities = identities
        self._first, self._second = (_RECEIVED, _SENT) if is_traced else (_SENT, _RECEIVED)
        self._ahead: dict[tuple[str, Scope], int] = {}
        """Events beyond what counters have risen by so far."""
        self._inside: Tally[_Pool] = Tally()
        """Packets that the counters of several namespaces may still show once more."""

    def step(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, int]]:
        """Yield what counters show beyond the events that are losses, each packet once, in the layer that lost it.

        A rest that another counter contains too is taken out of that: by part_of in loss_counters.tsv; what one end of
        a veth pair had no room for out of what the other end could not send; what interfaces counted out of a bond;
        what a NIC had no room for out of rx_errors, if its driver counts that there once more (driver_links.tsv).
        """
        entries = tuple(entries)
        facts, missed = self._identities.counters, _missed(entries)
        known = [(facts[entry.counter], entry) for entry in entries if entry.counter in facts]
        known.sort(key=lambda pair: self._turn(*pair))
        inside = self._inside
        for fact, entry in known:
            left = self._beyond(fact, entry) + (entry.revealed if fact.tells_loss else 0)
            if fact.name == _ERRORS:
                left = max(0, left - missed[entry.scope.netns, entry.scope.interface, entry.stat_class])
            if entry.stat_class == SETTLED:
                left = 0
            self._put(fact, entry, left)
            for pool in self._pools(fact, entry) if left else ():
                taken = min(left, inside[pool])
                inside[pool] -= taken
                left -= taken
            if left:
                yield _in_its_layer(fact, entry), left
        # counters of one namespace are read together: nothing of it is still to come
        self._inside = Tally({pool: left for pool, left in inside.items() if pool[2] is None and left})

    def _beyond(self, fact: Counter, entry: Entry) -> int:
        """Return how many packets a counter says were lost that no event shows."""
        if entry.is_open or fact.loss == "no":
            return 0
        if entry.status == "unexplained":
            return entry.unexplained
        if not (fact.name in SHARED_FIELDS or fact.loss == "own" or entry.status == "no-event"):
            return 0
        key = entry.counter, entry.scope._replace(qdisc=None, socket=None)  # events know neither
        ahead = self._ahead.pop(key, 0) + entry.surplus - entry.unexplained
        if ahead > 0:
            self._ahead[key] = ahead
            if len(self._ahead) > _KEPT:
                del self._ahead[next(iter(self._ahead))]
        return max(0, -ahead)

    def _turn(self, fact: Counter, entry: Entry) -> tuple[int, bool, bool]:
        """Return what counters are sorted by, so that parts come before what contains them."""
        return -self._depth(fact), entry.stat_class == FOLDED, fact.name == self._second

    def _depth(self, fact: Counter) -> int:
        depth = 0
        while fact.part_of is not None:
            fact = self._identities.counters[fact.part_of]
            depth += 1
        return depth

    def _put(self, fact: Counter, entry: Entry, rest: int) -> None:
        """Say which counters have the packets of this one, too."""
        netns = entry.scope.netns
        if fact.part_of is not None:
            of_host = self._identities.counters[fact.part_of].scope == "global"
            self._inside[fact.part_of, _PART, None if of_host else netns] += rest
        if entry.stat_class == PEER:
            if fact.name == self._first:  # drivers/net/veth.c veth_xmit, v6.12: the other end may be in any namespace
                self._inside[self._second, PEER, None] += rest
        elif fact.scope == "interface" and entry.stat_class != FOLDED:
            self._inside[fact.name, FOLDED, netns] += entry.delta

    def _pools(self, fact: Counter, entry: Entry) -> Iterator[_Pool]:
        """Give what may be in a counter of the packets of others."""
        if entry.stat_class == PEER and fact.name == self._second:
            yield fact.name, PEER, None
        yield fact.name, _PART, entry.scope.netns
        if entry.scope.netns is not None:
            yield fact.name, _PART, None
        if entry.stat_class == PEER and fact.name == _SENT:
            yield _RECEIVED, _PART, None  # the backlog was full, and the receiving end is in a namespace not read
        if entry.stat_class == FOLDED:
            yield fact.name, FOLDED, entry.scope.netns


def _missed(entries: Iterable[Entry]) -> Mapping[tuple[Netns | None, str | None, str | None], int]:
    """Return the largest counter of each interface and stat_class of losses that only the driver counts.

    Where it is not known what a driver has in rx_errors (stat_class None), the fields for frames that it had no room
    for may be in there; rx_over_errors and rx_fifo_errors may be the same (include/uapi/linux/if_link.h).
    """
    largest: Tally[tuple[Netns | None, str | None, str | None]] = Tally()
    fields: dict[tuple[Netns | None, str | None], dict[str, int]] = {}
    for entry in entries:
        if entry.is_hardware and entry.counter != _ERRORS:
            key = entry.scope.netns, entry.scope.interface, entry.stat_class
            largest[key] = max(entry.delta, largest[key])
            if entry.counter in _NO_ROOM:
                fields.setdefault(key[:2], {})[entry.counter] = entry.delta
    for (netns, interface), found in fields.items():
        missed, *full = (found.get(name, 0) for name in _NO_ROOM)
        largest[netns, interface, None] = missed + max(full)
    return largest


def _in_its_layer(fact: Counter, entry: Entry) -> Entry:
    """Return an entry with the layer of its rest: that of the driver, if it counts in a field of several layers."""
    layer = STAT_CLASS_LAYERS.get(entry.stat_class or "", entry.layer) if fact.layer == ANY_LAYER else entry.layer
    return entry if layer == entry.layer else entry._replace(layer=layer)
