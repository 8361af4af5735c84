# SPDX-License-Identifier: MIT
"""Counts go on whatever the kernel gives up, and whatever is not kept apart any more."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel.tally import SPARE, DropTally
from pktdrop.model.drops import Count, DropKey, Netns
from pktdrop.model.snapshots import Drops, interval
from tests.unit.make import make_drop, make_snapshot

KEYS = [make_drop(netns=Netns(netns), ifindex=netns, reason=reason) for netns in range(1, 7) for reason in ("A", "B")]
KEYS += [key.of_other_places() for key in KEYS[:2]]  # the kernel has such, too
STEPS = st.lists(
    st.one_of(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 5)), max_size=6), st.integers(0, 12)),
    max_size=30,
)


@given(STEPS, st.integers(1, 12))
def test_every_interval_is_exact(steps: list[Any], kinds: int) -> None:
    """Of each interval, and of any of them together, the sum by reason is what was counted in it."""
    tally = DropTally(kinds)
    dropped: list[Counter[str]] = []
    snapshots = [make_snapshot(tally.totals)]
    for step in steps:
        if isinstance(step, int):
            tally.keep(step)
        else:
            tally.add((tally.number(key), packets, 100 * packets) for key, packets in step)
        dropped.append(Counter())
        for key, packets in () if isinstance(step, int) else step:
            dropped[-1][key.reason] += packets
        snapshots.append(make_snapshot(tally.totals))
    for first in range(len(snapshots)):
        for last in range(first, len(snapshots)):
            seen: Counter[str] = Counter()
            for key, count in interval(snapshots[first], snapshots[last]).drops.items():
                assert count.packets > 0
                assert count.bytes == 100 * count.packets
                seen[key.reason] += count.packets
            assert seen == sum(dropped[first:last], Counter())
            before, after = (Drops.of(snapshots[at].drops) for at in (first, last))
            moved = Counter(key.reason for key in after.moved_since(before))
            assert moved.keys() == seen.keys()  # an interval that takes less time, without its counts
    assert sum(not key.other_places for key in tally.totals) <= kinds


def add(tally: DropTally, *rows: tuple[DropKey, int, int]) -> None:
    """Add what kinds rose by."""
    tally.add((tally.number(key), packets, octets) for key, packets, octets in rows)


def test_while_nothing_moves_nothing_is_made() -> None:
    """While nothing moves the mapping is the same object; one that was handed out never changes."""
    one, other = KEYS[0], KEYS[1]
    tally = DropTally()
    add(tally, (one, 1, 10), (other, 2, 20))
    first = tally.totals
    tally.add([])
    assert tally.totals is first
    add(tally, (other, 1, 10))
    assert tally.totals == {one: Count(1, 10), other: Count(3, 30)}
    assert first == {one: Count(1, 10), other: Count(2, 20)}


def test_those_that_moved_last_are_kept_apart() -> None:
    """Kinds that have not moved for the longest time go first, and what they counted goes on."""
    kinds = [make_drop(ifindex=number) for number in range(5)]
    tally = DropTally(kinds=4)
    add(tally, *((key, 1, 1) for key in kinds))
    assert set(tally.totals) == {*kinds[1:], kinds[0].of_other_places()}
    add(tally, (kinds[1], 1, 1))
    tally.keep(3)
    assert tally.totals == {kinds[3]: (1, 1), kinds[4]: (1, 1), kinds[1]: (2, 2), kinds[0].of_other_places(): (2, 2)}


def test_kinds_without_end_are_bounded() -> None:
    """A host whose namespaces come and go keeps no more kinds than it may, and no count is lost."""
    tally = DropTally(kinds=50)
    for number in range(1000):
        add(tally, (make_drop(netns=Netns(number)), 1, 1))
        assert len(tally.totals) <= 50 + 50 // SPARE + 1
    assert len(tally.totals) > 50
    assert sum(count.packets for count in tally.totals.values()) == 1000


def test_some_more_kinds_may_be_there_for_a_while() -> None:
    """One in 16 more, so that not each new kind costs the others a sort; then those beyond go on together."""
    tally = DropTally(32)
    for cpu in range(34):
        add(tally, (make_drop(cpu=cpu), 1, 100))
    assert sum(not key.other_places for key in tally.totals) == 34
    add(tally, (make_drop(cpu=34), 1, 100))
    assert sum(not key.other_places for key in tally.totals) == 32
    assert sum(count.packets for count in tally.totals.values()) == 35


@pytest.mark.parametrize("again", [Count(4, 600), Count(6, 360)])
def test_a_kind_that_has_less_than_before_began_anew(again: Count) -> None:
    """Fewer packets, or fewer bytes in more packets, are no later state of the same count."""
    before, now = (Drops.of({make_drop(): count}) for count in (Count(5, 500), again))
    assert dict(now.since(before)) == {make_drop(): again}
