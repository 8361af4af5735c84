# SPDX-License-Identifier: MIT
"""Of very many sockets that dropped packets the first ones are told apart, and no count is ever of something else."""

from collections.abc import Iterable

import pytest

from pktdrop.counters import crowd
from pktdrop.counters.crowd import Crowd


def told(of: Crowd, sockets: Iterable[int], is_whole: bool = True) -> tuple[list[int], int]:
    """Return which sockets of a reading are told apart, and how many are left out after it."""
    found = [number for number in sockets if of.admits(number.to_bytes(8, "little"))]
    return found, of.end(is_whole)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    """A crowd with room for three."""
    monkeypatch.setattr(crowd, "MOST", 3)
    return Crowd()


def test_the_first_ones_are_told_apart(three: Crowd) -> None:
    """Those that come when there is no room are left out, in whatever order the kernel lists them."""
    assert told(three, [1, 2, 3, 4, 5]) == ([1, 2, 3], 2)
    assert told(three, [5, 4, 3, 2, 1]) == ([3, 2, 1], 2)


def test_who_was_left_out_stays_so(three: Crowd) -> None:
    """What it dropped before is not known, so it would count as dropped now; a new one takes the room."""
    told(three, [1, 2, 3, 4])
    assert told(three, [2, 3, 4]) == ([2, 3], 1)
    assert told(three, [2, 3, 4, 6, 7]) == ([2, 3, 6], 2)


def test_what_is_gone_is_forgotten(three: Crowd) -> None:
    """Memory is bounded by the sockets that there are."""
    told(three, [1, 2, 3, 4])
    assert told(three, []) == ([], 0)
    assert told(three, [4, 5, 6]) == ([4, 5, 6], 0)


def test_nothing_is_forgotten_where_the_list_was_not_whole(three: Crowd) -> None:
    """What is missing in it may be there."""
    told(three, [1, 2, 3, 4])
    assert told(three, [1], is_whole=False) == ([1], 1)
    assert told(three, [9, 1, 2, 3, 4]) == ([1, 2, 3], 2)
