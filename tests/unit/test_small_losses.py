# SPDX-License-Identifier: MIT
"""Losses of a few packets are summed up; what could not be seen is not called ok; riddles stand by their size."""

from __future__ import annotations

import json

import pytest

from pktdrop.diagnosis.diagnosis import failures, is_small
from pktdrop.ledger.entry import Entry
from pktdrop.model.counters import Scope
from pktdrop.views.diagnose import as_json, as_text
from pktdrop.views.ledger import ranked_entries
from tests.unit.accounts import BLUE, HOST, UNTRACED, judge, make_account
from tests.unit.make import make_drop

REFUSED = make_drop(reason="NETFILTER_DROP", call_site="nft_do_chain+0x40f")
NO_IPV6 = make_drop(reason="IPV6DISABLED", call_site="ip6_rcv_core+0x1", interface="eth0", netns=HOST)
FULL = make_drop(reason="SOCKET_RCVBUFF", netns=HOST, netns_name="host", call_site="__udp_queue_rcv_skb+0x1")


@pytest.mark.parametrize(
    ("packets", "lost", "small"),
    [(1, 1, True), (2, 2, True), (3, 3, False), (9, 900, False), (9, 901, True), (99, 9901, True), (100, 10**6, False)],
)
def test_small_is_a_stray_or_few_beside_many(packets: int, lost: int, small: bool) -> None:
    """The rule of the README."""
    assert is_small(packets, lost) == small


def test_one_stray_packet_is_no_numbered_loss() -> None:
    """It is counted and named, without advice to switch IPv6 on."""
    account = make_account({NO_IPV6: 1})
    diagnosis = judge(account)
    text = " ".join(as_text(diagnosis, 80).split())
    assert "1. " not in text
    assert "disable_ipv6=0" not in text
    assert (
        "1 packet (100 %) in 1 place, too few to change anything for: 1 on eth0, which has IPv6 switched off." in text
    )
    (loss,) = json.loads(as_json(diagnosis, (), "1"))["losses"]
    assert (loss["packets"], loss["small"], loss["advice"]) == (1, True, [])
    assert failures(diagnosis, account, ("loss",)) == ("loss",)


def test_a_few_never_stand_above_many() -> None:
    """Two for lack of room do not come before 716 others, and one line has all that are small."""
    diagnosis = judge(make_account({make_drop(): 716, FULL: 2, NO_IPV6: 1}))
    text = as_text(diagnosis, 80)
    assert [line.split()[1] for line in text.splitlines() if line.startswith(("1. ", "2. "))] == ["716"]
    assert "and 3 packets (<1 %) in 2 other places, too few to change anything for: 2 in the" in text
    assert diagnosis.lost == sum(one.loss.packets for one in diagnosis.losses) == 719


def test_real_losses_for_lack_of_room_still_come_first() -> None:
    """A hundred of a thousand are no few."""
    losses = judge(make_account({REFUSED: 900, FULL: 100})).losses
    assert [(one.loss.nature, one.is_small) for one in losses] == [("capacity", False), ("policy", False)]


def test_stations_that_could_not_be_seen_are_not_ok() -> None:
    """Without tracing only what CPUs count of their backlogs is seen whole."""
    quiet = make_account(rungs=UNTRACED)
    status = {one.layer: one.status for one in judge(quiet, UNTRACED, sees_all=False).stations}
    assert status == dict.fromkeys(status, "unseen") | {"backlog": "ok"}
    status = {one.layer: one.status for one in judge(quiet, UNTRACED).stations}
    assert [layer for layer in status if status[layer] == "ok"] == ["nic-fifo", "nic-ring", "backlog"]
    assert "? unseen" in as_text(judge(quiet, UNTRACED), 80)


def test_interfaces_of_namespaces_that_could_not_be_read_are_unseen() -> None:
    """Events tell of the whole host, what NICs count is in each namespace."""
    present = frozenset((HOST, BLUE, BLUE._replace(inode=5)))
    status = {one.layer: one.status for one in judge(make_account(), present=present).stations}
    assert [layer for layer in status if status[layer] == "unseen"] == ["nic-fifo", "nic-ring", "driver"]


def test_a_loss_that_was_seen_is_one_without_root_too() -> None:
    """What counters show is a loss, whatever else could not be seen."""
    increments = {"mib": {Scope(netns=HOST): {"UdpNoPorts": 40}}}
    found = judge(make_account({}, increments, rungs=UNTRACED), UNTRACED, sees_all=False)
    assert {one.layer: one.status for one in found.stations}["socket"] == "loss"


def test_a_riddle_of_one_packet_does_not_stand_above_716() -> None:
    """The skew of one reading is at its place by size, a riddle of many at the top."""

    def entry(counter: str, delta: int, unexplained: int) -> Entry:
        status = "unexplained" if unexplained else "exact"
        return Entry("stack", counter, Scope(netns=HOST), delta, delta - unexplained, unexplained, status)

    real, skew = entry("mib.UdpNoPorts", 716, 0), entry("mib.IpInHdrErrors", 1, 1)
    assert ranked_entries([skew, real]) == [real, skew]
    riddle = entry("mib.IpInAddrErrors", 90, 90)
    assert ranked_entries([real, skew, riddle]) == [riddle, real, skew]
