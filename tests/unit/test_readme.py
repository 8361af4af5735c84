# SPDX-License-Identifier: MIT
"""The README says what is true of the command line, the tables and JSON."""

import json
import re
from pathlib import Path

import click
import pytest

from pktdrop.cli import main
from pktdrop.ledger.entry import Entry
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, Netns
from pktdrop.views.table import _ROW_COLUMNS
from tests.unit.make import VIEW, make_drop, make_interval, make_ledger, make_sample, make_selection

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_and_option_is_there(name: str) -> None:
    """Each command and each option that help shows is named in the README."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    options = [
        parameter.opts[-1]
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    assert [text for text in (f"pktdrop {name}", *options) if text not in README] == []


def test_every_column_has_a_line() -> None:
    """Each column of the live table has a row in the README's table of columns."""
    assert [column.title for column in _ROW_COLUMNS if f"\n| `{column.title}` |" not in README] == []


def _cells(before: str, at: int) -> dict[str, str]:
    """The first table behind a text: each name in a cell of a row, and that row."""
    table = README.partition(before)[2].partition("\n|")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return {name: row for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[at])}


def _words(text: str) -> set[str]:
    """All names in backticks."""
    return set(re.findall(r"`(\w+)`", text))


def _paragraph(beginning: str) -> str:
    (found,) = [part for part in README.split("\n\n") if part.startswith(beginning)]
    return found


def test_every_json_key_has_a_line() -> None:
    """Each key of a line, of a drop and of an entry is named in the table for it, and no table names another key."""
    entry = Entry("socket", "mib.UdpNoPorts", Scope(netns=Netns(1)), 2, 2, 0, "exact", (("NO_SOCKET", 2),))
    text = "".join(VIEW.interval(make_interval({}), make_selection({make_drop(): Count(1, 2)}), make_ledger(entry)))
    line, start = json.loads(text), json.loads(VIEW.start(0.0, "1", "6.1", {}, []))
    of_line, of_drop, of_entry = (
        _cells("### JSON", 0),
        _cells("its name in JSON", 1),
        _cells("An entry of the ledger is", 0),
    )
    (drop,), (found,) = line["drops"], line["ledger"]
    assert of_line.keys() == {*start, *line}
    assert of_drop.keys() == drop.keys() - {"bytes"}
    assert "bytes" in _words(of_line["drops"])
    assert of_entry.keys() == found.keys()
    (uncounted,) = [key for key, value in line.items() if value == {"map_full": 0, "missed": 0}]
    assert _words(of_line[uncounted]) == {uncounted, *line[uncounted], "drops", "other_places"}
    assert _words(of_entry["scope"]) == {"scope", "netns_cookie", "netns_gone", *Scope._fields}
    assert found["scope"].keys() <= _words(of_entry["scope"])
    assert _words(of_entry["by"]) == {"by", *found["by"][0]}


def test_every_key_of_a_sample_is_named() -> None:
    """Where samples are explained, and not anywhere else by chance."""
    key = make_drop()
    shown = make_selection({key: Count(1, 2)})
    lines = VIEW.interval(make_interval({}), shown, make_ledger(), samples={key: [make_sample()]})
    (drop,) = json.loads("".join(lines))["drops"]
    (sample,) = drop["samples"]
    assert sample.keys() - _words(_paragraph("Each of a drop's `samples`")) == set()


def test_sample_output_fits_80_columns() -> None:
    """What the README shows of the screen is as wide as a terminal, or less."""
    assert BLOCKS
    assert [line for block in BLOCKS for line in block.splitlines() if len(line) > 81] == []


def test_the_sample_of_a_summary_adds_up() -> None:
    """Recorded, not written: by reason, by CPU and by layer it is as many packets."""
    (text,) = [block for block in BLOCKS if "\nLost in all: " in block]
    dropped = re.findall(r" s: ([\d,]+) packets dropped", text)
    lost, layers = re.findall(r"^Lost in all: ([\d,]+) packets \((.*)\)\. Unexplained: 0\.$", text, re.MULTILINE)[0]
    tables = [part.splitlines()[1:] for part in text.split("\n\n") if part.startswith("packets")]
    sums = [sum(int(row.split()[0].replace(",", "")) for row in rows) for rows in tables]
    assert len(sums) == 2
    assert {*dropped, lost} == {f"{total:,}" for total in sums}
    assert sum(int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", layers)) == sums[0]
