# SPDX-License-Identifier: MIT
"""Text for a terminal: safe, aligned, and as wide as there is room."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.text.escaping import safe
from pktdrop.text.table import Column, cut, table
from pktdrop.text.wording import number, share

WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eth0", "eth0"),
        ("", ""),
        ("büro-lan", "büro-lan"),
        ("日本", "日本"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\rb"),
        ("bell\a", "bell\\x07"),
        ("del\x7f", "del\\x7f"),
        ("c1\x9b1m", "c1\\x9b1m"),
        ("\u202eoht", "\\u202eoht"),
        ("line\u2028end", "line\\u2028end"),
        ("\udcff", "\\xff"),
        ("tab\tit", "tab\\tit"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    """What would move the cursor, turn the direction or hide text is escaped; letters of any language stay."""
    assert safe(text) == shown


@given(st.text(st.characters(codec=None)))
def test_safe_text_has_no_control_characters(text: str) -> None:
    """No character of the categories "other" and "separator" reaches a terminal, but the plain space."""
    shown = safe(text)
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in shown)
    assert len(shown) >= len(text)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_safe_changes_nothing_plain(text: str) -> None:
    """Printable ASCII is shown as it is."""
    assert safe(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1,000"),
        (1234567, "1,234,567"),
        (1.5, "1.5"),
        (9.94, "9.9"),
        (10.4, "10"),
        (1234.5678, "1,235"),
        (2.0, "2.0"),
    ],
)
def test_number(value: float, text: str) -> None:
    """Counts are exact with separators; a rate has a digit behind the point below ten only."""
    assert number(value) == text


@given(st.integers(0, 10**15))
def test_a_count_is_never_rounded(count: int) -> None:
    """A count can be read back from the table."""
    assert int(number(count).replace(",", "")) == count


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 2, "50 %"),
        (2, 3, "67 %"),
        (1, 100, "1 %"),
        (99, 100, "99 %"),
        (992, 1000, ">99 %"),
        (1, 101, "<1 %"),
        (1, 10**9, "<1 %"),
        (10**9 - 1, 10**9, ">99 %"),
        (996, 1000, ">99 %"),
    ],
)
def test_share(part: int, whole: int, text: str) -> None:
    """A share is rounded to whole percents where that says nothing false."""
    assert share(part, whole) == text


@given(st.integers(1, 10**12).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))))
def test_share_is_never_nothing_for_something(of: tuple[int, int]) -> None:
    """Only nothing is "0 %", only all is "100 %"."""
    part, whole = of
    assert (share(part, whole) == "0 %") == (part == 0)
    assert (share(part, whole) == "100 %") == (part == whole)


@pytest.mark.parametrize(
    ("text", "width", "keep_end", "shown"),
    [
        ("SOCKET_RCVBUFF", 14, False, "SOCKET_RCVBUFF"),
        ("SOCKET_RCVBUFF", 13, False, "SOCKET_RCVB.."),
        ("SOCKET_RCVBUFF", 2, False, ".."),
        ("eth0", 1, False, "."),
        ("eth0", 0, False, ""),
        ("00*", 2, False, ".."),
        ("0000*", 4, False, "0..*"),
        ("4026532281", 1, False, "."),
        ("__udp4_lib_rcv+0x4bc", 20, True, "__udp4_lib_rcv+0x4bc"),
        ("__udp4_lib_rcv+0x4bc", 19, True, "__udp4_lib_..+0x4bc"),
        ("__udp4_lib_rcv+0x4bc", 12, True, "__ud..+0x4bc"),
        ("enqueue_to_backlog+0x1a8", 14, True, "enqueu..+0x1a8"),
    ],
)
def test_cut(text: str, width: int, keep_end: bool, shown: str) -> None:
    """A text that is too long ends in "..", or keeps the offset of its call site behind it."""
    assert cut(text, width, keep_end) == shown


def test_two_addresses_stay_two() -> None:
    """Addresses differ in their last digits, so these stay where one is cut."""
    one, other = cut("0xffffffff81e42670", 14, keep_end=True), cut("0xffffffff81e44ee0", 14, keep_end=True)
    assert one != other


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)), st.integers(0, 60), st.booleans())
def test_a_cut_text_fits_and_says_so(text: str, width: int, keep_end: bool) -> None:
    """A cut text is never longer than allowed, and has ".." where something is missing, as far as there is room."""
    shown = cut(text, width, keep_end)
    assert len(shown) <= width
    assert (shown == text) == (len(text) <= width)
    assert shown == text or ".."[:width] in shown


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[list[str]]]:
    """Columns, some of which may shrink, and rows that fill them."""
    columns = [
        Column(
            title=draw(st.text("abcdefgh", min_size=2, max_size=8)),
            align=draw(st.sampled_from(["left", "right"])),
            least=draw(st.none() | st.integers(2, 20)),
            keep_end=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 6)))
    ]
    return columns, draw(st.lists(st.tuples(*[WORDS] * len(columns)).map(list), max_size=5))


def _floors(columns: list[Column], rows: list[list[str]]) -> list[int]:
    """The least width of each column: all it needs, or where it may shrink, its title and its floor."""
    needs = [max(len(cell) for cell in cells) for cells in zip([c.title for c in columns], *rows, strict=True)]
    return [
        need if column.least is None else min(need, max(column.least, len(column.title)))
        for need, column in zip(needs, columns, strict=True)
    ]


@given(tables(), st.integers(1, 200))
def test_a_table_fits(what: tuple[list[Column], list[list[str]]], width: int) -> None:
    """A table is no wider than asked for, or than its columns at their floors; titles are always whole."""
    columns, rows = what
    floors = sum(_floors(columns, rows)) + 2 * (len(columns) - 1)
    lines = table(columns, rows, width).splitlines()
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= max(width, floors)
    assert lines[0].split() == [column.title for column in columns]


@given(tables())
def test_a_table_with_room_cuts_nothing(what: tuple[list[Column], list[list[str]]]) -> None:
    """Where there is room, each line holds its cells whole and in order."""
    columns, rows = what
    lines = table(columns, rows, 1000).splitlines()
    for line, cells in zip(lines, [[column.title for column in columns], *rows], strict=True):
        assert line.split() == cells


@given(tables(), st.integers(1, 60))
def test_columns_that_must_not_shrink_are_whole(what: tuple[list[Column], list[list[str]]], width: int) -> None:
    """A column without a floor is never cut: a number with a digit missing is another number."""
    columns, rows = what
    lines = [line.split() for line in table(columns, rows, width).splitlines()]
    for index, column in enumerate(columns):
        if column.least is None:
            assert [line[index] for line in lines] == [column.title, *(row[index] for row in rows)]


def test_columns_are_aligned() -> None:
    """Numbers end, and words begin, below one another, two spaces apart; no line ends in spaces."""
    columns = (Column("packets", "right"), Column("reason", least=6), Column("where", least=4, keep_end=True))
    rows = [["1,000", "NO_SOCKET", "f+0x1"], ["7", "X", "function+0x10"]]
    assert table(columns, rows, 80).splitlines() == [
        "packets  reason     where",
        "  1,000  NO_SOCKET  f+0x1",
        "      7  X          function+0x10",
    ]


def test_the_widest_column_shrinks_first() -> None:
    """A table that is too wide takes room where there is most to take."""
    columns = (Column("a", least=4), Column("b", least=4))
    assert table(columns, [["x" * 20, "y" * 8]], 20).splitlines()[1] == "x" * 8 + "..  " + "y" * 8


def test_control_characters_do_not_break_a_table() -> None:
    """A name with a line break takes one line, and its escaped form is what is measured and cut."""
    columns = (Column("iface", least=6), Column("n", "right"))
    lines = table(columns, [["a\x1b[2J\nb", "1"], ["\u2028", "2"]], 80).splitlines()
    assert [line.split() for line in lines] == [["iface", "n"], ["a\\x1b[2J\\nb", "1"], ["\\u2028", "2"]]
    assert len({len(line) for line in lines}) == 1


def test_a_wrapped_cell_goes_on_below() -> None:
    """A column that wraps loses no word."""
    columns = (Column("check"), Column("found", least=20, wrap=True))
    lines = table(columns, [["lockdown", "not known: securityfs is not mounted"]], 32).splitlines()
    assert max(map(len, lines)) <= 32
    assert " ".join(" ".join(lines[1:]).split()) == "lockdown not known: securityfs is not mounted"
    assert len(lines) == 3
    assert lines[2].startswith(" " * 10)
