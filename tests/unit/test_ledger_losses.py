# SPDX-License-Identifier: MIT
"""Lost packets by place and cause: they add up to the ledger, and are given to the right socket, CPU and queue."""

from __future__ import annotations

from collections import Counter as Tally

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.account import Account
from pktdrop.ledger.loss import Loss
from pktdrop.model.counters import Scope
from pktdrop.model.drops import DropKey, Netns, Uncounted
from pktdrop.rules.rules import Rules
from pktdrop.views.ledger import without_event_lines
from tests.unit.accounts import BLUE, DNS, HOST, UNTRACED, Increments, make_account
from tests.unit.make import make_backlog_drop, make_doubt, make_drop, make_noise

ETH0 = Scope(netns=HOST, interface="eth0")
FULL = make_drop(reason="SOCKET_RCVBUFF", netns=HOST, netns_name="host", call_site="__udp_queue_rcv_skb+0x1")
OTHER = Scope(netns=HOST, socket="udp 10.0.0.1:514 ino:90")


def split(account: Account) -> tuple[Loss, ...]:
    """The losses by the tables that come with pktdrop."""
    return account.ledger.losses


def test_a_ring_names_its_interface_and_queues() -> None:
    """igb counts an empty ring for each queue (RQDPC)."""
    increments = {"driver": {ETH0: {"ethtool.rx_queue_3_drops": 500, "ethtool.rx_queue_1_drops": 20}}}
    (share,) = split(make_account({}, increments, {"eth0": "igb"}))
    assert (share.packets, share.layer, share.nature, share.cause.name) == (520, "nic-ring", "capacity", "nic-ring")
    assert (share.whereabouts.interface, share.whereabouts.queues) == ("eth0", ((3, 500), (1, 20)))
    assert not share.is_guess


def test_an_unknown_driver_is_a_guess() -> None:
    """What an unknown driver counts in a field of the kernel is not certain, and said so; its statistics are hints."""
    (share,) = split(make_account({}, {"links": {ETH0: {"rx_fifo_errors": 9}}}, {"eth0": "nobody"}))
    assert (share.packets, share.is_guess) == (9, True)
    assert not [*split(make_account({}, {"driver": {ETH0: {"ethtool.rx_fifo_overflow": 9}}}, {"eth0": "nobody"}))]


def test_a_backlog_has_its_target_and_the_cpus_that_sent_there() -> None:
    """Drops of two CPUs for one backlog are one loss; rx_dropped, which moves too, is none of its own."""
    drops = {make_backlog_drop(cpu=0): 30, make_backlog_drop(cpu=2): 50, make_backlog_drop(cpu=0, target_cpu=1): 7}
    increments: Increments = {
        "softnet": {Scope(cpu=3): {"dropped": 80}, Scope(cpu=1): {"dropped": 7}},
        "links": {ETH0: {"rx_dropped": 87}},
    }
    first, second = split(make_account(drops, increments))
    assert (first.packets, first.whereabouts.cpu, first.whereabouts.sources) == (80, 3, (2, 0))
    assert (second.packets, second.whereabouts.cpu, second.whereabouts.sources) == (7, 1, (0,))


def test_without_the_probe_the_counters_tell_the_cpu() -> None:
    """Where no event knows its target, softnet_stat does, if the sums agree."""
    drops = {make_backlog_drop(target_cpu=None): 87}
    increments: Increments = {"softnet": {Scope(cpu=3): {"dropped": 80}, Scope(cpu=1): {"dropped": 7}}}
    found = split(make_account(drops, increments))
    assert [(share.packets, share.whereabouts.cpu, share.whereabouts.sources) for share in found] == [
        (80, 3, ()),
        (7, 1, ()),
    ]


def test_sums_that_differ_tell_no_cpu() -> None:
    """If softnet_stat counts something else, too, no CPU is accused."""
    increments: Increments = {"softnet": {Scope(cpu=3): {"dropped": 80}}}
    found = split(make_account({make_backlog_drop(target_cpu=None): 87}, increments))
    assert sum(share.packets for share in found) == 87
    assert {share.whereabouts.cpu for share in found} == {None}


def test_a_full_buffer_is_that_of_the_socket_which_counted_it() -> None:
    """The socket's own counter says which it was."""
    (share,) = split(
        make_account(
            {FULL: 12},
            {"socket": {DNS: {"drops": 12}}, "mib": {Scope(netns=HOST): {"UdpRcvbufErrors": 12, "UdpInErrors": 12}}},
        )
    )
    assert (share.packets, share.whereabouts.sockets, share.cause.name) == (12, (DNS,), "receive-buffer")


def test_two_full_buffers_are_two_losses() -> None:
    """One reason, two sockets: each has what it counted; what neither counted has no socket."""
    found = split(make_account({FULL: 15}, {"socket": {DNS: {"drops": 4}, OTHER: {"drops": 9}}}))
    assert [(share.packets, share.whereabouts.sockets) for share in found] == [(9, (OTHER,)), (4, (DNS,)), (2, ())]


def test_two_reasons_and_two_sockets_are_not_told_apart() -> None:
    """Which socket dropped for which reason is not known: both are named for both."""
    refused = FULL._replace(reason="SOCKET_FILTER")
    found = split(make_account({FULL: 6, refused: 7}, {"socket": {DNS: {"drops": 4}, OTHER: {"drops": 9}}}))
    assert {(share.packets, share.cause.name, share.whereabouts.sockets) for share in found} == {
        (6, "receive-buffer", (OTHER, DNS)),
        (7, "socket-filter", (OTHER, DNS)),
    }


def test_ten_thousand_sockets_are_not_ten_thousand_losses() -> None:
    """Any user may open so many: those that lost most are named, and nothing is lost of the sum."""
    sockets = {DNS._replace(socket=f"udp 10.0.0.1:{port} ino:{port}"): {"drops": port} for port in range(1, 10_001)}
    total = sum(range(1, 10_001))
    found = split(make_account({FULL: total}, {"socket": sockets}))
    assert len(found) == 257
    assert sum(share.packets for share in found) == total
    assert max(share.packets for share in found if share.whereabouts.sockets) == 10_000
    refused = FULL._replace(reason="SOCKET_FILTER")
    found = split(make_account({FULL: 6, refused: 7}, {"socket": sockets}))
    assert [(share.packets, share.whereabouts.sockets) for share in found] == [(7, ()), (6, ())]


def test_sockets_of_another_namespace_have_nothing_to_do_with_it() -> None:
    """A socket is in one namespace, and so are its drops."""
    (share,) = split(make_account({FULL: 6}, {"socket": {DNS._replace(netns=BLUE): {"drops": 6}}}))
    assert share.whereabouts.sockets == ()


def test_a_listener_is_named_though_there_is_no_event() -> None:
    """SYNs at a full accept queue are consumed: only counters show them, and the socket's own names it."""
    listener = Scope(netns=HOST, socket="tcp 0.0.0.0:80 ino:7")
    counted = {"TcpExtListenOverflows": 5, "TcpExtListenDrops": 5}
    (share,) = split(make_account({}, {"mib": {Scope(netns=HOST): counted}, "socket": {listener: {"drops": 5}}}))
    assert (share.packets, share.cause.name, share.whereabouts.sockets) == (5, "listen-queue", (listener,))


def test_a_qdisc_is_named_by_its_counter() -> None:
    """Events know the interface, the counter which qdisc."""
    drop = make_drop(reason="QDISC_DROP", interface="eth0", netns=HOST, call_site="__dev_xmit_skb+0x1")
    increments: Increments = {"qdisc": {Scope(netns=HOST, interface="eth0", qdisc="tbf 8001:"): {"drops": 9}}}
    (share,) = split(make_account({drop: 9}, increments))
    assert (share.packets, share.layer, share.whereabouts.interface, share.whereabouts.qdiscs) == (
        9,
        "qdisc",
        "eth0",
        ("tbf 8001:",),
    )


def test_a_drop_that_its_counter_was_too_early_for_is_no_loss_of_its_own() -> None:
    """What is lost while counters are read is given to the one place that has the others; not what was lost before."""
    drop = make_drop(reason="QDISC_DROP", interface="eth0", netns=HOST, call_site="__dev_xmit_skb+0x1")
    increments: Increments = {"qdisc": {Scope(netns=HOST, interface="eth0", qdisc="tbf 8001:"): {"drops": 9}}}
    (share,) = split(make_account({drop: 10}, increments, late={drop: 1}))
    assert (share.packets, share.whereabouts.qdiscs) == (10, ("tbf 8001:",))
    known, unknown = split(make_account({drop: 11}, increments, late={drop: 1}))
    assert (known.packets, known.whereabouts.qdiscs) == (10, ("tbf 8001:",))
    assert (unknown.packets, unknown.whereabouts.qdiscs) == (1, ())


def test_noise_is_no_loss() -> None:
    """Frees that lose nothing are in no share."""
    assert split(make_account({make_noise(): 100})) == ()


def test_counters_alone_are_enough() -> None:
    """Without traced drops each loss counter that rose is a loss, and what is in two counters is one."""
    counted = {"UdpRcvbufErrors": 6, "UdpInErrors": 6, "UdpNoPorts": 2}
    account = make_account({}, {"mib": {Scope(netns=HOST): counted}, "socket": {DNS: {"drops": 6}}}, rungs=UNTRACED)
    assert {(share.packets, share.cause.name, share.whereabouts.sockets) for share in split(account)} == {
        (6, "receive-buffer", (DNS,)),
        (2, "no-socket", ()),
    }


def test_what_nothing_explains_is_marked() -> None:
    """A counter that rose although its packets raise events, and there were none."""
    account = make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}})
    (share,) = split(account)
    assert (share.packets, bool(share.note), account.ledger.unexplained) == (4, True, 4)


# -------------------------------------------------------------------------------------------------------- all at once

_DROPS = st.dictionaries(
    st.sampled_from(
        [
            FULL,
            make_drop(),
            make_drop(netns=None, interface=None),
            make_backlog_drop(),
            make_backlog_drop(target_cpu=None),
            make_noise(),
            make_drop(reason="QDISC_DROP", interface="eth0", netns=HOST),
            make_drop(reason="NETFILTER_DROP"),
            make_drop(reason="NOT_SPECIFIED", interface="eth0", netns=HOST, call_site="ixgbe_poll+1"),
            make_drop(reason="NOT_SPECIFIED", interface="eth0", netns=HOST, call_site="veth_xmit+1"),
            make_drop(reason="137"),
        ]
    ),
    st.integers(1, 1000),
)
_COUNTED = st.integers(1, 1000)
_MOVED = st.fixed_dictionaries(
    {
        "softnet": st.dictionaries(
            st.sampled_from([Scope(cpu=1), Scope(cpu=3)]), st.fixed_dictionaries({"dropped": _COUNTED})
        ),
        "links": st.dictionaries(
            st.just(ETH0),
            st.dictionaries(
                st.sampled_from(["rx_dropped", "tx_dropped", "rx_errors", "tx_errors", "rx_missed_errors"]), _COUNTED
            ),
        ),
        "driver": st.dictionaries(
            st.just(ETH0),
            st.dictionaries(
                st.sampled_from(
                    ["ethtool.rx_missed_errors", "ethtool.rx_no_dma_resources", "ethtool.alloc_rx_buff_failed",
                     "ethtool.tx_timeout_count", "ethtool.rx_csum_offload_errors"]
                ),
                _COUNTED,
            ),
        ),
        "mib": st.dictionaries(
            st.sampled_from([Scope(netns=HOST), Scope(netns=BLUE)]),
            st.dictionaries(
                st.sampled_from(
                    ["UdpRcvbufErrors", "UdpInErrors", "UdpNoPorts", "TcpExtListenDrops", "TcpExtListenOverflows",
                     "IpInDiscards", "IpInHdrErrors"]
                ),
                _COUNTED,
            ),
        ),
        "socket": st.dictionaries(st.sampled_from([DNS, OTHER]), st.fixed_dictionaries({"drops": _COUNTED})),
        "qdisc": st.dictionaries(
            st.sampled_from([Scope(netns=HOST, interface="eth0", qdisc=name) for name in ("tbf 1:", "pfifo 2:")]),
            st.fixed_dictionaries({"drops": _COUNTED}),
        ),
    }
)  # fmt: skip


@settings(deadline=None)  # it reads the tables each time
@given(_DROPS, _MOVED, st.sampled_from(["ixgbe", "igb", "veth", "nobody"]), st.booleans())
def test_they_add_up_to_the_ledger(
    drops: dict[DropKey, int], increments: Increments, driver: str, traced: bool
) -> None:
    """Whatever was dropped and counted: the shares of a layer are what the ledger has as lost there."""
    account = (
        make_account(drops, increments, {"eth0": driver})
        if traced
        else make_account({}, increments, {"eth0": driver}, rungs=UNTRACED)
    )
    found = split(account)
    by_layer: Tally[str] = Tally()
    for share in found:
        assert share.packets > 0
        by_layer[share.layer] += share.packets
    assert dict(by_layer) == account.ledger.lost


@pytest.mark.parametrize("netns", [None, Netns(1)])
def test_places_that_are_not_known(netns: Netns | None) -> None:
    """A drop of which neither interface nor namespace is known is a loss like others."""
    (share,) = split(make_account({make_drop(netns=netns, interface=None, netns_name=None): 3}))
    assert (share.packets, share.whereabouts.netns) == (3, netns)


# ------------------------------------------------------------------------------------------------- one thing, one loss


def test_what_a_driver_counts_twice_is_one_loss_and_one_line() -> None:
    """virtio_net counts a full ring in its statistics and in rx_dropped: 100 packets, told once."""
    increments: Increments = {"driver": {ETH0: {"ethtool.rx0_drops": 100}}, "links": {ETH0: {"rx_dropped": 100}}}
    account = make_account({}, increments, {"eth0": "virtio_net"})
    (loss,) = split(account)
    assert (loss.packets, loss.without_event, loss.whereabouts.interface) == (100, 100, "eth0")
    (line,) = without_event_lines(account.ledger, 200, lambda _: "host")
    assert line.startswith(f"! 100 packets lost in {loss.layer} of eth0")


def test_a_full_accept_queue_is_one_loss() -> None:
    """SYNs raise no event, last packets of handshakes do, with a cookie or without: all ListenOverflows has."""
    drops = {
        make_drop(reason="TCP_LISTEN_OVERFLOW", netns=HOST, call_site="tcp_v4_rcv+0x1"): 700,
        make_drop(reason="NO_SOCKET", netns=HOST, call_site="cookie_v4_check+0x1"): 392,
    }
    listener = Scope(netns=HOST, socket="tcp 0.0.0.0:80 ino:7")
    increments: Increments = {
        "mib": {Scope(netns=HOST): {"TcpExtListenOverflows": 1650, "TcpExtListenDrops": 1650}},
        "socket": {listener: {"drops": 1650}},
    }
    (loss,) = split(make_account(drops, increments))
    assert (loss.packets, loss.without_event, loss.nature, loss.cause.name) == (1650, 558, "capacity", "listen-queue")
    assert (loss.whereabouts.sockets, loss.evidence) == ((listener,), "both")
    assert loss.reasons == ("TCP_LISTEN_OVERFLOW", "NO_SOCKET")


def test_closing_connections_are_not_in_the_accept_queue() -> None:
    """Where the kernel names a full accept queue, segments without a reason explain nothing of it."""
    closes = make_doubt(netns=HOST, netns_name="host")
    increments: Increments = {"mib": {Scope(netns=HOST): {"TcpExtListenOverflows": 9, "TcpExtListenDrops": 9}}}
    rules = Rules.load(reasons=("TCP_LISTEN_OVERFLOW",))
    account = make_account({closes: 5}, increments, rules=rules)
    (loss,) = split(account)
    assert (loss.packets, loss.without_event) == (9, 9)
    assert [entry.by for entry in account.ledger.entries if entry.status == "doubt"] == [(("NOT_SPECIFIED", 5),)]


def test_drops_that_could_not_be_counted_explain_what_counters_have_beyond_the_events() -> None:
    """33,862 of no reason beside 126,188 that were not counted: these explain it, and it is not told twice."""
    increments: Increments = {"mib": {Scope(netns=HOST): {"UdpNoPorts": 33_862}}}
    account = make_account({}, increments, uncounted=Uncounted(126_188, 0))
    assert (account.ledger.unexplained, split(account)) == (0, ())
    (entry,) = account.ledger.entries
    assert (entry.status, entry.unexplained) == ("bound", 0)
    assert "33862 of them may be drops that were not counted" in entry.note
    (loss,) = split(make_account({}, increments, uncounted=Uncounted(30_000, 0)))
    assert (loss.packets, loss.evidence) == (3_862, "unexplained")


def test_noise_that_could_not_be_counted_is_no_loss() -> None:
    """Frames of a protocol that nobody speaks move rx_dropped; when the map is full their events are not counted."""
    scope = Scope(netns=HOST, interface="lo")
    account = make_account({}, {"links": {scope: {"rx_dropped": 500}}}, uncounted=Uncounted(500, 0))
    assert split(account) == ()
    other = make_noise(reason="UNHANDLED_PROTO", netns=None, interface=None, netns_name=None, ifindex=None,
                       call_site="__netif_receive_skb_core+0x1")  # fmt: skip
    (entry,) = make_account({other: 500}, {"links": {scope: {"rx_dropped": 500}}}).ledger.entries
    assert (entry.explained, entry.unexplained) == (500, 0)


def test_datagrams_that_their_own_qdisc_lost_are_one_loss_each() -> None:
    """Without IP_RECVERR nobody is told: the qdisc, IpOutDiscards and UdpSndbufErrors have the same datagrams."""
    drop = make_drop(reason="QDISC_DROP", interface="eth0", netns=HOST, call_site="__dev_xmit_skb+0x1")
    increments: Increments = {
        "qdisc": {Scope(netns=HOST, interface="eth0", qdisc="tbf 1:"): {"drops": 19_968}},
        "mib": {Scope(netns=HOST): {"IpOutDiscards": 19_968, "UdpSndbufErrors": 19_968}},
    }
    account = make_account({drop: 19_968}, increments)
    (loss,) = split(account)
    assert (loss.packets, loss.layer) == (19_968, "qdisc")
    assert {(entry.counter, entry.explained) for entry in account.ledger.entries} == {
        ("qdisc.drops", 19_968), ("mib.IpOutDiscards", 19_968), ("mib.UdpSndbufErrors", 19_968),
    }  # fmt: skip
