# SPDX-License-Identifier: MIT
"""The upper lines of the screen: the run as a whole, and the stations that a packet passes."""

import time
from dataclasses import dataclass
from typing import Final

from pktdrop.rules.layers import LAYERS
from pktdrop.text.escaping import safe
from pktdrop.text.table import DOUBT, MARK, cut
from pktdrop.text.wording import number
from pktdrop.top.history import History
from pktdrop.top.keys import KEYS
from pktdrop.top.lines import Piece, ScreenLine, joined
from pktdrop.top.series import sparkline

LEAST_STATION: Final = 10
MOST_STATION: Final = 24


@dataclass(frozen=True)
class Run:
    """What stays the same as long as top runs."""

    host: str
    kernel: str
    rungs: str
    """By which rungs the probes are attached: "tp_btf fentry"."""


@dataclass(frozen=True)
class Mode:
    """What the user has set, as far as the header says it."""

    interval: float
    frozen: bool = False
    search: str = ""
    noise: bool = True
    limits: int = 0
    trouble: str = ""
    """Why the last look failed; empty if it did not."""


def header(history: History, run: Run, mode: Mode, width: int) -> list[ScreenLine]:
    """Return two lines: host and time; what was lost, and what pktdrop itself could not count or explain."""
    clock = time.strftime("%H:%M:%S", time.localtime(history.end)) if history.end is not None else "--:--:--"
    first = joined(
        (
            (("pktdrop top", "strong"),),
            ((clock, ""),),
            ((safe(run.host), "strong"),),
            ((duration(history.elapsed), ""), (" elapsed", "title")),
            (("every ", "title"), (f"{mode.interval:g} s", "")),
            (("Linux ", "title"), (safe(run.kernel), "")),
            ((run.rungs, ""),),
            *([(("zero at ", "title"), (duration(history.since), ""))] if history.since else []),
        ),
        width,
    )
    return [first, joined(_figures(history, mode, width), width)]


def _figures(history: History, mode: Mode, width: int) -> list[ScreenLine]:
    rate, lost = history.loss.rate(history.elapsed), history.uncounted.missed
    state: list[ScreenLine] = []
    if mode.trouble:
        state.append(((cut(f"CANNOT READ: {safe(mode.trouble)}", max(20, width // 2)), "loss"),))
    if mode.frozen:
        state.append((("FROZEN", "odd"),))
    if mode.search:
        state.append((("rows with ", "title"), (safe(mode.search), "odd")))
    return [
        (("lost ", "title"), (number(history.loss.packets), "loss" if rate else "strong")),
        (("", ""), (f"{'!' if rate else ''}{number(rate) if rate else 0}/s", "loss" if rate else "")),
        *state,
        _figure("not counted", lost, "loss"),
        _figure("unexplained", history.unexplained, "odd", "?"),
        *([_figure(f"doubt{DOUBT}", history.doubt, "")] if history.doubt else []),
        *([_figure(f"noise{MARK}", history.noise, "")] if mode.noise else [(("noise hidden", "title"),)]),
        *([_figure("limits (L)", mode.limits, "odd")] if mode.limits else []),
        *([_figure("filtered", history.filtered, "")] if history.filtered else []),
    ]


def _figure(label: str, value: int, style: str, mark: str = "!") -> ScreenLine:
    return ((f"{label} ", "title"), (f"{mark if value and style else ''}{number(value)}", style if value else ""))


def duration(seconds: float) -> str:
    """Write hours, minutes and seconds: "0:01:30"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def stations(history: History, marks: str, width: int) -> list[ScreenLine]:
    """Return three lines: each station, what it loses per second, and how that went.

    "!" is a station that loses now, "." one that has lost. Those that lost go first where there is no room for all.
    """
    room = max(LEAST_STATION, min(MOST_STATION, width // len(LAYERS)))
    fit = max(1, width // room)
    first = sorted(LAYERS, key=lambda layer: layer not in history.layers)[:fit]
    shown = [layer for layer in LAYERS if layer in first]
    return [tuple(_station(history, layer, row, room, marks) for layer in shown) for row in range(3)]


def _station(history: History, layer: str, row: int, room: int, marks: str) -> Piece:
    tally = history.layers.get(layer)
    rate = tally.rate(history.elapsed) if tally else 0.0
    style = "loss" if rate else "title" if row == 0 else "" if tally else "quiet"
    if row == 0:
        mark = "!" if rate else "." if tally else " "
        text = mark + cut(layer, room - 2)
    elif row == 1:
        text = " " + cut(f"{short(rate)}/s" if tally else "-", room - 2)
    else:
        text = " " + (sparkline(tally.series.cells(history.elapsed, room - 2, history.since), marks) if tally else "")
    return text.ljust(room), style


def short(rate: float) -> str:
    """Write a rate in at most five characters: "9.5", "12k", "1.2M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= size * (10 if unit == "k" else 1) * 0.9995:
            value = rate / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return number(rate) if rate else "0"


def footer(view: str, message: str, width: int) -> tuple[ScreenLine, list[tuple[int, int, str]]]:
    """Return the bar of keys, and where each one is: first and last column, and what it does. A message hides them.

    Where there is no room for all, those of the tables are one, with the name of that which is shown.
    """
    if message:
        return ((safe(message), "bar"),), []
    keys = [(key.shown.split()[0], key.bar, key.action, key.bar == view) for key in KEYS if key.bar]
    if sum(len(f"{key} {word}  ") for key, word, *_ in keys) - 2 > width:
        tables = [at for at, (_, _, action, _) in enumerate(keys) if "choose_view" in action]
        keys[tables[0] : tables[-1] + 1] = [(f"1-{len(tables)}", view, "do('turn', 1)", True)]
    pieces: list[Piece] = []
    spots: list[tuple[int, int, str]] = []
    column = 0
    for key, word, action, is_shown in keys:
        if column + len(f"{key} {word}") > width:
            break
        pieces += [(key, "strong"), (f" {word}", "strong" if is_shown else "title"), ("  ", "")]
        spots.append((column, column + len(f"{key} {word}") - 1, action))
        column += len(f"{key} {word}  ")
    return tuple(pieces), spots
