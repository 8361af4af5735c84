# SPDX-License-Identifier: MIT
"""The ledger with the tables that come with pktdrop: drivers, widths, namespaces that were not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pktdrop.ledger.books import Books, Ledger
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import Count, DropKey, Netns
from pktdrop.rules.rules import Rules
from tests.kit.windows import FixedWindows
from tests.unit.accounts import RULES
from tests.unit.make import make_backlog_drop, make_drop

HOST, BLUE = Netns(4026531833, 1), Netns(4026532281, 7)
ETH0 = Scope(netns=HOST, interface="eth0")
RUNGS = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}


def books(tcp_input_has_events: bool = True, **drivers: str) -> Books:
    """Books of a host whose interfaces have these drivers."""
    made = Books(RUNGS, RULES if tcp_input_has_events else Rules.load(tcp_input_has_events=False))
    made.learn_drivers({(HOST, interface): driver for interface, driver in drivers.items()})
    return made


def of_run(
    made: Books,
    drops: Mapping[DropKey, int],
    increments: Mapping[str, Mapping[Scope, Mapping[str, int]]],
    **changes: Any,
) -> Ledger:
    """The ledger of a run, all events of which came between the readings."""
    counts = {key: Count(packets, 60 * packets) for key, packets in drops.items()}
    windows, read = FixedWindows(counts, counts), changes.get("read", {HOST, BLUE})
    step = made.of_interval(counts, increments, windows, read, is_last=True)
    whole = made.of_run(counts, increments, windows, read)
    assert (whole.entries, whole.losses) == (step.entries, step.losses)
    return whole


def test_an_empty_ring_is_lost_in_the_nic() -> None:
    """ixgbe counts frames without a descriptor in rx_no_dma_resources (QPRDC): no event, and no other counter."""
    ledger = of_run(books(eth0="ixgbe"), {}, {"driver": {ETH0: {"ethtool.rx_no_dma_resources": 500}}})
    assert ledger.lost == {"nic-ring": 500}
    assert [(entry.status, entry.layer) for entry in ledger.of_loss] == [("no-event", "nic-ring")]
    (loss,) = ledger.losses
    assert (loss.whereabouts.netns, loss.whereabouts.interface, loss.stat_class, loss.packets) == (
        HOST,
        "eth0",
        "ring",
        500,
    )
    assert (loss.evidence, loss.without_event) == ("counters", 500)
    assert ledger.unexplained == 0


@pytest.mark.parametrize(
    ("driver", "counters", "fields", "lost"),
    [
        ("macb", {"rx_resource_errors": 1000}, {"rx_errors": 1000, "rx_over_errors": 1000}, {"nic-ring": 1000}),
        (
            "alx",
            {"rx_rxf_ov_drop_packets": 700},
            {"rx_errors": 703, "rx_fifo_errors": 700},
            {"nic-fifo": 700, "driver": 3},
        ),
        ("alx", {"rx_fcs_errors": 3}, {"rx_errors": 3}, {"driver": 3}),
        ("mtk_soc_eth", {"rx_checksum_errors": 50}, {"rx_errors": 50}, {}),
        (
            "atl1c",
            {},
            {"rx_errors": 903, "rx_fifo_errors": 700, "rx_dropped": 200},
            {"nic-fifo": 700, "nic-ring": 200, "driver": 3},
        ),
        ("tg3", {"tx_discards": 4}, {"tx_errors": 4}, {"tx": 4}),
        ("enic", {"rx_no_bufs": 4, "rx_drop": 3}, {"rx_dropped": 7}, {"nic-fifo": 3, "nic-ring": 4}),
        ("enic", {"rx_no_bufs": 4, "rx_drop": 3}, {"rx_dropped": 9}, {"nic-fifo": 3, "nic-ring": 6}),
        ("i40e", {"rx_dropped": 5}, {"rx_dropped": 5}, {}),
        ("lan966x", {"dr_tail": 7, "dr_local": 900}, {"rx_dropped": 907}, {"nic-fifo": 7}),
        ("liquidio", {"rx-0-dropped_nomem": 5}, {"rx_dropped": 5}, {"driver": 5}),
        ("fsl_enetc", {}, {"rx_dropped": 4, "rx_errors": 4}, {"driver": 4}),
        ("am65-cpsw-nuss", {}, {"rx_dropped": 4, "rx_errors": 4}, {"driver": 4}),
        (
            "nobody",
            {},
            {"rx_errors": 9, "rx_missed_errors": 5, "rx_fifo_errors": 3, "rx_over_errors": 3},
            {"nic-fifo": 3, "nic-ring": 5, "driver": 1},
        ),
        ("nobody", {"port_rx_dp_di_dropped_packets": 2772680304}, {}, {}),
    ],
)
def test_rx_errors_are_told_once(
    driver: str, counters: dict[str, int], fields: dict[str, int], lost: dict[str, int]
) -> None:
    """What a driver counts in rx_errors as in other counters is one loss (data/driver_links.tsv has the sources)."""
    increments = {"driver": {ETH0: {f"ethtool.{name}": by for name, by in counters.items()}}, "links": {ETH0: fields}}
    assert of_run(books(eth0=driver), {}, increments).lost == lost


def test_an_old_driver_is_known_by_what_it_lacks() -> None:
    """Where i40e has no rx_missed_errors, its rx_dropped is the ring: also while only that moves."""
    for names, lost in ((("rx_dropped",), {"nic-ring": 5}), (("rx_dropped", "rx_missed_errors"), {})):
        made = books()
        statistics = {ETH0: Row(tuple(f"ethtool.{name}" for name in names), (0,) * len(names))}
        made.learn_drivers({(HOST, "eth0"): "i40e"}, statistics)
        made.learn_drivers({(HOST, "eth0"): "i40e"})  # a look that did not read them
        assert of_run(made, {}, {"driver": {ETH0: {"ethtool.rx_dropped": 5}}}).lost == lost


def test_a_backlog_drop_on_veth_moves_three_counters_and_is_one_loss() -> None:
    """enqueue_to_backlog() counts for CPU and device, veth_xmit() at the sending end (drivers/net/veth.c)."""
    drop = make_backlog_drop(interface="veth0", netns=HOST)
    increments = {
        "softnet": {Scope(cpu=3): {"dropped": 40}},
        "links": {
            Scope(netns=HOST, interface="veth0"): {"rx_dropped": 40},
            Scope(netns=HOST, interface="veth1"): {"tx_dropped": 40},
        },
    }
    ledger = of_run(books(veth0="veth", veth1="veth"), {drop: 40}, increments)
    assert ledger.lost == {"backlog": 40}
    assert ledger.unexplained == 0
    assert sum(entry.unexplained for entry in ledger.of_loss) == 0


def test_a_time_squeeze_is_a_hint() -> None:
    """It is in the ledger, and not among the losses."""
    ledger = of_run(books(), {}, {"softnet": {Scope(cpu=0): {"time_squeeze": 3}}})
    assert [entry.counter for entry in ledger.entries] == ["softnet.time_squeeze"]
    assert ledger.of_loss == ()
    assert ledger.lost == {}


def test_a_namespace_that_could_not_be_read_accuses_no_counter() -> None:
    """Drops in a namespace that is gone have no counters to compare with: that is said, not held against one."""
    drop = make_drop(netns=BLUE, call_site="__udp4_lib_rcv+0x4bc")
    (entry,) = of_run(books(), {drop: 5}, {}, read={HOST}).entries
    assert (entry.status, entry.counter) == ("silent", "none")
    assert "could not be read" in entry.note
    (entry,) = of_run(books(), {drop: 5}, {}, read={HOST, BLUE}).entries
    assert entry.counter == "mib.UdpNoPorts"


@pytest.mark.parametrize(("has_events", "status"), [(True, "unexplained"), (False, "no-event")])
def test_a_full_tcp_buffer_is_lost_with_or_without_events(has_events: bool, status: str) -> None:
    """Kernels without drop reasons raise no event there: the counter's packets are lost, and no riddle."""
    ledger = of_run(books(has_events), {}, {"mib": {Scope(netns=BLUE): {"TcpExtTCPRcvQDrop": 7}}})
    (entry,) = ledger.of_loss
    assert (entry.status, entry.unexplained) == (status, 7)
    assert ledger.lost == {"socket": 7}
    assert ledger.unexplained == (7 if has_events else 0)


def test_an_unexplained_rest_is_reported_when_it_stays() -> None:
    """In the first interval it may be jitter; in the next it is a riddle; over the whole run it is one at once."""
    made = books()
    increments = {"mib": {Scope(netns=BLUE): {"IpExtInNoRoutes": 7}}}
    none: dict[DropKey, Count] = {}
    assert made.of_interval(none, increments, FixedWindows(none, none), {BLUE}).unexplained == 0
    assert made.of_interval(none, {}, FixedWindows(none, none), {BLUE}).unexplained == 7
    assert made.of_run(none, increments, FixedWindows(none, none), {BLUE}).unexplained == 7
    last = books()
    assert last.of_interval(none, increments, FixedWindows(none, none), {BLUE}, is_last=True).unexplained == 7


def test_registers_of_a_nic_wrap_early() -> None:
    """The missed counter of r8169 has 16 bits (drivers/net/ethernet/realtek/r8169_main.c, struct rtl8169_counters)."""
    made = books(eth0="r8169")
    assert made.width("driver", ETH0, "ethtool.rx_missed") == 16
    assert made.width("driver", ETH0, "ethtool.rx_packets") == 64
    assert made.width("softnet", Scope(cpu=0), "dropped") == 32
