# SPDX-License-Identifier: MIT
"""Where `pktdrop top` cannot run, what it says; and that other commands do not pay for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from pktdrop.cli import main
from pktdrop.errors import PktdropError
from pktdrop.top import command
from pktdrop.top.command import marks, require_screen
from pktdrop.top.series import BLOCKS, PLAIN
from tests.kit.patience import PATIENCE

XTERM = {"TERM": "xterm-256color"}


def test_a_terminal_is_enough() -> None:
    """On a terminal, with textual, nothing is in the way."""
    require_screen(XTERM, lambda _: True)


@pytest.mark.parametrize("missing", [0, 1], ids=["stdin", "stdout"])
def test_pipes_are_referred_to_trace(missing: int) -> None:
    """Without a terminal for input and output it names the command for that."""
    with pytest.raises(PktdropError, match="pktdrop trace"):
        require_screen(XTERM, lambda descriptor: descriptor != missing)


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}, {}], ids=str)
def test_dumb_terminals_are_referred_to_trace(environment: dict[str, str]) -> None:
    """A terminal that cannot move its cursor shows lines."""
    with pytest.raises(PktdropError, match="pktdrop trace"):
        require_screen(environment, lambda _: True)


def test_without_textual_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence what is missing, one what to do."""
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(PktdropError) as refused:
        require_screen(XTERM, lambda _: True)
    assert "textual" in refused.value.what
    assert "./bootstrap top" in refused.value.do


def test_exit_status_without_a_terminal() -> None:
    """It cannot do it: status 1."""
    result = CliRunner().invoke(main, ["top"], prog_name="pktdrop")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")


def test_json_is_a_wrong_use() -> None:
    """There is no JSON on a screen: status 2, and where there is."""
    result = CliRunner().invoke(main, ["top", "--format", "json"], prog_name="pktdrop")
    assert result.exit_code == 2
    assert "pktdrop trace --format json" in result.output


@pytest.mark.parametrize(
    ("environment", "codeset", "expected"),
    [
        (XTERM, "UTF-8", BLOCKS),
        (XTERM, "utf8", BLOCKS),
        (XTERM, "ANSI_X3.4-1968", BLOCKS),
        (XTERM, "ISO-8859-1", PLAIN),
        ({"TERM": "linux"}, "UTF-8", PLAIN),
    ],
)
def test_characters_that_the_terminal_has(environment: dict[str, str], codeset: str, expected: str) -> None:
    """Blocks for sparklines, unless the locale or the terminal has none; a locale of C says nothing."""
    assert marks(environment, codeset) == expected


def test_nobody_else_imports_textual() -> None:
    """The command line with all its commands does without textual, rich and asyncio."""
    code = "import sys, pktdrop.cli; print([name for name in ('textual', 'rich', 'asyncio') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60 * PATIENCE, check=True
    )
    assert done.stdout == "[]\n"
