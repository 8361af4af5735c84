# SPDX-License-Identifier: MIT
"""Reading driver statistics: the bytes of the kernel's answers, and the answers of this host.

Bytes are packed here by hand after include/uapi/linux/ethtool.h.
"""

import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import ethtool
from pktdrop.counters.ethtool_ioctl import Ioctl
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.look import NicSettings

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
    rows = ethtool.rows_of(ethtool.names_of(strings(*names)), values, Netns(7), "ens192")
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
    rows = ethtool.rows_of(names, values, None, "eth0")
    assert rows == {Scope(interface="eth0"): Row(tuple(f"ethtool.{name}" for name in names), tuple(values))}


def test_rows_of_two_sources_are_joined() -> None:
    """Where ethtool and qstats have the same scope, both stand in one row."""
    scope, other = Scope(interface="a"), Scope(interface="b")
    rows = {scope: Row(("ethtool.x",), (1,))}
    ethtool.merge(rows, {scope: Row(("qstats.y",), (2,)), other: Row(("qstats.y",), (3,))})
    assert rows == {scope: Row(("ethtool.x", "qstats.y"), (1, 2)), other: Row(("qstats.y",), (3,))}


@given(st.binary(max_size=200))
def test_garbage_raises_nothing(data: bytes) -> None:
    """Whatever the bytes: no exception, no name or value that is not there."""
    names = ethtool.names_of(data)
    assert len(names) == len(data) // 32
    rows = ethtool.rows_of(names, range(len(names)), None, "eth0")
    assert sum(len(row.values) for row in rows.values()) <= len(names)
    for row in rows.values():
        assert len(set(row.names)) == len(row.names) == len(row.values)


@given(st.lists(st.sampled_from(["a", "a#2", "", "Rx Queue#", "Tx Queue#", "b: c", " d "]), max_size=30))
def test_no_value_is_lost_to_a_name_that_repeats(names: list[str]) -> None:
    """Every value with a name is found again, once, however names repeat and whatever queue number a marker has."""
    rows = ethtool.rows_of(names, range(100, 100 + len(names)), None, "eth0")
    kept = sorted(value for row in rows.values() for value in row.values)
    assert kept == [100 + at for at, name in enumerate(names) if name and not name.endswith("Queue#")]


# ------------------------------------------------------------------------------------------------------- this host


def test_loopback_reports_nothing() -> None:
    """lo has no driver, no statistics, no rings: all of it is "not reported", none of it an error."""
    assert ethtool.StatisticsReader().read(None, {1: "lo"}) == ethtool.Reading({}, ())
    assert ethtool.settings("lo") == NicSettings()


def test_interfaces_that_are_gone_are_left_out() -> None:
    """A name that does not exist, or could not, is no error and never another interface."""
    gone = ["nonesuch0", "a-name-longer-than-an-interface-may-have", ""]
    assert ethtool.StatisticsReader().read(None, dict(enumerate(gone, 1))) == ethtool.Reading({}, ())
    assert [ethtool.settings(name) for name in gone] == [NicSettings()] * len(gone)


def test_nothing_stays_open() -> None:
    """After a reading no socket is left: it would keep a deleted namespace alive."""
    names = dict(socket.if_nameindex())
    reader = ethtool.StatisticsReader()
    reader.read(None, names)
    before = len(os.listdir("/proc/self/fd"))
    reader.read(None, names)
    for name in names.values():
        ethtool.settings(name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_maximum_of_zero_says_not_reported() -> None:
    """A driver that leaves a maximum at 0 does not report the setting, as over ethtool netlink."""
    numbers = 4096, 0, 0, 512, 256, 0, 7, 128
    assert [ethtool._reported(numbers, at) for at in range(4)] == [(256, 4096), (None, None), (None, None), (128, 512)]
    assert ethtool._reported(None, 0) == (None, None)


# ------------------------------------------------------------------------------------------------ remembered names


class Driver(Ioctl):
    """Answers by struct ethtool_sset_info, ethtool_gstrings and ethtool_stats, as drivers may by themselves."""

    def __init__(self, **statistics: int) -> None:
        """Have these statistics."""
        self.statistics_now = dict(statistics)
        self.asked: list[int] = []

    def __call__(self) -> "Driver":
        """Be opened."""
        return self

    def close(self) -> None:
        """Be closed."""

    def ask(self, interface: str, request: bytes, size: int) -> memoryview:
        """Answer ETHTOOL_GSSET_INFO, ETHTOOL_GSTRINGS and ETHTOOL_GSTATS."""
        assert interface == "nic0"
        (command,) = struct.unpack_from("=I", request)
        self.asked.append(command)
        count = len(self.statistics_now)
        if command == 0x37:
            answer = struct.pack("=IIQI", command, 0, 2, count)
        elif command == 0x1B:
            answer = struct.pack("=III", command, 1, count) + strings(*self.statistics_now)
        else:
            assert command == 0x1D
            answer = struct.pack(f"=II{count}Q", command, count, *self.statistics_now.values())
        return memoryview(answer.ljust(size, b"\0"))[:size]


def read_nic0(reader: ethtool.StatisticsReader, ifindex: int = 2) -> dict[str, int]:
    """The statistics by name, without those of the netdev family."""
    rows = reader.read(Netns(7), {ifindex: "nic0"}).rows
    row = rows.get(Scope(netns=Netns(7), interface="nic0"), Row((), ()))
    return dict(zip(row.names, row.values, strict=True))


def test_values_that_stand_still_cost_one_question() -> None:
    """What was read before is not even unpacked again."""
    driver = Driver(rx_dropped=5, rx_missed=0)
    reader = ethtool.StatisticsReader(driver)
    first = read_nic0(reader)
    driver.asked.clear()
    assert read_nic0(reader) == first == {"ethtool.rx_dropped": 5, "ethtool.rx_missed": 0}
    assert driver.asked == [0x1D]


def test_what_rises_is_called_by_the_name_that_it_has_then() -> None:
    """A driver changes its names and keeps their number: what rises next is not called by the name of before."""
    driver = Driver(rx_dropped=0, rx_missed=0)
    reader = ethtool.StatisticsReader(driver)
    read_nic0(reader)
    driver.statistics_now = {"rx_missed": 3, "rx_filtered": 0}
    assert read_nic0(reader) == {"ethtool.rx_missed": 3, "ethtool.rx_filtered": 0}
    driver.statistics_now = {"rx_filtered": 0, "rx_missed": 3}
    assert read_nic0(reader) == {"ethtool.rx_missed": 3, "ethtool.rx_filtered": 0}


@pytest.mark.parametrize("now", [{"a": 1}, {"a": 1, "b": 1, "c": 1}, {}])
def test_another_number_of_statistics_is_seen(now: dict[str, int]) -> None:
    """There are fewer, more, or none, though the values of those that stay are the same."""
    driver = Driver(a=1, b=1)
    reader = ethtool.StatisticsReader(driver)
    read_nic0(reader)
    driver.statistics_now = now
    assert read_nic0(reader) == {f"ethtool.{name}": value for name, value in now.items()}


def test_names_are_asked_for_now_and_then() -> None:
    """Where no value ever changes, new names are seen in the end, and not those of all interfaces in one reading."""
    driver = Driver(a=1)
    reader = ethtool.StatisticsReader(driver)
    for _ in range(64):
        reader.read(Netns(7), {2: "nic0"})
    driver.statistics_now = {"b": 1}
    seen = [read_nic0(reader) for _ in range(64)]
    assert {"ethtool.a": 1} in seen
    assert seen[-1] == {"ethtool.b": 1}


def test_another_interface_of_the_name_is_asked_for_its_own() -> None:
    """One goes, and another one of its name comes: it has another index, or the namespace was forgotten."""
    driver = Driver(a=1)
    reader = ethtool.StatisticsReader(driver)
    read_nic0(reader)
    driver.statistics_now = {"b": 1}
    assert read_nic0(reader, ifindex=3) == {"ethtool.b": 1}
    driver.statistics_now = {"c": 1}
    reader.forget(Netns(7))
    assert read_nic0(reader, ifindex=3) == {"ethtool.c": 1}


def test_nothing_is_remembered_of_interfaces_that_are_gone() -> None:
    """Memory is bounded by what was there at the last reading."""
    driver = Driver(a=1)
    reader = ethtool.StatisticsReader(driver)
    read_nic0(reader)
    reader.read(Netns(7), {})
    driver.statistics_now = {"b": 1}
    assert read_nic0(reader) == {"ethtool.b": 1}
