# SPDX-License-Identifier: MIT
"""Drops as tables: the exact text, and what is true of any of them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.ledger.entry import Entry
from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Amounts, Count, DropKey, Netns, Uncounted
from pktdrop.model.sample import Owner
from pktdrop.rules.protocols import Protocols
from pktdrop.samples.flows import Standouts
from pktdrop.views import table as views
from pktdrop.views.table import TableView
from tests.kit.frames import ether, ipv4, tcp, udp
from tests.unit.make import (
    JUDGE,
    NOON,
    make_backlog_drop,
    make_drop,
    make_interval,
    make_ledger,
    make_loss,
    make_noise,
    make_sample,
    make_selection,
)


def name_of(netns: int) -> str | None:
    """The name of a namespace."""
    return {Netns(4026532281, 7): "blue", Netns(4026531833, 1): "host"}.get(netns)


NO_LEDGER = make_ledger()
VIEW = TableView(Protocols.load(), limit=20, netns_name=name_of)
NFT = make_drop(
    reason="NETFILTER_DROP", cpu=1, ifindex=12, interface="veth-a", netns_name="green",
    call_site="nft_do_chain+0x4bc [nf_tables]",
)  # fmt: skip
OVS = make_drop(
    subsystem="openvswitch", reason="OVS_DROP_METER", ifindex=None, interface=None, protocol=0x88B5,
    call_site="ovs_execute_actions+0x7a1 [openvswitch]",
)  # fmt: skip
NUMBER = make_drop(reason="137", ifindex=7, interface=None, netns=None, netns_name=None, protocol=0,
                   call_site="ip_rcv+0x3")  # fmt: skip
DROPS = {
    make_noise(): Count(5000, 300000),
    NUMBER: Count(1, 60),
    make_drop(): Count(1000, 28000),
    NFT: Count(3, 252),
    make_backlog_drop(): Count(812, 81200),
    OVS: Count(42, 4200),
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NOON is 22:13:20, wherever the tests run."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_an_interval_at_80_columns() -> None:
    """One row per key, losses first, the most first; long texts give way so that lines fit."""
    assert VIEW.interval(make_interval(DROPS), make_selection(DROPS), NO_LEDGER, 80) == (
        "22:13:20  1,858 packets dropped, 5,000 noise (*) in 2.0 s\n"
        "packets     /s  reason             CPU  iface   netns  proto   where\n"
        "  1,000    500  NO_SOCKET          0    lo      blue   IPv4    udp_rcv+0x49e\n"
        "    812    406  CPU_BACKLOG        0>3  eth0    host   IPv4    enqueue_t..+0x1a8\n"
        "     42     21  openvswitch/OVS..  0    -       blue   0x88b5  ovs_exe..+0x7a1..\n"
        "      3    1.5  NETFILTER_DROP     1    veth-a  green  IPv4    nft_do_..+0x4bc..\n"
        "      1    0.5  core/137           0    if7     -      -       ip_rcv+0x3\n"
        "  5,000  2,500  OTHERHOST*         0    eth0    blue   IPv4    ip_rcv_core+0x1b\n"
        "\n"
    )


def test_an_interval_at_200_columns() -> None:
    """With room, nothing is cut, and no line is longer than it must be."""
    assert VIEW.interval(make_interval(DROPS), make_selection(DROPS), NO_LEDGER, 200) == (
        "22:13:20  1,858 packets dropped, 5,000 noise (*) in 2.0 s\n"
        "packets     /s  reason                      CPU  iface   netns  proto   where\n"
        "  1,000    500  NO_SOCKET                   0    lo      blue   IPv4    udp_rcv+0x49e\n"
        "    812    406  CPU_BACKLOG                 0>3  eth0    host   IPv4    enqueue_to_backlog+0x1a8\n"
        "     42     21  openvswitch/OVS_DROP_METER  0    -       blue   0x88b5"
        "  ovs_execute_actions+0x7a1 [openvswitch]\n"
        "      3    1.5  NETFILTER_DROP              1    veth-a  green  IPv4    nft_do_chain+0x4bc [nf_tables]\n"
        "      1    0.5  core/137                    0    if7     -      -       ip_rcv+0x3\n"
        "  5,000  2,500  OTHERHOST*                  0    eth0    blue   IPv4    ip_rcv_core+0x1b\n"
        "\n"
    )


def test_an_interval_at_20_columns() -> None:
    """On a terminal too narrow for a table, columns keep what makes them readable, and lines are too long."""
    lines = VIEW.interval(make_interval(DROPS), make_selection(DROPS), NO_LEDGER, 20).splitlines()
    assert lines[1].split() == ["packets", "/s", "reason", "CPU", "iface", "netns", "proto", "where"]
    assert lines[2].split() == ["1,000", "500", "NO_SOCKET", "0", "lo", "blue", "IPv4", "udp_rcv+0x49e"]
    assert lines[3].split() == ["812", "406", "CPU_BACKLOG", "0>3", "eth0", "host", "IPv4", "enqueu..+0x1a8"]
    assert max(map(len, lines[1:])) == 7 + 5 + 14 + 3 + 6 + 5 + 6 + 14 + 7 * 2


def test_a_summary_at_80_columns() -> None:
    """Totals by reason with share and layer, by CPU, noise apart, and what was not counted or not shown."""
    whole = make_interval(DROPS, uncounted=Uncounted(map_full=1003, missed=4))
    assert VIEW.summary(whole, make_selection(DROPS, filtered=9), NO_LEDGER, 80) == (
        "22:13:18 to 22:13:20, 2.0 s: 1,858 packets dropped (113,712 bytes), 5,000 noise (*).\n"
        "\n"
        "packets  share  layer    reason                      where most\n"
        "  1,000   54 %  socket   NO_SOCKET                   udp_rcv+0x49e\n"
        "    812   44 %  backlog  CPU_BACKLOG                 enqueue_to_backlog+0x1a8\n"
        "     42    2 %  stack    openvswitch/OVS_DROP_METER  ovs_execute_actions+0x7a1..\n"
        "      3   <1 %  stack    NETFILTER_DROP              nft_do_chain+0x4bc..\n"
        "      1   <1 %  stack    core/137                    ip_rcv+0x3\n"
        "\n"
        "packets  share  CPU\n"
        "  1,043   56 %  0\n"
        "    812   44 %  0>3\n"
        "      3   <1 %  1\n"
        "\n"
        "packets  reason      why it is no loss       where\n"
        "  5,000  OTHERHOST*  frame for another host  ip_rcv_core+0x1b\n"
        "\n"
        "Lost in all: 0 packets. Unexplained: 0.\n"
        "Drops not counted: 4.\n"
        "filtered: 9 packets counted, not shown.\n"
    )


def test_the_ledger_in_a_summary() -> None:
    """Each loss counter that rose stands beside the events that explain it, riddles first; hints are left out."""
    blue, eth0 = Scope(netns=Netns(4026532281, 7)), Scope(netns=Netns(4026531833, 1), interface="eth0")
    riddle = Entry("stack", "mib.IpInAddrErrors", blue, 7, 3, 4, "unexplained", (("IP_INADDRERRORS", 3),))
    ledger = make_ledger(
        Entry("nic-ring", "ethtool.rx_no_dma_resources", eth0._replace(queue=3), 500, 0, 500, "no-event"),
        Entry("backlog", "softnet.dropped", Scope(cpu=3), 812, 812, 0, "exact", (("CPU_BACKLOG", 812),)),
        Entry("backlog", "softnet.time_squeeze", Scope(cpu=3), 9, 0, 9, "no-event"),
        riddle,
        Entry("stack", "none", eth0, 0, 0, 0, "silent", (("NETFILTER_DROP", 5),), "a rule that drops is in no counter"),
        losses=(
            make_loss(500, "nic-ring", without_event=500),
            make_loss(812, "backlog"),
            make_loss(5, "stack"),
            make_loss(4, "stack", without_event=4, note="nothing explains it"),
        ),
        hints=frozenset(["softnet.time_squeeze"]),
    )
    text = VIEW.summary(make_interval(), make_selection(), ledger, 80)
    assert text.split("\n\n", 1)[1] == (
        "rose  explained  status       counter             of            by\n"
        " 500          -  no-event     ethtool.rx_no_dm..  eth0 queue 3\n"
        " 812        812  exact        softnet.dropped     CPU 3         CPU_BACKLOG\n"
        "   7          3  unexplained  mib.IpInAddrErrors  netns blue    IP_INADDRERRORS\n"
        "   -          -  silent       -                   eth0          5 NETFILTER_DR..\n"
        "\n"
        "Lost in all: 1,321 packets (nic-ring 500, backlog 812, stack 9). Unexplained: 4.\n"
        "Drops not counted: 0.\n"
    )


def test_a_counter_read_at_another_moment_says_so() -> None:
    """Where the numbers differ it is not exact, and the row says why."""
    by = (("NO_SOCKET", 555),)
    entry = Entry("socket", "mib.UdpNoPorts", Scope(netns=Netns(4026532281, 7)), 541, 541, 0, "bound", by, "14 less")
    text = VIEW.summary(make_interval(), make_selection(), make_ledger(entry), 80)
    assert " 541        541  bound   mib.UdpNoPorts  netns blue  NO_SOCKET; 14 less; 555 e..\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_cut_row_does_not_contradict_itself() -> None:
    """Where there is no room for more than the reason, no other number stands beside what is explained."""
    by = (("SOCKET_RCVBUFF", 555),)
    scope = Scope(netns=Netns(1), socket="udp 0.0.0.0:53 ino:81234")
    entry = Entry("socket", "mib.UdpLite6RcvbufErrors", scope, 541, 541, 0, "bound", by, "14 less than the events")
    text = VIEW.summary(make_interval(), make_selection(), make_ledger(entry), 80)
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("541")]
    assert "SOCKET_RCV" in row
    assert "555" not in row


def test_copies_that_captures_lost_have_a_line() -> None:
    """They are no packets: in no total, and told all the same."""
    entry = Entry("socket", "packet_socket.drops", Scope(), 3244, 0, 3244, "no-event")
    text = VIEW.summary(make_interval(), make_selection(), make_ledger(entry), 80)
    assert "Copies that captures had no room for, while the packets went on: 3,244.\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_loss_without_an_event_has_a_line() -> None:
    """An interval without drop events is shown if a NIC or a counter tells of loss; what is explained has no line."""
    blue = Scope(netns=Netns(4026532281, 7))
    riddle = Entry("stack", "mib.IpInAddrErrors", blue, 7, 3, 4, "unexplained", (), "more than the events")
    syns = Entry("socket", "mib.TcpExtListenDrops", blue, 6, 0, 6, "no-event")
    host, there = Netns(4026531833, 1), Whereabouts(Netns(4026532281, 7))
    ledger = make_ledger(
        riddle,
        syns,
        Entry("backlog", "softnet.dropped", Scope(cpu=3), 812, 812, 0, "exact", (("CPU_BACKLOG", 812),)),
        losses=(
            make_loss(500, "nic-ring", Whereabouts(host, "eth0", queues=((3, 500),)), without_event=500,
                      counters=("ethtool.rx_no_dma_resources",)),
            make_loss(812, "backlog", Whereabouts(cpu=3)),
            make_loss(4, "stack", there, without_event=4, counters=(riddle.counter,), note=riddle.note),
            make_loss(16, "socket", there, without_event=6, counters=(syns.counter,)),
        ),
    )  # fmt: skip
    assert VIEW.interval(make_interval(), make_selection(), ledger, 100) == (
        "22:13:20  nothing dropped in 2.0 s\n"
        "! 500 packets lost in nic-ring of eth0 (queue 3: 500), without an event: ethtool.rx_no_dma_resources\n"
        "! 6 packets lost in socket of netns blue, without an event: mib.TcpExtListenDrops\n"
        "? 4 packets unexplained: mib.IpInAddrErrors of netns blue: more than the events\n"
        "\n"
    )


def test_a_summary_at_200_columns() -> None:
    """With room, call sites are whole."""
    text = VIEW.summary(make_interval(DROPS), make_selection(DROPS), NO_LEDGER, 200)
    assert "OVS_DROP_METER  ovs_execute_actions+0x7a1 [openvswitch]\n" in text
    assert "NETFILTER_DROP              nft_do_chain+0x4bc [nf_tables]\n" in text


def test_a_summary_at_20_columns() -> None:
    """However narrow the terminal, the numbers of the summary are whole."""
    text = VIEW.summary(make_interval(DROPS), make_selection(DROPS), NO_LEDGER, 20)
    for number in ("1,000   54 %  socket ", "812   44 %  backlog ", "1,043   56 %  0\n", "812   44 %  0>3\n"):
        assert number in text


def test_a_quiet_run() -> None:
    """A run without drops says so, and that nothing went uncounted."""
    assert VIEW.summary(make_interval(), make_selection(), NO_LEDGER, 80) == (
        "22:13:18 to 22:13:20, 2.0 s: nothing dropped.\n"
        "\n"
        "Lost in all: 0 packets. Unexplained: 0.\n"
        "Drops not counted: 0.\n"
    )


def test_a_quiet_interval_prints_nothing() -> None:
    """An interval without drops has no block."""
    assert VIEW.interval(make_interval(), make_selection(), NO_LEDGER, 80) == ""


def test_a_run_of_noise_only() -> None:
    """Noise alone is no drop, and still shown with what it was."""
    noise = {make_noise(): Count(1, 60)}
    text = VIEW.summary(make_interval(noise), make_selection(noise), NO_LEDGER, 80)
    assert "2.0 s: nothing dropped, 1 noise (*).\n" in text
    assert "share" not in text
    assert "      1  OTHERHOST*  frame for another host  ip_rcv_core+0x1b\n" in text
    assert VIEW.interval(make_interval(noise), make_selection(noise), NO_LEDGER, 80).startswith(
        "22:13:20  nothing dropped, 1 noise (*) in 2.0 s\n"
    )


def test_one_packet_is_no_packets() -> None:
    """One packet is spoken of as one."""
    drops = {make_drop(): Count(1, 29)}
    assert "  1 packet dropped in 2.0 s\n" in VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 80)
    text = VIEW.summary(make_interval(drops), make_selection(drops, filtered=1), NO_LEDGER, 80)
    assert ": 1 packet dropped (29 bytes).\n" in text
    assert "filtered: 1 packet counted, not shown.\n" in text


def test_shares_of_a_filtered_run_are_of_what_is_shown() -> None:
    """Shares of the shown reasons add up to all that is shown; what is filtered is said in packets."""
    drops = {make_drop(): Count(3, 3), NFT: Count(1, 1)}
    text = VIEW.summary(make_interval(drops), make_selection(drops, filtered=996), NO_LEDGER, 80)
    assert "   75 %  socket " in text
    assert "   25 %  stack " in text
    assert "filtered: 996 packets counted, not shown." in text


@pytest.mark.parametrize(("rows", "line"), [
    (13, "and 12 more rows: 340 packets"),
    (2, "and 1 more row: 7 packets"),
])  # fmt: skip
def test_rows_beyond_the_limit_are_one_line(rows: int, line: str) -> None:
    """What a table has no room for is summed up: how many rows, how many packets."""
    packets = [1000, *([29] * 11), 21] if rows == 13 else [1000, 7]
    drops = {make_drop(cpu=cpu): Count(count, 0) for cpu, count in enumerate(packets)}
    text = TableView(Protocols.load(), limit=1, netns_name=name_of).interval(
        make_interval(drops), make_selection(drops), NO_LEDGER, 80
    )
    assert text.splitlines()[2].split()[0] == "1,000"
    assert text.splitlines()[3:] == [line, ""]


def test_as_many_rows_as_the_limit_leave_no_line() -> None:
    """A table that is just full is not said to go on."""
    drops = {make_drop(cpu=cpu): Count(5, 0) for cpu in range(4)}
    text = TableView(Protocols.load(), limit=4, netns_name=name_of).interval(
        make_interval(drops), make_selection(drops), NO_LEDGER, 80
    )
    assert "more row" not in text
    assert len(text.splitlines()) == 2 + 4 + 1


def test_the_limit_holds_for_each_table_of_the_summary() -> None:
    """Reasons, CPUs and noise each keep to the limit, and their totals stay true."""
    drops = {make_drop(cpu=cpu, reason=f"R{cpu}"): Count(10 - cpu, 0) for cpu in range(3)}
    drops |= {make_noise(call_site=f"ip_rcv_core+{place}"): Count(20 - place, 0) for place in range(3)}
    text = TableView(Protocols.load(), limit=1, netns_name=name_of).summary(
        make_interval(drops), make_selection(drops), NO_LEDGER, 80
    )
    assert text.count("and 2 more rows: 17 packets\n") == 2
    assert text.count("and 2 more rows: 37 packets\n") == 1
    assert ": 27 packets dropped (0 bytes), 57 noise (*)." in text


def test_a_reason_at_several_call_sites_is_one_row() -> None:
    """The summary has one row per layer and reason, with the call site of the most packets first."""
    drops = {
        make_drop(call_site="udp_rcv+0x49e"): Count(10, 0),
        make_drop(call_site="udpv6_rcv+0x11", cpu=0): Count(7, 0),
        make_drop(call_site="udpv6_rcv+0x11", cpu=1): Count(7, 0),
        make_drop(call_site="raw_rcv+0x5"): Count(1, 0),
    }
    text = VIEW.summary(make_interval(drops), make_selection(drops), NO_LEDGER, 80)
    assert "     25  100 %  socket  NO_SOCKET  udpv6_rcv+0x11, 2 more\n" in text
    assert text.count("NO_SOCKET") == 1


def test_a_reason_in_two_layers_is_two_rows() -> None:
    """What the same reason means depends on where it was given."""
    drops = {
        make_drop(reason="NOT_SPECIFIED", call_site=call_site): Count(packets, 0)
        for call_site, packets in (("raw_rcv+0x1", 10), ("do_xdp_generic+0x1", 30))
    }
    text = VIEW.summary(make_interval(drops), make_selection(drops), NO_LEDGER, 80)
    assert "     30   75 %  driver  NOT_SPECIFIED  do_xdp_generic+0x1\n" in text
    assert "     10   25 %  socket  NOT_SPECIFIED  raw_rcv+0x1\n" in text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (make_drop(), "NO_SOCKET"),
        (make_drop(reason="137"), "core/137"),
        (make_drop(reason="137", subsystem="openvswitch"), "openvswitch/137"),
        (make_drop(reason="137", subsystem="9"), "9/137"),
        (make_noise(), "OTHERHOST*"),
        (make_drop(subsystem="mac80211_unusable", reason="RX_DROP_U_OOM"), "mac80211_unusable/RX_DROP_U_OOM"),
    ],
)
def test_reason(key: DropKey, text: str) -> None:
    """A reason of the core has its plain name; others, and numbers, say whose they are; noise is marked."""
    assert views.reason(key, JUDGE(key)) == text


def test_cpu() -> None:
    """The CPU that dropped, and behind ">" the one whose queue was full, also where it is CPU 0."""
    assert views.cpu(make_drop(cpu=11)) == "11"
    assert views.cpu(make_backlog_drop()) == "0>3"
    assert views.cpu(make_backlog_drop(cpu=2, target_cpu=0)) == "2>0"


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"interface": None, "ifindex": 7}, ["if7", "blue"]),
        ({"interface": None, "ifindex": None}, ["-", "blue"]),
        ({"netns_name": None, "netns": Netns(4026532999, 9)}, ["lo", "4026532999"]),
        ({"netns_name": None, "netns": None}, ["lo", "-"]),
    ],
)
def test_a_name_that_is_not_known_is_its_number(changes: dict[str, object], cells: list[str]) -> None:
    """What has no name shows its number; what is not known at all shows "-"."""
    drops = {make_drop(**changes): Count(1, 1)}
    row = VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 200).splitlines()[2].split()
    assert row[4:6] == cells


def test_names_from_outside_are_escaped() -> None:
    """The name of an interface or a namespace cannot move the cursor or draw a row of its own."""
    drops = {make_drop(interface="\x1b[2J", netns_name="a\nb"): Count(1, 1)}
    for text in (
        VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 80),
        VIEW.summary(make_interval(drops), make_selection(drops), NO_LEDGER, 80),
    ):
        assert all(line.isprintable() for line in text.split("\n"))
    assert len(VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 80).splitlines()) == 4


def test_the_mark_of_noise_survives_a_cut() -> None:
    """However little room there is, a free that is no loss does not look like one."""
    drops = {
        make_noise(reason="IPV6_NDISC_NS_OTHERHOST", call_site="ndisc_recv_ns+0x1f0", interface="eth0.1234"): Count(
            1, 1
        )
    }
    for width in (20, 80):
        row = VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, width).splitlines()[2]
        assert "*" in row


def test_two_namespaces_without_names_stay_two() -> None:
    """Inodes of namespaces differ in their last digits: at 80 columns they still tell which is which."""
    drops = {
        NFT._replace(netns=netns, netns_name=None, interface="veth-customer1"): Count(1000, 1)
        for netns in (Netns(4026532281, 7), Netns(4026532399, 8))
    }
    rows = VIEW.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 80).splitlines()[2:4]
    assert rows[0] != rows[1]


def test_a_cut_short_interval_has_true_rates() -> None:
    """Rates are per second of the interval, however long it is; with none to speak of there is no rate."""
    drops = {make_drop(): Count(30, 1)}
    rows = {
        seconds: VIEW.interval(make_interval(drops, seconds=seconds), make_selection(drops), NO_LEDGER, 80)
        .splitlines()[2]
        .split()
        for seconds in (0.0, 0.5, 60.0)
    }
    assert rows[0.5][:2] == ["30", "60"]
    assert rows[60.0][:2] == ["30", "0.5"]
    assert rows[0.0][:2] == ["30", "-"]


@pytest.mark.parametrize(
    ("elapsed", "so_far", "quiet", "line"),
    [
        (12.7, Amounts(0, 0), 12.7, "0:00:12 elapsed, nothing dropped"),
        (75.0, Amounts(340, 0), 12.2, "0:01:15 elapsed, 340 packets dropped, no drops for 12 s"),
        (3661.0, Amounts(1, 5), 1.0, "1:01:01 elapsed, 1 packet dropped, 5 noise (*), no drops for 1 s"),
        (90000.0, Amounts(0, 5), 1.0, "25:00:00 elapsed, nothing dropped, 5 noise (*)"),
    ],
)
def test_status(elapsed: float, so_far: Amounts, quiet: float, line: str) -> None:
    """The status line: for how long, how much, and how long it has been quiet."""
    assert VIEW.status(elapsed, so_far, quiet, 80) == line


@given(st.integers(10, 300), st.floats(0, 1e6), st.builds(Amounts, st.integers(0, 10**12), st.integers(0, 10**12)))
def test_the_status_line_stays_on_its_line(width: int, elapsed: float, so_far: Amounts) -> None:
    """The status line leaves the last column free: a terminal must not wrap it."""
    assert len(VIEW.status(elapsed, so_far, elapsed, width)) < width


@st.composite
def everyday(draw: st.DrawFn) -> dict[DropKey, Count]:
    """Drops as hosts of up to 1,000 CPUs have them: below ten million packets each, of protocols with short names."""
    keys = st.builds(
        make_drop,
        reason=st.sampled_from(["NO_SOCKET", "OTHERHOST", "TCP_INVALID_ACK_SEQUENCE", "137", "IPV6_NDISC_BAD_OPTIONS"]),
        subsystem=st.sampled_from(["core", "mac80211_unusable"]),
        cpu=st.integers(0, 999),
        interface=st.none() | st.text("abcdefgh0123456789", min_size=1, max_size=15),
        netns_name=st.none() | st.text("abcdefgh0123456789", min_size=1, max_size=60),
        protocol=st.sampled_from([0, 0x0800, 0x86DD, 0x0806, 0x8100]),
        call_site=st.sampled_from(["udp_rcv+0x49e", "ovs_execute_actions+0x7a1 [openvswitch]", "0xffffffff81e42670"]),
    )
    counts = st.builds(Count, st.integers(1, 9_999_999), st.integers(0, 1 << 40))
    return draw(st.dictionaries(keys, counts, min_size=1, max_size=25))


@given(everyday(), st.integers(80, 250))
def test_tables_fit(drops: dict[DropKey, Count], width: int) -> None:
    """From 80 columns on, no line of a table is wider than the terminal."""
    view = TableView(Protocols.load(), limit=20, netns_name=name_of)
    block = view.interval(make_interval(drops), make_selection(drops), NO_LEDGER, width)
    summary = view.summary(make_interval(drops), make_selection(drops), NO_LEDGER, width)
    tables = [line for line in summary.splitlines() if not line.startswith(("22:13:", "Drops not"))]
    assert max(map(len, block.splitlines()[1:])) <= width  # below the title
    assert max(map(len, tables)) <= width


@given(everyday(), st.integers(1, 30))
def test_no_packet_is_lost_in_a_table(drops: dict[DropKey, Count], limit: int) -> None:
    """The rows of a block and its line of the rest add up to all packets."""
    text = TableView(Protocols.load(), limit, name_of).interval(
        make_interval(drops), make_selection(drops), NO_LEDGER, 100
    )
    rows = text.splitlines()[2:-1]
    total = 0
    for row in rows:
        words = row.split()
        total += int((words[-2] if words[0] == "and" else words[0]).replace(",", ""))
    assert total == sum(count.packets for count in drops.values())


def test_the_time_is_that_of_the_end() -> None:
    """A block is titled with the wall-clock time at which its interval ended."""
    drops = {make_drop(): Count(1, 1)}
    text = VIEW.interval(make_interval(drops, end=NOON + 61), make_selection(drops), NO_LEDGER, 80)
    assert text.startswith("22:14:21  ")


def test_whose_packets_a_row_is() -> None:
    """Below each row that has samples, the packets seen most, with how many of how many; no more lines than asked."""
    drops = {make_drop(): Count(12_300, 28_000), NFT: Count(3, 252)}
    samples = [make_sample(), make_sample(ether(0x0800, ipv4(6, tcp()))), make_sample()]
    samples[1].owner = Owner(812, "a\x1bb")

    def lines(packets: int, width: int = 80) -> list[str]:
        view = TableView(Protocols.load(), 20, name_of, packets)
        text = view.interval(make_interval(drops), make_selection(drops), NO_LEDGER, width, {make_drop(): samples})
        return text.splitlines()[3:-1]

    udp_line = "    10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B, 2 of 12,300 seen"
    assert [line for line in lines(1) if line.startswith(" " * 4 + "10")] == [udp_line]
    assert lines(1)[0] == udp_line
    assert len(lines(1)) == 2
    assert lines(5)[:2] == [
        udp_line,
        "    10.0.0.5:43210 > 10.0.0.9:443 TCP SYN 0 B for a\\x1bb[812], 1 of 12,300 seen",
    ]
    assert len(lines(0)) == 1
    assert lines(1, 50)[0] == "    10.0.0.5:43210 > 10.0.0.9:.., 2 of 12,300 seen"


def test_no_line_without_a_row() -> None:
    """A row that is one of many more has no line of packets."""
    drops = {make_drop(): Count(5, 60), NFT: Count(3, 252)}
    view = TableView(Protocols.load(), 1, name_of)
    samples = {make_drop(): [make_sample()], NFT: [make_sample(key=NFT)]}
    text = view.interval(make_interval(drops), make_selection(drops), NO_LEDGER, 80, samples)
    assert text.count(" seen") == 1
    assert "and 1 more row: 3 packets" in text


def test_who_stood_out() -> None:
    """The summary names for each reason who sent most, where to, and for whom, of how many samples."""
    drops = {make_drop(): Count(12_300, 28_000), NFT: Count(3, 252)}
    who = Standouts()
    some = [make_sample(), make_sample(), make_sample(ether(0x0800, ipv4(17, udp(), source="10.0.0.6")))]
    some[0].owner = Owner(812, "dnsmasq")
    who.add({make_drop(): some, NFT: [make_sample(ether(0x88CC))]}, drops, JUDGE)
    text = VIEW.summary(make_interval(drops), make_selection(drops), NO_LEDGER, 120, who)
    assert text.split("\n\n")[3] == (
        "sampled  reason          most from          most to            whose most\n"
        "      3  NO_SOCKET       10.0.0.5 (2)       10.0.0.9:8125 UDP  for dnsmasq[812] (1)\n"
        "      1  NETFILTER_DROP  02:00:00:00:00:0a  02:00:00:00:00:0b  -"
    )


CROWD = {
    make_drop(netns=Netns(100 + number, number), netns_name=f"pod-{number}"): Count(3, 90) for number in range(100)
}


def _folded(by: str, drops: Mapping[DropKey, Count], width: int = 100) -> list[str]:
    view = TableView(Protocols.load(), 20, name_of, by=by)
    return view.interval(make_interval(drops), make_selection(drops), NO_LEDGER, width).splitlines()


def test_a_hundred_namespaces_with_the_same_loss_are_one_row_and_a_number() -> None:
    """What is alike in a row is shown; of what differs, how many there are; every packet is in a row."""
    lines = _folded("reason", CROWD | {NFT: Count(7, 70)})
    assert [line.split() for line in lines[2:4]] == [
        ["300", "150", "NO_SOCKET", "0", "lo", "(100)", "IPv4", "udp_rcv+0x49e"],
        ["7", "3.5", "NETFILTER_DROP", "1", "veth-a", "green", "IPv4", "nft_do_chain+0x4bc", "[nf_tables]"],
    ]
    assert lines[4] == "Each row is a sum by reason; (3): three different ones."


@pytest.mark.parametrize(
    ("by", "rows"),
    [("netns", 101), ("interface", 2), ("cpu", 2), ("layer", 2)],
)
def test_rows_are_summed_by(by: str, rows: int) -> None:
    """Each value has its row, and the packets of all kinds that have it."""
    drops = CROWD | {make_drop(cpu=3, interface="tun0", reason="IP_INHDR", call_site="ip_rcv_core+0x9"): Count(7, 70)}
    lines = [line for line in _folded(by, drops) if line[:1] == " " and "packets" not in line]
    assert len(lines) == min(rows, 20)
    if rows == 2:
        assert [line.split()[0] for line in lines] == ["300", "7"]


def test_losses_and_noise_are_not_summed_together() -> None:
    """One namespace with both has two rows."""
    lines = _folded("netns", {make_drop(): Count(5, 0), make_noise(netns=make_drop().netns): Count(900, 0)})
    assert [line.split()[0] for line in lines[2:4]] == ["5", "900"]


def test_the_summary_has_a_table_of_what_rows_are_summed_by() -> None:
    """By namespace: of each its packets and its share."""
    view = TableView(Protocols.load(), 3, name_of, by="netns")
    text = view.summary(make_interval(CROWD), make_selection(CROWD), NO_LEDGER, 80)
    assert re.search(r"^ +3 +1 % +pod-0$", text, re.MULTILINE)
    assert "and 97 more rows: 291 packets" in text
