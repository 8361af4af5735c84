# SPDX-License-Identifier: MIT
"""The screen of the live view: what the user has chosen, and the lines that follow from it. Knows no terminal."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pktdrop.filters import Filters
from pktdrop.model.drops import Known
from pktdrop.model.limits import Limit
from pktdrop.rules.protocols import Protocols
from pktdrop.text.table import Column
from pktdrop.top import detail, panel
from pktdrop.top.advice import concerning
from pktdrop.top.grid import GridRow, Sort, arrange
from pktdrop.top.history import History
from pktdrop.top.layout import Listed, Spots, from_line, page, table
from pktdrop.top.lines import EMPTY, ScreenLine, fitted, window
from pktdrop.top.reader import Shown
from pktdrop.top.series import ARROWS, BLOCKS, PLAIN
from pktdrop.top.subjects import Subject
from pktdrop.top.view import Context
from pktdrop.top.views import VIEWS
from pktdrop.views.limits import sentence, sentences

if TYPE_CHECKING:
    from pktdrop.diagnosis.diagnosis import Advised

_LEAST_WITH_DETAIL: Final = 14
"""A screen with fewer lines has no room for the detail."""
_JUDGED_EVERY: Final = 10.0
"""Seconds."""


class Screen:
    """Takes Accounts and what the user does; gives lines."""

    def __init__(self, run: panel.Run, filters: Filters, interval: float, marks: str = BLOCKS) -> None:
        """Start with the view of reasons, empty."""
        self.run = run
        self.mode = panel.Mode(interval)
        self.limits: tuple[Limit, ...] = ()
        self.message = ""
        """Stands at the bottom until the next key."""
        self.page: str | None = None
        """ "help" or "limits" in place of the table; None: neither."""
        self.spots = Spots()
        self.is_large = False
        self._filters = filters
        self._known = Known()
        self._context = Context(lambda netns: self._known.label(netns), marks, Protocols.load())
        self._history = History(interval)
        self._held: History | None = None
        self._view = VIEWS[0]
        self._sorts = {view.name: Sort(view.sort) for view in VIEWS}
        self._chosen: dict[str, Subject] = {}
        """The row of each view that the cursor is on; none: the first one, whichever it is."""
        self._positions: dict[str, int] = {}
        self._top = 0
        self._below = 0
        """First line of the detail, or of a page, that is shown."""
        self._height = 0
        self._arranged: tuple[Any, list[GridRow]] | None = None
        self._losses: tuple[Advised, ...] = ()
        self._judged: tuple[float, int] | None = None
        """When the losses were judged, and how many packets they were."""

    # --- what happens

    def take(self, look: Shown) -> None:
        """Add the next interval. New limits are said at the bottom."""
        account, limits, losses = look
        self._known = account.look.namespaces
        self._history.add(account, self._filters.select(account.interval.drops, account.judge))
        if losses is not None:
            self._losses, self._judged = losses, (self._history.elapsed, self._history.loss.packets)
        new = [limit for limit in limits if limit not in self.limits]
        if new:
            self.message = f"Limit: {sentence(new[0])}"
        self.limits = limits
        self.mode = replace(self.mode, limits=len(limits), trouble="")

    def fail(self, trouble: str) -> None:
        """Say that a look failed; what was counted before stays."""
        self.mode = replace(self.mode, trouble=trouble)

    @property
    def wants_advice(self) -> bool:
        """Whether losses are to be judged at the next look: it costs more than the look."""
        if self._judged is None:
            return bool(self._history.loss.packets)
        when, packets = self._judged
        return packets != self._history.loss.packets and self._history.elapsed - when >= _JUDGED_EVERY

    # --- what the user does

    @property
    def history(self) -> History:
        """The history that is shown: as it is now, or as it was when the screen was frozen."""
        return self._held or self._history

    @property
    def view(self) -> str:
        """Name of the table that is shown."""
        return self._view.name

    def choose_view(self, name: str) -> None:
        """Show another table."""
        self._view = next(view for view in VIEWS if view.name == name)
        self.page, self._top, self._below = None, 0, 0

    def turn(self, by: int) -> None:
        """Show the next table."""
        position = [view.name for view in VIEWS].index(self._view.name)
        self.choose_view(VIEWS[(position + by) % len(VIEWS)].name)

    def search(self, text: str) -> None:
        """Show only rows that have all words of `text`."""
        self.mode = replace(self.mode, search=text)

    def toggle_noise(self) -> None:
        """Hide or show what is no loss."""
        self.mode = replace(self.mode, noise=not self.mode.noise)
        self._context = replace(self._context, noise=self.mode.noise)

    def freeze(self) -> None:
        """Show what is shown now until this is called again."""
        self._held = None if self._held else self._history.copy()
        self.mode = replace(self.mode, frozen=self._held is not None)

    def set_interval(self, seconds: float) -> None:
        """Remember how often is looked."""
        self.mode = replace(self.mode, interval=seconds)

    def reset(self) -> None:
        """Count all drops and losses from zero."""
        self._history = self._history.anew(self.mode.interval)
        self._held = None
        self.mode = replace(self.mode, frozen=False)
        self.message = "Counting from zero."

    def sort_by(self, title: str) -> None:
        """Sort rows by a column; by the same column again, in the opposite order."""
        now = self._sorts[self._view.name]
        self._sorts[self._view.name] = replace(now, reverse=not now.reverse) if now.title == title else Sort(title)
        self._top = 0

    def sort_beside(self, by: int) -> None:
        """Sort by the next column to the left or right."""
        titles = [column.title for column in self.columns]
        now = self._sorts[self._view.name].title
        position = titles.index(now) if now in titles else 0
        self._sorts[self._view.name] = Sort(titles[(position + by) % len(titles)])
        self._top = 0

    def reverse(self) -> None:
        """Sort rows in the opposite order."""
        self.sort_by(self._sorts[self._view.name].title)

    def move(self, by: int) -> None:
        """Move the cursor by rows, or a page by lines."""
        if self.page:
            self.scroll(by)
            return
        rows = self.rows()
        if rows:
            self._choose(rows, max(0, min(len(rows) - 1, self._position(rows) + by)))

    def turn_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self.move(by * max(1, self._height - 1))

    def to_first(self) -> None:
        """Keep the cursor on the first row, whichever it is."""
        self._chosen.pop(self._view.name, None)
        self._positions[self._view.name] = self._top = self._below = 0

    def to_last(self) -> None:
        """Move the cursor to the last row."""
        self.move(1 << 30)

    def point_at(self, position: int) -> None:
        """Move the cursor to a row, counted among all rows of the table."""
        rows = self.rows()
        if 0 <= position < len(rows):
            self._choose(rows, position)

    def scroll(self, by: int) -> None:
        """Scroll the detail, or a page."""
        self._below = max(0, self._below + by)

    def enlarge(self) -> None:
        """Give the detail most of the screen, or give it back."""
        self.is_large, self._below = not self.is_large, 0

    def show_page(self, name: str) -> None:
        """Show a page in place of the table, or leave it."""
        self.page, self._below = (None if self.page == name else name), 0

    def back(self) -> None:
        """Leave what was opened last: a page, the large detail, the filter."""
        if self.page:
            self.page = None
        elif self.is_large:
            self.is_large = False
        else:
            self.search("")
        self._below = 0

    # --- what follows from it

    def rows(self) -> list[GridRow]:
        """Return the rows of the table, sorted and searched."""
        history, sort = self.history, self._sorts[self._view.name]
        asked = (id(history), history.intervals, self._view.name, sort, self.mode.search, self._context)
        if self._arranged is None or self._arranged[0] != asked:
            columns = self.columns
            self._arranged = (
                asked,
                arrange(columns, list(self._view.rows(history, self._context)), sort, self.mode.search),
            )
        return self._arranged[1]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table."""
        return self._view.columns(self.history, self._context)

    @property
    def chosen(self) -> Subject | None:
        """The subject of the row under the cursor; None without a row."""
        rows = self.rows()
        return rows[self._position(rows)].subject if rows else None

    def detail(self, width: int) -> list[ScreenLine]:
        """Return all that is known about the row under the cursor."""
        subject = self.chosen
        if subject is None:
            return []
        return detail.lines(self.history, subject, self._context, concerning(subject, self._losses), width)

    def lines(self, width: int, height: int) -> list[ScreenLine]:
        """Return the whole screen: `height` lines of `width` characters."""
        shown = [
            *panel.header(self.history, self.run, self.mode, width),
            *panel.stations(self.history, self._context.marks, width),
        ][: max(0, height - 1)]
        room = max(0, height - len(shown) - 1)
        if self.page:
            self.spots = Spots()
            body = from_line(page(self.page, sentences(self.limits), width), self._below, room)
        else:
            body = self._table_and_detail(len(shown), width, room)
        bar, spots = panel.footer(self._view.name, self.message, width)
        self.spots = replace(self.spots, bar=tuple(spots))
        body += [EMPTY] * (room - len(body))
        return [fitted(line, width) for line in (*shown, *body[:room], bar)][:height]

    def _table_and_detail(self, above: int, width: int, room: int) -> list[ScreenLine]:
        below = 0
        if above + room + 1 >= _LEAST_WITH_DETAIL:
            unused = room - len(self.rows()) - 1
            below = max(5, (room - 3) * 2 // 5, unused) if not self.is_large else room - 2
        if not below:
            return self._table(above, width, room)
        lines = self.detail(width)
        below = min(below, max(5, len(lines) + 1))
        table = self._table(above, width, room - below)
        table += [EMPTY] * (room - below - len(table))
        rule: ScreenLine = (("-" * width, "title"),)
        self._below = max(0, min(self._below, len(lines) - below + 1))
        return [*table, rule, *window(lines, self._below, below - 1)]

    def _table(self, above: int, width: int, room: int) -> list[ScreenLine]:
        rows, sort = self.rows(), self._sorts[self._view.name]
        empty = "no row has these words" if self.mode.search else self._view.empty
        listed = Listed(
            self.columns, rows, sort, self._position(rows), self._top, empty, ARROWS[self._context.marks == PLAIN]
        )
        lines, self.spots = table(listed, above, width, room)
        self._top, self._height = self.spots.first, max(0, room - 1)
        return lines

    def _position(self, rows: Sequence[GridRow]) -> int:
        """Return where the cursor is; where its row is gone, it stays at the same height."""
        subject = self._chosen.get(self._view.name)
        position = self._positions.get(self._view.name, 0)
        if subject is None:
            return 0
        if position < len(rows) and rows[position].subject == subject:
            return position
        found = next((index for index, row in enumerate(rows) if row.subject == subject), None)
        position = max(0, min(position, len(rows) - 1)) if found is None else found
        self._positions[self._view.name] = position
        return position

    def _choose(self, rows: Sequence[GridRow], position: int) -> None:
        self._chosen[self._view.name] = rows[position].subject
        self._positions[self._view.name] = position
        self._below = 0
