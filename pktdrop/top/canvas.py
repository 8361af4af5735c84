# SPDX-License-Identifier: MIT
"""The widget that shows lines, and the terminal it is shown on."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, Final

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from pktdrop.top.lines import ScreenLine

#: Only colours that each terminal has its own of, so that dark and bright ones are both readable; what colour says,
#: marks say as well.
_STYLES: Final[Mapping[str, Style]] = MappingProxyType(
    {
        "": Style(),
        "strong": Style(bold=True),
        "title": Style(color="cyan"),
        "loss": Style(color="red", bold=True),
        "odd": Style(color="magenta", bold=True),
        "quiet": Style(dim=True),
        "cursor": Style(reverse=True),
        "bar": Style(reverse=True),
    }
)


class Canvas(Widget, can_focus=True):
    """Shows lines, and sends to the terminal only what has changed in them."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self) -> None:
        """Show nothing at first."""
        super().__init__()
        self._lines: Sequence[ScreenLine] = ()

    def show(self, lines: Sequence[ScreenLine]) -> None:
        """Show lines in place of those shown before."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        regions = [
            Region(first, position, last - first, 1)
            for position, (was, now) in enumerate(zip(before, lines, strict=True))
            if was != now
            for first, last in [_changed(was, now)]
        ]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """Return one line as textual wants it."""
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        return Strip([Segment(text, _STYLES[style]) for text, style in self._lines[y]])


def _changed(was: ScreenLine, now: ScreenLine) -> tuple[int, int]:
    """Return the first column that differs, and the first one after all that do."""
    before = [(char, style) for text, style in was for char in text]
    after = [(char, style) for text, style in now for char in text]
    same = min(len(before), len(after))
    first = next((position for position in range(same) if before[position] != after[position]), same)
    if len(before) != len(after):
        return first, max(len(before), len(after))
    last = next((position for position in range(same, first, -1) if before[position - 1] != after[position - 1]), first)
    return first, last


class _Sink:
    """Standard output, until it is gone; then nothing."""

    def __init__(self, file: IO[str], gone: Any) -> None:
        """Take what to call when it is gone."""
        self._file = file
        self._gone = gone
        self._is_gone = False

    def write(self, text: str) -> None:
        self._try(self._file.write, text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def fileno(self) -> int:
        return self._file.fileno()

    def _try(self, action: Any, *arguments: str) -> None:
        if self._is_gone:
            return
        try:
            action(*arguments)
        except OSError:
            self._is_gone = True
            # what is still buffered must not fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
            self._gone()


class Terminal(LinuxDriver):
    """Writes to standard output, not to standard error; a terminal that goes away ends the app without complaint."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        """Take what textual gives."""
        import sys

        super().__init__(app, **options)
        self._loop = asyncio.get_running_loop()
        self._file = _Sink(sys.__stdout__ or sys.stdout, self._leave)  # type: ignore[assignment]

    def run_input_thread(self) -> None:
        """Read keys until the terminal is gone."""
        try:
            super().run_input_thread()
        except OSError:
            self._leave()

    def _leave(self) -> None:
        self._loop.call_soon_threadsafe(self._app.exit)
