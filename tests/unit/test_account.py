# SPDX-License-Identifier: MIT
"""Accounts of Looks that do not read all there is."""

from __future__ import annotations

import pytest

from pktdrop.account import Accountant
from pktdrop.model.drops import Count
from pktdrop.model.look import Look
from tests.unit.accounts import BLUE, HOST, make_counters
from tests.unit.make import NOON, make_drop, make_look, make_snapshot

LOST = make_drop(reason="NO_SOCKET", call_site="__udp4_lib_rcv+0x91", netns=BLUE)


def _looks(unread: frozenset[object]) -> tuple[Look, Look]:
    """Two Looks between which a datagram to a closed port is lost in a namespace that the second one reads."""
    counters = make_counters(netns=frozenset((HOST, BLUE)))
    events = make_snapshot({LOST: Count(5, 500)}, time=NOON + 1, monotonic=11.0)
    after = make_look(counters, before=events, after=events, dropped_in=(BLUE,), is_last=True)
    return make_look(counters, unread=unread), after


@pytest.mark.parametrize(("unread", "note"), [(frozenset(), "did not move"), (frozenset((BLUE,)), "could not be read")])
def test_what_is_read_for_the_first_time_says_nothing_of_before(unread: frozenset[object], note: str) -> None:
    """Counters that have no earlier reading cannot miss an event; those that have can."""
    first, second = _looks(unread)
    account = Accountant(first).step(second)
    (entry,) = account.ledger.entries
    assert (entry.by, entry.scope.netns) == ((("NO_SOCKET", 5),), BLUE)
    assert note in entry.note
