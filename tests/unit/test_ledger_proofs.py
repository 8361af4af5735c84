# SPDX-License-Identifier: MIT
"""Each identity is proven by a live test, or said not to be, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pktdrop.rules.identities import NO_COUNTER, Identities, Identity
from pktdrop.rules.match import Event
from pktdrop.rules.tables import Cells, Table
from tests.kit.provoked import EVERY

DATA = Path(__file__).parents[1] / "data"
PROTOCOLS = {"IPv4": 0x0800, "IPv6": 0x86DD, "none": 0}
OTHER = 0x88B5
Key = tuple[str, str, str, str]
Moving = tuple[str, str, int, frozenset[str]]
"""Reason, function and protocol of an event, and the counters that move with it."""


def _proven(cells: Cells) -> tuple[Moving, str]:
    moved = frozenset(() if cells["counters"] == NO_COUNTER else cells["counters"].split("|"))
    return (cells["reason"], cells["function"], PROTOCOLS[cells["protocol"]], moved), cells["test"]


PROVEN = Table("identities_proven.tsv", "reason function protocol counters test", _proven).load(
    DATA / "identities_proven.tsv"
)
"""Events of single live tests, and the test."""


def key(row: Identity) -> Key:
    """What a row is known by."""
    return row.reason, row.function, row.protocol, "|".join(row.counters) or NO_COUNTER


def events() -> Iterator[Moving]:
    """Events that live tests cause, and the counters that these see move."""
    for cause in EVERY:
        for function in cause.functions:
            moved = frozenset((*cause.counters, *cause.bounds))
            yield cause.reason, function, PROTOCOLS.get(cause.protocol, OTHER), moved
    for event, _ in PROVEN:
        yield event


@pytest.fixture(scope="module")
def proven() -> set[Key]:
    """Rows that hold for an event of a live test, one of whose counters moves there, or that have none."""
    identities = Identities.load()
    return {
        key(row)
        for reason, function, protocol, moved in events()
        for row in identities.of(Event.of("core", reason, function, protocol))
        if moved.intersection(row.counters) or not (row.counters or moved)
    }


def _unproven(cells: Cells) -> Key:
    if len(cells["why"]) < 10:
        raise cells.wrong("no reason is given")
    return cells["reason"], cells["function"], cells["protocol"], cells["counter"]


@pytest.fixture(scope="module")
def unproven() -> list[Key]:
    """Rows of which no live test is known."""
    table = Table("identities_unproven.tsv", "reason function protocol counter why", _unproven)
    return [*table.load(DATA / table.file)]


def test_each_identity_is_proven_or_said_not_to_be(proven: set[Key], unproven: list[Key]) -> None:
    """No row of identities.tsv is without a live test and without an excuse."""
    rows = {key(row) for row in Identities.load().rows}
    left = rows - proven - set(unproven)
    assert not left, "\n".join("\t".join(row) for row in sorted(left))


def test_the_live_tests_are_there() -> None:
    """What is said to be proven by a test is: there is one of that name."""
    for _, test in PROVEN:
        file, _, function = test.partition("::")
        assert f"\ndef {function}(" in Path(DATA.parent, "live", file).read_text(encoding="utf-8"), test


def test_no_excuse_is_out_of_date(proven: set[Key], unproven: list[Key]) -> None:
    """What is listed as not proven is an identity, once, and no live test proves it."""
    rows = {key(row) for row in Identities.load().rows}
    assert len(unproven) == len(set(unproven))
    assert [row for row in unproven if row not in rows] == []
    assert sorted(proven & set(unproven)) == []
