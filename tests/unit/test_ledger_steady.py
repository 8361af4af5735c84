# SPDX-License-Identifier: MIT
"""What stays unexplained over intervals, and what is only seen at another moment."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.ledger.entry import Entry
from pktdrop.ledger.steady import Steady
from pktdrop.model.counters import Scope
from tests.kit.windows import FixedWindows
from tests.unit.fates import IDENTITIES, TRACED, backlog, counts, drop, mib, reconcile


def entry_of(delta: int, events: int) -> Entry:
    """What reconcile() makes of a counter with an identity of one to one."""
    increments = {"softnet": {Scope(cpu=1): {"dropped": delta}}}
    entries = reconcile(counts({backlog(1): events} if events else {}), increments, TRACED, IDENTITIES)
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


def test_a_late_counter_that_its_windows_explain_is_not_reported() -> None:
    """Events that no counter showed, then its increments, within the window of that interval: no riddle in either."""
    steady, drops = Steady(), counts({drop("IP_RPFILTER", "ip_rcv_finish_core"): 23})
    increments = mib(TcpExtIPReversePathFilter=23)
    first = steady.settle(reconcile(drops, {}, TRACED, IDENTITIES))
    second = steady.settle(reconcile({}, increments, TRACED, IDENTITIES, windows=FixedWindows({}, drops)))
    assert [(entry.delta, entry.status) for entry in (*first, *second)] == [(0, "bound"), (23, "bound")]
    assert steady.settle([]) == steady.settle([]) == ()


def test_increments_without_events_make_good_for_no_more_than_was_missing() -> None:
    """IpInHdrErrors counts options that cannot be answered without a drop: ten do not hide later events."""
    steady, drops = Steady(), counts({drop("IP_CSUM", "ip_rcv_core"): 4})
    assert [entry.status for entry in steady.settle(reconcile(drops, {}, TRACED, IDENTITIES))] == ["bound"]
    increments = mib(IpExtInCsumErrors=4, IpInHdrErrors=10)
    late = steady.settle(reconcile({}, increments, TRACED, IDENTITIES))
    assert not [entry for entry in late if entry.status == "unexplained"]
    steady.settle(reconcile(drops, {}, TRACED, IDENTITIES))
    assert [(entry.counter, entry.status) for entry in steady.settle([])] == [("mib.IpExtInCsumErrors", "silent")]


def test_late_events_of_two_reasons_are_one_late_counter() -> None:
    """UdpInErrors rises an interval after events of two reasons: neither is held against it."""
    steady = Steady()
    call_sites = {"SOCKET_RCVBUFF": "__udp_queue_rcv_skb", "UDP_CSUM": "udp_queue_rcv_one_skb"}
    early = counts({drop(reason, call_site): 5 for reason, call_site in call_sites.items()})
    first = steady.settle(reconcile(early, mib(UdpRcvbufErrors=5, UdpInCsumErrors=5), TRACED, IDENTITIES))
    assert {entry.status for entry in first} == {"exact"}
    second = steady.settle(reconcile(early, {}, TRACED, IDENTITIES))
    third = steady.settle(reconcile({}, mib(UdpRcvbufErrors=5, UdpInCsumErrors=5, UdpInErrors=10), TRACED, IDENTITIES))
    assert not [entry for entry in (*second, *third) if entry.status == "unexplained"]


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


def test_a_rest_may_be_made_good_for_an_hour() -> None:
    """A minute of intervals of a second later it is; after that it is forgotten, and its opposite is news."""
    for quiet, told in ((Steady.KEPT, []), (Steady.KEPT + 1, ["silent"])):
        steady = Steady()
        steady.settle([entry_of(5, 0)])
        for _ in range(quiet):
            steady.settle([])
        steady.settle([entry_of(0, 5)])
        assert [entry.status for entry in steady.settle([])] == told


def test_other_entries_pass() -> None:
    """What is explained, within its bound or without events is not held back."""
    entries = reconcile({}, mib(TcpExtListenDrops=8), TRACED, IDENTITIES)
    assert Steady().settle(entries) == entries


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(-50, 50)), max_size=30))
def test_jitter_alone_is_never_reported(intervals: list[tuple[int, int]]) -> None:
    """Events shifted to the next interval, but not out of balance twice in a row, are not reported."""
    steady = Steady()
    for packets, late in intervals:
        shifted = min(abs(late), packets)
        sign = 1 if late > 0 else -1
        assert unexplained(steady, packets, packets - sign * shifted) == 0
        assert unexplained(steady, packets, packets + sign * shifted) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_every_lasting_rest_is_reported_in_full(rests: list[int]) -> None:
    """What is missing is reported one interval late, all of it, and none of it twice."""
    steady = Steady()
    told = sum(unexplained(steady, 100 + rest, 100) for rest in [*rests, 0])
    assert told == sum(rests)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=40))
def test_no_more_is_reported_than_ever_was_missing(intervals: list[tuple[int, int]]) -> None:
    """The number reported never exceeds all increments beyond events."""
    steady = Steady()
    told = sum(unexplained(steady, delta, events) for delta, events in intervals)
    assert told <= sum(max(0, delta - events) for delta, events in intervals)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=20))
def test_a_status_says_what_the_numbers_say(intervals: list[tuple[int, int]]) -> None:
    """Whatever is made good or stays: an entry is exact to the packet or not exact, and unexplained is above zero."""
    steady = Steady()
    steps = [steady.settle([entry_of(*both)], number == len(intervals) - 1) for number, both in enumerate(intervals)]
    for entry in (entry for step in steps for entry in step):
        events = sum(count for _, count in entry.by)
        assert (entry.status == "exact") <= (entry.delta == events == entry.explained)
        assert (entry.status == "unexplained") <= (entry.unexplained > 0)
        assert (entry.status == "silent") <= (events > entry.delta == entry.explained)
        assert entry.explained + entry.unexplained == entry.delta or (entry.delta, entry.explained) == (0, 0)
        assert not (entry.is_open and entry.status == "unexplained")
