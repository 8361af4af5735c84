# SPDX-License-Identifier: MIT
"""What tests of the live view give it: whole Looks, and a screen that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pktdrop.account import Account
from pktdrop.filters import Filters
from pktdrop.ledger.books import Ledger
from pktdrop.ledger.entry import Entry
from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import Counters, Row, Scope
from pktdrop.model.drops import Count, DropKey, Known, Netns
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Owner
from pktdrop.samples.gather import ByKind
from pktdrop.top.panel import Run
from pktdrop.top.reader import Shown
from pktdrop.top.screen import Screen
from tests.kit.frames import ether, ipv4, ipv6, tcp, udp
from tests.kit.windows import FixedWindows
from tests.unit.make import (
    JUDGE,
    NOON,
    make_backlog_drop,
    make_drop,
    make_interval,
    make_ledger,
    make_look,
    make_loss,
    make_noise,
    make_sample,
)

HOST, BLUE = Netns(4026531833, 1), Netns(4026532281, 7)
NAMES = {HOST: "host", BLUE: "blue"}
ETH0 = Scope(netns=HOST, interface="eth0")
CPU3 = Scope(cpu=3)
NFT = make_drop(
    reason="NETFILTER_DROP", cpu=1, ifindex=12, interface="veth-a", netns=Netns(4026532999, 9), netns_name="green",
    call_site="nft_do_chain+0x4bc [nf_tables]",
)  # fmt: skip
DROPS = {
    make_drop(): Count(1000, 28000),
    make_drop(cpu=1): Count(200, 5600),
    make_backlog_drop(): Count(812, 81200),
    NFT: Count(3, 252),
    make_noise(): Count(50, 3000),
}
"""2,015 packets lost, 50 of noise."""
NO_PORTS = Entry("socket", "mib.UdpNoPorts", Scope(netns=BLUE), 1200, 1200, 0, "exact", (("NO_SOCKET", 1200),))
FULL = Entry("backlog", "softnet.dropped", CPU3, 812, 812, 0, "exact", (("CPU_BACKLOG", 812),))
RING = Entry("nic-ring", "ethtool.rx_no_dma_resources", ETH0._replace(queue=3), 500, 0, 500, "no-event")
RIDDLE = Entry("stack", "mib.IpInAddrErrors", Scope(netns=BLUE), 7, 3, 4, "unexplained", (("IP_INADDRERRORS", 3),))
LEDGER = make_ledger(
    NO_PORTS, FULL, RING, RIDDLE,
    losses=(
        make_loss(500, "nic-ring", Whereabouts(HOST, "eth0", queues=((3, 500),)), without_event=500, stat_class="ring",
                  counters=("ethtool.rx_no_dma_resources",)),
        make_loss(812, "backlog", Whereabouts(HOST, "eth0", cpu=3)),
        make_loss(3, "stack", Whereabouts(BLUE)),
        make_loss(4, "stack", Whereabouts(BLUE), without_event=4, note="nothing explains it",
                  counters=(RIDDLE.counter,)),
        make_loss(1200, "socket", Whereabouts(BLUE)),
    ),
)  # fmt: skip
"""2,519 packets: those of DROPS, 500 that the ring lost and 4 that nothing explains."""
STATSD = Owner(812, "statsd")
SAMPLES: ByKind = {
    make_drop(): [make_sample(owner=STATSD), make_sample(ether(0x0800, ipv4(17, udp(43211))), owner=STATSD)],
    make_drop(cpu=1): [make_sample(key=make_drop(cpu=1), owner=STATSD)],
    NFT: [make_sample(ether(0x0800, ipv4(6, tcp(bits=2), source="10.0.0.7")), key=NFT)],
    make_noise(): [make_sample(ether(0x86DD, ipv6(17, udp(5353, 5353))), key=make_noise())],
}
"""Three of the 1,200 datagrams for a process, one of three segments that a rule dropped, one of 50 of noise."""
SOFTNET = ("processed", "dropped", "time_squeeze", "received_rps", "flow_limit_count")
BACKLOG = ("backlog_len", "input_qlen", "process_qlen")
MOVED = {
    "softnet": {CPU3: {"processed": 4000, "dropped": 812, "time_squeeze": 6}},
    "links": {ETH0: {"rx_packets": 9000, "tx_packets": 20}},
}


def make_counters() -> Counters:
    """Two CPUs, of which CPU 3 has 300 packets waiting, and two interfaces."""
    return Counters(
        time=NOON,
        monotonic=10.0,
        rows={
            "softnet": {scope: Row(SOFTNET, (1, 2, 3, 4, 5)) for scope in (Scope(cpu=0), CPU3)},
            "links": {scope: Row((), ()) for scope in (ETH0, Scope(netns=BLUE, interface="lo"))},
        },
        gauges={"softnet": {Scope(cpu=0): Row(BACKLOG, (0, 0, 0)), CPU3: Row(BACKLOG, (300, 299, 1))}},
        inodes={},
        drivers={(HOST, "eth0"): "igb"},
        netns=frozenset((HOST, BLUE)),
        failed=frozenset(),
        limits=(),
    )


def make_step(
    drops: Mapping[DropKey, Count] | None = None,
    ledger: Ledger | None = None,
    increments: Mapping[str, Mapping[Scope, Mapping[str, int]]] | None = None,
    limits: tuple[Limit, ...] = (),
    samples: ByKind | None = None,
    **changes: Any,
) -> Shown:
    """Two seconds; what was lost is by layer what the drops are, unless a ledger says otherwise."""
    drops = drops or {}
    if ledger is None:
        lost: dict[str, int] = {}
        for key, count in drops.items():
            verdict = JUDGE(key)
            if verdict.noise is None:
                lost[verdict.layer] = lost.get(verdict.layer, 0) + count.packets
        ledger = make_ledger(losses=tuple(make_loss(packets, layer) for layer, packets in lost.items()))
    look = make_look(make_counters(), namespaces=Known(NAMES))
    account = Account(
        make_interval(drops, **changes),
        ledger,
        increments or {},
        look,
        FixedWindows(drops, drops),
        JUDGE,
        samples=samples or {},
    )
    return Shown(account, limits)


def busy_look() -> Shown:
    """Something of everything."""
    return make_step(DROPS, LEDGER, MOVED, samples=SAMPLES)


def make_screen(*looks: Shown, interval: float = 2.0, filters: Filters | None = None) -> Screen:
    """A screen on the host "box" that has taken some looks."""
    screen = Screen(Run("box", "6.18.44", "tp_btf fentry"), filters or Filters([]), interval)
    for look in looks:
        screen.take(look)
    return screen
