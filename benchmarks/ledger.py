# SPDX-License-Identifier: MIT
"""CPU time of explaining the counters of one interval, where the same keys come again and again."""

import time
from array import array
from collections.abc import Iterator, Mapping
from itertools import islice, product
from statistics import median
from typing import NamedTuple

from benchmarks.report import Row, limit_row
from pktdrop.counters.increments import Increments
from pktdrop.ledger.books import why_of
from pktdrop.ledger.entry import PEER
from pktdrop.ledger.listing import Listing
from pktdrop.ledger.reconcile import Reconciler
from pktdrop.ledger.steady import Steady
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, DropKey, Netns
from pktdrop.model.snapshots import Drops
from pktdrop.rules.causes import Causes
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import Identities
from pktdrop.rules.layers import Layers
from tests.kit.windows import FixedWindows

_SIZES = (100, 1_000, 10_000)
"""Keys."""
_ROUNDS = 20
_RUNGS = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fexit"}
_CPUS = 4
_INTERFACES = 10
_NETNS = 4_026_531_833
_IPV4 = 0x0800


class _Kind(NamedTuple):
    """Drops of one reason, and the counters they move."""

    reason: str
    call_site: str
    counters: tuple[str, ...]


_KINDS = (
    _Kind("CPU_BACKLOG", "enqueue_to_backlog+0x1a8", ("softnet.dropped", "links.rx_dropped")),
    _Kind("NO_SOCKET", "__udp4_lib_rcv+0x4bc", ("mib.UdpNoPorts",)),
    _Kind("SOCKET_RCVBUFF", "__udp_queue_rcv_skb+0x9d", ("mib.UdpRcvbufErrors", "mib.UdpInErrors")),
    _Kind("IP_RPFILTER", "ip_rcv_finish_core+0x1e1", ("mib.TcpExtIPReversePathFilter",)),
    _Kind("UNHANDLED_PROTO", "__netif_receive_skb_core+0x8f1", ("links.rx_dropped",)),
    _Kind("QDISC_DROP", "__dev_queue_xmit+0x53", ("qdisc.drops",)),
    _Kind("NETFILTER_DROP", "nft_do_chain+0x36d", ()),
    _Kind("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv+0xd1", ("mib.TcpExtListenOverflows", "mib.TcpExtListenDrops")),
    _Kind("NOT_SPECIFIED", "veth_xmit+0x99", ("links.tx_dropped",)),
    _Kind("OTHERHOST", "ip_rcv_core+0x1b", ("links.rx_otherhost_dropped",)),
)


def _scope(source: str, key: DropKey) -> Scope:
    if source == "softnet":
        return Scope(cpu=key.target_cpu)
    return Scope(key.netns) if source == "mib" else Scope(key.netns, key.interface)


def _keys() -> Iterator[tuple[_Kind, DropKey]]:
    for netns in (Netns(_NETNS + number, number) for number in range(1, 1_001)):
        for number, cpu, kind in product(range(_INTERFACES), range(_CPUS), _KINDS):
            target = (cpu + 1) % _CPUS if kind.reason == "CPU_BACKLOG" else None
            rest = (
                number + 2,
                f"veth{number}",
                netns,
                f"netns{netns.cookie}",
                _IPV4,
                kind.call_site,
            )
            yield kind, DropKey(kind.reason, "core", cpu, target, *rest)


class _Interval(NamedTuple):
    drops: Mapping[DropKey, Count]
    increments: Increments
    windows: FixedWindows


def _interval(size: int) -> _Interval:
    """Let packets be lost; each third of the counters was read a moment later than the events."""
    drops: dict[DropKey, Count] = {}
    increments: dict[str, dict[Scope, dict[str, int]]] = {}
    for number, (kind, key) in enumerate(islice(_keys(), size)):
        drops[key] = Count(100, 6_000)
        for counter in kind.counters:
            source, _, name = counter.partition(".")
            names = increments.setdefault(source, {}).setdefault(_scope(source, key), {})
            names[name] = names.get(name, 0) + (100 if number % 3 else 102)
    counts = Drops.of(drops)
    inner, outer = (_each(counts, packets) for packets in (95, 105))
    return _Interval(counts, increments, FixedWindows(inner, outer))


def _each(drops: Drops, packets: int) -> Drops:
    size = len(drops)
    return Drops(drops.kinds, drops.numbers, array("Q", [packets] * size), array("Q", [packets * 60] * size))


def _classify(_counter: str, _scope: Scope) -> str | None:
    return PEER


def _rows(identities: Identities, size: int) -> list[Row]:
    interval = _interval(size)
    if len(interval.drops) != size:
        raise RuntimeError(f"{len(interval.drops)} keys were made, not {size}")
    causes = Causes.load()
    reconciler, steady = Reconciler(identities, _classify, why_of(Layers.load(), causes)), Steady()
    listing = Listing(identities, Drivers.load(), causes)
    spent, added = [], []
    for _ in range(_ROUNDS + 1):
        start = time.process_time()
        found = reconciler.reconcile(interval.drops, interval.increments, _RUNGS, interval.windows)
        explained = time.process_time()
        listing.step(found.lost, steady.settle(found.entries), interval.increments, {})
        spent.append((explained - start) * 1000)
        added.append((time.process_time() - explained) * 1000)
    return [
        limit_row(
            f"ledger of {size:,} keys and {len(found.entries):,} entries",
            "ms",
            median(spent[1:]),
            f"ledger.{size}",
        ),
        Row("  the first interval, all keys new", f"{spent[0]:.3g} ms"),
        Row("  what stays, and the list of losses", f"{median(added):.3g} ms"),
    ]


def measure() -> list[Row]:
    """Measure a usual interval, and larger ones."""
    identities = Identities.load()
    return [row for size in _SIZES for row in _rows(identities, size)]
