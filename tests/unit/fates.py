# SPDX-License-Identifier: MIT
"""Ways to lose packets: the events, the counters they move, the layer. Written by hand from the kernel's rules."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

from pktdrop.ledger.books import why_of
from pktdrop.ledger.entry import PEER, Entry
from pktdrop.ledger.listing import Listing
from pktdrop.ledger.loss import by_layer
from pktdrop.ledger.matches import Classify
from pktdrop.ledger.reconcile import Reconciler
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, DropKey, Netns
from pktdrop.rules.causes import Causes
from pktdrop.rules.driver_tables import LINKS, TABLE
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import Identities
from pktdrop.rules.layers import LAYERS, Layers
from tests.kit.windows import FixedWindows
from tests.unit.make import make_drop

NETNS, OTHER_NETNS = Netns(4026531833, 1), Netns(4026532281, 7)
IPV4, IPV6 = 0x0800, 0x86DD
TRACED = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}
IDENTITIES = Identities.load()
LAYER_RULES = Layers.load()

CAUSES = Causes.load()
WHY = why_of(LAYER_RULES, CAUSES)
NICS = Drivers(
    TABLE.parse(
        [
            "driver	name	stat_class	event	role	counts	bits	note	source",
            "fate	rx_queue_{queue}_drops	ring	-	queue	loss	-	-	a NIC of these tests",
            "fate	rx_ring	ring	-	total	loss	-	-	a NIC of these tests",
            "fate	fifo	fifo	-	single	loss	-	-	a NIC of these tests",
            "fate	alloc	alloc	-	single	loss	-	-	a NIC of these tests",
            "fate	pause	pause	-	single	hint	-	-	a NIC of these tests",
        ]
    ),
    LINKS.parse(
        [
            "driver	field	stat_class	events	relation	meaning	source",
            "fate	rx_missed_errors	fifo	fifo	exact	-	a NIC of these tests",
            "again	rx_missed_errors	ring	ring	exact	-	a NIC of these tests",
        ]
    ),
)
"""The drivers "fate", which counts as nic() says, and "again", which counts missed frames in rx_errors once more."""

ETH0 = Scope(netns=NETNS, interface="eth0")
HERE = Scope(netns=NETNS)

Increments = Mapping[str, Mapping[Scope, Mapping[str, int]]]


def drop(reason: str, call_site: str, **changes: Any) -> DropKey:
    """An event on eth0 of the host."""
    return make_drop(
        **{
            "reason": reason,
            "call_site": call_site,
            "interface": "eth0",
            "ifindex": 2,
            "netns": NETNS,
            "netns_name": "host",
        }
        | changes
    )


def backlog(cpu: int | None, current: int = 0, **changes: Any) -> DropKey:
    """A packet for which the backlog of a CPU had no room, or a CPU that is not known."""
    return drop("CPU_BACKLOG", "enqueue_to_backlog+0x1d1", cpu=current, target_cpu=cpu, **changes)


def counts(drops: Mapping[DropKey, int]) -> dict[DropKey, Count]:
    """Give events a length of 100 each."""
    return {key: Count(packets, 100 * packets) for key, packets in drops.items()}


def mib(**increments: int) -> Increments:
    """Counters of the host's namespace that moved."""
    return {"mib": {HERE: increments}}


def nic(counter: str, scope: Scope) -> str | None:
    """A NIC that counts its ring by queue and in total, its FIFO, and the ring in rx_dropped too."""
    if counter in ("ethtool.rx_ring", "links.rx_dropped") or counter.startswith("ethtool.rx_queue_"):
        return "ring"
    return {"links.rx_missed_errors": "fifo", "ethtool.fifo": "fifo", "ethtool.alloc": "alloc"}.get(counter)


class Fate:
    """One way to lose a packet: its event, the counters it moves, and the layer that lost it."""

    def __init__(self, layer: str, event: DropKey | None, *increments: tuple[str, Scope, str]) -> None:
        self.layer, self.event, self.moved = layer, event, increments


LINK, MIB, TAP = ("links", ETH0), ("mib", HERE), ETH0._replace(interface="tap0")
SENDER, RECEIVER = Scope(netns=NETNS, interface="v0"), Scope(netns=OTHER_NETNS, interface="v1")
"""The ends of a veth pair."""
DNS = ("socket", HERE._replace(socket="udp 0.0.0.0:53 ino:812"), "drops")
LISTENER = ("socket", HERE._replace(socket="tcp 0.0.0.0:80 ino:813"), "drops")
LEAF = ("qdisc", ETH0._replace(qdisc="pfifo 1:"), "drops")
FATES = [
    Fate("nic-ring", None, ("driver", ETH0, "ethtool.rx_queue_0_drops"), ("driver", ETH0, "ethtool.rx_ring")),
    Fate("nic-ring", None, ("driver", ETH0, "ethtool.rx_queue_1_drops"), ("driver", ETH0, "ethtool.rx_ring")),
    Fate("nic-fifo", None, (*LINK, "rx_missed_errors")),
    Fate("driver", None, ("driver", ETH0, "ethtool.alloc")),
    Fate("backlog", backlog(0), ("softnet", Scope(cpu=0), "dropped"), (*LINK, "rx_dropped")),
    Fate("backlog", backlog(1), ("softnet", Scope(cpu=1), "dropped"), (*LINK, "rx_dropped")),
    Fate("backlog", drop("DEV_READY", "enqueue_to_backlog", target_cpu=0), (*LINK, "rx_dropped")),
    Fate("stack", drop("IP_RPFILTER", "ip_rcv_finish_core"), (*MIB, "TcpExtIPReversePathFilter")),
    Fate("stack", drop("IP_CSUM", "ip_rcv_core"), (*MIB, "IpExtInCsumErrors"), (*MIB, "IpInHdrErrors")),
    Fate("stack", drop("NETFILTER_DROP", "nft_do_chain")),
    Fate("socket", drop("NO_SOCKET", "__udp4_lib_rcv"), (*MIB, "UdpNoPorts")),
    Fate("socket", drop("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb"), (*MIB, "UdpRcvbufErrors"), (*MIB, "UdpInErrors"),
         DNS),
    Fate("socket", drop("PROTO_MEM", "udp_queue_rcv_one_skb")),
    Fate("socket", None, (*MIB, "TcpExtListenOverflows"), (*MIB, "TcpExtListenDrops"), LISTENER),
    Fate("socket", None, (*MIB, "TcpExtTCPReqQFullDrop"), (*MIB, "TcpExtListenDrops"), LISTENER),
    Fate(
        "socket",
        drop("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv"),
        (*MIB, "TcpExtListenOverflows"),
        (*MIB, "TcpExtListenDrops"),
        LISTENER,
    ),
    Fate("qdisc", drop("QDISC_DROP", "__dev_queue_xmit"), LEAF),
    Fate("qdisc", drop("QDISC_DROP", "__dev_queue_xmit"), LEAF, (*MIB, "IpOutDiscards"), (*MIB, "UdpSndbufErrors")),
    Fate("tx", drop("FULL_RING", "tun_net_xmit", interface="tap0"), ("links", TAP, "tx_dropped")),
    # drivers/net/veth.c veth_xmit: the other end has no room, or is down
    Fate("backlog", backlog(1, netns=OTHER_NETNS, interface="v1"), ("softnet", Scope(cpu=1), "dropped"),
         ("links", RECEIVER, "rx_dropped"), ("links", SENDER, "tx_dropped")),
    Fate("tx", drop("NOT_SPECIFIED", "veth_xmit", netns=OTHER_NETNS, interface="v1"),
         ("links", RECEIVER, "rx_dropped"), ("links", SENDER, "tx_dropped")),
    # no loss
    Fate("", drop("OTHERHOST", "ip_rcv_core"), (*LINK, "rx_otherhost_dropped")),
    Fate("", drop("TCP_OFOMERGE", "tcp_data_queue_ofo"), (*MIB, "TcpExtTCPOFOMerge")),
]  # fmt: skip


def drivers(counter: str, scope: Scope) -> str | None:
    """The veth pair, and the NIC above, which leaves rx_dropped alone."""
    if scope.interface in ("v0", "v1"):
        return PEER
    return None if counter == "links.rx_dropped" else nic(counter, scope)


def happen(fates: Sequence[tuple[Fate, int, int]]) -> tuple[dict[DropKey, Count], Increments, dict[str, int]]:
    """Let packets be lost, some unseen by the tracer; return what is seen, what is counted, what is lost by layer."""
    drops: Tally[DropKey] = Tally()
    increments: dict[str, dict[Scope, Tally[str]]] = {}
    lost: Tally[str] = Tally()
    for fate, packets, missed in fates:
        lost[fate.layer] += packets
        if fate.event is not None:
            drops[fate.event] += packets - min(missed, packets)
        for source, scope, name in fate.moved:
            increments.setdefault(source, {}).setdefault(scope, Tally())[name] += packets
    return counts(drops), increments, {layer: lost[layer] for layer in LAYERS if lost[layer]}


def reconcile(
    drops: Mapping[DropKey, Count],
    increments: Increments,
    rungs: Mapping[str, str],
    identities: Identities,
    classify: Classify = lambda _counter, _scope: None,
    windows: FixedWindows | None = None,
) -> tuple[Entry, ...]:
    """Explain one interval alone."""
    return Reconciler(identities, classify, WHY).reconcile(drops, increments, rungs, windows).entries


def ledger(
    drops: Mapping[DropKey, Count],
    increments: Increments,
    classify: Classify = lambda _counter, _scope: None,
    rungs: Mapping[str, str] = TRACED,
    driver: str = "fate",
) -> tuple[tuple[Entry, ...], dict[str, int]]:
    """What the real ledger makes of one window: its entries, and what was lost by layer."""
    found = Reconciler(IDENTITIES, classify, WHY).reconcile(drops, increments, rungs)
    losses = Listing(IDENTITIES, NICS, CAUSES).step(found.lost, found.entries, increments, {(NETNS, "eth0"): driver})
    return found.entries, dict(by_layer(losses))
