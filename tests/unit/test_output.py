# SPDX-License-Identifier: MIT
"""Standard output, with its ways of ending."""

from __future__ import annotations

import errno
import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from pktdrop.errors import PktdropError
from pktdrop.process.output import Output, OutputClosed
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """The side of a pseudo terminal that shows, and a stream that writes to the other."""
    shows, name = pty.openpty()
    with os.fdopen(name, "w", encoding="utf-8") as stream:
        yield shows, stream
    os.close(shows)


def _all_of(terminal: tuple[int, TextIO]) -> bytes:
    """What was shown, once nothing more can come."""
    shows, stream = terminal
    stream.close()
    found = b""
    try:
        while more := os.read(shows, 1000):
            found += more
    except OSError as end:
        if end.errno != errno.EIO:  # how Linux says that the other side is closed
            raise
    return found


def test_a_locale_that_cannot_write_a_name(tmp_path: Path) -> None:
    """A character that the locale does not have is escaped; the output goes on."""
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        output = Output(stream)
        output.write("büro 日本 \udcff\n")
        output.write("next\n")
    assert (tmp_path / "out").read_bytes() == b"b\\xfcro \\u65e5\\u672c \\udcff\nnext\n"


def test_a_result_is_written_at_once(tmp_path: Path) -> None:
    """Who follows the output sees a result when it is there, not when a buffer is full."""
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        Output(stream).write("one\n")
        assert (tmp_path / "out").read_text() == "one\n"


def test_a_closed_pipe_is_no_error() -> None:
    """When the reader is gone, writing raises what ends the run quietly, and closing raises nothing more."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        output = Output(stream)
        output.write("read\n")
        assert os.read(reading, 100) == b"read\n"
        os.close(reading)
        with pytest.raises(OutputClosed):
            output.write("nobody reads this\n")
        stream.write("still buffered when Python ends\n")


def test_a_full_disk_is_said() -> None:
    """Where there is no room, the error says so in one sentence and what to do in another."""
    with open("/dev/full", "w", encoding="utf-8") as stream:
        output = Output(stream)
        with pytest.raises(PktdropError) as failed:
            output.write("too much\n")
        assert failed.value.what == f"Standard output cannot be written: {os.strerror(errno.ENOSPC)}."
        assert failed.value.do


def test_no_standard_output_at_all() -> None:
    """A process started without standard output says so, and how to start it, in two lines."""
    code = "import sys\nfrom pktdrop.process.output import Output\nfrom pktdrop.errors import PktdropError\n"
    code += "try:\n    Output()\nexcept PktdropError as error:\n    print(error, file=sys.stderr)\n"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30 * PATIENCE,
    )
    assert done.stderr == "Standard output is closed.\n  Start pktdrop with one, or with '> /dev/null'.\n"


def test_a_status_line_is_replaced(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the next status or result starts where the status was, on a cleared line."""
    monkeypatch.setenv("TERM", "xterm")
    output = Output(terminal[1])
    assert output.is_terminal
    output.status("one")
    output.status("two")
    output.write("result\n")
    output.write("result\n")
    assert _all_of(terminal) == b"\r\x1b[Kone\r\x1b[Ktwo\r\x1b[Kresult\r\nresult\r\n"


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_simple_terminal_has_no_status_line(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    """A terminal that cannot clear a line gets results only."""
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    output = Output(terminal[1])
    output.status("one")
    output.write("result\n")
    assert _all_of(terminal) == b"result\r\n"


def test_a_file_has_no_status_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file or a pipe there are results only, whatever TERM says."""
    monkeypatch.setenv("TERM", "xterm")
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        output = Output(stream)
        assert not output.is_terminal
        output.status("one")
        output.write("result\n")
    assert (tmp_path / "out").read_text() == "result\n"


def test_a_terminal_that_goes_ends_quietly() -> None:
    """A terminal window that was closed is like a pipe that nobody reads."""
    shows, name = pty.openpty()
    with os.fdopen(name, "w", encoding="utf-8") as stream:
        output = Output(stream)
        os.close(shows)
        with pytest.raises(OutputClosed):
            output.write("x\n")


def test_a_stream_without_an_encoding_gets_utf_8(tmp_path: Path) -> None:
    """A text stream of another kind is written to where it leads."""
    with open(tmp_path / "out", "wb") as file:

        class Plain(io.StringIO):
            def fileno(self) -> int:
                return file.fileno()

        Output(Plain()).write("büro\n")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "büro\n"


def test_a_reader_of_a_non_blocking_pipe_gets_all() -> None:
    """A pipe that somebody made non-blocking, as some programs do with their input, is waited for when it is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * 1_000_000
    found: list[str] = []

    def read() -> None:
        with os.fdopen(reading, encoding="ascii") as stream:
            found.append(stream.read())

    reader = threading.Thread(target=read)
    with os.fdopen(writing, "w", encoding="ascii") as stream:
        output = Output(stream)
        reader.start()
        output.write(text)
    reader.join()
    assert found == [text]


def test_the_width_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS may say anything; no line of a table gets as long as memory."""
    monkeypatch.setenv("COLUMNS", "2000000000")
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        assert Output(stream).width == 10_000


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_width_is_what_columns_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """COLUMNS sets the width where it is given."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with open(tmp_path / "out", "w", encoding="utf-8") as stream:
        assert Output(stream).width == columns


def test_width_without_a_terminal_is_80() -> None:
    """In a pipe a table is as wide as on the smallest usual terminal."""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", "from pktdrop.process.output import Output; print(Output().width)"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=30 * PATIENCE,
    )
    assert done.stdout == "80\n"
