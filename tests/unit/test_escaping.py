# SPDX-License-Identifier: MIT
"""What others chose cannot move a cursor, and is JSON that any parser takes."""

import json
import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.text.escaping import json_text, safe

# RFC 8259, 8.2: what parsers make of a surrogate without its other half "is unpredictable"


@given(st.binary())
def test_any_bytes_are_strict_json(name: bytes) -> None:
    """Names are bytes: whatever they are, the text is UTF-8 without lone surrogates, and those that differ differ."""
    text = json_text({"name": os.fsdecode(name), "list": [os.fsdecode(name)]})
    assert text.isascii()
    read = json.loads(text)
    assert read["name"] == read["list"][0]
    assert read["name"].encode() == name.decode(errors="backslashreplace").encode()


@pytest.mark.parametrize("text", ["", "plain", r"\udc80", r"\\udcff", "\U0001f4ff", '"\n\t\x1b\x7f'])
def test_what_is_no_byte_stays(text: str) -> None:
    """A backslash that somebody wrote and characters of two halves are what they are."""
    assert json.loads(json_text([text, "\udcff"])) == [text, r"\xff"]


def test_another_parser_takes_it() -> None:
    """Ruby's parser, which raises an exception of what is no UTF-8."""
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.skip("ruby is not installed")
    script = 'require "json"; name = JSON.parse(STDIN.read)["name"]; exit(name.valid_encoding? && name == "a\\\\xff")'
    subprocess.run([ruby, "-e", script], input=json_text({"name": "a\udcff"}), text=True, check=True, timeout=60)


@given(st.binary(max_size=20))
def test_a_terminal_gets_nothing_but_characters(name: bytes) -> None:
    """What is shown can be printed and encoded; a byte that is no UTF-8 is shown as JSON has it."""
    shown = safe(os.fsdecode(name))
    assert shown.isprintable()
    assert shown.encode().decode() == shown


def test_a_byte_is_shown_as_in_json() -> None:
    r"""Both have \xff."""
    assert safe("a\udcff") == json.loads(json_text("a\udcff")) == r"a\xff"
