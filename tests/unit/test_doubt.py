# SPDX-License-Identifier: MIT
"""Frees of which it is not known whether they are losses: apart from losses in every output, settled by counters."""

from __future__ import annotations

import json

import pytest

from pktdrop.diagnosis.diagnosis import Diagnosis, failures
from pktdrop.filters import Filters, reason_filter
from pktdrop.ledger.books import Books
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Amounts, Count
from pktdrop.rules.protocols import Protocols
from pktdrop.top.history import History
from pktdrop.top.subjects import Reason
from pktdrop.views.diagnose import as_json, as_text
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView
from tests.kit.windows import FixedWindows
from tests.unit.accounts import BLUE, HOST, RULES, UNTRACED, judge, make_account
from tests.unit.fates import HERE, counts, drop, ledger, mib
from tests.unit.make import JUDGE, make_doubt, make_drop, make_interval, make_ledger, make_noise, make_selection

CLOSE = make_doubt(netns=HOST, netns_name="host")
WHY = "closed port, TIME_WAIT, or a full queue"
CLOSES = drop("NOT_SPECIFIED", "tcp_v4_rcv+0x91")
VIEW = TableView(Protocols.load(), 20, lambda _: "host")


def entries_of(packets: int, **increments: int) -> tuple[dict[str, int], int]:
    """Segments freed at tcp_v4_rcv, and counters that rose: packets lost by layer, and those left in doubt."""
    entries, lost = ledger(counts({CLOSES: packets}), mib(**increments))
    doubt = sum(count for entry in entries if entry.status == "doubt" for _, count in entry.by)
    return lost, doubt


def test_closing_connections_are_no_loss() -> None:
    """Each TCP connection that ends frees a segment so: a host that does this all day has lost nothing."""
    assert entries_of(100) == ({}, 100)


def test_a_counter_settles_what_it_has() -> None:
    """ListenOverflows and ListenDrops have the same 30 handshakes that found the queue full; the rest stays open."""
    assert entries_of(100, TcpExtListenOverflows=30, TcpExtListenDrops=30) == ({"socket": 30}, 70)


def test_what_a_counter_has_beyond_the_doubts_is_lost_without_an_event() -> None:
    """SYNs at a full queue raise no event: 250 lost, of which at most 100 can be those with one."""
    assert entries_of(100, TcpExtListenOverflows=250, TcpExtListenDrops=250) == ({"socket": 250}, 0)


def test_counters_of_no_loss_settle_nothing() -> None:
    """Resets are sent for many reasons, and a deferred accept loses no packet."""
    assert entries_of(10, TcpOutRsts=10, TcpExtTCPDeferAcceptDrop=10) == ({}, 10)


def test_counters_of_different_losses_settle_different_packets() -> None:
    """Of ten segments six were malformed and three found the queue full."""
    assert entries_of(10, TcpInErrs=6, TcpExtListenOverflows=3, TcpExtListenDrops=3) == ({"stack": 6, "socket": 3}, 1)


def test_amounts_keep_doubt_apart() -> None:
    """Neither loss nor noise has what is in doubt."""
    drops = {make_drop(): Count(7, 1), CLOSE: Count(5, 1), make_noise(): Count(50, 1)}
    assert Amounts.of(drops, JUDGE) == Amounts(loss=7, noise=50, doubt=5)
    assert Amounts.of(drops, JUDGE).plus(Amounts(1, 2, 3)) == Amounts(8, 52, 8)


def test_no_loss_and_a_doubt_are_never_both() -> None:
    """A loss has neither of the texts."""
    assert [JUDGE(key).is_loss for key in (make_drop(), CLOSE, make_noise())] == [True, False, False]


def test_an_interval_shows_doubt_with_a_mark_of_its_own() -> None:
    """Rows of doubt stand between losses and noise, and are told apart in the title."""
    drops = {make_noise(): Count(50, 50), CLOSE: Count(5, 300), make_drop(): Count(7, 700)}
    text = VIEW.interval(make_interval(drops), make_selection(drops), make_ledger(), 80)
    assert "  7 packets dropped, 5 not known whether lost (?), 50 noise (*) in 2.0 s\n" in text
    assert [line.split()[2] for line in text.splitlines()[2:5]] == ["NO_SOCKET", "NOT_SPECIFIED?", "OTHERHOST*"]


def test_the_summary_has_doubt_apart() -> None:
    """It is in no share, has a table of its own that says why, and a total by layer."""
    account = make_account({make_drop(netns=HOST): 7, CLOSE: 5})
    drops = account.interval.drops
    text = VIEW.summary(account.interval, make_selection(drops), account.ledger, 100)
    assert ": 7 packets dropped (420 bytes), 5 not known whether lost (?)." in text
    assert "      7  100 %  socket  NO_SOCKET" in text
    assert "packets  reason          why it may be no loss" in text
    assert "      5  NOT_SPECIFIED?  closed port, TIME_WAIT, or a full queue  tcp_v4_rcv+0x91" in text
    assert text.endswith("Unexplained: 0.\nNot known whether lost: 5 (socket 5).\nDrops not counted: 0.\n")  # fmt: skip


def test_json_has_doubt_apart() -> None:
    """Each drop says why it is in doubt, and the totals by layer have it in a key of its own."""
    account = make_account({make_drop(netns=HOST): 7, CLOSE: 5})
    line = json.loads(
        "".join(
            JsonView(Protocols.load()).interval(
                account.interval, make_selection(account.interval.drops), account.ledger, "summary"
            )
        )
    )
    assert (line["layers"], line["doubt"]) == ({"socket": 7}, {"socket": 5})
    assert [(one["noise"], one["doubt"]) for one in line["drops"]] == [("", ""), ("", WHY)]
    (entry,) = [one for one in line["ledger"] if one["status"] == "doubt"]
    assert entry == {
        "layer": "socket", "counter": "none", "scope": {"netns": HOST.inode, "netns_cookie": HOST.cookie},
        "delta": 0, "explained": 0, "unexplained": 0,
        "status": "doubt", "by": [{"reason": "NOT_SPECIFIED", "count": 5}], "note": WHY,
    }  # fmt: skip


def test_no_noise_hides_no_doubt() -> None:
    """What may be a loss is shown; a filter by reason hides it as any other."""
    drops = {CLOSE: Count(5, 1), make_noise(): Count(1, 1)}
    assert set(Filters((), noise=False).select(drops, JUDGE).drops) == {CLOSE}
    assert set(Filters((reason_filter(["NO_SOCKET"]),)).select(drops, JUDGE).drops) == set()


@pytest.fixture(name="diagnosis")
def _diagnosis() -> Diagnosis:
    return judge(make_account({CLOSE: 5}))


def test_diagnose_calls_it_neither_lost_nor_not_lost(diagnosis: Diagnosis) -> None:
    """It has a sentence of its own, no station, no numbered loss."""
    assert diagnosis.verdict == "Nothing was lost on this host in 10.0 s."
    assert {station.status for station in diagnosis.stations} == {"ok"}
    text = " ".join(as_text(diagnosis, 80).split())
    assert (
        "5 packets of which it is not known whether they were lost: 5 NOT_SPECIFIED (closed port, "
        "TIME_WAIT, or a full queue)." in text
    )
    assert "1. " not in text
    found = json.loads(as_json(diagnosis, (), "1.0"))
    assert (found["packets"], found["noise"]) == (0, [])
    assert found["doubt"] == [{"reason": "NOT_SPECIFIED", "why": WHY, "packets": 5}]


def test_doubt_trips_no_condition_but_its_reason(diagnosis: Diagnosis) -> None:
    """A host whose connections end fails nothing; who asks for the reason gets it."""
    account = make_account({CLOSE: 5})
    assert failures(diagnosis, account, ("loss", "capacity", "unexplained")) == ()
    assert failures(diagnosis, account, ("NOT_SPECIFIED",)) == ("NOT_SPECIFIED",)


def test_what_a_counter_settles_is_diagnosed_as_loss() -> None:
    """A full accept queue is a loss at the listener, and only the rest stays in doubt."""
    increments = {"mib": {Scope(netns=HOST): {"TcpExtListenOverflows": 3, "TcpExtListenDrops": 3}}}
    diagnosis = judge(make_account({CLOSE: 5}, increments))
    assert [(one.loss.packets, one.loss.cause.name) for one in diagnosis.losses] == [(3, "listen-queue")]
    assert [one.packets for one in diagnosis.doubt] == [2]
    assert failures(diagnosis, make_account({CLOSE: 5}, increments), ("loss",)) == ("loss",)


def test_the_live_view_has_doubt_apart() -> None:
    """Its packets are in no rate of loss; its row is marked, and the host's figure is of what is left open."""
    history = History(1.0)
    account = make_account({make_drop(netns=HOST): 7, CLOSE: 5})
    history.add(account, make_selection(account.interval.drops))
    assert (history.loss.packets, history.noise, history.doubt) == (7, 0, 5)
    row = Reason("socket", "NOT_SPECIFIED?", None, WHY)
    assert history.reasons[row].tally.packets == 5
    assert (history.netns[HOST].tally.packets, history.netns[HOST].doubt) == (7, 5)
    assert HERE.netns == HOST


def test_counters_settle_what_hidden_symbols_leave_open() -> None:
    """Without call sites a full receive buffer is told by its counter, and frames nobody knows stay in doubt."""
    hidden = "0xffffffff81000000"
    drops = counts({drop("SOCKET_RCVBUFF", hidden): 40, drop("UNHANDLED_PROTO", hidden, protocol=0x88CC): 3})
    assert {JUDGE(key).is_loss for key in drops} == {False}
    entries, lost = ledger(drops, mib(UdpInErrors=40, UdpRcvbufErrors=40))
    assert lost == {"socket": 40}
    assert [entry.by for entry in entries if entry.status == "doubt"] == [(("UNHANDLED_PROTO", 3),)]


def test_frames_that_nobody_speaks_are_no_loss_without_tracing() -> None:
    """LLDP and lost packets are both in rx_dropped: what the backlog of no CPU counted is not known."""
    eth0 = Scope(netns=HOST, interface="eth0")
    increments = {"links": {eth0: {"rx_dropped": 50}}, "softnet": {Scope(cpu=1): {"dropped": 12}}}
    account = make_account({}, increments, rungs=UNTRACED)
    diagnosis = judge(account, UNTRACED)
    assert (diagnosis.lost, account.ledger.lost) == (12, {"backlog": 12})
    assert [(one.reason, one.packets) for one in diagnosis.doubt] == [("links.rx_dropped", 38)]
    quiet = make_account({}, {"links": {eth0: {"rx_dropped": 50}}}, rungs=UNTRACED)
    diagnosis = judge(quiet, UNTRACED)
    assert failures(diagnosis, quiet, ["loss"]) == ()
    assert "50 packets of which it is not known whether they were lost: 50 links.rx_dropped (frames" in " ".join(
        as_text(diagnosis, 80).split()
    )


def test_what_a_veth_pair_counts_at_both_ends_was_lost_without_tracing() -> None:
    """The sender counts what the receiver had no room for (veth_xmit): that is no LLDP."""
    increments = {
        "links": {
            Scope(netns=HOST, interface="v0"): {"tx_dropped": 7},
            Scope(netns=BLUE, interface="v1"): {"rx_dropped": 9},
        }
    }
    books = Books(UNTRACED, RULES)
    books.learn_drivers({(HOST, "v0"): "veth", (BLUE, "v1"): "veth"})
    ledger = books.of_interval({}, increments, FixedWindows({}, {}), {HOST, BLUE}, is_last=True)
    assert (ledger.lost, ledger.doubt) == ({"tx": 7}, {"driver": 2})


def test_what_came_for_a_group_is_told_apart_in_one_window() -> None:
    """The same reason at the same place: the ledger explains the counter by both, and loses what was for this host."""
    early = make_drop(reason="IP_INNOROUTES", call_site="ip6_pkt_discard+0x11", protocol=0x86DD, netns=HOST)
    drops = {early._replace(to_group=True): 5, early: 2}
    account = make_account(drops, {"mib": {Scope(netns=HOST): {"Ip6InNoRoutes": 7}}})
    assert [(loss.packets, loss.cause.name) for loss in account.ledger.losses] == [(2, "no-route")]
    (entry,) = [one for one in account.ledger.entries if one.counter == "mib.Ip6InNoRoutes"]
    assert (entry.delta, entry.explained, entry.status) == (7, 7, "exact")
