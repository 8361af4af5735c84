# SPDX-License-Identifier: MIT
"""The entries of the ledger, their statuses, and the layers of stat_classes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pktdrop.model.counters import Scope
from pktdrop.model.drops import netns_order
from pktdrop.rules.layers import LAYERS

#: exact: the events are the increments, to the packet. bound: they differ as far as the identity allows, or as they
#: were read at another moment. no-event: such packets have no events. silent: lost packets that no counter shows, or
#: more of them than it shows. doubt: events of which neither the call site nor a counter tells whether they
#: are losses. unexplained: the counter has lost packets that nothing explains.
STATUSES: Final = ("exact", "bound", "unexplained", "no-event", "silent", "doubt")

#: The layer that lost what a driver counts, by stat_class (pktdrop.rules.driver_tables.STAT_CLASSES).
#: Those that are no loss of this host (pause, filter, warning) are not here.
STAT_CLASS_LAYERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fifo": "nic-fifo",
        "host": "nic-fifo",
        "limit": "nic-fifo",
        "ring": "nic-ring",
        "alloc": "driver",
        "error": "driver",
        "software": "driver",
        "xdp": "driver",
        "tx": "tx",
    }
)
#: What Classify says of an interface that counts packets whose events name another: at the other end of a veth pair, or
#: at the interface below a tunnel. Only there do events of other interfaces explain a counter.
PEER: Final = "peer"
#: Drivers, as ethtool names them, of such interfaces: veth_xmit (drivers/net/veth.c), vxlan_rcv (vxlan_core.c),
#: geneve_udp_encap_recv (geneve.c), tap_handle_frame (tap.c) for macvtap and ipvtap.
PEER_DRIVERS: Final = ("veth", "vxlan", "geneve", "macvlan", "macvtap", "ipvlan", "ipvtap")
#: What Classify says of an interface that counts once more what the interfaces below it count.
FOLDED: Final = "folded"
#: Drivers of such interfaces: bond_get_stats (drivers/net/bonding/bond_main.c), v6.1 v6.12 v7.3.
FOLDING_DRIVERS: Final = ("bonding",)
#: What Classify says of a field of which Drivers.nic_loss() has all that was lost.
SETTLED: Final = "settled"
_POSITION: Final = MappingProxyType({layer: number for number, layer in enumerate(LAYERS)})


class Entry(NamedTuple):
    """One counter that rose in one scope; or, with status silent, events that no counter shows."""

    layer: str
    counter: str
    """"softnet.dropped"; "none" if there is no counter of these events, or none that says whether they are losses."""
    scope: Scope
    delta: int
    """By how much the counter rose."""
    explained: int
    """How much of `delta` events account for."""
    unexplained: int
    """The rest: delta - explained. What it means is in the status; only with "unexplained" it is a riddle. With delta 0
    that of an interval before, which nothing has made good since."""
    status: str
    by: tuple[tuple[str, int], ...] = ()
    """Events by reason, most first. They may be more than the counter rose."""
    note: str = ""
    stat_class: str | None = None
    """What a driver counts here: one of driver_tables.STAT_CLASSES, PEER, FOLDED or SETTLED; None: no driver does."""
    is_open: bool = False
    """Whether the next interval may make good what is out of balance here: nothing is lost by it yet."""
    revealed: int = 0
    """Events that are called noise or doubt, and that are losses as this counter counted them."""

    @property
    def is_hardware(self) -> bool:
        """Tell whether a driver counts lost packets here, none of which had an event."""
        return self.status == "no-event" and self.stat_class in STAT_CLASS_LAYERS

    @property
    def surplus(self) -> int:
        """Events beyond what the counter rose by; 0 where the counter rose by more than events explain."""
        return max(0, sum(count for _, count in self.by) - self.explained)


def entry_order(
    entry: Entry,
) -> tuple[int, str, tuple[int | str | tuple[int, ...], ...], tuple[tuple[str, int], ...]]:
    """Return what entries are sorted by: the way of a packet, then counter, scope and reason."""
    netns, interface, queue, cpu, qdisc, socket = entry.scope
    scope = (
        netns_order(netns),
        interface or "",
        -1 if queue is None else queue,
        -1 if cpu is None else cpu,
        qdisc or "",
        socket or "",
    )
    return _POSITION[entry.layer], entry.counter, scope, entry.by
