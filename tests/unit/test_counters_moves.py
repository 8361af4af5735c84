# SPDX-License-Identifier: MIT
"""Interfaces that get another name, move to another network namespace, or go, while their counters are watched."""

from __future__ import annotations

from collections.abc import Mapping

from pktdrop.counters.collect import kernel_width, since
from pktdrop.counters.increments import CounterKeeper
from pktdrop.model.counters import SOURCES, Counters, Interface, Row, Scope
from pktdrop.model.drops import Netns

HERE, THERE = Netns(4026531840, 1), Netns(4026532281, 7)
MAC, OTHER_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"

Seen = Mapping[tuple[Netns, int, str], tuple[bytes | None, int]]
"""Address and rx_dropped of an interface, by namespace, index and name."""


def reading(seen: Seen, netns: tuple[Netns, ...] = (HERE, THERE), failed: frozenset[str] = frozenset()) -> Counters:
    """What was read of some namespaces."""
    rows: dict[str, dict[Scope, Row]] = {source: {} for source in SOURCES}
    interfaces: dict[Netns, dict[int, Interface]] = {one: {} for one in netns}
    for (one, ifindex, name), (address, dropped) in seen.items():
        rows["links"][Scope(netns=one, interface=name)] = Row(("rx_packets", "rx_dropped"), (1000, dropped))
        rows["qdisc"][Scope(netns=one, interface=name, qdisc="pfifo 1:")] = Row(("drops",), (2 * dropped,))
        interfaces[one][ifindex] = Interface(name, address)
    return Counters(
        0.0, 0.0, rows, {}, {}, {}, frozenset(netns), failed, (), interfaces=interfaces
    )  # fmt: skip


def rise(*readings: Counters) -> list[dict[tuple[Netns | None, str | None], int]]:
    """By how much rx_dropped rose from each reading to the next, and in all; qdiscs by twice as much."""
    keeper = CounterKeeper(readings[0])
    steps = [keeper.add(now, kernel_width) for now in readings[1:]]
    links = [
        {(scope.netns, scope.interface): one["rx_dropped"] for scope, one in step.get("links", {}).items()}
        for step in (*steps, keeper.total)
    ]
    qdiscs = [
        {(scope.netns, scope.interface): one["drops"] // 2 for scope, one in step.get("qdisc", {}).items()}
        for step in (*steps, keeper.total)
    ]
    assert links == qdiscs
    return links


def test_a_renamed_interface_is_the_same() -> None:
    """It goes on from its last value; what it counted before stands under the name that it had then."""
    assert rise(
        reading({(HERE, 2, "eth0"): (MAC, 700)}),
        reading({(HERE, 2, "eth0"): (MAC, 710)}),
        reading({(HERE, 2, "lan"): (MAC, 713)}),
    ) == [{(HERE, "eth0"): 10}, {(HERE, "lan"): 3}, {(HERE, "eth0"): 10, (HERE, "lan"): 3}]


def test_interfaces_that_swap_their_names() -> None:
    """Each goes on for itself."""
    assert (
        rise(
            reading({(HERE, 2, "a"): (MAC, 700), (HERE, 3, "b"): (OTHER_MAC, 20)}),
            reading({(HERE, 2, "b"): (MAC, 701), (HERE, 3, "a"): (OTHER_MAC, 25)}),
        )
        == [{(HERE, "b"): 1, (HERE, "a"): 5}] * 2
    )


def test_an_interface_that_takes_the_name_of_a_gone_one() -> None:
    """It counts from its own beginning, even where its counter is larger than that of the other was."""
    for now in (9, 800):
        assert (
            rise(reading({(HERE, 2, "eth0"): (MAC, 700)}), reading({(HERE, 3, "eth0"): (OTHER_MAC, now)}))
            == [{(HERE, "eth0"): now}] * 2
        )


def test_an_interface_that_moves() -> None:
    """In its new namespace it goes on from its last value, whatever its name and index are there."""
    for ifindex, name in ((2, "eth0"), (9, "net1")):
        assert rise(
            reading({(HERE, 2, "eth0"): (MAC, 700)}), reading({(THERE, ifindex, name): (MAC, 704)})
        ) == [{(THERE, name): 4}] * 2  # fmt: skip


def test_an_interface_that_moves_to_where_nobody_looked() -> None:
    """Its last value is kept until its new namespace is read."""
    assert rise(
        reading({(HERE, 2, "eth0"): (MAC, 700)}, (HERE,)),
        reading({}, (HERE,)),
        reading({(THERE, 2, "eth0"): (MAC, 706)}),
    ) == [{}, {(THERE, "eth0"): 6}, {(THERE, "eth0"): 6}]


def test_interfaces_that_are_no_others() -> None:
    """Another address, no address, a counter that fell, an address that is still there: all count from 0."""
    before = reading({(HERE, 2, "eth0"): (MAC, 700)})
    assert rise(before, reading({(THERE, 2, "eth0"): (OTHER_MAC, 704)}))[-1] == {(THERE, "eth0"): 704}
    assert rise(before, reading({(THERE, 2, "eth0"): (MAC, 5)}))[-1] == {(THERE, "eth0"): 5}
    still = {(HERE, 2, "eth0"): (MAC, 700), (THERE, 2, "eth0"): (MAC, 704)}
    assert rise(before, reading(still))[-1] == {(THERE, "eth0"): 704}
    nameless = reading({(HERE, 2, "tun0"): (None, 700)})
    assert rise(nameless, reading({(THERE, 2, "tun0"): (None, 704)}))[-1] == {(THERE, "tun0"): 704}


def test_a_list_that_may_lack_one() -> None:
    """Where interfaces could not all be listed, none is taken for gone."""
    whole = {(HERE, 2, "eth0"): (MAC, 700)}
    assert rise(
        reading(whole), reading({}, failed=frozenset(("links", "qdisc"))), reading({(HERE, 2, "eth0"): (MAC, 703)})
    ) == [{}, {(HERE, "eth0"): 3}, {(HERE, "eth0"): 3}]


def test_differences_follow_interfaces() -> None:
    """`counters INTERVAL` shows of a renamed or moved interface what it rose by."""
    before = reading({(HERE, 2, "eth0"): (MAC, 700), (HERE, 3, "eth1"): (OTHER_MAC, 50)})
    rose = since(before, reading({(HERE, 2, "lan"): (MAC, 703), (THERE, 3, "eth1"): (OTHER_MAC, 51)}))
    assert {scope.interface: row.values[1] for scope, row in rose.rows["links"].items()} == {"lan": 3, "eth1": 1}


def test_what_is_gone_is_forgotten() -> None:
    """The rows of a namespace that is gone are dropped; its total stays."""
    keeper = CounterKeeper(reading({(HERE, 2, "eth0"): (MAC, 1), (THERE, 2, "eth0"): (OTHER_MAC, 1)}))
    keeper.add(reading({(HERE, 2, "eth0"): (MAC, 1), (THERE, 2, "eth0"): (OTHER_MAC, 5)}), kernel_width)
    keeper.keep(lambda netns: netns == HERE)
    assert keeper.total["links"] == {Scope(netns=THERE, interface="eth0"): {"rx_dropped": 4}}
    # were it remembered, this would rise by 0
    moved = keeper.add(reading({(THERE, 2, "eth0"): (OTHER_MAC, 5)}, (THERE,)), kernel_width)
    assert moved["links"] == {Scope(netns=THERE, interface="eth0"): {"rx_packets": 1000, "rx_dropped": 5}}
