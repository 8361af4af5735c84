# SPDX-License-Identifier: MIT
"""The rules that place each freed packet in one layer and tell losses from harmless frees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.model.drops import Verdict
from pktdrop.rules.layers import LAYERS, TABLE, UNKNOWN, WHY_WIDTH, LayerRule, Layers
from pktdrop.rules.match import GROUP, Event, function_of
from tests.unit.kernel_reasons import CORE_6_18, REASONS

IPV4, NONE = 0x0800, 0


HEADER = "reason\tfunction\tprotocol\tlayer\tnature\tverdict\twhy\tsource\n"
ROW = "NO_SOCKET\t*\t*\tsocket\trouting\tloss\t-\tnet/ipv4/udp.c udp_rcv, v7.3\n"


@pytest.fixture(scope="module")
def layers() -> Layers:
    """Give the rules that come with pktdrop."""
    return Layers.load()


def ask(layers: Layers, name: str, call_site: str, protocol: int) -> LayerRule | None:
    """Return the row that decides on "REASON" or "subsystem/REASON"."""
    subsystem, _, reason = name.rpartition("/")
    return layers.rule(Event.of(subsystem or "core", reason, call_site, protocol))


def inputs(rule: LayerRule) -> Iterator[tuple[str, str, int]]:
    """Questions made from a rule's own globs: the known reasons they cover, the functions its source names."""
    reasons = [name for name in REASONS if fnmatchcase(name, rule.reason)]
    functions = [word for word in re.findall(r"\w+", rule.source) if fnmatchcase(word, rule.function)]
    for reason in reasons:
        for call_site in functions if rule.function != "*" else ["some_function"]:
            for protocol in {"*": (0x88CC, IPV4, NONE), "IP": (IPV4,), "none": (NONE,), "group": (GROUP,)}[
                rule.protocol
            ]:
                yield reason, call_site, protocol


def test_layers_are_in_the_order_a_packet_passes_them() -> None:
    """The layers are those of the receive path from the wire up, then qdisc and transmit."""
    assert LAYERS == ("nic-fifo", "nic-ring", "driver", "backlog", "stack", "socket", "qdisc", "tx")


@pytest.mark.parametrize("reason", [name for name in REASONS if name != "NOT_SPECIFIED"])
def test_each_known_reason_has_a_row_whatever_the_site(layers: Layers, reason: str) -> None:
    """Every reason the kernel names has a row in the file, also where the call site is not known."""
    assert ask(layers, reason, "0xffffffff81000000", IPV4) is not None


def test_what_comes_for_a_group_before_ipv6_is_up_is_no_loss(layers: Layers) -> None:
    """A packet for this host alone that finds no route is one, by either protocol."""
    early = layers.verdict("core", "IP_INNOROUTES", "ip6_pkt_discard+0x11", GROUP)
    assert (early.layer, early.noise, early.doubt) == ("stack", "multicast before IPv6 was up here", None)
    for call_site, protocol in (("ip6_pkt_discard+0x11", 0x86DD), ("ip_error+0x94", IPV4)):
        alone = layers.verdict("core", "IP_INNOROUTES", call_site, protocol)
        assert (alone.layer, alone.noise, alone.doubt) == ("stack", None, None)


def test_what_could_not_leave_for_a_group_is_no_loss(layers: Layers) -> None:
    """For one receiver it is a loss, and so it is where the kernel does not say whom it was for."""
    for reason, call_site, what in (
        ("QDISC_DROP", "__dev_queue_xmit+0xd01", "to a group, interface has no carrier"),
        ("NOT_SPECIFIED", "kfree_skb_list+0x20", "to a group, interface has no carrier"),
        ("NO_TX_TARGET", "br_dev_xmit+0x334", "to a group, the bridge has no ports"),
    ):
        assert layers.verdict("core", reason, call_site, GROUP).noise == what
        assert layers.verdict("core", reason, call_site, IPV4).noise is None


def test_each_row_decides_something(layers: Layers) -> None:
    """No row is hidden by those above it, and each names a reason and a function that exist."""
    newer = Layers.load(reasons=REASONS)
    decides = {
        rule.line
        for kernel in (layers, newer)
        for rule in kernel.rules
        if any(ask(kernel, *question) is rule for question in inputs(rule))
    }
    dead = [rule for rule in newer.rules if rule.line not in decides]
    assert not dead, "\n".join(f"line {rule.line}: {rule.reason} {rule.function}" for rule in dead)


def test_each_reason_glob_matches_a_known_reason(layers: Layers) -> None:
    """A misspelt or vanished reason is found: every glob covers a name some kernel has."""
    lost = [r for r in layers.rules if not any(fnmatchcase(name, r.reason) for name in REASONS)]
    assert not lost, "\n".join(f"line {rule.line}: {rule.reason}" for rule in lost)


def test_each_row_has_a_source_in_a_kernel_tree(layers: Layers) -> None:
    """Every row says which file (or kernel type data) and which release it was read in."""
    source = re.compile(r"((net|drivers|include)/[\w/.-]+\.[ch] \w+|enum skb_drop_reason \(BTF).*, (v\d+\.\d+ ?)+")
    bad = [rule for rule in layers.rules if not source.fullmatch(rule.source)]
    assert not bad, "\n".join(f"line {rule.line}: {rule.source}" for rule in bad)


# What the kernel source says of each free; the file is named where it is not plain from the function.
LOSSES = [
    # enqueue_to_backlog: qlen above netdev_max_backlog (net/core/dev.c); 5.10 has no reason, 6.12 DEV_READY
    ("CPU_BACKLOG", "enqueue_to_backlog+0x1d1", IPV4, "backlog", "capacity"),
    ("NOT_SPECIFIED", "enqueue_to_backlog", IPV4, "backlog", "capacity"),
    ("DEV_READY", "enqueue_to_backlog", IPV4, "backlog", "teardown"),
    # gro_cells_receive: the cell queue is longer than netdev_max_backlog (net/core/gro_cells.c)
    ("NOT_SPECIFIED", "gro_cells_receive", IPV4, "backlog", "capacity"),
    ("NO_SOCKET", "__udp4_lib_rcv+0x4bc", IPV4, "socket", "routing"),
    ("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", IPV4, "socket", "capacity"),
    ("SOCKET_FILTER", "sk_filter_trim_cap", IPV4, "socket", "policy"),
    ("SOCKET_BACKLOG", "tcp_add_backlog", IPV4, "socket", "capacity"),
    ("TCP_LISTEN_OVERFLOW", "tcp_v4_rcv", IPV4, "socket", "capacity"),
    ("NETFILTER_DROP", "nft_do_chain+0x12 [nf_tables]", IPV4, "stack", "policy"),
    ("IP_RPFILTER", "ip_rcv_finish_core.isra.0+0x1c", IPV4, "stack", "policy"),
    ("IP_INNOROUTES", "ip_error", IPV4, "stack", "routing"),
    ("UDP_CSUM", "udp_queue_rcv_one_skb", IPV4, "stack", "malformed"),
    ("NEIGH_QUEUEFULL", "__neigh_event_send", IPV4, "stack", "capacity"),
    # icmp_rcv and ip6_rcv_core raise it for packets that did reach the host
    ("UNHANDLED_PROTO", "icmp_rcv", IPV4, "stack", "protocol"),
    # Without a reason (5.10) the function says where it was
    ("NOT_SPECIFIED", "nf_hook_slow", IPV4, "stack", "policy"),
    ("NOT_SPECIFIED", "ip_forward", IPV4, "stack", "routing"),
    # tun_net_xmit: the reader's ring is full, counted in tx_dropped of the tap
    ("FULL_RING", "tun_net_xmit", IPV4, "tx", "capacity"),
    ("NOT_SPECIFIED", "veth_xmit", IPV4, "tx", "unspecified"),
    ("QDISC_DROP", "__dev_queue_xmit", IPV4, "qdisc", "capacity"),
    ("TC_INGRESS", "__netif_receive_skb_core.constprop.0", IPV4, "qdisc", "policy"),
    ("XDP", "do_xdp_generic", IPV4, "driver", "policy"),
    ("NOT_SPECIFIED", "veth_xdp_rcv_skb", IPV4, "driver", "policy"),
    ("xdp/ABORTED", "do_xdp_generic", IPV4, "driver", "policy"),
    ("xdp/REDIRECT_ERR", "xdp_redirect_err", NONE, "driver", "routing"),
    ("xdp/BULK_TX", "xdp_bulk_tx", NONE, "driver", "capacity"),
    ("xdp/DEVMAP_XMIT", "xdp_devmap_xmit", NONE, "tx", "capacity"),
    # A program behind NFQUEUE does not keep up
    ("NOT_SPECIFIED", "nf_queue+0x22", IPV4, "stack", "capacity"),
    # Places with a plain kfree_skb() that frees only what is dropped
    ("NOT_SPECIFIED", "ip_defrag", IPV4, "stack", "unspecified"),
    ("NOT_SPECIFIED", "ip_protocol_deliver_rcu", IPV4, "stack", "unspecified"),
    ("NOT_SPECIFIED", "__dev_forward_skb2", IPV4, "stack", "unspecified"),
    # A neighbour that failed takes packets with it that were to be sent
    ("QUEUE_PURGE", "neigh_destroy", IPV4, "stack", "routing"),
    # Good data under a time stamp that went back (address translation) is lost here
    ("TCP_RFC7323_PAWS", "tcp_validate_incoming", IPV4, "stack", "protocol"),
    ("NO_TX_TARGET", "br_flood", IPV4, "stack", "routing"),
    ("137", "some_function", IPV4, "stack", "unspecified"),
]


@pytest.mark.parametrize(("reason", "call_site", "protocol", "layer", "nature"), LOSSES)
def test_loss_is_placed_and_is_no_noise(
    layers: Layers, reason: str, call_site: str, protocol: int, layer: str, nature: str
) -> None:
    """What may be a loss is placed in the layer that lost it and is never called noise."""
    assert layers.verdict("core", reason, call_site, protocol) == Verdict(layer, nature, None)


DOUBTS = [
    # A segment for a TIME_WAIT socket as a connection ends, a SYN refused by one, the last packet of a handshake at a
    # full accept queue: discard_it in tcp_v4_rcv
    ("NOT_SPECIFIED", "tcp_v4_rcv+0x91", IPV4, "socket"),
    ("NOT_SPECIFIED", "tcp_v6_rcv", 0x86DD, "socket"),
    ("NOT_SPECIFIED", "tcp_v4_do_rcv", IPV4, "socket"),
    # 5.10: a closed port, and multicast that __udp4_lib_mcast_deliver (inlined) finds no socket for
    ("NOT_SPECIFIED", "__udp4_lib_rcv", IPV4, "socket"),
    # 5.10: no handler, but also traffic control and memory reserves
    ("NOT_SPECIFIED", "__netif_receive_skb_core", IPV4, "stack"),
    # 5.10: for another host, but also a bad header or checksum
    ("NOT_SPECIFIED", "ip_rcv_core", IPV4, "stack"),
    ("NOT_SPECIFIED", "ip6_rcv_core.isra.0+0x10", 0x86DD, "stack"),
    # one of some 1,500 places with a plain kfree_skb(), not all of which drop
    ("NOT_SPECIFIED", "some_function+0x1c [module]", IPV4, "stack"),
    # 5.10: the list of a full qdisc, and the parts of a packet with a fragment list
    ("NOT_SPECIFIED", "kfree_skb_list", IPV4, "qdisc"),
    # a driver frees what it has sent as well as what it drops, later or where its name is not seen
    ("NOT_SPECIFIED", "net_tx_action", IPV4, "tx"),
    ("NOT_SPECIFIED", "dev_kfree_skb_any_reason", IPV4, "driver"),
    ("QUEUE_PURGE", "skb_queue_purge_reason", IPV4, "socket"),
]


@pytest.mark.parametrize(("reason", "call_site", "protocol", "layer"), DOUBTS)
def test_what_cannot_be_told_apart_is_neither_loss_nor_noise(
    layers: Layers, reason: str, call_site: str, protocol: int, layer: str
) -> None:
    """Where losses and harmless frees have reason and call site in common, nobody knows which it was."""
    verdict = layers.verdict("core", reason, call_site, protocol)
    assert verdict.layer == layer
    assert verdict.noise is None
    assert verdict.doubt


# Reasons that decide without a call_site, and some that do not: rows of the table, told from their source.
NAMELESS_SITES = [
    ("NO_SOCKET", IPV4, "loss"),
    ("NETFILTER_DROP", IPV4, "loss"),
    ("OTHERHOST", IPV4, "noise"),
    ("TCP_OLD_DATA", IPV4, "noise"),
    ("NOT_SPECIFIED", IPV4, "doubt"),
    ("UNHANDLED_PROTO", IPV4, "doubt"),
    ("QUEUE_PURGE", IPV4, "doubt"),
    ("NOT_SPECIFIED", NONE, "doubt"),
]


@pytest.mark.parametrize(("reason", "protocol", "verdict"), NAMELESS_SITES)
def test_a_site_without_a_name_is_no_reason_to_call_noise_a_loss(
    layers: Layers, reason: str, protocol: int, verdict: str
) -> None:
    """Where kernel symbols are hidden, what only the call site tells is in doubt; what the reason tells is not."""
    found = layers.verdict("core", reason, "0xffffffff81000000", protocol)
    said = "noise" if found.noise is not None else "doubt" if found.doubt is not None else "loss"
    assert said == verdict


def test_lack_of_a_reason_tells_something_where_the_other_case_has_one() -> None:
    """6.1 names a full backlog, so what enqueue_to_backlog() frees without a reason was for a device that is down."""
    layers = Layers.load(reasons=["NOT_SPECIFIED", "CPU_BACKLOG"])
    assert layers.verdict("core", "NOT_SPECIFIED", "enqueue_to_backlog", IPV4) == Verdict("backlog", "teardown", None)
    assert layers.verdict("core", "CPU_BACKLOG", "enqueue_to_backlog", IPV4) == Verdict("backlog", "capacity", None)


@pytest.mark.parametrize(
    ("call_site", "text"),
    [
        ("__udp4_lib_rcv+0xbbf", "multicast or broadcast with no listener"),
        ("udpv6_rcv", "multicast or broadcast with no listener"),
        ("ip_rcv_finish_core.isra.0", "multicast group not joined here"),
    ],
)
def test_multicast_that_nobody_asked_for_is_noise_where_losses_have_reasons(call_site: str, text: str) -> None:
    """6.18 names closed ports, wrong checksums and impossible addresses: what is left without a reason was unwanted."""
    assert Layers.load(reasons=CORE_6_18).verdict("core", "NOT_SPECIFIED", call_site, IPV4).noise == text
    assert Layers.load().verdict("core", "NOT_SPECIFIED", call_site, IPV4).doubt


def test_a_condition_is_a_known_reason() -> None:
    """A row that is of some kernels only names a reason by which they are known."""
    conditional = [rule for rule in Layers.load(reasons=REASONS).rules if rule.needs]
    assert len(Layers.load().rules) + len(conditional) == len(TABLE.load())
    assert conditional


NOISE = [
    # ip_rcv_core: skb->pkt_type == PACKET_OTHERHOST
    ("OTHERHOST", "ip_rcv_core", IPV4, "stack", "another host"),
    ("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0+0x8f1", 0x88CC, "stack", "protocol"),
    # tcp_data_queue: end_seq not after rcv_nxt, "A retransmit, 2nd most common case"
    ("TCP_OLD_DATA", "tcp_data_queue", IPV4, "stack", "duplicate"),
    ("TCP_OFOMERGE", "tcp_data_queue_ofo", IPV4, "stack", "duplicate"),
    # packet_rcv: counted in tp_drops of the capture, the packet itself is passed on
    ("PACKET_SOCK_ERROR", "tpacket_rcv", IPV4, "socket", "capture"),
    ("NOT_SPECIFIED", "packet_rcv", IPV4, "socket", "capture"),
    ("SOCKET_CLOSE", "unix_release_sock", NONE, "socket", "AF_UNIX"),
    ("NOT_SPECIFIED", "unix_stream_connect", NONE, "socket", "AF_UNIX"),
    ("NOT_SPECIFIED", "netlink_unicast", NONE, "socket", "netlink"),
    ("QUEUE_PURGE", "skb_queue_purge_reason", NONE, "socket", "unread"),
    ("NOT_SPECIFIED", "udp_destruct_common", IPV4, "socket", "unread"),
    # aq_ring_tx_clean and vmxnet3_unmap_pkt count the packet as sent, then free it with dev_kfree_skb_any
    ("NOT_SPECIFIED", "aq_ring_tx_clean+0x80 [atlantic]", IPV4, "tx", "transmit done"),
    ("NOT_SPECIFIED", "vmxnet3_unmap_pkt", IPV4, "tx", "transmit done"),
    ("NOT_SPECIFIED", "rtl8139_start_xmit", IPV4, "tx", "transmit done"),
    # __nfqnl_enqueue_packet: the message for a queue that is full; the packet has an event of its own
    ("NOT_SPECIFIED", "__nfqnl_enqueue_packet+0x2b1", NONE, "socket", "netlink"),
    # __netif_receive_skb_core, deliver_exact: a frame that a bond does not take from its inactive member
    ("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0", IPV4, "stack", "inactive bond member"),
    ("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0", 0x0806, "stack", "inactive bond member"),
    # flush_backlog: the device is NETREG_UNREGISTERING
    ("DEV_READY", "flush_backlog", IPV4, "backlog", "device removed"),
    ("NOT_SPECIFIED", "ip6_mc_input", 0x86DD, "stack", "multicast"),
]


@pytest.mark.parametrize(("reason", "call_site", "protocol", "layer", "text"), NOISE)
def test_free_without_loss_says_why(
    layers: Layers, reason: str, call_site: str, protocol: int, layer: str, text: str
) -> None:
    """A free that lost nothing is placed too and carries a text that says which kind it is."""
    verdict = layers.verdict("core", reason, call_site, protocol)
    assert verdict.layer == layer
    assert text in (verdict.noise or "")


def test_policy_and_capacity_losses_are_never_noise(layers: Layers) -> None:
    """A packet thrown away on purpose or for want of room is a loss; only a capture's own copy is not."""
    not_lost = [
        rule.verdict for rule in layers.rules
        if rule.verdict.nature in ("policy", "capacity") and rule.verdict.noise is not None
    ]  # fmt: skip
    copy = Verdict(
        "socket", "capacity", "a capture lost its copy, packet lived"
    )  # by which `diagnose` counts them once
    assert not_lost == [copy] * 3


@pytest.mark.parametrize("function", ["cookie_v4_check", "cookie_v6_check"])
def test_a_right_cookie_without_room_is_capacity(layers: Layers, function: str) -> None:
    """NO_SOCKET means there that no connection could be made, not that nobody listens (syncookies.c, v6.12)."""
    assert layers.verdict("core", "NO_SOCKET", function, IPV4) == Verdict("socket", "capacity", None)


def test_queue_purge_of_network_packets_is_no_noise(layers: Layers) -> None:
    """The same bulk free is noise for local data and may be loss for network packets."""
    assert layers.verdict("core", "QUEUE_PURGE", "skb_queue_purge_reason", NONE).noise is not None
    assert layers.verdict("core", "QUEUE_PURGE", "skb_queue_purge_reason", IPV4).noise is None


def test_where_another_host_has_a_reason_the_rest_is_lost() -> None:
    """Kernels that say OTHERHOST free what is damaged, or what there is no memory for, at the same place without."""
    newer = Layers.load(reasons=["OTHERHOST"])
    for call_site in ("ip_rcv_core", "ip6_rcv_core"):
        assert newer.verdict("core", "NOT_SPECIFIED", call_site, IPV4) == UNKNOWN


def test_subsystems_do_not_answer_for_each_other(layers: Layers) -> None:
    """A reason name counts only within its subsystem."""
    assert layers.verdict("7", "CPU_BACKLOG", "some_function", IPV4) == UNKNOWN
    assert layers.verdict("mac80211_unusable", "RX_DROP_U_OOM", "ieee80211_rx_list", IPV4).layer == "driver"
    assert layers.verdict("openvswitch", "OVS_DROP_METER", "ovs_dp_process_packet", IPV4).nature == "policy"


@given(st.text(), st.text(), st.text(), st.integers(0, 0xFFFF))
def test_every_free_gets_one_known_layer(subsystem: str, reason: str, call_site: str, protocol: int) -> None:
    """Whatever the kernel reports is placed in exactly one layer, the same one each time."""
    layers = Layers(TABLE.parse([HEADER, ROW]))
    first = layers.verdict(subsystem, reason, call_site, protocol)
    assert first.layer in LAYERS
    assert layers.verdict(subsystem, reason, call_site, protocol) == first


@pytest.mark.parametrize(
    ("call_site", "function"),
    [
        ("tcp_v4_rcv", "tcp_v4_rcv"),
        ("tcp_v4_rcv+0x1c", "tcp_v4_rcv"),
        ("nft_do_chain+0x12 [nf_tables]", "nft_do_chain"),
        ("__netif_receive_skb_core.constprop.0+0x8f1", "__netif_receive_skb_core"),
        ("ip_rcv_finish_core.isra.0", "ip_rcv_finish_core"),
        ("tcp_data_queue.part.0.cold+0x4", "tcp_data_queue"),
        ("0xffffffff81000000", "0xffffffff81000000"),
        ("", ""),
    ],
)
def test_compiler_copies_count_as_the_function(call_site: str, function: str) -> None:
    """Offset, module and the suffixes of compiler-made copies do not matter."""
    assert function_of(call_site) == function


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        (HEADER, "no rows"),
        (ROW, "line 1: expected the header"),
        (HEADER + "# comment\n\nNO_SOCKET\t*\t*\n", "line 4: 3 columns"),
        (HEADER + ROW.replace("\t*\t*\t", "\t*\tIPv4\t"), "line 2: unknown protocol 'IPv4'"),
        (HEADER + ROW.replace("socket", "sockets"), "line 2: unknown layer 'sockets'"),
        (HEADER + ROW.replace("routing", "route"), "line 2: unknown nature 'route'"),
        (HEADER + ROW.replace("\tloss\t-\t", f"\tnoise\t{'x' * (WHY_WIDTH + 1)}\t"), "line 2: why is longer"),
        (HEADER + ROW.replace("\tloss\t-\t", "\tlost\t-\t"), "line 2: unknown verdict 'lost'"),
        (HEADER + ROW.replace("\tloss\t-\t", "\tdoubt\t-\t"), "line 2: noise and doubt say why"),
        (HEADER + ROW.replace("\tloss\t-\t", "\tloss\twhy\t"), "line 2: noise and doubt say why"),
        (HEADER + ROW.replace("\t-\t", "\t\t"), "line 2: column why is empty"),
        (HEADER + ROW + ROW.replace("net/ipv4/udp.c udp_rcv, v7.3", " "), "line 3: column source is empty"),
    ],
)
def test_malformed_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    """A broken rule file is refused with the file and the line at fault."""
    path = tmp_path / "broken.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        Layers.load(path)


def test_first_matching_row_decides(tmp_path: Path) -> None:
    """A narrow row above a wide one wins."""
    path = tmp_path / "two.tsv"
    path.write_text(HEADER + ROW.replace("\t*\t*\t", "\tping_rcv\t*\t").replace("socket\t", "stack\t") + ROW)
    layers = Layers.load(path)
    assert layers.verdict("core", "NO_SOCKET", "ping_rcv", IPV4).layer == "stack"
    assert layers.verdict("core", "NO_SOCKET", "udp_rcv", IPV4).layer == "socket"
