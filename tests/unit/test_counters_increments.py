# SPDX-License-Identifier: MIT
"""What counters rose by, over readings that leave namespaces, interfaces and CPUs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters.collect import kernel_width
from pktdrop.counters.increments import CounterKeeper
from pktdrop.model.counters import Counters, Interface, Row, Scope
from pktdrop.model.drops import THE_GONE, Netns

HERE, THERE = Netns(4026531840, 1), Netns(4026532281, 7)
ETH0, VETH0, CPU1 = Scope(netns=HERE, interface="eth0"), Scope(netns=THERE, interface="veth0"), Scope(cpu=1)


def reading(
    links: Mapping[Scope, int] | None = None,
    softnet: Mapping[Scope, int] | None = None,
    netns: Iterable[int] = (HERE, THERE),
    failed: Iterable[str] = (),
) -> Counters:
    """One counter of each scope: links.rx_dropped, softnet.dropped."""
    rows = {
        "links": {scope: Row(("rx_dropped",), (value,)) for scope, value in (links or {}).items()},
        "softnet": {scope: Row(("dropped",), (value,)) for scope, value in (softnet or {}).items()},
    }
    return Counters(0.0, 0.0, rows, {}, {}, {}, frozenset(netns), frozenset(failed), ())


def test_only_what_rose() -> None:
    """Counters that stand still are left out."""
    keeper = CounterKeeper(reading({ETH0: 5, VETH0: 7}))
    assert keeper.add(reading({ETH0: 8, VETH0: 7}), kernel_width) == {"links": {ETH0: {"rx_dropped": 3}}}


def test_a_namespace_that_was_left_out_keeps_its_past() -> None:
    """What rose while a namespace was not read is told at its next reading, once."""
    keeper = CounterKeeper(reading({ETH0: 0, VETH0: 10}))
    assert keeper.add(reading({ETH0: 1}, netns=[HERE]), kernel_width) == {"links": {ETH0: {"rx_dropped": 1}}}
    assert keeper.add(reading({ETH0: 1, VETH0: 25}), kernel_width) == {"links": {VETH0: {"rx_dropped": 15}}}
    assert keeper.add(reading({ETH0: 1, VETH0: 25}), kernel_width) == {}
    assert keeper.total == {"links": {ETH0: {"rx_dropped": 1}, VETH0: {"rx_dropped": 15}}}


def test_a_namespace_that_was_never_read_has_a_past() -> None:
    """A namespace that was there from the start, but is first read now, counts from now; a new one from zero."""
    keeper = CounterKeeper(reading({ETH0: 0}, netns=[HERE]))
    assert keeper.add(reading({ETH0: 0, VETH0: 900}), kernel_width, unread=[THERE]) == {}
    assert keeper.add(reading({ETH0: 0, VETH0: 902}), kernel_width) == {"links": {VETH0: {"rx_dropped": 2}}}
    fresh = CounterKeeper(reading({ETH0: 0}, netns=[HERE]))
    assert fresh.add(reading({ETH0: 0, VETH0: 4}), kernel_width) == {"links": {VETH0: {"rx_dropped": 4}}}


def test_a_cpu_that_comes_back_is_no_jump() -> None:
    """The kernel keeps the counters of an offline CPU and shows them again when it returns."""
    keeper = CounterKeeper(reading(softnet={}))
    assert keeper.add(reading(softnet={CPU1: 4000}), kernel_width) == {}
    assert keeper.add(reading(softnet={}), kernel_width) == {}
    assert keeper.add(reading(softnet={CPU1: 4003}), kernel_width) == {"softnet": {CPU1: {"dropped": 3}}}


def test_sums_of_what_is_gone_go_on_together() -> None:
    """However many interfaces and namespaces were, there are so many sums and no more, and nothing is lost of them."""
    keeper = CounterKeeper(reading({ETH0: 0}))
    for number in range(1, 3001):
        link = Scope(netns=HERE, interface=f"veth{number}")
        other = Netns(4026532281, 100 + number)
        place = Scope(netns=other, interface="eth0")
        keeper.add(
            replace(
                reading({ETH0: number, link: 3, place: 5}, netns=[HERE, other]),
                interfaces={HERE: {1: Interface("eth0", None), number + 1: Interface(link.interface or "", None)}},
            ),
            kernel_width,
        )
        keeper.keep({HERE, other}.__contains__)
        if number % 50 == 0:
            keeper.fold(lambda netns, now=number: netns.cookie > now - 50 or netns == HERE, lambda _: "veth")  # type: ignore[misc]
    total = keeper.total["links"]
    assert len(total) < 1000
    assert total[ETH0] == {"rx_dropped": 3000}
    assert total[Scope(netns=THE_GONE, interface="gone veth")]["rx_dropped"] > 5 * 2800
    assert total[Scope(netns=HERE, interface="gone veth")]["rx_dropped"] > 3 * 2600
    assert sum(risen["rx_dropped"] for risen in total.values()) == 3000 * (1 + 3 + 5)


def test_softnet_wraps_and_links_are_reset() -> None:
    """Columns of softnet_stat are 32 bits wide; a 64-bit counter that fell was reset with its driver."""
    keeper = CounterKeeper(reading({ETH0: 100}, {CPU1: 0xFFFFFFFE}))
    assert keeper.add(reading({ETH0: 4}, {CPU1: 3}), kernel_width) == {
        "links": {ETH0: {"rx_dropped": 4}},
        "softnet": {CPU1: {"dropped": 5}},
    }


def test_a_new_interface_of_an_old_name_counts_from_zero() -> None:
    """An interface that was deleted and made anew does not go on where the old one ended, be it higher or lower."""
    keeper = CounterKeeper(reading({ETH0: 0, VETH0: 10}))
    assert keeper.add(reading({ETH0: 0}), kernel_width) == {}
    assert keeper.add(reading({ETH0: 0, VETH0: 12}), kernel_width) == {"links": {VETH0: {"rx_dropped": 12}}}


def test_a_source_that_fails_once_is_no_jump() -> None:
    """What a failed reading left out is not new when it is back."""
    keeper = CounterKeeper(reading({ETH0: 1000}))
    assert keeper.add(reading({}, failed=["links"]), kernel_width) == {}
    assert keeper.add(reading({ETH0: 1001}), kernel_width) == {"links": {ETH0: {"rx_dropped": 1}}}


def test_what_is_gone_stays_in_the_total() -> None:
    """The loss of an interface counts though the interface is gone at the end."""
    keeper = CounterKeeper(reading({ETH0: 0, VETH0: 0}))
    keeper.add(reading({ETH0: 0, VETH0: 6}), kernel_width)
    keeper.add(reading({ETH0: 0}), kernel_width)
    assert keeper.total == {"links": {VETH0: {"rx_dropped": 6}}}


@given(st.lists(st.tuples(st.integers(0, 2**40), st.booleans()), max_size=20))
def test_nothing_is_lost_between_readings(steps: list[tuple[int, bool]]) -> None:
    """However often a namespace is left out, the increments add up to what its counter rose by."""
    value, told = 50, 0
    keeper = CounterKeeper(reading({VETH0: value}))
    for rise, is_read in [*steps, (0, True)]:
        value += rise
        now = reading({VETH0: value}) if is_read else reading(netns=[HERE])
        told += keeper.add(now, kernel_width).get("links", {}).get(VETH0, {}).get("rx_dropped", 0)
    assert told == value - 50


def test_each_namespace_has_the_seconds_between_its_own_readings() -> None:
    """A rate is of the time since the namespace was read, not of the interval: one may have been left out."""
    first = replace(reading({}), read_at={None: 10.0, HERE: 10.0, THERE: 10.5})
    keeper = CounterKeeper(first)
    keeper.add(replace(reading({}, netns=[HERE]), read_at={None: 12.0, HERE: 12.0}), kernel_width)
    assert keeper.seconds == {None: 2.0, HERE: 2.0}
    keeper.add(replace(reading({}), read_at={None: 14.0, HERE: 14.0, THERE: 18.5}), kernel_width)
    assert keeper.seconds == {None: 2.0, HERE: 2.0, THERE: 8.0}
