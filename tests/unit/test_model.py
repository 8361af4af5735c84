# SPDX-License-Identifier: MIT
"""Snapshots and the Intervals between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.model.drops import Amounts, Count, DropKey, Uncounted, Verdict, counted_since
from pktdrop.model.snapshots import Snapshot, interval
from tests.unit.make import JUDGE, NOON, make_drop, make_noise, make_snapshot

KEYS = [make_drop(cpu=cpu) for cpu in range(4)] + [make_noise()]


@st.composite
def growing(draw: st.DrawFn) -> tuple[Snapshot, Snapshot, Snapshot]:
    """Three Snapshots in a row of counters that only grow, of keys that appear and stay."""
    totals: dict[DropKey, Count] = {}
    uncounted = Uncounted(0, 0)
    snapshots = []
    for moment in range(3):
        for key in draw(st.sets(st.sampled_from(KEYS))):
            more = Count(draw(st.integers(1, 1 << 40)), draw(st.integers(0, 1 << 50)))
            old = totals.get(key, Count(0, 0))
            totals[key] = Count(old.packets + more.packets, old.bytes + more.bytes)
        uncounted = Uncounted(
            uncounted.map_full + draw(st.integers(0, 99)), uncounted.missed + draw(st.integers(0, 99))
        )
        snapshots.append(make_snapshot(dict(totals), time=NOON + moment, monotonic=10.0 + moment, uncounted=uncounted))
    return snapshots[0], snapshots[1], snapshots[2]


def _sum(one: dict[DropKey, Count], other: dict[DropKey, Count]) -> dict[DropKey, Count]:
    none = Count(0, 0)
    return {
        key: Count(
            one.get(key, none).packets + other.get(key, none).packets,
            one.get(key, none).bytes + other.get(key, none).bytes,
        )
        for key in one.keys() | other.keys()
    }


@given(growing())
def test_intervals_add_up(snapshots: tuple[Snapshot, Snapshot, Snapshot]) -> None:
    """What happened in two intervals in a row is what happened in both together."""
    first, second, third = snapshots
    one, two, both = interval(first, second), interval(second, third), interval(first, third)
    assert _sum(dict(one.drops), dict(two.drops)) == both.drops
    assert [a + b for a, b in zip(one.uncounted, two.uncounted, strict=True)] == list(both.uncounted)
    assert one.seconds + two.seconds == both.seconds == 2.0
    assert (both.start, both.end) == (one.start, two.end)


@given(growing())
def test_nothing_happens_between_a_snapshot_and_itself(snapshots: tuple[Snapshot, Snapshot, Snapshot]) -> None:
    """The interval from a Snapshot to itself is empty."""
    nothing = interval(snapshots[2], snapshots[2])
    assert nothing.drops == {}
    assert nothing.uncounted == Uncounted(0, 0)
    assert nothing.seconds == 0


@given(growing())
def test_every_interval_since_the_start_is_the_snapshot(snapshots: tuple[Snapshot, Snapshot, Snapshot]) -> None:
    """Since a Snapshot without drops, all that is counted happened."""
    assert interval(make_snapshot(), snapshots[2]).drops == snapshots[2].drops


def test_a_new_key_counted_all_it_has() -> None:
    """A key that was not there before brings its whole count."""
    step = interval(make_snapshot(), make_snapshot({make_drop(): Count(23, 667)}))
    assert step.drops == {make_drop(): Count(23, 667)}


def test_a_key_that_vanished_is_left_out() -> None:
    """A key that is not there any more counted nothing since."""
    assert interval(make_snapshot({make_drop(): Count(23, 667)}), make_snapshot()).drops == {}


def test_a_key_that_did_not_move_is_left_out() -> None:
    """An interval holds only what happened in it."""
    still, moving = make_drop(cpu=0), make_drop(cpu=1)
    before = make_snapshot({still: Count(5, 500), moving: Count(7, 700)})
    after = make_snapshot({still: Count(5, 500), moving: Count(8, 760)})
    assert interval(before, after).drops == {moving: Count(1, 60)}


def test_a_key_that_moves_without_bytes_is_shown() -> None:
    """A drop of an empty skb is a drop."""
    step = interval(make_snapshot({make_drop(): Count(5, 500)}), make_snapshot({make_drop(): Count(6, 500)}))
    assert step.drops == {make_drop(): Count(1, 0)}


def test_a_reset_counts_from_zero() -> None:
    """A 64-bit counter that fell was reset: what it shows was counted since."""
    step = interval(make_snapshot({make_drop(): Count(1000, 90000)}), make_snapshot({make_drop(): Count(3, 180)}))
    assert step.drops == {make_drop(): Count(3, 180)}


def test_lost_is_what_was_lost_in_between() -> None:
    """Of what could not be counted, too, an interval has only what came in it."""
    step = interval(make_snapshot(uncounted=Uncounted(100, 7)), make_snapshot(uncounted=Uncounted(103, 7)))
    assert step.uncounted == Uncounted(map_full=3, missed=0)


def test_a_step_of_the_wall_clock_changes_no_length() -> None:
    """An interval is as long as the monotonic clock says; its ends are what the wall clock said."""
    before = make_snapshot(time=NOON, monotonic=50.0)
    step = interval(before, make_snapshot(time=NOON - 3600, monotonic=51.5))
    assert (step.start, step.end, step.seconds) == (NOON, NOON - 3600, 1.5)


@pytest.mark.parametrize(
    ("before", "after", "width", "rose"),
    [
        (0, 0, 64, 0),
        (5, 9, 64, 4),
        (0xFFFF_FFFF, 0, 32, 1),
        (0xFFFF_FFF0, 0x10, 32, 0x20),
        (1, 0, 32, 0xFFFF_FFFF),
        (0xFFFF_FFFF, 0x1_0000_0000, 64, 1),
        (2**64 - 1, 2, 64, 2),
    ],
)
def test_counted_since(before: int, after: int, width: int, rose: int) -> None:
    """A narrow counter wraps, a wide one is reset."""
    assert counted_since(before, after, width) == rose


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_wrap_of_32_bits_loses_nothing(start: int, rise: int) -> None:
    """A 32-bit column tells any rise below 2**32, wherever it starts."""
    assert counted_since(start, (start + rise) % 2**32, 32) == rise


def test_amounts_keep_noise_apart() -> None:
    """Noise is totalled apart from loss."""
    drops = {make_drop(): Count(3, 1), make_drop(cpu=1): Count(4, 1), make_noise(): Count(50, 1)}
    assert Amounts.of(drops, JUDGE) == Amounts(loss=7, noise=50)
    assert Amounts.of(drops, JUDGE).plus(Amounts(1, 2)) == Amounts(8, 52)
    assert Amounts.of({}, JUDGE) == Amounts(0, 0)


def test_noise_without_a_reason_text_is_still_noise() -> None:
    """Only None means loss, as Verdict says; an empty text does not turn noise into loss."""
    assert Amounts.of({make_noise(): Count(2, 2)}, lambda _: Verdict("stack", "policy", "")) == Amounts(0, 2)
