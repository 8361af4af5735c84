# SPDX-License-Identifier: MIT
"""Counters next to the events that account for them. Expected entries are written by hand from the kernel's rules."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters.model import Scope
from pktdrop.layers import LAYERS, Layers
from pktdrop.ledger.entry import STATUSES, Entry
from pktdrop.ledger.identities import Identities
from pktdrop.ledger.reconcile import PEER, Bracket, Classify, reconcile
from pktdrop.ledger.steady import Steady
from pktdrop.ledger.totals import totals
from pktdrop.model import Count, DropKey
from tests.unit.make import make_drop

NETNS, OTHER_NETNS = 4026531833, 4026532281
IPV4, IPV6 = 0x0800, 0x86DD
TRACED = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}
IDENTITIES = Identities.load()
LAYER_RULES = Layers.load()

ETH0 = Scope(netns=NETNS, interface="eth0")
HERE = Scope(netns=NETNS)

Moved = Mapping[str, Mapping[Scope, Mapping[str, int]]]


def drop(reason: str, site: str, **changes: Any) -> DropKey:
    """An event on eth0 of the host, in the layer that the rules of pktdrop.layers give it."""
    key = make_drop(
        **{"reason": reason, "location": site, "interface": "eth0", "ifindex": 2, "netns": NETNS, "netns_name": "host"}
        | changes
    )
    verdict = LAYER_RULES.verdict(key.subsystem, key.reason, key.location, key.protocol)
    return key._replace(layer=verdict.layer, noise=verdict.noise)


def backlog(cpu: int | None, current: int = 0, **changes: Any) -> DropKey:
    """A packet for which the backlog of a CPU had no room, or a CPU that is not known."""
    return drop("CPU_BACKLOG", "enqueue_to_backlog+0x1d1", cpu=current, target_cpu=cpu, **changes)


def counts(drops: Mapping[DropKey, int]) -> dict[DropKey, Count]:
    """Give events a length of 100 each."""
    return {key: Count(packets, 100 * packets) for key, packets in drops.items()}


def ledger(
    drops: Mapping[DropKey, int],
    moved: Moved,
    classify: Classify = lambda counter, scope: None,
    rungs: Mapping[str, str] = TRACED,
    bracket: Bracket | None = None,
) -> list[tuple[str, Scope, int, int, int, str]]:
    """Reconcile; return of each entry counter, scope, delta, explained, unexplained and status."""
    entries = reconcile(counts(drops), moved, rungs, IDENTITIES, classify, bracket)
    return [(e.counter, e.scope, e.delta, e.explained, e.unexplained, e.status) for e in entries]


def mib(**moved: int) -> Moved:
    """Counters of the host's namespace that moved."""
    return {"mib": {HERE: moved}}


# ------------------------------------------------------------------------------------------------ backlog


def test_backlog_is_exact_on_the_cpu_it_was_for() -> None:
    """CPU 0 frees, CPU 1 and 3 count: with the target known, each CPU and the device agree."""
    drops = {backlog(1): 812, backlog(3): 88}
    moved = {
        "softnet": {Scope(cpu=1): {"dropped": 812}, Scope(cpu=3): {"dropped": 88}},
        "links": {ETH0: {"rx_dropped": 900}},
    }
    assert ledger(drops, moved) == [
        ("links.rx_dropped", ETH0, 900, 900, 0, "exact"),
        ("softnet.dropped", Scope(cpu=1), 812, 812, 0, "exact"),
        ("softnet.dropped", Scope(cpu=3), 88, 88, 0, "exact"),
    ]


def test_backlog_without_target_is_compared_in_sum() -> None:
    """The freeing CPU is not the one that counts: only the sum over CPUs is compared, and the note says so."""
    drops = {backlog(None, current=0): 500, backlog(None, current=2): 400}
    moved = {"softnet": {Scope(cpu=1): {"dropped": 812}, Scope(cpu=3): {"dropped": 88}}}
    (entry,) = reconcile(counts(drops), moved, TRACED | {"enqueue_to_backlog": "none"}, IDENTITIES)
    assert (entry.counter, entry.scope, entry.delta, entry.explained) == ("softnet.dropped", Scope(), 900, 900)
    assert (entry.status, entry.by) == ("exact", (("CPU_BACKLOG", 900),))
    assert "all CPUs" in entry.note


def test_one_backlog_drop_of_unknown_target_compares_all_in_sum() -> None:
    """Where the target of some is not known, no CPU is accused of the rest."""
    moved = {"softnet": {Scope(cpu=1): {"dropped": 10}, Scope(cpu=3): {"dropped": 5}}}
    assert ledger({backlog(1): 10, backlog(None): 5}, moved) == [("softnet.dropped", Scope(), 15, 15, 0, "exact")]


@pytest.mark.parametrize(("reason", "softnet"), [("DEV_READY", 0), ("NOT_SPECIFIED", 7)])
def test_device_down_counts_in_softnet_where_it_has_no_reason(reason: str, softnet: int) -> None:
    """Kernels that call it DEV_READY left it out of softnet dropped in the same change; older ones count it."""
    drops = {backlog(1): 3, drop(reason, "enqueue_to_backlog", target_cpu=1): 7}
    moved = {"softnet": {Scope(cpu=1): {"dropped": 3 + softnet}}, "links": {ETH0: {"rx_dropped": 10}}}
    assert ledger(drops, moved) == [
        ("links.rx_dropped", ETH0, 10, 10, 0, "exact"),
        ("softnet.dropped", Scope(cpu=1), 3 + softnet, 3 + softnet, 0, "exact"),
    ]


def test_time_squeeze_is_a_warning() -> None:
    """It is shown with its counter, and nothing is lost by it."""
    moved = {"softnet": {Scope(cpu=0): {"time_squeeze": 9, "processed": 1000}}}
    entries = reconcile({}, moved, TRACED, IDENTITIES)
    assert [(entry.counter, entry.status) for entry in entries] == [("softnet.time_squeeze", "no-event")]
    assert totals(entries, {}, IDENTITIES) == {}


def test_cell_queue_of_tunnels_moves_the_device_only() -> None:
    """gro_cells has its own queue: softnet stays, the device counts."""
    key = drop("NOT_SPECIFIED", "gro_cells_receive", interface="vxlan0")
    moved = {"links": {ETH0._replace(interface="vxlan0"): {"rx_dropped": 4}}}
    assert ledger({key: 4}, moved) == [("links.rx_dropped", ETH0._replace(interface="vxlan0"), 4, 4, 0, "exact")]


# ------------------------------------------------------------------------------------------------ device


def test_unhandled_protocol_counts_in_one_of_two_fields() -> None:
    """The inactive port of a bond counts in rx_nohandler, others in rx_dropped: the sum is the events."""
    key = drop("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0+0x8f1", protocol=0x88CC)
    moved = {"links": {ETH0: {"rx_dropped": 6, "rx_nohandler": 4}}}
    assert ledger({key: 10}, moved) == [
        ("links.rx_dropped", ETH0, 6, 6, 0, "exact"),
        ("links.rx_nohandler", ETH0, 4, 4, 0, "exact"),
    ]


def test_device_rx_dropped_is_driver_part_plus_core_part() -> None:
    """What exceeds the events is the driver's where the driver counts there, and a riddle where it does not."""
    moved = {"links": {ETH0: {"rx_dropped": 100}}}
    with_driver = ledger({backlog(0): 30}, moved, lambda counter, scope: "ring")
    assert with_driver[0] == ("links.rx_dropped", ETH0, 100, 30, 70, "bound")
    assert ledger({backlog(0): 30}, moved)[0] == ("links.rx_dropped", ETH0, 100, 30, 70, "unexplained")
    assert ledger({}, moved, lambda counter, scope: "ring")[0] == ("links.rx_dropped", ETH0, 100, 0, 100, "no-event")


def test_interfaces_of_one_name_in_two_namespaces_are_two() -> None:
    """Device counters belong to the namespace of the device."""
    there = Scope(netns=OTHER_NETNS, interface="eth0")
    moved = {"links": {ETH0: {"rx_dropped": 2}, there: {"rx_dropped": 3}}}
    assert (
        ledger({backlog(0): 2, backlog(0, netns=OTHER_NETNS): 3}, moved)
        == [
            ("links.rx_dropped", ETH0, 2, 2, 0, "exact"),
            ("links.rx_dropped", there, 3, 3, 0, "exact"),
            # and softnet did not move at all
            ("softnet.dropped", ETH0, 0, 0, 0, "silent"),
        ][:2]
    )


def test_veth_counts_a_backlog_drop_at_both_ends() -> None:
    """The event names the receiving end; the sending end counts the same packet in tx_dropped. It is lost once."""
    receiver, sender = Scope(netns=OTHER_NETNS, interface="v1"), Scope(netns=NETNS, interface="v0")
    drops = {backlog(0, netns=OTHER_NETNS, interface="v1"): 50}
    moved = {
        "softnet": {Scope(cpu=0): {"dropped": 50}},
        "links": {receiver: {"rx_dropped": 50}, sender: {"tx_dropped": 50}},
    }
    entries = reconcile(counts(drops), moved, TRACED, IDENTITIES, lambda counter, scope: PEER)
    assert [(entry.counter, entry.scope, entry.unexplained) for entry in entries] == [
        ("links.rx_dropped", receiver, 0),
        ("links.tx_dropped", sender, 0),
        ("softnet.dropped", Scope(cpu=0), 0),
    ]
    assert totals(entries, counts(drops), IDENTITIES) == {"backlog": 50}


def test_own_drops_of_a_driver_are_not_explained_by_another_interface() -> None:
    """Backlog drops elsewhere say nothing of what a NIC could not send."""
    moved = {"links": {ETH0._replace(interface="eth1"): {"tx_dropped": 5}}}
    entries = ledger({backlog(0): 9}, moved, lambda counter, scope: "tx")
    assert entries[-1] == ("links.tx_dropped", ETH0._replace(interface="eth1"), 5, 0, 5, "no-event")


def test_tun_drops_add_up_to_tx_dropped() -> None:
    """All reasons of tun_net_xmit together are the tx_dropped of the tap."""
    tap = ETH0._replace(interface="tap0")
    drops = {
        drop("FULL_RING", "tun_net_xmit+0x1 [tun]", interface="tap0"): 4,
        drop("TAP_FILTER", "tun_net_xmit", interface="tap0"): 2,
        drop("DEV_READY", "tun_net_xmit", interface="tap0"): 1,
    }
    (entry,) = reconcile(counts(drops), {"links": {tap: {"tx_dropped": 7}}}, TRACED, IDENTITIES)
    assert (entry.status, entry.layer) == ("exact", "tx")
    assert entry.by == (("FULL_RING", 4), ("TAP_FILTER", 2), ("DEV_READY", 1))


def test_noise_explains_counters_and_is_no_loss() -> None:
    """Frames for other hosts move a counter and lose nothing."""
    drops = {drop("OTHERHOST", "ip_rcv_core"): 40}
    entries = reconcile(counts(drops), {"links": {ETH0: {"rx_otherhost_dropped": 40}}}, TRACED, IDENTITIES)
    assert [(entry.counter, entry.status) for entry in entries] == [("links.rx_otherhost_dropped", "exact")]
    assert totals(entries, counts(drops), IDENTITIES) == {}


# ------------------------------------------------------------------------------------------------ protocols

ONE_TO_ONE = [
    ("IP_RPFILTER", "ip_rcv_finish_core.isra.0", IPV4, "TcpExtIPReversePathFilter"),
    ("PKT_TOO_SMALL", "ip_rcv_core", IPV4, "IpExtInTruncatedPkts"),
    ("PKT_TOO_SMALL", "ip6_rcv_core.isra.0", IPV6, "Ip6InTruncatedPkts"),
    ("IP_INADDRERRORS", "ip_error", IPV4, "IpInAddrErrors"),
    ("IP_INADDRERRORS", "ip6_forward", IPV6, "Ip6InAddrErrors"),
    ("IP_INNOROUTES", "ip_error", IPV4, "IpExtInNoRoutes"),
    ("IP_INNOROUTES", "ip6_pkt_drop", IPV6, "Ip6InNoRoutes"),
    ("IP_NOPROTO", "ip6_protocol_deliver_rcu", IPV6, "Ip6InUnknownProtos"),
    ("NO_SOCKET", "__udp4_lib_rcv", IPV4, "UdpNoPorts"),
    ("NO_SOCKET", "__udp6_lib_rcv", IPV6, "Udp6NoPorts"),
    ("PROTO_MEM", "tcp_data_queue", IPV4, "TcpExtTCPRcvQDrop"),
    ("PROTO_MEM", "tcp_data_queue_ofo", IPV4, "TcpExtTCPOFODrop"),
    ("SOCKET_BACKLOG", "tcp_add_backlog", IPV4, "TcpExtTCPBacklogDrop"),
    ("TCP_MD5NOTFOUND", "tcp_v4_rcv", IPV4, "TcpExtTCPMD5NotFound"),
    ("TCP_MD5UNEXPECTED", "tcp_v4_rcv", IPV4, "TcpExtTCPMD5Unexpected"),
    ("TCP_MD5FAILURE", "tcp_v4_rcv", IPV4, "TcpExtTCPMD5Failure"),
    ("TCP_AOKEYNOTFOUND", "tcp_v4_rcv", IPV4, "TcpExtTCPAOKeyNotFound"),
    ("TCP_ZEROWINDOW", "tcp_data_queue", IPV4, "TcpExtTCPZeroWindowDrop"),
    ("TCP_OFOMERGE", "tcp_data_queue_ofo", IPV4, "TcpExtTCPOFOMerge"),
    ("TCP_RFC7323_PAWS_ACK", "tcp_validate_incoming", IPV4, "TcpExtPAWSOldAck"),
    ("TCP_RFC7323_TW_PAWS", "tcp_v4_rcv", IPV4, "TcpExtPAWSTimewait"),
    ("TCP_RFC7323_TSECR", "tcp_v4_rcv", IPV4, "TcpExtTSEcrRejected"),
    ("TCP_INVALID_SYN", "tcp_validate_incoming", IPV4, "TcpExtTCPSYNChallenge"),
    ("IPV6DISABLED", "ip6_output", IPV6, "Ip6OutDiscards"),
]


@pytest.mark.parametrize(("reason", "site", "protocol", "counter"), ONE_TO_ONE)
def test_one_event_is_one_increment(reason: str, site: str, protocol: int, counter: str) -> None:
    """Five events are five increments, exactly; two more of the counter are a rest of two."""
    drops = {drop(reason, site, protocol=protocol): 5}
    assert ledger(drops, mib(**{counter: 5})) == [(f"mib.{counter}", HERE, 5, 5, 0, "exact")]
    assert ledger(drops, mib(**{counter: 7})) == [(f"mib.{counter}", HERE, 7, 5, 2, "unexplained")]


AT_MOST = [
    ("UNICAST_IN_L2_MULTICAST", "ip6_rcv_core", IPV6, "Ip6InHdrErrors"),
    ("IP_INHDR", "ip_forward", IPV4, "IpInHdrErrors"),
    ("PKT_TOO_BIG", "ip_forward", IPV4, "IpFragFails"),
    ("IP_OUTNOROUTES", "__ip_queue_xmit", IPV4, "IpOutNoRoutes"),
    ("IPV6DISABLED", "ip6_rcv_core", IPV6, "Ip6InDiscards"),
    ("NO_SOCKET", "tcp_v4_rcv", IPV4, "TcpOutRsts"),
    ("TCP_OLD_DATA", "tcp_data_queue", IPV4, "TcpExtDelayedACKLost"),
    ("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv", IPV4, "TcpExtListenOverflows"),
]


@pytest.mark.parametrize(("reason", "site", "protocol", "counter"), AT_MOST)
def test_events_may_be_fewer_than_increments(reason: str, site: str, protocol: int, counter: str) -> None:
    """Increments without an event are within the bound and say why; more events than increments are not."""
    drops = {drop(reason, site, protocol=protocol): 5}
    (entry, *_) = reconcile(counts(drops), mib(**{counter: 8}), TRACED, IDENTITIES)
    assert (entry.counter, entry.explained, entry.unexplained, entry.status) == (f"mib.{counter}", 5, 3, "bound")
    assert entry.note
    (few, *_) = reconcile(counts(drops), mib(**{counter: 3}), TRACED, IDENTITIES)
    assert (few.explained, few.unexplained, few.surplus, few.status) == (3, 0, 2, "unexplained")


AT_LEAST = [
    ("FRAG_REASM_TIMEOUT", "ip_expire", IPV4, "IpReasmTimeout"),
    ("TCP_OFO_QUEUE_PRUNE", "tcp_prune_ofo_queue", IPV4, "TcpExtOfoPruned"),
    ("TCP_INVALID_SEQUENCE", "tcp_validate_incoming", IPV4, "TcpExtBeyondWindow"),
    ("PROTO_MEM", "udp_queue_rcv_one_skb", IPV4, "UdpMemErrors"),
    ("IP_NOPROTO", "ip_protocol_deliver_rcu", IPV4, "IpInUnknownProtos"),
]


@pytest.mark.parametrize(("reason", "site", "protocol", "counter"), AT_LEAST)
def test_events_may_be_more_than_increments(reason: str, site: str, protocol: int, counter: str) -> None:
    """One increment for many events is within the bound; increments beyond the events are not."""
    drops = {drop(reason, site, protocol=protocol): 5}
    (entry, *_) = reconcile(counts(drops), mib(**{counter: 1}), TRACED, IDENTITIES)
    assert (entry.counter, entry.explained, entry.unexplained, entry.status) == (f"mib.{counter}", 1, 0, "bound")
    assert ledger(drops, mib(**{counter: 6}))[0][4:] == (1, "unexplained")


def test_fragments_too_far_apart_are_many_for_one_failure() -> None:
    """The counter of failures rises once for all fragments of a packet."""
    drops = {drop("FRAG_TOO_FAR", "inet_frag_queue_flush"): 5}
    assert ledger(drops, mib(IpReasmFails=1)) == [("mib.IpReasmFails", HERE, 1, 1, 0, "bound")]


def test_receive_buffer_counts_twice_and_is_lost_once() -> None:
    """RcvbufErrors is inside InErrors: both are explained by the same events."""
    drops = {drop("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb"): 90, drop("UDP_CSUM", "udp_queue_rcv_one_skb"): 10}
    moved = mib(UdpInErrors=100, UdpRcvbufErrors=90, UdpInCsumErrors=10)
    entries = reconcile(counts(drops), moved, TRACED, IDENTITIES)
    assert {(entry.counter, entry.explained, entry.status) for entry in entries} == {
        ("mib.UdpInErrors", 100, "exact"),
        ("mib.UdpRcvbufErrors", 90, "exact"),
        ("mib.UdpInCsumErrors", 10, "exact"),
    }
    assert totals(entries, counts(drops), IDENTITIES) == {"stack": 10, "socket": 90}


def test_udp_lite_is_told_by_its_counter() -> None:
    """The event is the same for UDP and UDP-Lite; the counters say how many of each."""
    drops = {drop("NO_SOCKET", "__udp4_lib_rcv"): 10}
    assert ledger(drops, mib(UdpNoPorts=7, UdpLiteNoPorts=3)) == [
        ("mib.UdpLiteNoPorts", HERE, 3, 3, 0, "exact"),
        ("mib.UdpNoPorts", HERE, 7, 7, 0, "exact"),
    ]


def test_checksum_of_the_ip_header_moves_two_counters() -> None:
    """InCsumErrors is inside InHdrErrors."""
    drops = {drop("IP_CSUM", "ip_rcv_core"): 3, drop("IP_INHDR", "ip_rcv_core"): 2}
    entries = reconcile(counts(drops), mib(IpExtInCsumErrors=3, IpInHdrErrors=5), TRACED, IDENTITIES)
    assert [(e.counter, e.explained, e.unexplained) for e in entries] == [
        ("mib.IpExtInCsumErrors", 3, 0),
        ("mib.IpInHdrErrors", 5, 0),
    ]
    assert totals(entries, counts(drops), IDENTITIES) == {"stack": 5}


def test_mibs_are_compared_within_their_namespace() -> None:
    """Ten in one namespace do not explain ten of another."""
    there = Scope(netns=OTHER_NETNS)
    drops = {drop("NO_SOCKET", "__udp4_lib_rcv", netns=OTHER_NETNS): 10}
    moved = {"mib": {HERE: {"UdpNoPorts": 10}}}
    assert ledger(drops, moved) == [
        ("mib.UdpNoPorts", HERE, 10, 0, 10, "unexplained"),
        ("mib.UdpNoPorts", there, 0, 0, 0, "silent"),
    ]


def test_events_of_an_unknown_namespace_explain_but_only_as_a_bound() -> None:
    """Where an event was is not known: it may be the one that counted, which nothing proves."""
    (entry,) = reconcile(
        counts({drop("NO_SOCKET", "__udp4_lib_rcv", netns=None, interface=None): 10}),
        mib(UdpNoPorts=10),
        TRACED,
        IDENTITIES,
    )
    assert (entry.explained, entry.status) == (10, "bound")
    assert "not known" in entry.note


def test_neighbour_queue_is_counted_for_the_host() -> None:
    """unresolved_discards has a line for each CPU, and no namespace: the sum is compared."""
    drops = {drop("NEIGH_QUEUEFULL", "__neigh_event_send", netns=OTHER_NETNS): 6}
    moved = {"neigh": {Scope(cpu=0): {"unresolved_discards": 4}, Scope(cpu=1): {"unresolved_discards": 2}}}
    assert ledger(drops, moved) == [("neigh.unresolved_discards", Scope(), 6, 6, 0, "exact")]


def test_qdisc_drops_are_compared_by_interface() -> None:
    """One leaf that moved keeps its name; several of an interface are one sum."""
    drops = {drop("QDISC_DROP", "__dev_queue_xmit"): 9}
    one = ETH0._replace(qdisc="fq_codel 8001:")
    assert ledger(drops, {"qdisc": {one: {"drops": 9}}}) == [("qdisc.drops", one, 9, 9, 0, "exact")]
    two = ETH0._replace(qdisc="fq_codel 8002:")
    assert ledger(drops, {"qdisc": {one: {"drops": 5}, two: {"drops": 4}}}) == [("qdisc.drops", ETH0, 9, 9, 0, "exact")]


def test_syn_drops_have_no_events() -> None:
    """SYNs dropped at a full accept queue are consumed: only counters tell, and they are lost at the socket once."""
    moved = mib(TcpExtListenOverflows=6, TcpExtListenDrops=8, TcpExtTCPReqQFullDrop=2)
    entries = reconcile({}, moved, TRACED, IDENTITIES)
    assert {(entry.counter, entry.status) for entry in entries} == {
        ("mib.TcpExtListenOverflows", "no-event"),
        ("mib.TcpExtListenDrops", "no-event"),
        ("mib.TcpExtTCPReqQFullDrop", "no-event"),
    }
    assert totals(entries, {}, IDENTITIES) == {"socket": 8}


def test_third_acks_have_events_and_syns_have_not() -> None:
    """ListenOverflows holds both: the events are taken out, the rest is lost without events."""
    drops = {drop("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv"): 4}
    entries = reconcile(counts(drops), mib(TcpExtListenOverflows=10, TcpExtListenDrops=10), TRACED, IDENTITIES)
    assert {(entry.explained, entry.unexplained, entry.status) for entry in entries} == {(4, 6, "bound")}
    assert totals(entries, counts(drops), IDENTITIES) == {"socket": 10}


def test_drops_that_no_counter_shows_are_silent() -> None:
    """Events without any counter have an entry by reason, layer and place, and count as lost."""
    drops = {drop("NEIGH_DEAD", "__neigh_event_send"): 3, drop("NETFILTER_DROP", "nft_do_chain [nf_tables]"): 7}
    entries = reconcile(counts(drops), {}, TRACED, IDENTITIES)
    assert [(e.counter, e.layer, e.scope, e.delta, e.status, e.by) for e in entries] == [
        ("none", "stack", ETH0, 0, "silent", (("NEIGH_DEAD", 3),)),
        ("none", "stack", ETH0, 0, "silent", (("NETFILTER_DROP", 7),)),
    ]
    assert all(entry.note for entry in entries)
    assert totals(entries, counts(drops), IDENTITIES) == {"stack": 10}


def test_an_expected_counter_that_stands_still_is_named() -> None:
    """Events whose counter should have moved say which."""
    (entry,) = reconcile(counts({drop("IP_RPFILTER", "ip_rcv_finish_core"): 2}), {}, TRACED, IDENTITIES)
    assert (entry.status, entry.counter) == ("silent", "mib.TcpExtIPReversePathFilter")
    assert "did not move" in entry.note


def test_traffic_is_not_in_the_ledger() -> None:
    """Counters of packets and bytes are no loss counters."""
    moved = {"links": {ETH0: {"rx_packets": 10**9, "rx_bytes": 10**12}}, "mib": {HERE: {"IpInReceives": 10**9}}}
    assert ledger({}, moved) == []


# ------------------------------------------------------------------------------------------------ hardware, totals


def nic(counter: str, scope: Scope) -> str | None:
    """A NIC that counts its ring by queue and in total, its FIFO, and the ring in rx_dropped too."""
    if counter in ("ethtool.rx_ring", "links.rx_dropped") or counter.startswith("ethtool.rx_queue_"):
        return "ring"
    return {"links.rx_missed_errors": "fifo", "ethtool.fifo": "fifo", "ethtool.alloc": "alloc"}.get(counter)


def test_hardware_counters_have_no_events_and_count_once() -> None:
    """The ring is counted by queue, in total and in rx_dropped: it lost 60 packets, not 180."""
    moved = {
        "driver": {ETH0: {"ethtool.rx_queue_0_drops": 20, "ethtool.rx_queue_1_drops": 40, "ethtool.rx_ring": 60,
                          "ethtool.fifo": 5, "ethtool.rx_pause": 1000}},
        "links": {ETH0: {"rx_dropped": 60, "rx_missed_errors": 5}},
    }  # fmt: skip
    entries = reconcile({}, moved, TRACED, IDENTITIES, nic)
    assert {entry.status for entry in entries} == {"no-event"}
    assert "ethtool.rx_pause" not in {entry.counter for entry in entries}
    assert totals(entries, {}, IDENTITIES) == {"nic-fifo": 5, "nic-ring": 60}


def test_hardware_losses_can_be_given_by_class() -> None:
    """The driver table knows better which counters count the same packets: what it says is taken."""
    moved = {"links": {ETH0: {"rx_dropped": 60}}}
    entries = reconcile({}, moved, TRACED, IDENTITIES, nic)
    hardware = {(NETNS, "eth0"): {"ring": 60, "fifo": 5, "alloc": 2, "pause": 1000}}
    assert totals(entries, {}, IDENTITIES, hardware) == {"nic-fifo": 5, "nic-ring": 60, "driver": 2}


def test_ring_and_backlog_in_one_field_are_told_apart() -> None:
    """rx_dropped holds 60 of the ring and 40 of the backlog: 100 are lost."""
    moved = {
        "driver": {ETH0: {"ethtool.rx_ring": 60}},
        "links": {ETH0: {"rx_dropped": 100}},
        "softnet": {Scope(cpu=0): {"dropped": 40}},
    }
    drops = counts({backlog(0): 40})
    entries = reconcile(drops, moved, TRACED, IDENTITIES, nic)
    assert totals(entries, drops, IDENTITIES) == {"nic-ring": 60, "backlog": 40}


def test_counters_alone_add_up_too() -> None:
    """Without events the counters say what was lost, each packet once although three count it."""
    moved = {
        "softnet": {Scope(cpu=1): {"dropped": 812}},
        "links": {ETH0: {"rx_dropped": 812}},
        "mib": {HERE: {"UdpInErrors": 100, "UdpRcvbufErrors": 90, "UdpNoPorts": 7}},
    }
    entries = reconcile({}, moved, {}, IDENTITIES)
    assert {entry.status for entry in entries} == {"no-event"}
    assert totals(entries, {}, IDENTITIES) == {"backlog": 812, "socket": 107}


def test_unexplained_rests_are_lost_packets_once() -> None:
    """Events that were missed leave a rest in softnet and in rx_dropped: the same packets."""
    moved = {"softnet": {Scope(cpu=1): {"dropped": 100}}, "links": {ETH0: {"rx_dropped": 100}}}
    drops = counts({backlog(1): 90})
    entries = reconcile(drops, moved, TRACED, IDENTITIES)
    assert {(entry.unexplained, entry.status) for entry in entries} == {(10, "unexplained")}
    assert totals(entries, drops, IDENTITIES) == {"backlog": 100}


class Fate:
    """One way to lose a packet: its event, the counters it moves, and the layer that lost it."""

    def __init__(self, layer: str, event: DropKey | None, *moved: tuple[str, Scope, str]) -> None:
        self.layer, self.event, self.moved = layer, event, moved


LINK, MIB, TAP = ("links", ETH0), ("mib", HERE), ETH0._replace(interface="tap0")
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
    Fate("socket", drop("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb"), (*MIB, "UdpRcvbufErrors"), (*MIB, "UdpInErrors")),
    Fate("socket", drop("PROTO_MEM", "udp_queue_rcv_one_skb")),
    Fate("socket", None, (*MIB, "TcpExtListenOverflows"), (*MIB, "TcpExtListenDrops")),
    Fate("socket", None, (*MIB, "TcpExtTCPReqQFullDrop"), (*MIB, "TcpExtListenDrops")),
    Fate(
        "socket",
        drop("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv"),
        (*MIB, "TcpExtListenOverflows"),
        (*MIB, "TcpExtListenDrops"),
    ),
    Fate("qdisc", drop("QDISC_DROP", "__dev_queue_xmit"), ("qdisc", ETH0._replace(qdisc="pfifo 1:"), "drops")),
    Fate("tx", drop("FULL_RING", "tun_net_xmit", interface="tap0"), ("links", TAP, "tx_dropped")),
    # no loss
    Fate("", drop("OTHERHOST", "ip_rcv_core"), (*LINK, "rx_otherhost_dropped")),
    Fate("", drop("TCP_OFOMERGE", "tcp_data_queue_ofo"), (*MIB, "TcpExtTCPOFOMerge")),
]  # fmt: skip


def no_ring_in_links(counter: str, scope: Scope) -> str | None:
    """The NIC above, which leaves rx_dropped alone."""
    return None if counter == "links.rx_dropped" else nic(counter, scope)


def happen(fates: Sequence[tuple[Fate, int, int]]) -> tuple[dict[DropKey, Count], Moved, dict[str, int]]:
    """Let packets be lost, some unseen by the tracer; return what is seen, what is counted, what is lost by layer."""
    drops: Tally[DropKey] = Tally()
    moved: dict[str, dict[Scope, Tally[str]]] = {}
    lost: Tally[str] = Tally()
    for fate, packets, missed in fates:
        lost[fate.layer] += packets
        if fate.event is not None:
            drops[fate.event] += packets - min(missed, packets)
        for source, scope, name in fate.moved:
            moved.setdefault(source, {}).setdefault(scope, Tally())[name] += packets
    return counts(drops), moved, {layer: lost[layer] for layer in LAYERS if lost[layer]}


@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 1000), st.just(0))))
def test_every_lost_packet_is_in_exactly_one_layer(fates: list[tuple[Fate, int, int]]) -> None:
    """However packets are lost, and however often each is counted, the layers add up to the packets lost."""
    drops, moved, lost = happen(fates)
    entries = reconcile(drops, moved, TRACED, IDENTITIES, no_ring_in_links)
    assert totals(entries, drops, IDENTITIES) == lost
    assert not [entry for entry in entries if entry.status == "unexplained"]


COUNTED = [fate for fate in FATES if fate.moved and fate.layer and fate.event != FATES[6].event]


@given(st.lists(st.tuples(st.sampled_from(COUNTED), st.integers(1, 1000), st.integers(0, 1000))))
def test_packets_whose_events_were_missed_are_lost_all_the_same(fates: list[tuple[Fate, int, int]]) -> None:
    """What a tracer misses is unexplained, but still in the layer of its counter, and there once."""
    drops, moved, lost = happen(fates)
    entries = reconcile(drops, moved, TRACED, IDENTITIES, no_ring_in_links)
    assert sum(totals(entries, drops, IDENTITIES).values()) == sum(lost.values())


@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 1000), st.integers(0, 1000))))
def test_each_increment_is_explained_or_not(fates: list[tuple[Fate, int, int]]) -> None:
    """Explained and unexplained are the delta, statuses are those of the design, and nothing is negative."""
    drops, moved, _ = happen(fates)
    for entry in reconcile(drops, moved, TRACED, IDENTITIES, no_ring_in_links):
        assert entry.explained + entry.unexplained == entry.delta
        assert min(entry.explained, entry.unexplained, entry.surplus) >= 0
        assert entry.status in STATUSES
        assert entry.layer in LAYERS


# ------------------------------------------------------------------------------------------------ reading apart


def test_a_counter_between_the_two_windows_is_exact() -> None:
    """Events were read before and after the counters: what lies between was only read at another moment."""
    bracket = Bracket(counts({backlog(1): 95}), counts({backlog(1): 110}))
    moved = {"softnet": {Scope(cpu=1): {"dropped": 103}}}
    (entry, *_) = reconcile(counts({backlog(1): 100}), moved, TRACED, IDENTITIES, bracket=bracket)
    assert (entry.status, entry.explained, entry.unexplained) == ("exact", 103, 0)
    assert "read" in entry.note
    for delta in (94, 111):
        moved = {"softnet": {Scope(cpu=1): {"dropped": delta}}}
        (entry, *_) = reconcile(counts({backlog(1): 100}), moved, TRACED, IDENTITIES, bracket=bracket)
        assert entry.status == "unexplained"


def entry_of(delta: int, events: int) -> Entry:
    """What reconcile() makes of a counter with an identity of one to one."""
    moved = {"softnet": {Scope(cpu=1): {"dropped": delta}}}
    entries = reconcile(counts({backlog(1): events} if events else {}), moved, TRACED, IDENTITIES)
    found = [entry for entry in entries if entry.counter == "softnet.dropped"]
    return found[0] if found else Entry("backlog", "softnet.dropped", Scope(cpu=1), 0, 0, 0, "exact")


def unexplained(steady: Steady, delta: int, events: int) -> int:
    """Return what is reported after one more interval."""
    return sum(entry.unexplained for entry in steady.settle([entry_of(delta, events)]) if entry.status == "unexplained")


def test_a_rest_that_is_made_good_is_not_reported() -> None:
    """Five increments whose events come an interval later are no riddle."""
    steady = Steady()
    assert [unexplained(steady, *both) for both in [(100, 95), (100, 105), (100, 100)]] == [0, 0, 0]


def test_events_before_their_counter_are_not_reported() -> None:
    """A counter that stands still while its events come, and makes up for it in the next interval, is no riddle."""
    steady, drops = Steady(), counts({drop("IP_RPFILTER", "ip_rcv_finish_core"): 5})
    first = steady.settle(reconcile(drops, {}, TRACED, IDENTITIES))
    second = steady.settle(reconcile({}, mib(TcpExtIPReversePathFilter=5), TRACED, IDENTITIES))
    assert [(entry.counter, entry.status) for entry in (*first, *second)] == [
        ("mib.TcpExtIPReversePathFilter", "bound"),
        ("mib.TcpExtIPReversePathFilter", "bound"),
    ]
    assert steady.settle([]) == ()


def test_a_rest_that_stays_is_reported_once() -> None:
    """Five increments without events are reported when an interval has not brought them."""
    steady = Steady()
    assert [unexplained(steady, *both) for both in [(100, 95), (100, 100), (100, 100)]] == [0, 5, 0]


def test_a_rest_that_grows_is_reported_as_it_grows() -> None:
    """A counter that each interval has five more than the events is reported from the second on."""
    steady = Steady()
    assert [unexplained(steady, 100, 95) for _ in range(4)] == [0, 5, 5, 5]


def test_a_rest_of_a_counter_that_stands_still_is_reported() -> None:
    """An entry is made for it, with a delta of 0."""
    steady = Steady()
    assert [entry.status for entry in steady.settle([entry_of(5, 0)])] == ["bound"]
    (late,) = steady.settle([])
    assert (late.counter, late.delta, late.unexplained, late.status) == ("softnet.dropped", 0, 5, "unexplained")
    assert steady.settle([]) == ()


def test_other_entries_pass() -> None:
    """What is explained, within its bound or without events is not held back."""
    entries = reconcile({}, mib(TcpExtListenDrops=8), TRACED, IDENTITIES)
    assert Steady().settle(entries) == entries


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(-50, 50)), max_size=30))
def test_jitter_alone_is_never_reported(intervals: list[tuple[int, int]]) -> None:
    """Events shifted to the next interval, but not out of balance twice in a row, are not reported."""
    steady = Steady()
    for packets, late in intervals:
        shifted = min(abs(late), packets)
        sign = 1 if late > 0 else -1
        assert unexplained(steady, packets, packets - sign * shifted) == 0
        assert unexplained(steady, packets, packets + sign * shifted) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_every_lasting_rest_is_reported_in_full(rests: list[int]) -> None:
    """What is missing is reported one interval late, all of it, and none of it twice."""
    steady = Steady()
    told = sum(unexplained(steady, 100 + rest, 100) for rest in [*rests, 0])
    assert told == sum(rests)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=40))
def test_no_more_is_reported_than_ever_was_missing(intervals: list[tuple[int, int]]) -> None:
    """The number reported never exceeds all increments beyond events."""
    steady = Steady()
    told = sum(unexplained(steady, delta, events) for delta, events in intervals)
    assert told <= sum(max(0, delta - events) for delta, events in intervals)
