# SPDX-License-Identifier: MIT
"""What the statistics of drivers mean, and that each lost packet is counted once.

Expected values: kernel sources (the ``source`` column names them) and what the fixtures' origins say
(tests/data/counters/README.md), worked out by hand.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.ledger.told import Meanings
from pktdrop.model.counters import Counters, Row, Scope
from pktdrop.rules import driver_tables as module
from pktdrop.rules.driver_tables import STAT_CLASSES
from pktdrop.rules.drivers import Drivers, NicLoss
from pktdrop.rules.identities import Identities
from tests.unit.make import amounts

FIXTURES = Path(__file__).parent.parent / "data/counters/ethtool"
HEADER = module.TABLE.columns.replace(" ", "\t")
LINKS_HEADER = module.LINKS.columns.replace(" ", "\t")


@pytest.fixture(scope="module")
def drivers() -> Drivers:
    """The tables that come with pktdrop."""
    return Drivers.load()


def fixture_rows(name: str) -> dict[Scope, Row]:
    """Rows of an `ethtool -S` text; a line "Rx Queue#: 1" starts the rows of a queue."""
    found: dict[int | None, dict[str, int]] = {}
    queue = None
    for line in (FIXTURES / f"{name}.txt").read_text().splitlines()[1:]:
        key, value = line.strip().rsplit(": ", 1)
        if key.endswith("Queue#"):
            queue = int(value)
        else:
            found.setdefault(None if key == "tx timeout count" else queue, {})[f"ethtool.{key}"] = int(value)
    return {Scope(interface="eth0", queue=q): Row(tuple(c), tuple(c.values())) for q, c in found.items()}


def rows(**counters: int) -> dict[Scope, Row]:
    """One row of the device."""
    return {Scope(interface="eth0"): Row(tuple(f"ethtool.{name}" for name in counters), tuple(counters.values()))}


def links(**fields: int) -> Row:
    """A row of rtnl_link_stats64."""
    return Row(tuple(f"links.{name}" for name in fields), tuple(fields.values()))


def queues(losses: tuple[NicLoss, ...], stat_class: str) -> dict[int, int]:
    """What one class lost, by queue."""
    return dict(next(loss.queues for loss in losses if loss.stat_class == stat_class))


@pytest.mark.parametrize(
    ("driver", "name", "lost"),
    [
        ("e1000e", "e1000e-missed", {"fifo": 4954}),
        ("be2net", "be2net-no-frags", {"ring": 3885606854, "error": 1772495 + 1430}),
        ("ena", "ena-limits", {}),
        ("hv_netvsc", "hv_netvsc-send-full", {}),
        ("mlx5_core", "mlx5_core-out-of-buffer", {"ring": 48}),
        ("atlantic", "atlantic-in-errors", {}),
        ("virtio_net", "virtio_net-6.1-names", {}),
        ("virtio_net", "virtio_net-6.18", {}),
        ("st_gmac", "st_gmac-quiet", {}),
        ("igb", "igb-drops", {"fifo": 7, "ring": 30, "error": 3}),
        ("ixgbe", "ixgbe-drops", {"fifo": 11, "ring": 22}),
        ("i40e", "i40e-drops", {"ring": 13, "fifo": 17, "filter": 3, "tx": 4}),
        ("ice", "ice-drops", {"ring": 13, "fifo": 17, "error": 5}),
        (
            "mlx5_core",
            "mlx5_core-drops",
            {"ring": 48, "fifo": 30, "host": 6, "xdp": 9, "error": 3, "tx": 3},
        ),
        ("vmxnet3", "vmxnet3-drops", {"ring": 111, "software": 3, "error": 1, "tx": 7}),
        ("bnxt_en", "bnxt_en-drops", {"ring": 13, "fifo": 40, "alloc": 5, "error": 1}),
        ("r8169", "r8169-missed", {"fifo": 65530}),
        ("tg3", "tg3-discards", {"fifo": 21}),
        ("gve", "gve-drops", {"ring": 60, "alloc": 4, "error": 6, "xdp": 1}),
    ],
)
def test_outputs_lose_what_they_say(drivers: Drivers, driver: str, name: str, lost: dict[str, int]) -> None:
    """What `ethtool -S` of a driver shows, measured or constructed, adds up to these losses, each packet once."""
    found = drivers.nic_loss(driver, fixture_rows(name))
    assert amounts(found) == lost
    assert {loss.confidence for loss in found} == {"driver"}


@pytest.mark.parametrize(
    ("driver", "name", "hints"),
    [
        ("e1000e", "e1000e-missed", {"ethtool.rx_no_buffer_count": ("warning", None)}),
        (
            "ena",
            "ena-limits",
            {
                "ethtool.bw_in_allowance_exceeded": ("limit", None),
                "ethtool.bw_out_allowance_exceeded": ("limit", None),
                "ethtool.pps_allowance_exceeded": ("limit", None),
            },
        ),
        (
            "hv_netvsc",
            "hv_netvsc-send-full",
            {"ethtool.tx_send_full": ("tx", None), "ethtool.rx_comp_busy": ("warning", None)},
        ),
        ("atlantic", "atlantic-in-errors", {"ethtool.Queue[1] InErrors": ("error", 1)}),
        (
            "igb",
            "igb-drops",
            {
                "ethtool.rx_no_buffer_count": ("warning", None),
                "ethtool.rx_flow_control_xoff": ("pause", None),
                "ethtool.rx_queue_0_csum_err": ("error", 0),
                "ethtool.rx_queue_0_alloc_failed": ("alloc", 0),
            },
        ),
        (
            "tg3",
            "tg3-discards",
            {
                "ethtool.rx_xoff_pause_rcvd": ("pause", None),
                "ethtool.dma_writeq_full": ("host", None),
                "ethtool.rxbds_empty": ("warning", None),
                "ethtool.mbuf_lwm_thresh_hit": ("fifo", None),
            },
        ),
    ],
)
def test_signs_are_no_losses(
    drivers: Drivers, driver: str, name: str, hints: dict[str, tuple[str, int | None]]
) -> None:
    """Counters of empty rings, pause and retries are told, but counted as no loss."""
    found = drivers.hints(driver, fixture_rows(name))
    assert {hint.counter: (hint.stat_class, hint.queue) for hint in found} == hints


def test_queues_are_known_where_the_driver_knows_them(drivers: Drivers) -> None:
    """Losses per queue come from names with a number and from vmxnet3's markers."""
    assert queues(drivers.nic_loss("igb", fixture_rows("igb-drops")), "ring") == {0: 10, 1: 20}
    assert queues(drivers.nic_loss("vmxnet3", fixture_rows("vmxnet3-drops")), "ring") == {0: 100, 1: 11}
    assert queues(drivers.nic_loss("bnxt_en", fixture_rows("bnxt_en-drops")), "ring") == {0: 6, 1: 7}
    assert queues(drivers.nic_loss("gve", fixture_rows("gve-drops")), "ring") == {0: 60}


def test_igb_counts_missed_frames_once(drivers: Drivers) -> None:
    """rx_fifo_errors of igb is ring plus FIFO, rx_missed_errors the FIFO again: with or without ethtool."""
    expected = {"fifo": 7, "ring": 30}
    fields = links(rx_missed_errors=7, rx_fifo_errors=37, rx_dropped=1000)
    assert amounts(drivers.nic_loss("igb", {}, fields)) == expected
    assert amounts(drivers.nic_loss("igb", rows(rx_missed_errors=7, rx_fifo_errors=37), fields)) == expected
    both = drivers.nic_loss("igb", fixture_rows("igb-drops"), fields)
    assert amounts(both) == {**expected, "error": 3}


@pytest.mark.parametrize(
    ("driver", "fields", "lost"),
    [
        ("e1000", {"rx_missed_errors": 5}, {"fifo": 5}),
        ("ixgbe", {"rx_missed_errors": 5, "rx_dropped": 9}, {"fifo": 5}),
        ("i40e", {"rx_missed_errors": 5}, {"ring": 5}),
        ("ice", {"rx_missed_errors": 5, "rx_dropped": 9}, {"fifo": 5}),
        ("mlx5_core", {"rx_missed_errors": 5, "rx_dropped": 9}, {"ring": 5}),
        ("bnxt_en", {"rx_missed_errors": 5}, {"ring": 5}),
        ("bnx2x", {"rx_fifo_errors": 5, "rx_over_errors": 6}, {"ring": 5, "fifo": 6}),
        ("qede", {"rx_fifo_errors": 5}, {"ring": 5}),
        ("ionic", {"rx_over_errors": 5, "rx_missed_errors": 6}, {"ring": 5, "host": 6}),
        ("veth", {"rx_dropped": 5, "tx_dropped": 6}, {}),
        ("tun", {"tx_dropped": 6}, {}),
    ],
)
def test_the_same_field_means_different_things(
    drivers: Drivers, driver: str, fields: dict[str, int], lost: dict[str, int]
) -> None:
    """Without ethtool the fields of rtnl_link_stats64 are read as this driver fills them; rx_dropped is never used."""
    assert amounts(drivers.nic_loss(driver, {}, links(**fields))) == lost


#: Dumps and what the packets in them were, by driver: the sources in the rows of both tables.
TOLD_ONCE = [
    ("macb", {"rx_resource_errors": 1000}, {"rx_errors": 1000, "rx_over_errors": 1000}, {"ring": 1000}),
    ("bnx2x", {"rx_discards": 700}, {"rx_errors": 700, "rx_fifo_errors": 700}, {"ring": 700}),
    ("ionic", {"hw_rx_over_errors": 700}, {"rx_errors": 700, "rx_over_errors": 700}, {"ring": 700}),
    ("alx", {"rx_rxf_ov_drop_packets": 700}, {"rx_errors": 703, "rx_fifo_errors": 700}, {"fifo": 700, "error": 3}),
    ("sfc", {"port_rx_dp_di_dropped_packets": 2772680304, "port_rx_overflow": 0}, {}, {}),
    ("i40e", {"rx_dropped": 3322, "port.rx_dropped": 900}, {}, {"ring": 3322, "fifo": 900}),
    ("i40e", {"rx_dropped": 5, "rx_missed_errors": 3322}, {}, {"ring": 3322, "filter": 5}),
    ("mtk_soc_eth", {"rx_checksum_errors": 50}, {"rx_errors": 50}, {}),
    (
        "bcmgenet",
        {"rxq0_missed": 4321, "rxq0_errors": 7, "rxq0_over_errors": 6},
        {},
        {"ring": 4321, "error": 7, "fifo": 6},
    ),
    ("enic", {"rq[0]_no_skb": 9, "wq[0]_skb_linear_fail": 4}, {}, {"alloc": 9, "tx": 4}),
    ("mana", {"hc_rx_discards_no_wqe": 10, "hc_rx_pkt_drop_phy": 77}, {}, {"ring": 10, "fifo": 77}),
    ("fsl_dpaa2_eth", {"[mac] rx frame discards": 500}, {}, {"fifo": 500}),
    ("mv88e6xxx", {"in_discards": 5, "sw_in_discards": 0, "in_filtered": 900}, {}, {"fifo": 5}),
    ("dsa", {"sw_in_discards": 5}, {}, {"fifo": 5}),
    ("dsa", {"drop_tail": 7, "drop_local": 900}, {"rx_missed_errors": 7}, {"fifo": 7}),
    ("ocelot", {"drop_green_prio_0": 2, "drop_green_prio_1": 3, "drop_yellow_prio_0": 4}, {}, {"fifo": 9}),
    (
        "lan966x",
        {"dr_tail": 7, "rx_long": 2, "dr_local": 900},
        {"rx_errors": 2, "rx_dropped": 909},
        {"fifo": 7, "error": 2},
    ),
    ("sparx5", {"rx_port_drop_green_p0": 4, "rx_port_policer_drop": 900}, {"rx_errors": 3}, {"fifo": 4, "error": 3}),
    ("lan78xx", {"RX Dropped Frames": 4, "RX FCS Errors": 1}, {"rx_errors": 2}, {"fifo": 4, "error": 1, "host": 2}),
    ("am65-cpsw-nuss", {"rx_bottom_fifo_drop": 4, "ale_drop": 900, "ale_secure_drop": 900}, {}, {"fifo": 4}),
    ("am65-cpsw-nuss", {"p0_tx_pri0_drop": 4, "tx_pri0_drop": 1, "tx_pri1_drop": 2}, {}, {"tx": 3}),
    ("fbnic", {"rde_0_pkt_bdq_drop": 4, "rde_1_pkt_cq_drop": 1}, {"rx_over_errors": 5}, {"ring": 5}),
    ("fbnic", {"rxb_fifo4_dropped_frames": 4, "rxb_fifo0_dropped_frames": 900}, {"rx_missed_errors": 4}, {"fifo": 4}),
    ("octeon_ep", {"rx_dropped_pkts_fifo_full": 4, "rx_err_pkts": 1, "rx_dropped": 5}, {}, {"fifo": 4, "error": 1}),
    ("mlxbf_gige", {"rx_din_dropped_pkts": 4}, {"rx_errors": 4, "rx_fifo_errors": 4}, {"fifo": 4}),
    ("mlxbf_gige", {}, {"rx_errors": 5, "rx_fifo_errors": 4}, {"fifo": 4, "error": 1}),
    ("fsl_dpa", {"rx error [CPU 0]": 4, "rx error [TOTAL]": 4, "rx dma error": 4}, {"rx_errors": 4}, {"error": 4}),
    (
        "hibmcge",
        {"rx_overflow_cnt": 4, "rx_frame_long_err_cnt": 1, "rx_data_error_cnt": 1},
        {"rx_errors": 1},
        {"fifo": 4, "error": 1},
    ),
    (
        "hns",
        {"gmac_rx_overrun_cnt": 4, "rx_ring0_l3l4csum_err": 9},
        {"rx_errors": 13, "rx_fifo_errors": 4},
        {"fifo": 4},
    ),
    ("hns", {"ppe0_rx_pkt_drop_no_buf": 4}, {"rx_missed_errors": 6}, {"ring": 4, "fifo": 2}),
    (
        "sfc_siena",
        {"rx_nodesc_drop_cnt": 4, "rx_bad": 1},
        {"rx_errors": 1, "rx_fifo_errors": 0},
        {"ring": 4, "error": 1},
    ),
    ("mvpp2", {"fc_received": 9, "fc_sent": 9}, {}, {}),
    # the same without ethtool: what a field counts once more is still told once
    ("macb", {}, {"rx_errors": 1000, "rx_over_errors": 1000, "rx_fifo_errors": 0}, {"ring": 1000}),
    ("alx", {}, {"rx_errors": 900, "rx_fifo_errors": 700, "rx_dropped": 200}, {"fifo": 700}),
    ("atl1c", {}, {"rx_errors": 903, "rx_fifo_errors": 700, "rx_dropped": 200}, {"fifo": 700, "error": 3}),
    ("hns3", {"rxq0_l2_err": 3, "rxq0_l3l4_csum_err": 50}, {"rx_errors": 53}, {"error": 3}),
    ("hns3", {}, {"rx_errors": 53}, {}),
    (
        "bnx2",
        {"rx_discards": 9, "rx_ftq_discards": 1},
        {"rx_errors": 12, "rx_over_errors": 10},
        {"fifo": 10, "error": 2},
    ),
    ("fec", {"IEEE_rx_macerr": 4, "tx_crc_errors": 8}, {"rx_errors": 6, "rx_fifo_errors": 4}, {"fifo": 4, "error": 2}),
    ("bcmgenet", {"rxq0_errors": 4321}, {"rx_errors": 4321, "rx_missed_errors": 4321}, {"ring": 4321}),
    ("mlx5_core", {"rx_steer_missed_packets": 3322}, {}, {}),
    ("mvpp2", {"rxq_0_packets_bm_drops": 5}, {}, {"ring": 5}),
    ("sfc", {"rx_frm_trunc": 5, "rx_nodesc_trunc": 4}, {}, {"ring": 4, "software": 5}),
    ("igb", {"rx_crc_errors": 3}, {"rx_errors": 5}, {"error": 5}),
    ("virtio_net", {}, {"tx_errors": 3}, {}),
    (
        "tg3",
        {"tx_discards": 4, "tx_carrier_sense_errors": 3, "tx_errors": 0, "tx_mac_errors": 0},
        {"tx_errors": 7},
        {"tx": 4},
    ),
]


@pytest.mark.parametrize(("driver", "counters", "fields", "lost"), TOLD_ONCE)
def test_what_several_counters_have_is_told_once(
    drivers: Drivers, driver: str, counters: dict[str, int], fields: dict[str, int], lost: dict[str, int]
) -> None:
    """rx_errors is a sum of what other rows have; checksums handed on and filters are no loss."""
    given_rows = rows(**counters) if counters else {}
    known = drivers.variant(driver, [f"ethtool.{name}" for name in counters])
    assert amounts(drivers.nic_loss(known, given_rows, links(**fields) if fields else None)) == lost


@pytest.mark.parametrize(
    ("driver", "counters", "inside"),
    [
        ("enic", {"rx_no_bufs": 4, "rx_drop": 3, "rx_errors": 9}, 7),
        ("i40e", {"rx_dropped": 5, "rx_missed_errors": 3322}, 5),
        ("lan966x", {"dr_tail": 7, "dr_local": 900, "rx_long": 2, "rx_crc": 9}, 909),
        ("liquidio", {"rx-0-dropped_nomem": 5, "rx-1-dropped_nomem": 6, "rx-1-dropped_toomany": 1}, 12),
        ("igb", {"rx_queue_0_drops": 5}, 0),
        ("nonesuch", {"rx_dropped": 5}, 0),
    ],
)
def test_rx_dropped_has_what_statistics_have(
    drivers: Drivers, driver: str, counters: dict[str, int], inside: int
) -> None:
    """What the driver adds to rx_dropped is told by its statistics, filters and all."""
    assert drivers.inside(driver, rows(**counters), "links.rx_dropped") == inside


@pytest.mark.parametrize(
    ("driver", "field", "is_no_loss"),
    [
        ("mtk_soc_eth", "rx_errors", True),
        ("virtio_net", "tx_errors", True),
        ("hns3", "rx_errors", False),
        ("igb", "rx_errors", False),
        ("ena", "rx_errors", False),
        ("nonesuch", "rx_errors", False),
    ],
)
def test_a_field_of_no_losses_is_a_hint(drivers: Drivers, driver: str, field: str, is_no_loss: bool) -> None:
    """`pktdrop counters` calls no loss what a driver counts there of frames that it hands on, or of timeouts."""
    assert drivers.hands_on(driver, f"links.{field}") == is_no_loss
    scope = Scope(interface="eth0")
    rows_read = {"links": {scope: Row((field,), (5,))}}
    read = Counters(0, 0, rows_read, {}, {(None, "eth0"): driver}, {}, frozenset(), frozenset(), ())
    (told,) = Meanings(Identities.load(), drivers).told(read)
    assert told.is_loss != is_no_loss


def test_the_queue_of_a_full_ring_is_known(drivers: Drivers) -> None:
    """bcmgenet counts frames without a descriptor by queue."""
    assert queues(drivers.nic_loss("bcmgenet", rows(rxq0_missed=4321, rxq1_missed=0)), "ring") == {0: 4321, 1: 0}


def test_a_driver_is_told_by_all_its_statistics(drivers: Drivers) -> None:
    """An i40e is an old one if it lacks the statistic, not if that did not move."""
    assert drivers.variant("i40e", ["ethtool.rx_dropped"]) == "i40e!rx_missed_errors"
    assert drivers.variant("i40e", ["ethtool.rx_dropped", "ethtool.rx_missed_errors"]) == "i40e"
    assert drivers.variant("i40e", []) == "i40e"
    assert drivers.variant("i40e!rx_missed_errors", ["ethtool.rx_dropped"]) == "i40e!rx_missed_errors"
    assert drivers.variant("igb", ["ethtool.rx_dropped"]) == "igb"
    assert drivers.variant(None, ["ethtool.rx_dropped"]) is None
    old = drivers.classify("i40e!rx_missed_errors", "port.rx_crc_errors")
    assert old is not None
    assert (old.stat_class, old.confidence) == ("error", "driver")


def test_host_drops_of_virtio_are_split(drivers: Drivers) -> None:
    """rx_hw_drops contains the overruns; ethtool, qstats and the queues all count the same packets."""
    device = {
        "ethtool.rx_hw_drops": 9,
        "ethtool.rx_hw_drop_overruns": 6,
        "ethtool.rx0_hw_drops": 9,
        "ethtool.rx0_hw_drop_overruns": 6,
        "qstats.rx_hw_drops": 9,
        "qstats.rx_hw_drop_overruns": 6,
    }
    queue = {"qstats.rx_hw_drops": 9, "qstats.rx_hw_drop_overruns": 6}
    found = drivers.nic_loss(
        "virtio_net",
        {
            Scope(interface="eth0"): Row(tuple(device), tuple(device.values())),
            Scope(interface="eth0", queue=0): Row(tuple(queue), tuple(queue.values())),
        },
    )
    assert amounts(found) == {"ring": 6, "host": 3}
    assert queues(found, "ring") == {0: 6}


def test_an_unknown_driver_is_a_guess_and_says_so(drivers: Drivers) -> None:
    """Only the fields that the kernel defines count, once in each class; the confidence is "generic"."""
    counters = rows(
        rx_missed_errors=5,
        rx_queue_0_drops=3,
        rx_drops=7,
        rx_alloc_failed=8,
        rx_no_buffer_count=9,
        port_rx_dp_di_dropped_packets=2772680304,
    )
    found = drivers.nic_loss("nonesuch", counters, links(rx_missed_errors=5, rx_dropped=99))
    assert amounts(found) == {"ring": 5}
    assert {loss.confidence for loss in found} == {"generic"}
    assert amounts(drivers.nic_loss(None, {}, links(rx_missed_errors=5, rx_over_errors=4))) == {"ring": 5, "fifo": 4}
    assert amounts(drivers.nic_loss(None, {}, links(rx_fifo_errors=6, rx_over_errors=4))) == {"fifo": 6}


def test_a_guess_is_never_more_than_a_hint(drivers: Drivers) -> None:
    """What looks like loss by its name may be a filter: no rule for any driver says that packets were lost."""
    guesses = [
        drivers.classify(driver, example(rule.name))
        for rule in drivers.rules
        if rule.drivers == ("*",) and rule.counts != "none" and not rule.name.startswith("qstats.")
        for driver in ("nonesuch", None)
    ]
    assert {(one.counts, one.confidence) for one in guesses if one is not None} == {("hint", "generic")}


@pytest.mark.parametrize(
    ("name", "stat_class"),
    [
        ("rx_missed", "fifo"),
        ("rx_fifo_overflow", "fifo"),
        ("rx_over_errors", "fifo"),
        ("rx_no_buf", "ring"),
        ("rx_out_of_buffer", "ring"),
        ("pkts rx OOB", "ring"),
        ("rx_discards", "ring"),
        ("rx_queue_3_drops", "ring"),
        ("rx_alloc_failed", "alloc"),
        ("rx_xdp_drop", "xdp"),
        ("rx_crc_errors", "error"),
        ("rx_csum_errors", "error"),
        ("rx_flow_control_xoff", "pause"),
        ("rx_pfc_frames", "pause"),
        ("rx_no_buffer_count", "warning"),
        ("tx_dropped", "tx"),
    ],
)
def test_guesses_follow_the_usual_words(drivers: Drivers, name: str, stat_class: str) -> None:
    """Each word that drivers commonly use has its class, with the confidence "generic"."""
    meaning = drivers.classify("nonesuch", name)
    assert meaning is not None
    assert (meaning.stat_class, meaning.confidence) == (stat_class, "generic")


@pytest.mark.parametrize("name", ["rx_packets", "tx_bytes", "rx_queue_0_bytes", "adminq_timeouts", "", "multicast"])
def test_traffic_is_no_loss(drivers: Drivers, name: str) -> None:
    """Counters of packets and bytes that went well mean nothing here."""
    assert drivers.classify("nonesuch", name) is None
    assert drivers.classify("igb", name) is None


def test_a_new_counter_of_a_known_driver_is_only_a_hint(drivers: Drivers) -> None:
    """A name that the table of a known driver lacks may be the same event as one it has: it is not added."""
    meaning = drivers.classify("igb", "rx_brand_new_drops")
    assert meaning is not None
    assert (meaning.counts, meaning.confidence) == ("hint", "generic")
    assert amounts(drivers.nic_loss("igb", rows(rx_brand_new_drops=5))) == {}


def test_qstats_are_defined_for_all_drivers(drivers: Drivers) -> None:
    """The kernel defines the qstats: they are no guess, even for a driver without rules."""
    meaning = drivers.classify("nonesuch", "qstats.rx_hw_drop_overruns")
    assert meaning is not None
    assert (meaning.stat_class, meaning.counts, meaning.confidence) == ("ring", "loss", "driver")


def test_narrow_counters_say_their_width(drivers: Drivers) -> None:
    """The 16-bit counter of r8169 wraps; a counter that the driver adds up does not."""
    narrow, wide = drivers.classify("r8169", "rx_missed"), drivers.classify("igb", "rx_missed_errors")
    assert narrow is not None
    assert wide is not None
    assert (narrow.bits, wide.bits) == (16, 64)


# ------------------------------------------------------------------------------------------------------- the tables


def example(name: str) -> str:
    """A statistic that the pattern matches."""
    return name.replace("{queue}", "3").replace("{n}", "1").replace("*", "x")


def found(drivers: Drivers, driver: str, name: str) -> module.StatRule:
    """The row that decides on a statistic."""
    answer = drivers.find(driver, name)
    assert answer is not None
    return answer[0]


def test_no_row_is_unreachable(drivers: Drivers) -> None:
    """Each row decides for at least one name: none above it takes all of them."""
    lost = [
        (driver, rule.line, rule.name)
        for rule in drivers.rules
        for driver in rule.drivers
        if (first := found(drivers, driver, example(rule.name))) is not rule
        # an example may be unlucky: only a row that is taken by a wider one is an error
        and not ("*" in rule.name and "*" not in first.name)
    ]
    assert lost == []


def test_every_row_has_a_source(drivers: Drivers) -> None:
    """A row of a driver names a file and, for kernel files, the kernel it was read in."""
    for rule in (*drivers.rules, *drivers.links):
        if rule.source.startswith("by its name alone"):
            assert rule.drivers == ("*",)
        elif "github.com" not in rule.source:
            assert re.search(r"[\w-]+\.(c|h|rst|yaml)\b", rule.source), rule
            assert re.search(r" v(6\.1|6\.12|7\.3)$", rule.source), rule


def test_an_event_has_one_class(drivers: Drivers) -> None:
    """Counters of one event of a driver are in one class; else the packet would be in two."""
    stat_classes: dict[tuple[str, str], set[str]] = {}
    for rule in drivers.rules:
        if rule.counts == "loss" and rule.role != "sum":
            for driver in rule.drivers:
                if driver != "*":
                    stat_classes.setdefault((driver, rule.events[0]), set()).add(rule.stat_class)
    for link in drivers.links:
        if link.relation == "exact" and len(link.events) == 1:
            for driver in link.drivers:
                if driver != "*":
                    stat_classes.setdefault((driver, link.events[0]), set()).add(link.stat_class)
    assert {key: found for key, found in stat_classes.items() if len(found) > 1} == {}


def test_roles_fit_together(drivers: Drivers) -> None:
    """What is called the single counter of its event is the only one; a queue's counter knows its queue."""
    counters: dict[tuple[str, str], list[module.StatRule]] = {}
    for rule in drivers.rules:
        if rule.role == "queue":
            assert "{queue}" in rule.name or rule.drivers == ("vmxnet3",), rule
        if rule.counts == "loss" and rule.role != "sum" and "*" not in rule.drivers:
            for driver in rule.drivers:
                counters.setdefault((driver, rule.events[0]), []).append(rule)
    for key, found in counters.items():
        if any(rule.role == "single" for rule in found):
            assert len(found) == 1, (key, [rule.line for rule in found])


#: Drivers without a row for rx_errors, and why their source could not be read.
UNREAD = {"dsa": "the name of the ports of all switches below DSA, each of which counts in its own way"}


def test_rx_errors_of_each_driver_are_settled(drivers: Drivers) -> None:
    """It was read in each driver's source what it counts in rx_errors, if it counts there at all."""
    known = {driver.partition("!")[0] for rule in (*drivers.rules, *drivers.links) for driver in rule.drivers} - {"*"}
    assert {driver for driver in known if drivers.link(driver, "rx_errors") is None} == set(UNREAD)
    for link in drivers.links:
        if link.field in module.ERRORS:
            assert link.relation == "exact", link


def test_parts_of_a_field_are_events_of_the_driver(drivers: Drivers) -> None:
    """What a field is said to count is counted by others of this driver, or by no other: no event is misspelt."""
    for link in drivers.links:
        for driver in link.drivers:
            base = driver.partition("!")[0]
            named = {
                rule.events[0] for rule in drivers.rules if base in [one.partition("!")[0] for one in rule.drivers]
            }
            also = {
                other.events[0]
                for other in drivers.links
                if len(other.events) == 1 and base in [one.partition("!")[0] for one in other.drivers]
            }
            if link.field in module.ERRORS and len(link.events) > 1:
                nobody = {event for event in link.events if event not in named | also}
                assert nobody <= {"errors", "tx-other", "tx-collisions", "tx-carrier", "tx-rings", "tx-timeout"}, link


def test_the_core_is_never_taken_for_the_driver(drivers: Drivers) -> None:
    """dev_get_stats() adds to rx_dropped and tx_dropped of every driver: no row may call them exact."""
    assert [
        link for link in drivers.links if link.field in ("rx_dropped", "tx_dropped") and link.relation == "exact"
    ] == []
    assert len({(driver, link.field) for link in drivers.links for driver in link.drivers}) == sum(
        len(link.drivers) for link in drivers.links
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("igb\tx\tfifo\t-\tsingle\tloss\t-\t-", "8 columns"),
        ("igb\tx\tnonesuch\t-\tsingle\tloss\t-\t-\ts", "unknown stat_class"),
        ("igb\tx\tfifo\t-\tnonesuch\tloss\t-\t-\ts", "unknown role"),
        ("igb\tx\tfifo\t-\tsingle\tnonesuch\t-\t-\ts", "unknown counts"),
        ("igb\tx\tfifo\ta+b\tsingle\tloss\t-\t-\ts", "only a sum"),
        ("igb\tx\tfifo\t-\tsingle\tloss\tmany\t-\ts", "bits"),
        ("igb\tx\tfifo\t-\tsingle\tloss\t-\t-\t ", "column source is empty"),
    ],
)
def test_a_bad_row_is_named(line: str, message: str) -> None:
    """A mistake in the table is refused with its line and what is wrong."""
    with pytest.raises(ValueError, match=f"line 3: .*{re.escape(message)}"):
        module.TABLE.parse(["# comment", HEADER, line])


def test_a_bad_link_row_is_named() -> None:
    """So is one in the table of links, and a file without rows or header."""
    with pytest.raises(ValueError, match=r"line 2: unknown field 'x'"):
        module.LINKS.parse([LINKS_HEADER, "igb\tx\tfifo\tfifo\texact\tm\ts"])
    with pytest.raises(ValueError, match="no rows"):
        module.TABLE.parse([HEADER])
    with pytest.raises(ValueError, match="expected the header"):
        module.TABLE.parse(["igb"])


# ------------------------------------------------------------------------------------------------------- any input

NAMES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["rx_missed_errors", "rx_fifo_errors", "rx_queue_0_drops", "[1]: rx_discards", "rx_hw_drops"]),
)
DRIVERS = st.one_of(st.none(), st.text(max_size=10), st.sampled_from(["igb", "virtio_net", "gve", "mlx4_en", "*", ""]))
VALUES = st.integers(min_value=0, max_value=2**64 - 1)


@given(driver=DRIVERS, counters=st.dictionaries(NAMES, VALUES, max_size=8), fields=st.dictionaries(NAMES, VALUES))
def test_no_input_is_too_odd(
    drivers: Drivers, driver: str | None, counters: dict[str, int], fields: dict[str, int]
) -> None:
    """Any names and values give losses of known classes, never less on the interface than on all its queues."""
    given_rows = {Scope(interface="e"): Row(tuple(counters), tuple(counters.values()))}
    for loss in drivers.nic_loss(driver, given_rows, Row(tuple(fields), tuple(fields.values()))):
        assert loss.stat_class in STAT_CLASSES
        assert loss.packets >= sum(loss.queues.values()) >= 0
        assert loss.counters
    for hint in drivers.hints(driver, given_rows):
        assert hint.stat_class in STAT_CLASSES


TABLES = Drivers.load()
KNOWN = sorted({driver for rule in (*TABLES.rules, *TABLES.links) for driver in rule.drivers} - {"*"})


def lossy(drivers: Drivers, driver: str) -> set[str]:
    """Events of a driver that are losses by some row: of a statistic, or of a field that counts nothing else."""
    variants = {driver, driver.partition("!")[0]}
    found = {
        event
        for rule in drivers.rules
        if rule.counts == "loss" and variants & set(rule.drivers)
        for event in rule.events
    }
    hinted = {rule.events[0] for rule in drivers.rules if rule.counts == "hint" and variants & set(rule.drivers)}
    named = {event for link in drivers.links if variants & set(link.drivers) for event in link.events}
    return found | (named - hinted)


@given(data=st.data(), driver=st.sampled_from(KNOWN))
def test_no_packet_is_told_twice(drivers: Drivers, data: st.DataObject, driver: str) -> None:
    """Whatever counters of known drivers show of what happened to packets, no more were lost than that; never twice."""
    happened: dict[str, int] = {}

    def packets(events: tuple[str, ...]) -> int:
        return sum(happened.setdefault(one, data.draw(st.integers(0, 1000), label=one)) for one in events)

    variants = {driver, driver.partition("!")[0]}
    shown: dict[str, int] = {}
    for rule in drivers.rules:
        name = example(rule.name)
        meaning = drivers.classify(driver, name)
        if variants & set(rule.drivers) and meaning is not None and data.draw(st.booleans(), label=name):
            shown[f"ethtool.{name}"] = packets(meaning.events)
    fields: dict[str, int] = {}
    for field in module.FIELDS:
        link = drivers.link(driver, field)
        if link is not None and data.draw(st.booleans(), label=field):
            others = data.draw(st.integers(0, 1000)) if link.relation == "bound" else 0
            fields[field] = packets(link.events) + others
    found = drivers.nic_loss(driver, {Scope(interface="e"): Row(tuple(shown), tuple(shown.values()))}, links(**fields))
    lost = sum(count for event, count in happened.items() if event in lossy(drivers, driver))
    assert sum(loss.packets for loss in found) <= lost
    whole = [
        field for field in fields if (link := drivers.link(driver, field)) is not None and link.relation == "exact"
    ]
    if not shown and len(whole) == 1:
        assert sum(loss.packets for loss in found) <= fields[whole[0]]
