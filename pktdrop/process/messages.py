# SPDX-License-Identifier: MIT
"""Standard error: warnings, limits, the start line. Results are on standard output only."""

import io
import os
import select
import sys
import textwrap

from pktdrop.text.escaping import safe

_WIDTH = 80
_DESCRIPTOR = 2


class _Unfailing(io.RawIOBase):
    """Standard error as it is, but that writing never fails: a message that cannot be written has no other place."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _DESCRIPTOR

    def isatty(self) -> bool:
        return os.isatty(_DESCRIPTOR)

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(_DESCRIPTOR, left) :]
            except BlockingIOError:  # somebody else made this terminal or pipe non-blocking
                select.select([], [_DESCRIPTOR], [])
            except OSError:  # closed, full or gone
                break
        return len(data)


def never_fail() -> None:
    """Let sys.stderr swallow what it cannot write. Otherwise Python's exit status is 120 where it is full or gone."""
    encoding = getattr(sys.stderr, "encoding", None)
    sys.stderr = io.TextIOWrapper(_Unfailing(), encoding, "backslashreplace", line_buffering=True, write_through=True)


def say(*sentences: str) -> None:
    """Write sentences to standard error."""
    for sentence in sentences:
        print(_filled(sentence), file=sys.stderr, flush=True)


def say_ending(is_asked: bool) -> None:
    """Tell a person who asked for the end that it is coming: the last look takes up to a second."""
    if is_asked and sys.stderr.isatty():
        say("ending...")


def complain(what: str, do: str) -> None:
    """Write an error to standard error: what is missing or wrong, and from a line of its own on what to do."""
    print(f"{_filled(what, 'Error: ', ' ' * 7)}\n{_filled(do, '  ')}", file=sys.stderr, flush=True)


def _filled(sentence: str, first: str = "", later: str = "  ") -> str:
    """Wrap a sentence; names, paths and options stay whole, as they are to be copied.

    Containers choose names in it, of processes and interfaces: what would move the cursor is escaped.
    """
    return textwrap.fill(
        safe(sentence),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
