# SPDX-License-Identifier: MIT
"""Reading driver statistics: the bytes of the kernel's answers, and the answers of this host.

Bytes are packed here by hand after include/uapi/linux/ethtool.h.
"""

import os
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import ethtool
from pktdrop.counters.ethtool import NicSettings, Pair
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import Netns

FIXTURES = Path(__file__).parent.parent / "data/counters/ethtool"


def strings(*names: str) -> bytes:
    """The data of struct ethtool_gstrings."""
    return b"".join(name.encode().ljust(32, b"\0") for name in names)


def output(name: str) -> tuple[list[str], list[int]]:
    """Names as the driver gives them, blanks included, and values of an `ethtool -S` text."""
    lines = (FIXTURES / f"{name}.txt").read_text().splitlines()[1:]
    pairs = [line.removeprefix("     ").rsplit(": ", 1) for line in lines]
    return [name for name, _ in pairs], [int(value) for _, value in pairs]


def test_names_end_at_nul_or_at_32_bytes() -> None:
    """Names are cut at NUL, lose their blanks, and may fill all 32 bytes."""
    full = "rx_queue_15_a_name_of_32_bytes_x"
    assert len(full) == 32
    assert ethtool.names_of(strings("rx_packets", "  pkts rx OOB", full) + b"half") == (
        "rx_packets",
        "pkts rx OOB",
        full,
    )


def test_names_that_are_no_text_stay_apart() -> None:
    """Bytes that are no UTF-8 are shown, not lost."""
    assert ethtool.names_of(b"\xff\xfe".ljust(32, b"\0")) == ("\\xff\\xfe",)


def test_vmxnet3_queues_are_told_apart_by_their_marker() -> None:
    """The statistics below "Rx Queue#: 1" belong to queue 1; a name that is there twice gets a number."""
    names, values = output("vmxnet3-drops")
    rows, limit = ethtool.rows_of(ethtool.names_of(strings(*names)), values, Netns(7), "ens192")
    assert limit is None
    assert set(rows) == {
        Scope(netns=Netns(7), interface="ens192", queue=0),
        Scope(netns=Netns(7), interface="ens192", queue=1),
    }
    first = dict(zip(*rows[Scope(netns=Netns(7), interface="ens192", queue=0)], strict=True))
    second = dict(zip(*rows[Scope(netns=Netns(7), interface="ens192", queue=1)], strict=True))
    assert (first["ethtool.pkts rx OOB"], second["ethtool.pkts rx OOB"]) == (100, 11)
    assert (first["ethtool.giant hdr"], first["ethtool.giant hdr#2"]) == (0, 1)
    assert first["ethtool.drv dropped tx total"] == 5


def test_other_drivers_have_one_row() -> None:
    """All that is not below a marker belongs to the device, in the driver's order."""
    names, values = output("igb-drops")
    rows, limit = ethtool.rows_of(names, values, None, "eth0")
    assert limit is None
    assert rows == {Scope(interface="eth0"): Row(tuple(f"ethtool.{name}" for name in names), tuple(values))}


def test_a_short_answer_is_told() -> None:
    """Names without values are left out, and a sentence says so."""
    rows, limit = ethtool.rows_of(["a", "b"], [1], None, "eth0")
    assert rows == {Scope(interface="eth0"): Row(("ethtool.a",), (1,))}
    assert limit is not None
    assert "eth0" in limit


def test_rows_of_two_sources_are_joined() -> None:
    """Where ethtool and qstats have the same scope, both stand in one row."""
    scope, other = Scope(interface="a"), Scope(interface="b")
    rows = {scope: Row(("ethtool.x",), (1,))}
    ethtool.merge(rows, {scope: Row(("qstats.y",), (2,)), other: Row(("qstats.y",), (3,))})
    assert rows == {scope: Row(("ethtool.x", "qstats.y"), (1, 2)), other: Row(("qstats.y",), (3,))}


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0, max_value=2**64 - 1), max_size=12))
def test_garbage_raises_nothing(data: bytes, values: list[int]) -> None:
    """Whatever the bytes: no exception, no name or value that is not there."""
    names = ethtool.names_of(data)
    assert len(names) == len(data) // 32
    rows, limit = ethtool.rows_of(names, values, None, "eth0")
    assert (limit is None) == (len(names) == len(values))
    assert sum(len(row.values) for row in rows.values()) <= min(len(names), len(values))
    for row in rows.values():
        assert len(set(row.names)) == len(row.names) == len(row.values)


@given(st.lists(st.sampled_from(["a", "a#2", "", "Rx Queue#", "Tx Queue#", "b: c", " d "]), max_size=30))
def test_no_value_is_lost_to_a_name_that_repeats(names: list[str]) -> None:
    """Every value with a name is found again, once, however names repeat and whatever queue number a marker has."""
    rows, _ = ethtool.rows_of(names, range(100, 100 + len(names)), None, "eth0")
    kept = sorted(value for row in rows.values() for value in row.values)
    assert kept == [100 + at for at, name in enumerate(names) if name and not name.endswith("Queue#")]


# ------------------------------------------------------------------------------------------------------- this host


def test_loopback_reports_nothing() -> None:
    """lo has no driver, no statistics, no rings: all of it is "not reported", none of it an error."""
    assert ethtool.Reader().read(None, ["lo"]) == ethtool.Reading({}, ())
    assert ethtool.settings(["lo"]) == ({"lo": NicSettings()}, ())


def test_interfaces_that_are_gone_are_left_out() -> None:
    """A name that does not exist, or could not, is no error and never another interface."""
    gone = ["nonesuch0", "a-name-longer-than-an-interface-may-have", ""]
    assert ethtool.Reader().read(None, gone) == ethtool.Reading({}, ())
    assert ethtool.settings(gone) == ({name: NicSettings() for name in gone}, ())


def test_nothing_stays_open() -> None:
    """After a reading no socket is left: it would keep a deleted namespace alive."""
    names = [name for _, name in socket.if_nameindex()]
    ethtool.Reader().read(None, names)
    before = len(os.listdir("/proc/self/fd"))
    ethtool.Reader().read(None, names)
    ethtool.settings(names)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_maximum_of_zero_says_not_reported() -> None:
    """A driver that leaves a maximum at 0 does not report the setting, as over ethtool netlink."""
    assert ethtool._pairs((4096, 0, 0, 512, 256, 0, 7, 128)) == (Pair(256, 4096), Pair(), Pair(), Pair(128, 512))
    assert ethtool._pairs((None,) * 8) == (Pair(),) * 4
