# SPDX-License-Identifier: MIT
"""Packets lost by layer, each once. Expected numbers follow from the packets that the test lets be lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.ledger.entry import FOLDED
from pktdrop.ledger.matches import Classify
from pktdrop.ledger.rests import Rests
from pktdrop.model.counters import Scope
from tests.unit.fates import (
    DNS,
    ETH0,
    FATES,
    HERE,
    IDENTITIES,
    IPV4,
    IPV6,
    LEAF,
    LISTENER,
    RECEIVER,
    SENDER,
    Fate,
    Increments,
    backlog,
    counts,
    drivers,
    drop,
    happen,
    ledger,
    mib,
    nic,
)


def test_hardware_losses_are_told_by_class() -> None:
    """The driver table knows better which counters count the same packets: what it says is taken."""
    statistics = {"ethtool.rx_ring": 60, "ethtool.fifo": 5, "ethtool.alloc": 2, "ethtool.pause": 1000}
    increments = {"links": {ETH0: {"rx_dropped": 60}}, "driver": {ETH0: statistics}}
    assert ledger({}, increments, nic)[1] == {"nic-fifo": 5, "nic-ring": 60, "driver": 2}


def test_errors_that_count_missed_frames_again_are_no_damaged_frames() -> None:
    """pcnet32 and 8139too count an interrupt that tells of missed frames in rx_errors; more than that was damaged."""

    def missed_again(counter: str, _scope: Scope) -> str | None:
        return {"links.rx_missed_errors": "ring", "links.rx_errors": "ring"}.get(counter)

    for errors, damaged in ((33, {}), (1484, {}), (1487, {"driver": 3})):
        increments = {"links": {ETH0: {"rx_missed_errors": 1484, "rx_errors": errors}}}
        assert ledger({}, increments, missed_again, driver="again")[1] == {"nic-ring": 1484, **damaged}
        # of a driver that is not known it is not known whether it does so, and told once
        assert ledger({}, increments, nic, driver="again")[1] == {"nic-ring": 1484, **damaged}


def test_full_socket_of_a_kernel_without_reasons_is_counted_once() -> None:
    """Debian's 5.10 frees in udp_queue_rcv_one_skb() what __udp_queue_rcv_skb(), inlined there, counts twice."""
    for protocol, family in ((IPV4, "Udp"), (IPV6, "Udp6")):
        drops = counts({drop("NOT_SPECIFIED", "udp_queue_rcv_one_skb+0x1f4", protocol=protocol): 593})
        increments = {"mib": {HERE: {f"{family}InErrors": 593, f"{family}RcvbufErrors": 593}}}
        entries, by_layer = ledger(drops, increments)
        assert by_layer == {"socket": 593}
        assert {entry.status for entry in entries} == {"exact", "bound"}


def test_ring_and_backlog_in_one_field_are_told_apart() -> None:
    """rx_dropped holds 60 of the ring and 40 of the backlog: 100 are lost."""
    increments = {
        "driver": {ETH0: {"ethtool.rx_ring": 60}},
        "links": {ETH0: {"rx_dropped": 100}},
        "softnet": {Scope(cpu=0): {"dropped": 40}},
    }
    drops = counts({backlog(0): 40})
    _, by_layer = ledger(drops, increments, nic)
    assert by_layer == {"nic-ring": 60, "backlog": 40}


def test_counters_alone_add_up_too() -> None:
    """Without events the counters say what was lost, each packet once although three count it."""
    increments = {
        "softnet": {Scope(cpu=1): {"dropped": 812}},
        "links": {ETH0: {"rx_dropped": 812}},
        "mib": {HERE: {"UdpInErrors": 100, "UdpRcvbufErrors": 90, "UdpNoPorts": 7}},
    }
    entries, by_layer = ledger({}, increments, rungs={})
    assert {entry.status for entry in entries} == {"no-event"}
    assert by_layer == {"backlog": 812, "socket": 107}


def test_unexplained_rests_are_lost_packets_once() -> None:
    """Events that were missed leave a rest in softnet and in rx_dropped: the same packets."""
    increments = {"softnet": {Scope(cpu=1): {"dropped": 100}}, "links": {ETH0: {"rx_dropped": 100}}}
    drops = counts({backlog(1): 90})
    entries, by_layer = ledger(drops, increments)
    assert {(entry.unexplained, entry.status) for entry in entries} == {(10, "unexplained")}
    assert by_layer == {"backlog": 100}


def alone(increments: Increments, classify: Classify = drivers) -> dict[str, int]:
    """Packets lost as far as counters tell without events."""
    entries, lost = ledger({}, increments, classify, {})
    assert {entry.status for entry in entries} == {"no-event"}
    return lost


def test_veth_without_events_counts_a_backlog_drop_once() -> None:
    """Softnet, the receiving and the sending end count the same packet."""
    links = {RECEIVER: {"rx_dropped": 50}, SENDER: {"tx_dropped": 50}}
    assert alone({"softnet": {Scope(cpu=0): {"dropped": 50}}, "links": links}) == {"backlog": 50}


def test_veth_whose_other_end_is_not_read_counts_a_backlog_drop_once() -> None:
    """Without root only the own namespace is read: the sending end, and softnet, which is the host's."""
    increments = {"softnet": {Scope(cpu=0): {"dropped": 50}}, "links": {SENDER: {"tx_dropped": 50}}}
    assert alone(increments) == {"backlog": 50}


def test_veth_whose_other_end_is_down_loses_each_packet_once() -> None:
    """____dev_forward_skb counts at the receiving end, veth_xmit at the sending end; softnet stays."""
    increments = {"links": {RECEIVER: {"rx_dropped": 5}, SENDER: {"tx_dropped": 5}}}
    assert sum(alone(increments).values()) == 5


def test_veth_counts_alone_what_the_ring_of_the_other_end_has_no_room_for() -> None:
    """veth_xmit counts what veth_xdp_rx refuses; nothing else does."""
    assert alone({"links": {SENDER: {"tx_dropped": 7}}}) == {"tx": 7}


def test_a_nic_that_cannot_send_has_nothing_to_do_with_veth() -> None:
    """What the receiving end of a veth pair counts is not in tx_dropped of a NIC."""
    increments = {"links": {RECEIVER: {"rx_dropped": 5}, ETH0: {"tx_dropped": 5}}}
    assert sum(alone(increments).values()) == 10


def test_udp_receive_buffer_without_events_is_one_loss() -> None:
    """RcvbufErrors, InErrors and the socket count the same datagram."""
    increments = {"mib": {HERE: {"UdpRcvbufErrors": 30, "UdpInErrors": 30}}, "socket": {DNS[1]: {"drops": 30}}}
    assert alone(increments) == {"socket": 30}


def test_udp_receive_buffer_with_events_is_one_loss() -> None:
    """The same, traced."""
    increments = {"mib": {HERE: {"UdpRcvbufErrors": 30, "UdpInErrors": 30}}, "socket": {DNS[1]: {"drops": 30}}}
    drops = counts({drop("SOCKET_RCVBUFF", "__udp_queue_rcv_skb"): 30})
    assert ledger(drops, increments)[1] == {"socket": 30}


def test_a_full_accept_queue_is_one_loss_for_each_packet() -> None:
    """ListenOverflows, ListenDrops and the listener count the same SYN, with tracing and without."""
    increments = {
        "mib": {HERE: {"TcpExtListenOverflows": 9, "TcpExtListenDrops": 9}},
        "socket": {LISTENER[1]: {"drops": 9}},
    }
    assert alone(increments) == {"socket": 9}
    assert ledger({}, increments)[1] == {"socket": 9}


def test_a_full_qdisc_is_one_loss_for_each_packet() -> None:
    """The leaf counts it, and the MIB of the sender too, who was told: with tracing and without."""
    increments = {"qdisc": {LEAF[1]: {"drops": 12}}, "mib": {HERE: {"IpOutDiscards": 12, "UdpSndbufErrors": 12}}}
    assert alone(increments) == {"qdisc": 12}
    drops = counts({drop("QDISC_DROP", "__dev_queue_xmit"): 12})
    assert ledger(drops, increments)[1] == {"qdisc": 12}


def test_what_the_ring_lost_is_not_added_to_the_backlog() -> None:
    """rx_dropped holds 30 of the ring and 70 of the backlog: 100 are lost, 30 of them in the ring."""
    increments = {
        "driver": {ETH0: {"ethtool.rx_ring": 30}},
        "links": {ETH0: {"rx_dropped": 100}},
        "softnet": {Scope(cpu=0): {"dropped": 70}},
    }
    drops = counts({backlog(0): 70})
    entries, by_layer = ledger(drops, increments, nic)
    assert by_layer == {"nic-ring": 30, "backlog": 70}
    assert [(entry.counter, entry.layer, left) for entry, left in Rests(IDENTITIES).step(entries)] == [
        ("links.rx_dropped", "nic-ring", 30)
    ]


def bonded(counter: str, scope: Scope) -> str | None:
    """A bond above eth0."""
    return FOLDED if scope.interface == "bond0" else None


def test_a_bond_counts_again_what_its_ports_count() -> None:
    """bond_get_stats adds the counters of the ports to its own: 40 and 6 are lost; 3 more of the bond are noise."""
    bond = ETH0._replace(interface="bond0")
    increments = {
        "softnet": {Scope(cpu=0): {"dropped": 40}},
        "links": {ETH0: {"rx_dropped": 40, "rx_errors": 6}, bond: {"rx_dropped": 43, "rx_errors": 6}},
    }
    assert sum(alone(increments, bonded).values()) == 49
    drops = counts({backlog(0): 40, drop("UNHANDLED_PROTO", "__netif_receive_skb_core", interface="bond0"): 3})
    entries, by_layer = ledger(drops, increments, bonded)
    assert by_layer == {"driver": 6, "backlog": 40}
    assert not [entry for entry in entries if entry.status == "unexplained"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([fate for fate in FATES if fate.moved]), st.integers(1, 1000), st.just(0))))
def test_counters_alone_count_each_packet_once(fates: list[tuple[Fate, int, int]]) -> None:
    """Whatever mix of packets is lost, the counters alone say how many."""
    _, increments, lost = happen(fates)
    _, by_layer = ledger({}, increments, drivers, rungs={})
    assert sum(by_layer.values()) == sum(lost.values())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(1, 1000), st.just(0))))
def test_every_lost_packet_is_in_exactly_one_layer(fates: list[tuple[Fate, int, int]]) -> None:
    """However packets are lost, and however often each is counted, the layers add up to the packets lost."""
    drops, increments, lost = happen(fates)
    entries, by_layer = ledger(drops, increments, drivers)
    assert by_layer == lost
    assert not [entry for entry in entries if entry.status == "unexplained"]


COUNTED = [fate for fate in FATES if fate.moved and fate.layer]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(COUNTED), st.integers(1, 1000), st.integers(0, 1000))))
def test_packets_whose_events_were_missed_are_lost_all_the_same(fates: list[tuple[Fate, int, int]]) -> None:
    """What a tracer misses is unexplained, but still in the layer of its counter, and there once."""
    drops, increments, lost = happen(fates)
    _, by_layer = ledger(drops, increments, drivers)
    assert sum(by_layer.values()) == sum(lost.values())


def test_frees_that_are_no_loss_are_one_as_far_as_a_counter_says() -> None:
    """Linux 5.10 frees 200 ICMPv6 messages at one place; the counters say that the checksum of 23 was wrong."""
    drops = counts({drop("NOT_SPECIFIED", "icmpv6_rcv+0x1", protocol=IPV6): 200})
    increments = mib(Icmp6InErrors=23, Icmp6InCsumErrors=23)
    entries, by_layer = ledger(drops, increments)
    assert {(entry.explained, entry.unexplained, entry.status) for entry in entries} == {(23, 0, "bound")}
    assert by_layer == {"stack": 23}
    assert sum(packets for _, packets in Rests(IDENTITIES).step(entries)) == 23


def test_frees_that_are_no_loss_are_none_where_no_counter_says_so() -> None:
    """All 200 ICMPv6 messages were acted on."""
    drops = counts({drop("NOT_SPECIFIED", "icmpv6_rcv+0x1", protocol=IPV6): 200})
    entries, by_layer = ledger(drops, {})
    assert (entries, by_layer) == ((), {})
