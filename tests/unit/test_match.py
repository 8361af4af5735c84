# SPDX-License-Identifier: MIT
"""What the rows of tables hold for."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.rules.match import GROUP, Event, Pattern, Patterns, known, statistic

NAMES = st.text("tcp_v46!x[]*?.\n", max_size=8)
GLOBS = st.lists(st.sampled_from(["*", "[46]", "[!_]", "tcp", "_", ".", "x", "!"]), max_size=5).map("".join)


@given(GLOBS, NAMES)
def test_patterns_of_names_are_those_of_the_shell(glob: str, name: str) -> None:
    """What fnmatch(3) says of a pattern of stars and sets of characters is what a row holds for."""
    asked = Patterns([Pattern.of("row", glob)])
    assert (asked.first(name) is not None) == fnmatchcase(name, glob)
    assert (Patterns([Pattern.of("row", "*", glob)]).first("", function=name) is not None) == fnmatchcase(name, glob)


@pytest.mark.parametrize(
    ("text", "name", "queue"),
    [
        ("rx_drop[{queue}]", "rx_drop[12]", "12"),
        ("[hw] rx discards", "[hw] rx discards", None),
        ("rx{queue}_p{n}_*", "rx3_p7_drops\n", "3"),
    ],
)
def test_a_statistic_has_the_number_of_its_queue(text: str, name: str, queue: str | None) -> None:
    """Brackets in names of statistics are brackets, and numbers are found."""
    found = statistic(text).fullmatch(name)
    assert found is not None
    assert found.groupdict().get("queue") == queue


@pytest.mark.parametrize(
    ("text", "name"), [("rx{queue}", "rx"), ("rx{queue}", "rx1234567890"), ("rx{n}", "rxa"), ("[hw]", "h"), ("a", "A")]
)
def test_other_statistics_are_others(text: str, name: str) -> None:
    """A number has digits, and a queue no more than nine."""
    assert statistic(text).fullmatch(name) is None


def test_the_first_row_that_holds_decides() -> None:
    """By name, function and protocol; a row may hold for one of several names."""
    rows = Patterns(
        [
            Pattern.of("narrow", "event:A", "f_*", "IPv4"),
            Pattern.of("of a class", "nature:stack/*"),
            Pattern.of("wide", "*"),
        ]
    )
    assert rows.first("event:A", function="f_1", protocol=0x0800) == "narrow"
    assert rows.first("event:A", function="g", protocol=0x0800) == "wide"
    assert rows.first("event:A", function="f_1", protocol=0x86DD) == "wide"
    assert rows.first("event:B", "nature:stack/policy") == "of a class"


def test_an_event_is_known_by_its_function_and_by_protocols_of_the_tables() -> None:
    """Senders choose ethertypes: all that no table has are one."""
    event = Event.of("qdisc", "OVERLIMIT", "tbf_enqueue.isra.0+0x1c [sch_tbf]", 0x1234)
    assert event == ("qdisc/OVERLIMIT", "tbf_enqueue", known(0x4321))
    assert {known(protocol) for protocol in range(0x10000)} == {0, 0x0800, 0x86DD, 0x0806, known(0x4321)}
    assert known(GROUP) == GROUP
