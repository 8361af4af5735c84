# SPDX-License-Identifier: MIT
"""Sparklines: what of the last minutes they show, and how."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pktdrop.top.series import BLOCKS, PLAIN, Series, sparkline


def filled(*rates: float, seconds: float = 2.0) -> Series:
    """One rate for each stretch, from time 0 on."""
    series = Series(seconds)
    for place, rate in enumerate(rates):
        series.add(place * seconds, (place + 1) * seconds, rate)
    return series


def test_each_cell_is_one_stretch() -> None:
    """With room for all stretches each has its own cell, the newest at the right."""
    assert filled(1, 2, 3).cells(5.9, 60) == [0.0] * 57 + [1.0, 2.0, 3.0]


def test_few_cells_show_the_highest_of_several_stretches() -> None:
    """A burst is seen however narrow the picture is."""
    assert filled(1, 9, 2, *[0] * 18, 5).cells(43.9, 6) == [0.0, 0.0, 0.0, 9.0, 0.0, 5.0]


def test_a_run_that_has_just_begun_fills_its_picture() -> None:
    """After twelve seconds each of six cells is one stretch; later, all of the run is in them."""
    assert filled(1, 2, 3, 4, 5, 6).cells(12.0, 6, since=0.0) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert filled(*range(20)).cells(40.0, 6, since=0.0) == [0.0, 3.0, 7.0, 11.0, 15.0, 19.0]
    assert filled(*range(20)).cells(40.0, 6, since=36.0) == [14.0, 15.0, 16.0, 17.0, 18.0, 19.0]


def test_what_is_old_is_forgotten() -> None:
    """After two minutes without a packet the picture is empty."""
    assert filled(7).cells(119.9, 60)[0] == 7.0
    assert filled(7).cells(121.0, 60) == [0.0] * 60


def test_several_short_intervals_share_a_cell() -> None:
    """Of the intervals in one stretch the highest rate counts."""
    series = Series(2.0)
    for start, rate in ((0.0, 3.0), (0.5, 8.0), (1.0, 1.0)):
        series.add(start, start + 0.5, rate)
    assert series.cells(1.5, 60)[-1] == 8.0


def test_a_long_interval_fills_its_cells() -> None:
    """An interval of ten seconds is five cells high at its rate: there are no gaps in between."""
    series = Series(2.0)
    series.add(4.0, 14.0, 6.0)
    assert series.cells(13.9, 60)[-7:] == [0.0, 0.0, 6.0, 6.0, 6.0, 6.0, 6.0]


def test_a_copy_stays_as_it_was() -> None:
    """What is added later is not in a copy made before."""
    series = filled(1)
    copy = series.copy()
    series.add(2.0, 4.0, 5.0)
    assert copy.cells(3.9, 60)[-2:] == [1.0, 0.0]


def test_the_highest_is_full_and_the_lowest_shows() -> None:
    """0 is blank, everything above 0 is not."""
    assert sparkline([0, 1, 400, 800]) == " ▁▄█"
    assert sparkline([0, 1, 400, 800], PLAIN) == " .=@"
    assert sparkline([0, 0]) == "  "
    assert sparkline([800, 790, 710, 690]) == "██▇▇"  # the nearest of eight steps of 100


@given(
    st.lists(st.tuples(st.floats(0.1, 30), st.floats(0, 1e9)), max_size=80),
    st.integers(1, 80),
)
def test_always_as_wide_as_asked(intervals: list[tuple[float, float]], width: int) -> None:
    """Whatever happened, there are as many cells as asked for, none higher than the highest rate."""
    series, now = Series(2.0), 0.0
    for seconds, rate in intervals:
        series.add(now, now + seconds, rate)
        now += seconds
    cells = series.cells(now, width)
    assert len(cells) == min(width, Series.BINS)
    assert max(cells) <= max((rate for _, rate in intervals), default=0.0)
    assert set(sparkline(cells)) <= set(BLOCKS)
