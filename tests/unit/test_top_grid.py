# SPDX-License-Identifier: MIT
"""Columns and their cells: what fits, what is left out, what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.text.table import Column, widths
from pktdrop.top.grid import GAP, GridRow, Sort, ago, arrange, names, numbers, ranges
from pktdrop.top.panel import duration, short

COLUMNS = (
    numbers("total"), Column("reason", least=8), Column("layer", rank=2), Column("where", least=9, rank=1),
)  # fmt: skip


def row(total: int | None, reason: str, layer: str = "socket", where: str = "udp_rcv+0x49e") -> GridRow:
    """One row, found by its reason."""
    return GridRow(reason, (total, reason, layer, where), words=reason.lower())


def test_columns_give_way_before_they_are_left_out() -> None:
    """First long texts are cut, then columns go, the least important first; figures never do."""
    rows = [row(123, "A_LONG_REASON").values]
    assert widths(COLUMNS, rows, 80, GAP, beside=1) == [6, 13, 6, 13]
    assert widths(COLUMNS, rows, 36, GAP, beside=1) == [6, 10, 6, 11]
    assert widths(COLUMNS, rows, 30, GAP, beside=1) == [6, 11, 0, 11]
    assert widths(COLUMNS, rows, 16, GAP, beside=1) == [6, 9, 0, 0]


@given(st.integers(1, 200), st.lists(st.text(max_size=40), max_size=4))
def test_lines_fit_wherever_they_can(room: int, texts: list[str]) -> None:
    """No line is wider than the room, unless the columns that must be there are."""
    given_widths = widths(COLUMNS, [row(1, text).values for text in texts], room, GAP)
    needed = sum(given_widths) + GAP * (sum(1 for wide in given_widths if wide) - 1)
    assert needed <= max(room, 6 + GAP + 8)


def test_rows_that_are_equal_stand_by_name() -> None:
    """Equal numbers do not make rows jump about."""
    rows = [row(5, "C"), row(5, "A"), row(9, "B")]
    assert [one.subject for one in arrange(COLUMNS, rows, Sort("total"), "")] == ["B", "A", "C"]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_what_has_no_value_can_be_sorted(is_reversed: bool) -> None:
    """A row without a number stands below all that have one."""
    rows = [row(None, "A"), row(0, "B"), row(7, "C")]
    found = [one.subject for one in arrange(COLUMNS, rows, Sort("total", is_reversed), "")]
    assert found == (["A", "B", "C"] if is_reversed else ["C", "B", "A"])


def test_unknown_column_sorts_by_the_first() -> None:
    """A column that is not there any more does no harm."""
    assert [one.subject for one in arrange(COLUMNS, [row(1, "A"), row(2, "B")], Sort("gone"), "")] == ["B", "A"]


def test_several_names_in_little_room() -> None:
    """All names if they fit, else the first and how many more."""
    column = names("iface", 6)
    assert column.text(["eth0", "lo", "veth7"], 13) == "eth0,lo,veth7"
    assert column.text(["eth0", "lo", "veth7"], 9) == "eth0 +2  "
    assert column.text(["a-very-long-name"], 9) == "a-very-.."


def test_numbers_of_cpus() -> None:
    """Numbers that follow each other are one range."""
    assert ranges([3, 0, 1, 2, 7, 9, 8]) == "0-3,7-9"
    assert ranges([]) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (-1, "-"), (0.4, "now"), (1, "1s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (200000, "2d")],
)
def test_how_long_ago(seconds: float | None, expected: str) -> None:
    """Times are as short as they can be."""
    assert ago(seconds) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.0, "0"), (0.04, "<0.1"), (3.14, "3.1"), (9994.0, "9,994"), (12_345.0, "12k"), (999_600.0, "1.0M"),
     (1.25e6, "1.2M"), (43e6, "43M"), (2.5e9, "2.5G")],
)  # fmt: skip
def test_rates_of_stations_are_short(rate: float, expected: str) -> None:
    """A rate takes five characters at most."""
    assert short(rate) == expected


@given(st.floats(0, 9e11))
def test_rates_of_stations_are_always_short(rate: float) -> None:
    """Whatever the rate, it fits the station's cell."""
    assert len(short(rate)) <= 5


def test_durations() -> None:
    """Hours, minutes, seconds."""
    assert [duration(seconds) for seconds in (0, 61.9, 3600 * 25)] == ["0:00:00", "0:01:01", "25:00:00"]
