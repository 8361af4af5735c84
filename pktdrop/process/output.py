# SPDX-License-Identifier: MIT
"""Standard output, with its ways of ending."""

import errno
import os
import select
import sys
from typing import TextIO

from pktdrop.errors import PktdropError

_WIDEST = 10_000
"""Columns; COLUMNS may say anything."""
_CLEAR_LINE = "\r\x1b[K"


def require_output(stream: TextIO | None) -> None:
    """Raise PktdropError where there is no standard output: Python has None for one that was closed at its start."""
    if stream is None:
        raise PktdropError("Standard output is closed.", "Start pktdrop with one, or with '> /dev/null'.")


class OutputClosed(Exception):
    """Nobody reads any more: the pipe or the terminal is gone."""


class Output:
    """Where results go, and on a terminal one status line that the next result replaces."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Take standard output by default. Raises PktdropError where it is closed."""
        stream = stream or sys.stdout
        require_output(stream)
        self._encoding = stream.encoding or "utf-8"
        self._status_shown = False
        self.descriptor = stream.fileno()
        self.is_terminal = stream.isatty()
        self._has_status = self.is_terminal and os.environ.get("TERM", "dumb") != "dumb"

    @property
    def width(self) -> int:
        """Columns there are; 80 where it is no terminal and COLUMNS does not say."""
        import shutil  # with three libraries for archives, which no start should wait for

        return min(shutil.get_terminal_size().columns, _WIDEST)

    def write(self, text: str) -> None:
        """Write a result at once. Raises OutputClosed, or PktdropError where it cannot be written."""
        clear, self._status_shown = _CLEAR_LINE if self._status_shown else "", False
        self._put(clear + text)

    def status(self, text: str) -> None:
        """Show a line that the next write or status replaces; nothing where that is not possible."""
        if self._has_status:
            self._status_shown = True
            self._put(_CLEAR_LINE + text)

    def _put(self, text: str) -> None:
        left = memoryview(text.encode(self._encoding, "backslashreplace"))  # what this locale cannot write is escaped
        while left:
            try:
                left = left[os.write(self.descriptor, left) :]
            except BlockingIOError:  # somebody else made this pipe or terminal non-blocking
                select.select([], [self.descriptor], [])
            except OSError as failed:
                # what others may write must not fail again when Python ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.descriptor)
                if failed.errno in (errno.EPIPE, errno.EIO):
                    raise OutputClosed from None
                raise PktdropError(
                    f"Standard output cannot be written: {failed.strerror}.", "Make room, or write somewhere else."
                ) from None
