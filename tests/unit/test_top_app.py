# SPDX-License-Identifier: MIT
"""The live view in textual's own harness: every key, the mouse, what is typed, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from textual.pilot import Pilot

from pktdrop.errors import PktdropError
from pktdrop.model.drops import Count
from pktdrop.run import LATE
from pktdrop.top.app import TopApp
from pktdrop.top.canvas import Canvas
from pktdrop.top.keys import KEYS
from pktdrop.top.reader import Feed, Reader, Shown
from pktdrop.top.save import text_of
from pktdrop.top.screen import Screen
from tests.unit.make import make_drop
from tests.unit.top_steps import busy_look, make_screen, make_step

if TYPE_CHECKING:
    from pktdrop.watch import Watch

SIZE = (80, 24)
MANY = {make_drop(reason=f"REASON_{number:02}"): Count(number + 1, 1) for number in range(40)}


class Answers:
    """What is looked at: it answers as it is told to, the last one again and again."""

    limits = ()

    def __init__(self, *answers: Shown | str | Exception) -> None:
        self.answers = list(answers)
        self.wants_advice = False
        self.advised = 0

    def step(self, is_last: bool) -> Shown | str:
        """Give the next answer."""
        self.advised += self.wants_advice
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def shown(app: TopApp) -> str:
    """What the canvas really shows, as text."""
    canvas = app.query_one(Canvas)
    lines = [canvas.render_line(y).text.rstrip() for y in range(canvas.size.height)]
    return "\n".join(lines) + "\n"


def drive(
    screen: Screen, steps: Callable[[Pilot[None], TopApp], Awaitable[None]], answers: Answers | None = None,
    size: tuple[int, int] = SIZE,
) -> TopApp:  # fmt: skip
    """Run the app without a terminal, and do something with it."""
    reader = None if answers is None else Reader(lambda _: cast("Feed", answers), screen.mode.interval)
    app = TopApp(screen, reader)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot, app)

    try:
        asyncio.run(run())
    finally:
        if reader is not None:
            reader.close()
    return app


def wanted(screen: Screen, width: int = 80, height: int = 24) -> str:
    """What the state of the screen says is to be shown."""
    return text_of(screen.lines(width, height))


class Slow(Answers):
    """What takes four intervals to look at."""

    def step(self, is_last: bool) -> Shown | str:
        """Give the next answer, later."""
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            pass
        return super().step(is_last)


@pytest.mark.parametrize(("kind", "interval", "times"), [(Slow, 0.1, 1), (Answers, 1.0, 0)])
def test_looks_that_take_longer_than_an_interval_are_said(kind: type[Answers], interval: float, times: int) -> None:
    """The limits have one line more, once."""
    screen = make_screen(busy_look())
    screen.set_interval(interval)
    seen: list[tuple[str, ...]] = []

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        deadline = time.monotonic() + 30.0
        while len(seen) < 2 and time.monotonic() < deadline:
            await pilot.pause(0.05)

    app_take = TopApp.take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TopApp, "take", lambda app, look: (seen.append(look.limits), app_take(app, look)))
        drive(screen, steps, kind(make_step()))
    assert [limits.count(LATE) for limits in seen[:2]] == [times, times]


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (132, 43), (300, 60)], ids=str)
def test_the_terminal_shows_the_screen(size: tuple[int, int]) -> None:
    """What arrives at the terminal is the screen, at every size."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        assert shown(app) == wanted(app.state, *size)
        assert "NO_SOCKET" in shown(app)

    drive(make_screen(busy_look()), steps, size=size)


def test_resize() -> None:
    """The screen fits the terminal again after every change of its size."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        for size in ((120, 40), (50, 12), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert shown(app) == wanted(app.state, *size)

    drive(make_screen(busy_look()), steps)


BEFORE: dict[str, tuple[str, ...]] = {
    "do('choose_view', 'reasons')": ("2",),
    "do('move', -1)": ("down", "down"),
    "do('turn_page', -1)": ("end",),
    "do('to_first')": ("end",),
    "do('scroll', -1)": ("right_curly_bracket",) * 3,
    "do('back')": ("question_mark",),
}
"""Keys to press first, where an action would change nothing at once."""
NOTHING_TO_SEE = ("repaint", "suspend_process", "leave")


@pytest.mark.parametrize(
    ("key", "action"), [(key, each.action) for each in KEYS for key in each.keys if each.action not in NOTHING_TO_SEE]
)
def test_every_key_changes_the_screen(key: str, action: str) -> None:
    """Each key that is on the help page does something that can be seen."""
    call_sites = {
        make_drop(reason="REASON_39", call_site=f"function_number_{call_site}+0x1"): Count(9, 1)
        for call_site in range(40)
    }

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        for first in BEFORE.get(action, ()):
            await pilot.press(first)
        await pilot.pause()
        before = shown(app)
        await pilot.press(key)
        await pilot.pause()
        assert shown(app) != before

    drive(make_screen(busy_look(), make_step(MANY | call_sites)), steps)


@pytest.mark.parametrize("key", [key for each in KEYS if each.action == "leave" for key in each.keys])
def test_keys_that_end(key: str) -> None:
    """q, F10 and Ctrl-C end with status 0."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press(key)

    app = drive(make_screen(busy_look()), steps)
    assert not app.is_running
    assert (app.return_code or 0) == 0


def test_ctrl_c_ends_while_something_is_typed() -> None:
    """Ctrl-C ends from the line at the bottom as well."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("slash", "ctrl+c")

    assert not drive(make_screen(busy_look()), steps).is_running


def test_views_by_number() -> None:
    """1 to 7 are the tables, Tab goes through them."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        views = ("reasons", "CPUs", "interfaces", "namespaces", "ledger", "flows", "processes")
        for key, view in zip("1234567", views, strict=True):
            await pilot.press(key)
            assert app.state.view == view
        await pilot.press("tab")
        assert app.state.view == "reasons"
        await pilot.press("shift+tab")
        assert app.state.view == "processes"

    drive(make_screen(busy_look()), steps)


def test_filter_works_while_it_is_typed() -> None:
    """Each letter filters; q is a letter there; Enter keeps the filter, Esc drops it."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("slash", "n", "o", "_", "s")
        await pilot.pause()
        assert "NO_SOCKET" in shown(app)
        assert "CPU_BACKLOG" not in shown(app)
        await pilot.press("q", "backspace", "enter")
        await pilot.pause()
        assert app.state.mode.search == "no_s"
        await pilot.press("slash", "escape")
        await pilot.pause()
        assert app.state.mode.search == ""
        assert "CPU_BACKLOG" in shown(app)

    drive(make_screen(busy_look()), steps)


@pytest.mark.parametrize("typed", ["0", "nan", "inf", "-3", "soon"])
def test_impossible_interval_is_refused(typed: str) -> None:
    """What is no interval is said to be none, and the old one stays."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("d", *("minus" if char == "-" else char for char in typed), "enter")
        await pilot.pause()
        assert app.state.mode.interval == 2.0
        assert "is no interval" in shown(app)

    drive(make_screen(busy_look()), steps)


def test_changed_interval_is_used_at_once() -> None:
    """A run that looked each hour looks at the new pace without waiting for that hour to pass."""
    answers = Answers(make_step({make_drop(): Count(5, 5)}))

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("d", "0", "full_stop", "1", "enter")
        for _ in range(100):
            await pilot.pause(0.05)
            if app.state.history.intervals >= 2:
                break
        assert app.state.history.intervals >= 2
        assert "every 0.1 s" in shown(app)

    drive(make_screen(interval=3600.0), steps, answers)


def test_save_asks_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """w and Enter save what is on the screen under a name with the time, as text and as JSON."""
    monkeypatch.chdir(tmp_path)
    screens = []

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        screens.append(shown(app))
        await pilot.press("w", "enter")
        await pilot.pause()
        assert "Saved pktdrop-top-" in shown(app)

    drive(make_screen(busy_look()), steps)
    (text,) = tmp_path.glob("pktdrop-top-*.txt")
    (data,) = tmp_path.glob("pktdrop-top-*.json")
    assert text.read_text() == screens[0]
    assert json.loads(data.read_text())["packets"] == 2519


def test_save_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written the reason stands at the bottom, and the view goes on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("mine")

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("w", "ctrl+u", "x", "full_stop", "t", "x", "t", "enter")
        await pilot.pause()
        assert "x.txt cannot be written: File exists." in shown(app)
        assert app.is_running

    drive(make_screen(busy_look()), steps)


def test_mouse() -> None:
    """A click on a row chooses it, one on a title sorts, one on a key presses it, the wheel moves."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        lines = shown(app).splitlines()
        row = next(y for y, line in enumerate(lines) if "CPU_BACKLOG" in line)
        await pilot.click(Canvas, offset=(20, row))
        assert shown(app).splitlines()[row].startswith(">")
        await pilot.click(Canvas, offset=(lines[5].index("total"), 5))
        assert " total↓ " in shown(app)
        await pilot.click(Canvas, offset=(lines[5].index("total"), 5))
        assert " total↑ " in shown(app)
        await pilot.click(Canvas, offset=(lines[-1].index("reasons"), 23))
        assert app.state.view == "CPUs"
        await pilot.click(Canvas, offset=(79, 23))
        assert app.state.view == "CPUs"

    drive(make_screen(busy_look()), steps)


def test_looks_are_taken_at_the_interval() -> None:
    """Each look is shown; advice is asked for once something was lost."""
    answers = Answers(make_step(), make_step({make_drop(): Count(5, 5)}))

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        for _ in range(200):
            await pilot.pause(0.02)
            if app.state.history.loss.packets >= 15 and answers.advised:
                break
        assert app.state.history.loss.packets >= 15
        assert app.state.history.loss.packets % 5 == 0
        assert "NO_SOCKET" in shown(app)

    drive(make_screen(interval=0.05), steps, answers)
    assert answers.advised > 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (PktdropError("The map is gone.", "Start anew."), "The map is gone."),
    ],
)
def test_what_cannot_be_read_is_no_end(error: Exception, said: str) -> None:
    """A look that fails for a reason outside is told in place of a Look."""

    class Broken:
        def step(self) -> None:
            raise error

    assert Feed(cast("Watch", Broken())).step(False) == said


def test_failing_look_is_said_and_tried_again() -> None:
    """A look that fails does not end the view; the next one that works clears the message."""
    answers = Answers(busy_look(), "gone", "gone", "gone", make_step())
    seen = []

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        for _ in range(300):
            await pilot.pause(0.02)
            seen.append(shown(app))
            if app.state.history.intervals >= 2:
                break
        assert "CANNOT READ" not in shown(app)
        assert "NO_SOCKET" in shown(app)

    drive(make_screen(interval=0.1), steps, answers)
    assert [text for text in seen if "CANNOT READ" in text and "NO_SOCKET" in text]


def test_a_bug_ends_with_status_1_and_what_python_says(capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody expected ends the view with the error, not with pages of variables."""

    async def steps(pilot: Pilot[None], app: TopApp) -> None:
        for _ in range(200):
            await pilot.pause(0.02)
            if not app.is_running:
                break

    with pytest.raises(Exception, match="nobody expected"):
        drive(make_screen(interval=0.1), steps, Answers(RuntimeError("nobody expected this")))
    assert "locals" not in capsys.readouterr().err


def test_little_is_sent_when_little_changes() -> None:
    """A refresh marks only what differs: one figure, not lines or the whole screen."""
    canvas = Canvas()
    regions = []
    canvas.refresh = lambda *dirty, **_: regions.extend(dirty) or canvas  # type: ignore[method-assign,func-returns-value,assignment]
    canvas.show([(("same line", ""),), (("packets 123 and more", ""),)])
    canvas.show([(("same line", ""),), (("packets 124 and more", ""),)])
    assert [(dirty.x, dirty.y, dirty.width, dirty.height) for dirty in regions] == [(10, 1, 1, 1)]
