# SPDX-License-Identifier: MIT
"""Counters next to the events that account for them. Expected entries are written by hand from the kernel's rules."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.ledger.attribution import Carry
from pktdrop.ledger.entry import PEER, STATUSES, Entry
from pktdrop.ledger.matches import Classify
from pktdrop.ledger.reconcile import Reconciler
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, DropKey
from pktdrop.rules.layers import LAYERS
from tests.kit.windows import FixedWindows
from tests.unit.fates import (
    ETH0,
    FATES,
    HERE,
    IDENTITIES,
    IPV4,
    IPV6,
    NETNS,
    OTHER_NETNS,
    TRACED,
    WHY,
    Fate,
    Increments,
    backlog,
    counts,
    drivers,
    drop,
    happen,
    mib,
    nic,
    reconcile,
)
from tests.unit.fates import ledger as whole


def ledger(
    drops: Mapping[DropKey, int],
    increments: Increments,
    classify: Classify = lambda counter, scope: None,
    rungs: Mapping[str, str] = TRACED,
    windows: FixedWindows | None = None,
) -> list[tuple[str, Scope, int, int, int, str]]:
    """Reconcile; return of each entry counter, scope, delta, explained, unexplained and status."""
    entries = reconcile(counts(drops), increments, rungs, IDENTITIES, classify, windows)
    return [(e.counter, e.scope, e.delta, e.explained, e.unexplained, e.status) for e in entries]


@pytest.mark.parametrize(("delta", "status"), [(4, "silent"), (5, "bound"), (8, "bound"), (9, "bound")])
def test_what_a_counter_has_for_certain_may_be_all_it_has(delta: int, status: str) -> None:
    """TcpInErrs counts each wrong checksum, some of the wrong SYNs (tcp_validate_incoming), and other things."""
    events = {drop("TCP_CSUM", "tcp_v4_rcv+0x1"): 5, drop("TCP_INVALID_SYN", "tcp_rcv_established+0x2"): 3}
    found = {one[0]: one[-1] for one in ledger(events, mib(TcpInErrs=delta))}
    assert found["mib.TcpInErrs"] == status


# ------------------------------------------------------------------------------------------------ backlog


def test_backlog_is_exact_on_the_cpu_it_was_for() -> None:
    """CPU 0 frees, CPU 1 and 3 count: with the target known, each CPU and the device agree."""
    drops = {backlog(1): 812, backlog(3): 88}
    increments = {
        "softnet": {Scope(cpu=1): {"dropped": 812}, Scope(cpu=3): {"dropped": 88}},
        "links": {ETH0: {"rx_dropped": 900}},
    }
    assert ledger(drops, increments) == [
        ("links.rx_dropped", ETH0, 900, 900, 0, "exact"),
        ("softnet.dropped", Scope(cpu=1), 812, 812, 0, "exact"),
        ("softnet.dropped", Scope(cpu=3), 88, 88, 0, "exact"),
    ]


def test_backlog_without_target_is_compared_in_sum() -> None:
    """The freeing CPU is not the one that counts: only the sum over CPUs is compared, and the note says so."""
    drops = {backlog(None, current=0): 500, backlog(None, current=2): 400}
    increments = {"softnet": {Scope(cpu=1): {"dropped": 812}, Scope(cpu=3): {"dropped": 88}}}
    (entry,) = reconcile(counts(drops), increments, TRACED | {"enqueue_to_backlog": "none"}, IDENTITIES)
    assert (entry.counter, entry.scope, entry.delta, entry.explained) == ("softnet.dropped", Scope(), 900, 900)
    assert (entry.status, entry.by) == ("exact", (("CPU_BACKLOG", 900),))
    assert "all CPUs" in entry.note


def test_one_backlog_drop_of_unknown_target_compares_all_in_sum() -> None:
    """Where the target of some is not known, no CPU is accused of the rest."""
    increments = {"softnet": {Scope(cpu=1): {"dropped": 10}, Scope(cpu=3): {"dropped": 5}}}
    assert ledger({backlog(1): 10, backlog(None): 5}, increments) == [("softnet.dropped", Scope(), 15, 15, 0, "exact")]


@pytest.mark.parametrize(("reason", "softnet"), [("DEV_READY", 0), ("NOT_SPECIFIED", 7)])
def test_device_down_counts_in_softnet_where_it_has_no_reason(reason: str, softnet: int) -> None:
    """Kernels that call it DEV_READY left it out of softnet dropped in the same change; older ones count it."""
    drops = {backlog(1): 3, drop(reason, "enqueue_to_backlog", target_cpu=1): 7}
    increments = {"softnet": {Scope(cpu=1): {"dropped": 3 + softnet}}, "links": {ETH0: {"rx_dropped": 10}}}
    assert ledger(drops, increments) == [
        ("links.rx_dropped", ETH0, 10, 10, 0, "exact"),
        ("softnet.dropped", Scope(cpu=1), 3 + softnet, 3 + softnet, 0, "exact"),
    ]


def test_time_squeeze_is_a_warning() -> None:
    """It is shown with its counter, and nothing is lost by it."""
    increments = {"softnet": {Scope(cpu=0): {"time_squeeze": 9, "processed": 1000}}}
    entries = reconcile({}, increments, TRACED, IDENTITIES)
    assert [(entry.counter, entry.status) for entry in entries] == [("softnet.time_squeeze", "no-event")]
    assert whole({}, increments)[1] == {}


def test_cell_queue_of_tunnels_moves_the_device_only() -> None:
    """gro_cells has its own queue: softnet stays, the device counts."""
    key = drop("NOT_SPECIFIED", "gro_cells_receive", interface="vxlan0")
    increments = {"links": {ETH0._replace(interface="vxlan0"): {"rx_dropped": 4}}}
    assert ledger({key: 4}, increments) == [("links.rx_dropped", ETH0._replace(interface="vxlan0"), 4, 4, 0, "exact")]


# ------------------------------------------------------------------------------------------------ device


def test_unhandled_protocol_counts_in_one_of_two_fields() -> None:
    """The inactive port of a bond counts in rx_nohandler, others in rx_dropped: the sum is the events."""
    key = drop("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0+0x8f1", protocol=0x88CC)
    increments = {"links": {ETH0: {"rx_dropped": 6, "rx_nohandler": 4}}}
    assert ledger({key: 10}, increments) == [
        ("links.rx_dropped", ETH0, 6, 6, 0, "exact"),
        ("links.rx_nohandler", ETH0, 4, 4, 0, "exact"),
    ]


def test_device_rx_dropped_is_driver_part_plus_core_part() -> None:
    """What exceeds the events is the driver's where the driver counts there, and a riddle where it does not."""
    increments = {"links": {ETH0: {"rx_dropped": 100}}}
    with_driver = ledger({backlog(0): 30}, increments, lambda counter, scope: "ring")
    assert with_driver[0] == ("links.rx_dropped", ETH0, 100, 30, 70, "bound")
    assert ledger({backlog(0): 30}, increments)[0] == ("links.rx_dropped", ETH0, 100, 30, 70, "unexplained")
    assert ledger({}, increments, lambda counter, scope: "ring")[0] == (
        "links.rx_dropped",
        ETH0,
        100,
        0,
        100,
        "no-event",
    )


def test_interfaces_of_one_name_in_two_namespaces_are_two() -> None:
    """Device counters belong to the namespace of the device."""
    there = Scope(netns=OTHER_NETNS, interface="eth0")
    increments = {"links": {ETH0: {"rx_dropped": 2}, there: {"rx_dropped": 3}}}
    assert (
        ledger({backlog(0): 2, backlog(0, netns=OTHER_NETNS): 3}, increments)
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
    increments = {
        "softnet": {Scope(cpu=0): {"dropped": 50}},
        "links": {receiver: {"rx_dropped": 50}, sender: {"tx_dropped": 50}},
    }
    entries = reconcile(counts(drops), increments, TRACED, IDENTITIES, lambda counter, scope: PEER)
    assert [(entry.counter, entry.scope, entry.unexplained) for entry in entries] == [
        ("links.rx_dropped", receiver, 0),
        ("links.tx_dropped", sender, 0),
        ("softnet.dropped", Scope(cpu=0), 0),
    ]
    assert whole(counts(drops), increments, lambda counter, scope: PEER)[1] == {"backlog": 50}


def test_events_explain_counters_of_their_namespace_first() -> None:
    """Packets for a tunnel come by the interface below: the tunnel of the same namespace counts them."""
    tunnels = {netns: Scope(netns=netns, interface="vxlan0") for netns in (NETNS, OTHER_NETNS)}
    drops = {
        drop("VXLAN_INVALID_HDR", "vxlan_rcv", netns=OTHER_NETNS): 23,
        drop("IP_TUNNEL_ECN", "vxlan_rcv", netns=NETNS): 23,
    }
    increments = {"links": {tunnels[NETNS]: {"rx_errors": 23}, tunnels[OTHER_NETNS]: {"rx_dropped": 23}}}
    entries = reconcile(counts(drops), increments, TRACED, IDENTITIES, lambda counter, scope: PEER)
    assert [(entry.counter, entry.scope, entry.by) for entry in entries] == [
        ("links.rx_errors", tunnels[NETNS], (("IP_TUNNEL_ECN", 23),)),
        ("links.rx_dropped", tunnels[OTHER_NETNS], (("VXLAN_INVALID_HDR", 23),)),
    ]


def test_events_of_another_namespace_that_are_counted_do_not_hide_silent_ones() -> None:
    """Of two tunnels that refuse packets only one counts them: what the other refuses is silent."""
    drops = {drop("VXLAN_INVALID_HDR", "vxlan_rcv", netns=netns): 23 for netns in (NETNS, OTHER_NETNS)}
    increments = {"links": {Scope(netns=NETNS, interface="vxlan0"): {"rx_errors": 23}}}
    counted, silent = reconcile(counts(drops), increments, TRACED, IDENTITIES, lambda counter, scope: PEER)
    assert (counted.counter, counted.by) == ("links.rx_errors", (("VXLAN_INVALID_HDR", 23),))
    assert (silent.status, silent.scope.netns, silent.by) == ("silent", OTHER_NETNS, (("VXLAN_INVALID_HDR", 23),))


def test_own_drops_of_a_driver_are_not_explained_by_another_interface() -> None:
    """Backlog drops elsewhere say nothing of what a NIC could not send."""
    increments = {"links": {ETH0._replace(interface="eth1"): {"tx_dropped": 5}}}
    entries = ledger({backlog(0): 9}, increments, lambda counter, scope: "tx")
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
    assert whole(counts(drops), {"links": {ETH0: {"rx_otherhost_dropped": 40}}})[1] == {}


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


@pytest.mark.parametrize(("reason", "call_site", "protocol", "counter"), ONE_TO_ONE)
def test_one_event_is_one_increment(reason: str, call_site: str, protocol: int, counter: str) -> None:
    """Five events are five increments, exactly; two more of the counter are a rest of two."""
    drops = {drop(reason, call_site, protocol=protocol): 5}
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


@pytest.mark.parametrize(("reason", "call_site", "protocol", "counter"), AT_MOST)
def test_events_may_be_fewer_than_increments(reason: str, call_site: str, protocol: int, counter: str) -> None:
    """Increments without an event are within the bound and say why; more events than increments are not."""
    drops = {drop(reason, call_site, protocol=protocol): 5}
    (entry, *_) = reconcile(counts(drops), mib(**{counter: 8}), TRACED, IDENTITIES)
    assert (entry.counter, entry.explained, entry.unexplained, entry.status) == (f"mib.{counter}", 5, 3, "bound")
    assert entry.note
    (few, *_) = reconcile(counts(drops), mib(**{counter: 3}), TRACED, IDENTITIES)
    assert (few.explained, few.unexplained, few.surplus, few.status) == (3, 0, 2, "silent")


AT_LEAST = [
    ("FRAG_REASM_TIMEOUT", "ip_expire", IPV4, "IpReasmTimeout"),
    ("TCP_OFO_QUEUE_PRUNE", "tcp_prune_ofo_queue", IPV4, "TcpExtOfoPruned"),
    ("TCP_INVALID_SEQUENCE", "tcp_validate_incoming", IPV4, "TcpExtBeyondWindow"),
    ("PROTO_MEM", "udp_queue_rcv_one_skb", IPV4, "UdpMemErrors"),
    ("IP_NOPROTO", "ip_protocol_deliver_rcu", IPV4, "IpInUnknownProtos"),
]


@pytest.mark.parametrize(("reason", "call_site", "protocol", "counter"), AT_LEAST)
def test_events_may_be_more_than_increments(reason: str, call_site: str, protocol: int, counter: str) -> None:
    """One increment for many events is within the bound; increments beyond the events are not."""
    drops = {drop(reason, call_site, protocol=protocol): 5}
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
    increments = mib(UdpInErrors=100, UdpRcvbufErrors=90, UdpInCsumErrors=10)
    entries = reconcile(counts(drops), increments, TRACED, IDENTITIES)
    assert {(entry.counter, entry.explained, entry.status) for entry in entries} == {
        ("mib.UdpInErrors", 100, "exact"),
        ("mib.UdpRcvbufErrors", 90, "exact"),
        ("mib.UdpInCsumErrors", 10, "exact"),
    }
    assert whole(counts(drops), increments)[1] == {"stack": 10, "socket": 90}


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
    assert whole(counts(drops), mib(IpExtInCsumErrors=3, IpInHdrErrors=5))[1] == {"stack": 5}


def test_mibs_are_compared_within_their_namespace() -> None:
    """Ten in one namespace do not explain ten of another."""
    there = Scope(netns=OTHER_NETNS)
    drops = {drop("NO_SOCKET", "__udp4_lib_rcv", netns=OTHER_NETNS): 10}
    increments = {"mib": {HERE: {"UdpNoPorts": 10}}}
    assert ledger(drops, increments) == [
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
    increments = {"neigh": {Scope(cpu=0): {"unresolved_discards": 4}, Scope(cpu=1): {"unresolved_discards": 2}}}
    assert ledger(drops, increments) == [("neigh.unresolved_discards", Scope(), 6, 6, 0, "exact")]


def test_qdisc_drops_are_compared_by_interface() -> None:
    """One leaf that moved keeps its name; several of an interface are one sum."""
    drops = {drop("QDISC_DROP", "__dev_queue_xmit"): 9}
    one = ETH0._replace(qdisc="fq_codel 8001:")
    assert ledger(drops, {"qdisc": {one: {"drops": 9}}}) == [("qdisc.drops", one, 9, 9, 0, "exact")]
    two = ETH0._replace(qdisc="fq_codel 8002:")
    assert ledger(drops, {"qdisc": {one: {"drops": 5}, two: {"drops": 4}}}) == [("qdisc.drops", ETH0, 9, 9, 0, "exact")]


def test_syn_drops_have_no_events() -> None:
    """SYNs dropped at a full accept queue are consumed: only counters tell, and they are lost at the socket once."""
    increments = mib(TcpExtListenOverflows=6, TcpExtListenDrops=8, TcpExtTCPReqQFullDrop=2)
    entries = reconcile({}, increments, TRACED, IDENTITIES)
    assert {(entry.counter, entry.status) for entry in entries} == {
        ("mib.TcpExtListenOverflows", "no-event"),
        ("mib.TcpExtListenDrops", "no-event"),
        ("mib.TcpExtTCPReqQFullDrop", "no-event"),
    }
    assert whole({}, increments)[1] == {"socket": 8}


def test_third_acks_have_events_and_syns_have_not() -> None:
    """ListenOverflows holds both: the events are taken out, the rest is lost without events."""
    drops = {drop("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv"): 4}
    entries = reconcile(counts(drops), mib(TcpExtListenOverflows=10, TcpExtListenDrops=10), TRACED, IDENTITIES)
    assert {(entry.explained, entry.unexplained, entry.status) for entry in entries} == {(4, 6, "bound")}
    assert whole(counts(drops), mib(TcpExtListenOverflows=10, TcpExtListenDrops=10))[1] == {"socket": 10}


def test_drops_that_no_counter_shows_are_silent() -> None:
    """Events without any counter have an entry by reason, layer and place, and count as lost."""
    drops = {drop("NEIGH_DEAD", "__neigh_event_send"): 3, drop("NETFILTER_DROP", "nft_do_chain [nf_tables]"): 7}
    entries = reconcile(counts(drops), {}, TRACED, IDENTITIES)
    assert [(e.counter, e.layer, e.scope, e.delta, e.status, e.by) for e in entries] == [
        ("none", "stack", ETH0, 0, "silent", (("NEIGH_DEAD", 3),)),
        ("none", "stack", ETH0, 0, "silent", (("NETFILTER_DROP", 7),)),
    ]
    assert all(entry.note for entry in entries)
    assert whole(counts(drops), {})[1] == {"stack": 10}


def test_an_expected_counter_that_stands_still_is_named() -> None:
    """Events whose counter should have moved say which."""
    (entry,) = reconcile(counts({drop("IP_RPFILTER", "ip_rcv_finish_core"): 2}), {}, TRACED, IDENTITIES)
    assert (entry.status, entry.counter) == ("silent", "mib.TcpExtIPReversePathFilter")
    assert "did not move" in entry.note


def test_traffic_is_not_in_the_ledger() -> None:
    """Counters of packets and bytes are no loss counters."""
    increments = {"links": {ETH0: {"rx_packets": 10**9, "rx_bytes": 10**12}}, "mib": {HERE: {"IpInReceives": 10**9}}}
    assert ledger({}, increments) == []


# ------------------------------------------------------------------------------------------------ hardware--------


def test_hardware_counters_have_no_events_and_count_once() -> None:
    """The ring is counted by queue, in total and in rx_dropped: it lost 60 packets, not 180."""
    increments = {
        "driver": {ETH0: {"ethtool.rx_queue_0_drops": 20, "ethtool.rx_queue_1_drops": 40, "ethtool.rx_ring": 60,
                          "ethtool.fifo": 5, "ethtool.rx_pause": 1000}},
        "links": {ETH0: {"rx_dropped": 60, "rx_missed_errors": 5}},
    }  # fmt: skip
    entries = reconcile({}, increments, TRACED, IDENTITIES, nic)
    assert {entry.status for entry in entries} == {"no-event"}
    assert "ethtool.rx_pause" not in {entry.counter for entry in entries}
    assert whole({}, increments, nic)[1] == {"nic-fifo": 5, "nic-ring": 60}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 1000), st.integers(0, 1000))))
def test_each_increment_is_explained_or_not(fates: list[tuple[Fate, int, int]]) -> None:
    """Explained and unexplained are the delta, statuses are those of the design, and nothing is negative."""
    drops, increments, _ = happen(fates)
    for entry in reconcile(drops, increments, TRACED, IDENTITIES, drivers):
        assert entry.explained + entry.unexplained == entry.delta
        assert min(entry.explained, entry.unexplained, entry.surplus) >= 0
        assert entry.status in STATUSES
        assert entry.layer in LAYERS


# ------------------------------------------------------------------------------------------------ reading apart


def test_a_doubt_that_only_a_window_holds_is_none_of_this_interval() -> None:
    """The outer window may hold events of which the interval has none, and whose groups are new with it."""
    closing = drop("NOT_SPECIFIED", "tcp_v4_rcv+0x91")
    windows = FixedWindows(counts({backlog(1): 100}), counts({backlog(1): 110, closing: 3}))
    increments = {"softnet": {Scope(cpu=1): {"dropped": 103}}}
    found = reconcile(counts({backlog(1): 100}), increments, TRACED, IDENTITIES, windows=windows)
    assert [entry.status for entry in found] == ["bound"]


def test_a_counter_between_the_two_windows_is_no_riddle() -> None:
    """Events were read before and after the counters: what lies between was only read at another moment."""
    windows = FixedWindows(counts({backlog(1): 95}), counts({backlog(1): 110}))
    increments = {"softnet": {Scope(cpu=1): {"dropped": 103}}}
    (entry, *_) = reconcile(counts({backlog(1): 100}), increments, TRACED, IDENTITIES, windows=windows)
    assert (entry.status, entry.explained, entry.unexplained) == ("bound", 100, 3)
    assert "read" in entry.note
    for delta, status in ((94, "silent"), (111, "unexplained")):
        increments = {"softnet": {Scope(cpu=1): {"dropped": delta}}}
        (entry, *_) = reconcile(counts({backlog(1): 100}), increments, TRACED, IDENTITIES, windows=windows)
        assert entry.status == status


# ------------------------------------------------------------------------------------------------ again and again


class Window(NamedTuple):
    """What one interval brings."""

    drops: dict[DropKey, Count]
    increments: Increments
    windows: FixedWindows


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Packets lost in any way, some unseen, some of an unknown CPU or namespace; counters read a moment apart."""
    fates = draw(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 50), st.integers(0, 50)), max_size=12))
    drops, increments, _ = happen(fates)
    for key in (backlog(None), drop("NO_SOCKET", "__udp4_lib_rcv", netns=None, interface=None)):
        packets = draw(st.integers(0, 9))
        if packets:
            drops[key] = Count(packets, 0)
    fewer, more = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    inner = {key: Count(max(0, count.packets - fewer), 0) for key, count in drops.items()}
    outer = {key: Count(count.packets + more, 0) for key, count in drops.items()}
    if more:
        outer[drop("IP_RPFILTER", "ip_rcv_finish_core", cpu=7)] = Count(more, 0)
    return Window(drops, increments, FixedWindows(inner, outer))


def shuffled(drops: Mapping[DropKey, Count], order: Random) -> dict[DropKey, Count]:
    """The same events in another order."""
    items = list(drops.items())
    order.shuffle(items)
    return dict(items)


@settings(deadline=None)
@given(windows(), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(window: Window, order: Random) -> None:
    """Maps of the kernel are read in any order."""
    entries = reconcile(window.drops, window.increments, TRACED, IDENTITIES, drivers, window.windows)
    windows = FixedWindows(shuffled(window.windows.inner, order), shuffled(window.windows.outer, order))
    assert reconcile(shuffled(window.drops, order), window.increments, TRACED, IDENTITIES, drivers, windows) == entries


@settings(deadline=None)
@given(st.lists(windows(), max_size=4))
def test_what_is_remembered_changes_nothing(several: list[Window]) -> None:
    """Each interval is explained as if it were the first."""
    reconciler = Reconciler(IDENTITIES, drivers, WHY)
    for drops, increments, windows in [*several, *several]:
        alone = reconcile(drops, increments, TRACED, IDENTITIES, drivers, windows)
        assert reconciler.reconcile(drops, increments, TRACED, windows).entries == alone


def assert_consistent(entry: Entry) -> None:
    """A status says what the numbers say."""
    events = sum(count for _, count in entry.by)
    assert (entry.status != "exact") or (entry.delta == events == entry.explained)
    assert (entry.status != "unexplained") or entry.unexplained > 0
    assert (entry.status != "silent") or events > entry.delta == entry.explained


@settings(deadline=None)
@given(windows())
def test_explained_and_unexplained_are_the_increments(window: Window) -> None:
    """With windows too, and without tracing; without events nothing is a riddle."""
    for rungs in (TRACED, {}):
        for entry in reconcile(window.drops, window.increments, rungs, IDENTITIES, drivers, window.windows):
            assert entry.explained + entry.unexplained == entry.delta
            assert min(entry.explained, entry.unexplained) >= 0
            assert rungs or entry.status not in ("unexplained", "exact", "bound")
            assert_consistent(entry)


def test_events_after_the_reading_of_their_counter_are_not_silent() -> None:
    """Their counter was read before them and rises in the next interval; what has no counter at all is silent."""
    drops = counts({drop("IP_RPFILTER", "ip_rcv_finish_core"): 5, drop("NETFILTER_DROP", "nft_do_chain"): 2})
    late = reconcile(drops, {}, TRACED, IDENTITIES, windows=FixedWindows({}, drops))
    assert [(entry.counter, entry.status) for entry in late] == [("none", "silent")]
    seen = reconcile(drops, {}, TRACED, IDENTITIES, windows=FixedWindows(drops, drops))
    assert [entry.counter for entry in seen] == ["mib.TcpExtIPReversePathFilter", "none"]


def test_keys_that_do_not_come_again_are_forgotten() -> None:
    """Interfaces come and go: of 9,000 keys nothing is held when one is left, and the ledger stays right."""
    reconciler = Reconciler(IDENTITIES, lambda _counter, _scope: None, WHY)
    many = counts({backlog(0)._replace(interface=f"veth{number}"): 1 for number in range(9_000)})
    one = counts({backlog(0): 3})
    increments = {"softnet": {Scope(cpu=0): {"dropped": 3}}, "links": {ETH0: {"rx_dropped": 3}}}
    first = reconciler.reconcile(one, increments, TRACED).entries
    key = next(iter(many))
    held = sys.getrefcount(key)
    reconciler.reconcile(many, {}, TRACED)
    assert sys.getrefcount(key) > held
    assert reconciler.reconcile(one, increments, TRACED).entries == first
    assert sys.getrefcount(key) == held


def test_namespaces_are_compared_each_by_itself() -> None:
    """A namespace that was not read for a while may bring more than the interval; another is not judged by it."""
    here, there = drop("NO_SOCKET", "__udp4_lib_rcv"), drop("NO_SOCKET", "__udp4_lib_rcv", netns=OTHER_NETNS)
    increments = {
        "mib": {HERE: {"UdpNoPorts": 5}, Scope(netns=OTHER_NETNS): {"UdpNoPorts": 700, "TcpExtListenDrops": 8}}
    }
    assert ledger({here: 5, there: 7}, increments) == [
        ("mib.TcpExtListenDrops", Scope(netns=OTHER_NETNS), 8, 0, 8, "no-event"),
        ("mib.UdpNoPorts", HERE, 5, 5, 0, "exact"),
        ("mib.UdpNoPorts", Scope(netns=OTHER_NETNS), 700, 7, 693, "unexplained"),
    ]


def test_cpus_are_in_the_order_of_their_numbers() -> None:
    """CPU 10 stands behind CPU 2."""
    increments = {"softnet": {Scope(cpu=cpu): {"dropped": 1} for cpu in (10, 2, 0)}}
    assert [entry.scope.cpu for entry in reconcile({}, increments, {}, IDENTITIES)] == [0, 2, 10]


def test_losses_of_hardware_are_told_from_others() -> None:
    """The ring has no events; softnet and SYNs without events are no hardware; nor is rx_dropped with events."""
    increments = {
        "driver": {ETH0: {"ethtool.rx_ring": 60}},
        "links": {ETH0: {"rx_dropped": 100, "rx_missed_errors": 5}},
        "softnet": {Scope(cpu=0): {"dropped": 40}},
        "mib": {HERE: {"TcpExtListenDrops": 3}},
    }
    entries = reconcile(counts({backlog(0): 40}), increments, TRACED, IDENTITIES, nic)
    assert [entry.counter for entry in entries if entry.is_hardware] == ["links.rx_missed_errors", "ethtool.rx_ring"]


def test_a_counter_that_is_read_late_has_what_was_dropped_before() -> None:
    """Five of an interval in which its namespace was not read, and as many of this one as lie between its windows."""
    closed = drop("NO_SOCKET", "udp_rcv+0x1")
    reconciler, carry = Reconciler(IDENTITIES, lambda _counter, _scope: None, WHY), Carry()
    reconciler.reconcile(counts({closed: 5}), {}, TRACED, carry=carry, is_read=lambda netns: netns != NETNS)
    windows = FixedWindows(counts({closed: 8}), counts({closed: 13}))
    found = reconciler.reconcile(
        counts({closed: 10}), mib(UdpNoPorts=17), TRACED, windows, carry, is_late=lambda _: True
    )
    (entry,) = found.entries
    assert (entry.status, entry.explained, entry.is_open) == ("bound", 15, True)


def test_events_that_wait_for_their_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be any number of namespaces that are not read: the oldest are forgotten, and then not explained."""
    monkeypatch.setattr("pktdrop.ledger.attribution._KEPT", 1)
    kinds = {drop("NO_SOCKET", "udp_rcv+0x1"): 5, drop("IP_OUTNOROUTES", "ip_error+0x1"): 7}
    reconciler, carry = Reconciler(IDENTITIES, lambda _counter, _scope: None, WHY), Carry()
    for kind, packets in kinds.items():
        reconciler.reconcile(counts({kind: packets}), {}, TRACED, carry=carry, is_read=lambda netns: netns != NETNS)
    late = mib(UdpNoPorts=5, IpOutNoRoutes=7)
    found = reconciler.reconcile({}, late, TRACED, carry=carry, is_late=lambda _: True)
    assert {entry.counter: entry.explained for entry in found.entries} == {"mib.UdpNoPorts": 0, "mib.IpOutNoRoutes": 7}
