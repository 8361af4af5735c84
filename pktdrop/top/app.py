# SPDX-License-Identifier: MIT
"""The live view as a textual app: keys, mouse and clock to the screen, its lines to the canvas."""

import asyncio
import math
import time
import traceback
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from pktdrop.errors import PktdropError
from pktdrop.top.canvas import Canvas, Terminal
from pktdrop.top.keys import KEYS
from pktdrop.top.reader import Reader, Shown
from pktdrop.top.save import save
from pktdrop.top.screen import Screen

LEAST_INTERVAL: Final = 0.1
_WHEEL: Final = 3
"""Rows that one step of the wheel moves."""


class Prompt(Input):
    """The line at the bottom in which something is typed."""

    DEFAULT_CSS = """
    Prompt { dock: bottom; height: 1; border: none; padding: 0; display: none; }
    Prompt.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.drop_prompt", show=False)]


class FocusedCanvas(Canvas):
    """The canvas, which has the focus and so the keys, unless something is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(key.keys), f"app.{key.action}", show=False) for key in KEYS
    ]

    def __init__(self, resized: Callable[[], None]) -> None:
        """Take what paints the screen anew when it has another size."""
        super().__init__()
        self._resized = resized

    def on_resize(self) -> None:
        """Fit the screen to the terminal."""
        self._resized()


class TopApp(App[None]):
    """Shows the screen, looks at each interval, and does what keys say."""

    CSS = "Screen { background: ansi_default; color: ansi_default; overflow: hidden; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "leave", show=False, priority=True)]

    def __init__(self, screen: Screen, reader: Reader | None) -> None:
        """Take the state, and what reads; without it nothing is read."""
        super().__init__(driver_class=Terminal, ansi_color=True)
        self.state = screen
        self._reader = reader
        self._canvas = FocusedCanvas(self.repaint)
        self._prompt = Prompt(compact=True, select_on_focus=False)
        self._typed: Callable[[str], None] | None = None
        """What becomes of the line when Enter is pressed."""
        self._crash = ""

    def compose(self) -> ComposeResult:
        """Give the two widgets."""
        yield self._canvas
        yield self._prompt

    def on_mount(self) -> None:
        """Begin."""
        self._canvas.focus()
        self.app_resume_signal.subscribe(self, lambda _: self.action_repaint())
        if self._reader is not None:
            self.run_worker(self._keep_showing(self._reader))

    async def _keep_showing(self, reader: Reader) -> None:
        """Show each look; the reader paces them."""
        while True:
            self.take(await asyncio.wrap_future(reader.look(self.state.wants_advice)))

    def _handle_exception(self, error: Exception) -> None:
        self._crash = "".join(traceback.format_exception(error))
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End with what Python says of an error: textual's own account has pages."""
        self.panic(Text(self._crash))

    def take(self, look: Shown | str) -> None:
        """Show what a look gave, or why it could not be taken."""
        if isinstance(look, str):
            self.state.fail(look)
        else:
            self.state.take(look)
        if not self.state.mode.frozen:
            self.repaint()

    def repaint(self) -> None:
        """Paint the screen anew."""
        size = self._canvas.size
        if size.width and size.height:
            self._canvas.show(self.state.lines(size.width, size.height))

    # --- keys

    def action_do(self, what: str, *how: str | int) -> None:
        """Do something to the screen."""
        self._do(lambda: getattr(self.state, what)(*how))

    def action_leave(self) -> None:
        """End."""
        self.exit()

    def action_repaint(self) -> None:
        """Send the whole screen again."""
        self._do(lambda: None)
        self._canvas.refresh()
        self.refresh(repaint=True, layout=True)

    def action_search(self) -> None:
        """Type words that rows must have."""
        self._ask("Show only rows with these words. Enter: done, Esc: all rows.", self.state.mode.search, self._search)

    def action_pace(self) -> None:
        """Type an interval."""
        self._ask(f"Seconds between looks, instead of {self.state.mode.interval:g}:", "", self._set_interval)

    def action_save(self) -> None:
        """Type the name of a file."""
        name = time.strftime("pktdrop-top-%Y%m%d-%H%M%S")
        self._ask("Save to (.txt, .json; without either, both):", name, self._save)

    def action_drop_prompt(self) -> None:
        """Leave the line at the bottom as if it had not been opened; a filter is dropped."""
        if self._typed == self._search:
            self.state.search("")
        self._close_prompt()

    def _do(self, change: Callable[[], None]) -> None:
        self.state.message = ""
        change()
        self.repaint()

    # --- the line at the bottom

    def _ask(self, question: str, value: str, typed: Callable[[str], None]) -> None:
        self.state.message = question
        self._typed = typed
        self._prompt.value = value
        self._prompt.cursor_position = len(value)
        self._prompt.add_class("open")
        self._prompt.focus()
        self.repaint()

    def _close_prompt(self) -> None:
        self._typed = None
        self.state.message = ""
        self._prompt.remove_class("open")
        self._canvas.focus()
        self.repaint()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        if self._typed == self._search:
            self.state.search(event.value)
            self.repaint()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Use what was typed."""
        typed = self._typed
        self._close_prompt()
        if typed is not None:
            typed(event.value.strip())
            self.repaint()

    def _search(self, text: str) -> None:
        self.state.search(text)

    def _set_interval(self, text: str) -> None:
        if not text:
            return
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not LEAST_INTERVAL <= seconds < math.inf:
            self.state.message = f"{text!r} is no interval: give seconds, {LEAST_INTERVAL:g} or more."
            return
        self.state.set_interval(seconds)
        if self._reader is not None:
            self._reader.pace.change(seconds)

    def _save(self, name: str) -> None:
        if not name:
            self.state.message = "Nothing saved: no name given."
            return
        size = self.screen.size  # the line in which the name was typed is about to go
        try:
            written = save(self.state, self.state.lines(size.width, size.height), name)
        except PktdropError as failed:
            self.state.message = f"{failed.what} {failed.do}"
        else:
            self.state.message = f"Saved {' and '.join(map(str, written))}."

    # --- mouse

    async def on_click(self, event: events.Click) -> None:
        """Choose a row, sort by a title, or press a key of the bar."""
        spots, x, y = self.state.spots, event.screen_x, event.screen_y
        if y == self._canvas.size.height - 1:
            for first, last, action in spots.bar:
                if first <= x <= last:
                    await self.run_action(action)
        elif y == spots.titles:
            for first, last, title in spots.columns:
                if first <= x <= last:
                    self._do(lambda title=title: self.state.sort_by(title))  # type: ignore[misc]
        elif spots.titles < y <= spots.titles + spots.rows:
            self._do(lambda: self.state.point_at(spots.first + y - spots.titles - 1))

    def on_mouse_scroll_down(self, _: events.MouseScrollDown) -> None:
        """Move down."""
        self._do(lambda: self.state.move(_WHEEL))

    def on_mouse_scroll_up(self, _: events.MouseScrollUp) -> None:
        """Move up."""
        self._do(lambda: self.state.move(-_WHEEL))
