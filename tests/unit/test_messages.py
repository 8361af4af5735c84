# SPDX-License-Identifier: MIT
"""Warnings, limits and errors on a terminal of 80 columns."""

from collections.abc import Callable

import pytest

from pktdrop.process import messages
from pktdrop.text.table import Column, table

PATH = "/var/cache/a-directory-with-hyphens/and-a-name-that-is-longer-than-a-line-of-a-terminal/37d6cf49df8d"

HOSTILE = "\x1b]0;pwned\x07\u202e"


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was written to standard error."""
    return capsys.readouterr().err.splitlines()


def test_an_error_is_wrapped_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither sentence is left to the terminal, which breaks words; what to do begins on a line of its own."""
    messages.complain("What it is. " * 10, "Do this. " * 12)
    shown = lines(capsys)
    assert max(map(len, shown)) <= 80
    assert shown[0].startswith("Error: What it is. ")
    assert all(line.startswith("  ") for line in shown[1:])
    assert " ".join(" ".join(shown).split()) == "Error: " + ("What it is. " * 10 + "Do this. " * 12).strip()


def test_what_is_to_be_copied_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, options and names with hyphens are in one line, however long they are."""
    messages.complain(f"What is kept in {PATH} is not read, and this line is long.", f"Delete {PATH}.")
    messages.say(f"{'A warning that is as long as this. ' * 2}--no-cache does without.")
    shown = lines(capsys)
    assert sum(PATH in line for line in shown) == 2
    assert any("--no-cache" in line for line in shown)


@pytest.mark.parametrize("shown", [messages.say, lambda text: messages.complain(text, "Do."),
                                   lambda text: messages.complain("It is.", text)])  # fmt: skip
def test_names_that_containers_choose_do_nothing_to_a_terminal(
    shown: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A process or an interface may be called anything but a slash or a blank."""
    shown(f"Limit: Network namespace {HOSTILE}[7] cannot be entered, ethtool statistics of {HOSTILE}: none.")
    text = capsys.readouterr().err.replace("\n", "")
    assert text.isprintable()
    assert "\\x1b]0;pwned\\x07" in text


def test_a_cell_breaks_no_name() -> None:
    """A column that goes on in the next line breaks between words: names with hyphens are to be copied."""
    columns = (Column("state"), Column("what was seen", least=20, wrap=True))
    text = table(columns, [("loss", "153 in the qdisc tbf 801e: of eth0 of netns demo-shaper-32020")], 45)
    assert "demo-shaper-32020" in text
    assert max(map(len, text.splitlines())) <= 45
