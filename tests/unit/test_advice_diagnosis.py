# SPDX-License-Identifier: MIT
"""The verdict, the stations, the advice and the conditions of --fail-on, of accounts made by the real ledger."""

from __future__ import annotations

from typing import Any

import pytest

from pktdrop.diagnosis.diagnosis import failures
from pktdrop.diagnosis.stations import Peaks
from pktdrop.diagnosis.words import cpus, socket
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import DropKey, Netns, Uncounted
from pktdrop.text.wording import listed
from tests.unit.accounts import (
    BLUE,
    DNS,
    HOST,
    UNTRACED,
    Increments,
    KnownHost,
    judge,
    make_account,
    make_counters,
)
from tests.unit.make import make_backlog_drop, make_drop, make_noise

ETH0 = Scope(netns=HOST, interface="eth0")
FULL = make_drop(reason="SOCKET_RCVBUFF", netns=HOST, netns_name="host", call_site="__udp_queue_rcv_skb+0x1")
REFUSED = make_drop(reason="NETFILTER_DROP", call_site="nft_do_chain+0x40f")
RING: Increments = {"driver": {ETH0: {"ethtool.rx_queue_3_drops": 5297}}}
IGB = {"eth0": "igb"}


def test_a_verdict_of_three_places() -> None:
    """The example of the issue: shares by size, each place as a person would name it."""
    increments: Increments = {
        **RING,
        "softnet": {Scope(cpu=1): {"dropped": 810}},
        "socket": {DNS: {"drops": 125}},
        "mib": {Scope(netns=HOST): {"UdpRcvbufErrors": 125, "UdpInErrors": 125}},
        "links": {ETH0: {"rx_dropped": 810}},
    }
    diagnosis = judge(make_account({make_backlog_drop(target_cpu=1): 810, FULL: 125}, increments, IGB))
    assert diagnosis.verdict == (
        "In 10.0 s this host lost 6,232 packets: 85 % in the RX ring of eth0 (queue 3), 13 % in the backlog of CPU 1 "
        "(packets of eth0, sent there by CPU 0), 2 % in the receive buffer of dnsmasq (UDP :53). Unexplained: 0."
    )
    assert diagnosis.lost == sum(one.loss.packets for one in diagnosis.losses) == 6232
    assert sum(station.packets for station in diagnosis.stations) == 6232
    assert diagnosis.natures == {"capacity": 6232}


def test_nothing_lost() -> None:
    """Noise is no loss, and a quiet host is called quiet."""
    diagnosis = judge(make_account({make_noise(): 40}))
    assert diagnosis.verdict == "Nothing was lost on this host in 10.0 s."
    assert [station.status for station in diagnosis.stations] == ["ok"] * 8
    assert [(noise.reason, noise.packets) for noise in diagnosis.noise] == [("OTHERHOST", 40)]


def test_one_packet() -> None:
    """Grammar, and all of one."""
    assert judge(make_account({make_drop(): 1})).verdict.startswith("In 10.0 s this host lost 1 packet: 100 % at ports")


def test_policy_alone_is_not_called_loss() -> None:
    """A firewall that does its work is no incident."""
    diagnosis = judge(make_account({REFUSED: 23}))
    assert diagnosis.verdict == (
        "In 10.0 s this host lost nothing but 23 packets refused on purpose (policy): 100 % by firewall rules of "
        "netns blue. Unexplained: 0."
    )
    assert diagnosis.natures == {"policy": 23}


def test_policy_is_told_apart() -> None:
    """With other losses, how much was refused is said before the places; those for lack of room come first below."""
    diagnosis = judge(make_account({REFUSED: 900, FULL: 100}))
    assert diagnosis.verdict.startswith(
        "In 10.0 s this host lost 1,000 packets, 900 of them refused on purpose (policy): "
    )
    assert [one.loss.nature for one in diagnosis.losses] == ["capacity", "policy"]


def test_many_places_are_summed_up() -> None:
    """Three places are named, the others are one share; a fourth alone is named, too."""
    drops = {make_drop(netns=Netns(100 + index)): 10 - index for index in range(6)}
    assert judge(make_account(drops)).verdict.endswith(", 40 % in 3 other places. Unexplained: 0.")
    four = dict(list(drops.items())[:4])
    assert "other" not in judge(make_account(four)).verdict


def test_small_shares_are_never_nothing() -> None:
    """One of a thousand is less than one percent, the others are less than all."""
    verdict = judge(make_account({make_drop(): 999, REFUSED: 1})).verdict
    assert ">99 % at ports" in verdict
    assert "<1 % by firewall" in verdict


def test_what_is_unexplained_is_said() -> None:
    """A counter without its events is in the sum, and named as a riddle."""
    diagnosis = judge(make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}}))
    assert diagnosis.verdict == (
        "In 10.0 s this host lost 4 packets: 100 % at ports of this host that nobody listens on (unexplained). "
        "Unexplained: 4."
    )
    assert diagnosis.unexplained == 4


def test_guesses_are_said() -> None:
    """What a driver that is not known counts in a field of the kernel is guessed at."""
    diagnosis = judge(make_account({}, {"links": {ETH0: {"rx_fifo_errors": 9}}}, {"eth0": "nobody"}))
    assert "in the memory (FIFO) of eth0 (guessed: its driver is not known)" in diagnosis.verdict


def test_without_tracing_it_says_so() -> None:
    """Counters alone prove less: neither is quiet the same as nothing lost, nor is anything explained."""
    quiet = judge(make_account(rungs=UNTRACED), UNTRACED)
    assert quiet.verdict == "No counter of lost packets rose on this host in 10.0 s; drops could not be traced."
    blind = judge(make_account(rungs=UNTRACED), UNTRACED, sees_all=False)
    assert "rose in 2 network namespaces that could be seen in 10.0 s" in blind.verdict
    at_interfaces = [station for station in blind.stations if station.layer in ("nic-fifo", "nic-ring")]
    assert [(station.status, *station.facts) for station in at_interfaces] == [
        ("unseen", "interfaces of other network namespaces were not seen")
    ] * 2
    counted = make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}}, rungs=UNTRACED)
    diagnosis = judge(counted, UNTRACED, present=frozenset((HOST, BLUE, 3, 4)))
    assert diagnosis.verdict == (
        "In 10.0 s counters in 2 of 4 network namespaces of this host show 4 packets lost: 100 % at ports of this host "
        "that nobody listens on. Drops were not traced: there may be more, and what is unexplained is not known."
    )
    assert (diagnosis.unexplained, diagnosis.watched.unread) == (None, 2)


def test_drops_that_were_not_counted_are_said() -> None:
    """What pktdrop itself missed is never silent; what counts at other places was counted."""
    missed = Uncounted(map_full=7, missed=8)
    assert judge(make_account(uncounted=missed)).verdict.startswith(
        "8 drops in 10.0 s on this host could not be counted"
    )
    assert judge(make_account({make_drop(): 1}, uncounted=missed)).verdict.endswith(
        "8 more drops could not be counted."
    )
    assert "could not be counted" not in judge(make_account({make_drop(): 7}, uncounted=Uncounted(7, 0))).verdict


# --------------------------------------------------------------------------------------------------------- stations


def facts(increments: Increments, layer: str, **changes: Any) -> tuple[str, tuple[str, ...]]:
    """Status and facts of a station."""
    diagnosis = judge(make_account({}, increments, IGB), **changes)
    (station,) = [one for one in diagnosis.stations if one.layer == layer]
    return station.status, station.facts


def test_an_empty_ring_and_pause_frames_warn() -> None:
    """Signs of a bottleneck that count no lost packet are warnings at their station."""
    increments: Increments = {"driver": {ETH0: {"ethtool.rx_no_buffer_count": 12, "ethtool.tx_flow_control_xoff": 5}}}
    status, (ring,) = facts(increments, "nic-ring")
    assert (status, ring.startswith("eth0: ethtool.rx_no_buffer_count +12")) == ("warning", True)
    status, (pause,) = facts(increments, "nic-fifo")
    assert status == "warning"
    assert "other end of the cable" in pause


def test_time_squeeze_warns() -> None:
    """A CPU that runs out of its budget is a warning at the backlog, and no loss."""
    status, (fact,) = facts({"softnet": {Scope(cpu=1): {"time_squeeze": 12}}}, "backlog")
    assert (status, fact) == ("warning", "CPU 1 used up its budget 12 times (time_squeeze): it is short of time")


def test_queues_that_were_nearly_full_warn() -> None:
    """The longest that was seen counts, even if the queue is empty at the end."""
    listener = Scope(netns=HOST, socket="tcp 0.0.0.0:80 ino:7")
    peaks = Peaks()
    for waiting in (10, 900, 20):
        gauges = {
            "softnet": {Scope(cpu=0): Row(("backlog_len", "input_qlen"), (waiting, waiting))},
            "socket": {
                DNS: Row(("rmem_alloc", "rcvbuf"), (waiting, 1000)),
                listener: Row(("accept_queue", "accept_limit"), (waiting // 9, 100)),
            },
            "qdisc": {
                Scope(netns=HOST, interface="eth0", qdisc="pfifo_fast 0:"): Row(("backlog", "qlen"), (1, waiting))
            },
        }
        peaks.look(make_counters(gauges=gauges))
    known = KnownHost({"netdev_max_backlog": 1000, "txqueuelen": 1000})
    assert facts({}, "backlog", peaks=peaks, host=known) == (
        "warning",
        ("the backlog of CPU 0 held 900 of at most 1,000",),
    )
    assert facts({}, "socket", peaks=peaks, host=known) == (
        "warning",
        (
            "the receive buffer of dnsmasq (UDP :53) held 900 of at most 1,000",
            "the accept queue of TCP :80 held 100 of at most 100",
        ),
    )


def test_connection_tracking_that_is_nearly_full_warns() -> None:
    """The table of connections is a queue of the stack."""
    known = KnownHost({"conntrack_count": 900, "conntrack_max": 1000})
    status, found = facts({}, "stack", host=known)
    assert status == "warning"
    assert "this host tracks 900 connections of at most 1,000" in found


# ----------------------------------------------------------------------------------------------------------- advice


def advice(diagnosis_of: Increments, **values: int | str) -> list[tuple[str, str | None]]:
    """What to do about the only loss of an account, with its commands."""
    (loss,) = judge(make_account({}, diagnosis_of, IGB), host=KnownHost(values)).losses
    return [(one.say, one.command) for one in loss.advice]


def test_a_ring_with_room_is_to_be_made_larger() -> None:
    """With the host's own values, and the command to copy."""
    said = advice(RING, rx_ring=256, rx_ring_max=4096)
    assert said[0] == (
        "Each RX ring of eth0 has 256 of at most 4,096 descriptors: make it larger.",
        "ethtool -G eth0 rx 4096",
    )


def test_a_ring_at_its_maximum_says_so_and_goes_on() -> None:
    """Then more queues are the next remedy."""
    said = advice(RING, rx_ring=4096, rx_ring_max=4096, combined=1, combined_max=8, combined_more=2, cpus=2)
    assert said[0] == (
        "The RX rings of eth0 have their maximum of 4,096 descriptors already: they must be emptied faster.",
        None,
    )
    assert said[1][1] == "ethtool -L eth0 combined 2"


def test_a_ring_of_unknown_size_leads_to_no_command() -> None:
    """What is not known is not advised upon."""
    assert [command for _, command in advice(RING) if command] == []


def test_a_buffer_below_its_limit_and_one_at_it() -> None:
    """The program may ask for more, or has to be allowed more first."""
    drop, increments = {FULL: 5}, {"socket": {DNS: {"drops": 5}}}
    sysctls: dict[str, int | str] = {
        "rmem_max": 2097152,
        "rcvbuf_max": 4194304,
        "rmem_default": 212992,
        "process": "dnsmasq",
    }
    below, at_it = (
        [
            one
            for loss in judge(make_account(drop, increments), host=KnownHost({**sysctls, "rcvbuf": size})).losses
            for one in loss.advice
        ]
        for size in (212992, 4194304)
    )
    assert any("let dnsmasq ask for that (SO_RCVBUF 2097152)" in one.say for one in below)
    assert any(one.command == f"sysctl -w net.core.rmem_default={4 * 212992}" for one in below)
    assert any(one.command == f"sysctl -w net.core.rmem_max={4 * 2097152}" for one in at_it)


def test_rps_that_is_off_is_offered() -> None:
    """The backlog's advice speaks of the interface that the packets came by."""
    known = KnownHost({"rps": "off", "cpus": 2, "rps_all": "3", "netdev_max_backlog": 1000})
    (loss,) = judge(
        make_account({make_backlog_drop(): 5}, {"softnet": {Scope(cpu=3): {"dropped": 5}}}), host=known
    ).losses
    assert loss.advice[0].command == ("for q in /sys/class/net/eth0/queues/rx-*; do echo 3 > $q/rps_cpus; done")
    assert loss.advice[1].command == "sysctl -w net.core.netdev_max_backlog=4000"


def test_the_kind_of_qdisc_decides() -> None:
    """txqueuelen is of use for pfifo_fast only."""
    drop = make_drop(reason="QDISC_DROP", interface="eth0", netns=HOST, call_site="__dev_xmit_skb+0x1")

    def commands(name: str) -> list[str | None]:
        increments: Increments = {"qdisc": {Scope(netns=HOST, interface="eth0", qdisc=name): {"drops": 9}}}
        (loss,) = judge(make_account({drop: 9}, increments), host=KnownHost({"txqueuelen": 1000})).losses
        return [one.command for one in loss.advice]

    assert "ip link set dev eth0 txqueuelen 4000" in commands("pfifo_fast 0:")
    assert "ip link set dev eth0 txqueuelen 4000" not in commands("fq_codel 0:")


# --------------------------------------------------------------------------------------------------- words, fail-on


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("udp 0.0.0.0:53 ino:1", "UDP :53"),
        ("udp *:53 ino:1", "UDP :53"),
        ("udp [::1]:4008 ino:1", "UDP [::1]:4008"),
        ("udp 10.0.0.1:53 10.0.0.2:99 ino:1", "UDP 10.0.0.1:53 to 10.0.0.2:99"),
        ("tcp 127.0.0.1:80 ino:1", "TCP 127.0.0.1:80"),
        ("raw 0.0.0.0:1 sk:1f", "RAW :1"),
    ],
)
def test_sockets_in_words(name: str, shown: str) -> None:
    """As ss(8) shows them, without what only a program needs."""
    assert socket(Scope(netns=HOST, socket=name), KnownHost()) == shown


def test_names_from_outside_are_escaped() -> None:
    """A process or an interface may be called anything."""
    nasty = KnownHost(processes={DNS: "a\x1b[2Jb"})
    verdict = judge(make_account({FULL: 1}, {"socket": {DNS: {"drops": 1}}}), host=nasty).verdict
    assert "a\\x1b[2Jb (UDP :53)" in verdict
    interface = make_drop(reason="IP_RPFILTER", interface="e\nth", netns=HOST)
    assert "e\\nth" in judge(make_account({interface: 1})).verdict


def test_lists() -> None:
    """Some are named, of many the number."""
    assert (listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == (
        "",
        "a",
        "a and b",
        "a, b and c",
    )
    assert listed(list("abcd")) == "a, b, c and d"  # "1 more" would be no shorter
    assert listed(list("abcde")) == "a, b, c and 2 more"
    assert (cpus([0]), cpus([0, 2])) == ("CPU 0", "CPUs 0 and 2")


@pytest.mark.parametrize(
    ("condition", "drops", "holds"),
    [
        ("loss", {}, False),
        ("loss", {make_noise(): 5}, False),
        ("loss", {REFUSED: 1}, True),
        ("LOSS", {REFUSED: 1}, True),
        ("capacity", {REFUSED: 1}, False),
        ("capacity", {FULL: 1}, True),
        ("unexplained", {FULL: 1}, False),
        ("SOCKET_*", {FULL: 1}, True),
        ("socket_rcvbuff", {FULL: 1}, True),
        ("core/SOCKET_RCVBUFF", {FULL: 1}, True),
        ("OTHERHOST", {make_noise(): 1}, True),
        ("NO_SOCKET", {FULL: 1}, False),
    ],
)
def test_fail_on(condition: str, drops: dict[DropKey, int], holds: bool) -> None:
    """Loss is any lost packet, capacity those for lack of room; a reason is asked for, noise or not."""
    account = make_account(drops)
    assert failures(judge(account), account, (condition,)) == ((condition,) if holds else ())


def test_fail_on_unexplained_and_on_uncounted() -> None:
    """A riddle fails "unexplained"; what could not be counted fails "loss"."""
    riddle = make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}})
    assert failures(judge(riddle), riddle, ("unexplained", "capacity")) == ("unexplained",)
    missed = make_account(uncounted=Uncounted(0, 1))
    assert failures(judge(missed), missed, ("loss",)) == ("loss",)
