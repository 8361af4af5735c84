# SPDX-License-Identifier: MIT
"""The keys of the live view: one list behind the bindings, the help and the bar at the bottom."""

from collections.abc import Sequence
from typing import Final, NamedTuple


class Key(NamedTuple):
    """What one or several keys do."""

    keys: tuple[str, ...]
    """Names of the keys, as textual has them."""
    shown: str
    action: str
    """Method of the app, without its prefix; `do`: of the Screen, with what it takes."""
    help: str
    bar: str = ""
    """A word for the bar at the bottom; none: it is not there."""


KEYS: Final[Sequence[Key]] = (
    Key(("question_mark", "h", "f1"), "? h F1", "do('show_page', 'help')", "show or leave this page", "help"),
    Key(("q", "f10", "ctrl+c"), "q F10 Ctrl-C", "leave", "end", "quit"),
    Key(("1",), "1", "do('choose_view', 'reasons')", "reasons: what was dropped, and why", "reasons"),
    Key(("2",), "2", "do('choose_view', 'CPUs')", "CPUs: drops, backlog, softnet counters", "CPUs"),
    Key(
        ("3",),
        "3",
        "do('choose_view', 'interfaces')",
        "interfaces and queues: drops, what NICs lost by class",
        "interfaces",
    ),
    Key(("4",), "4", "do('choose_view', 'namespaces')", "network namespaces", "namespaces"),
    Key(("5",), "5", "do('choose_view', 'ledger')", "ledger: counters beside the drops that explain them", "ledger"),
    Key(("6",), "6", "do('choose_view', 'flows')", "flows: who talked to whom, by packets looked at", "flows"),
    Key(("7",), "7", "do('choose_view', 'processes')", "processes that they were for, or from", "processes"),
    Key(("tab",), "Tab", "do('turn', 1)", "the next of these tables"),
    Key(("shift+tab",), "Shift-Tab", "do('turn', -1)", "the one before"),
    Key(("slash", "backslash", "f3", "f4"), "/ \\ F3 F4", "search", "show only rows with these words", "filter"),
    Key(("space", "p", "Z"), "Space p Z", "do('freeze')", "hold the screen still; counting goes on", "freeze"),
    Key(("less_than_sign", "comma"), "< ,", "do('sort_beside', -1)", "sort by the column to the left"),
    Key(
        ("greater_than_sign", "full_stop", "f6"),
        "> . F6",
        "do('sort_beside', 1)",
        "sort by the column to the right",
        "sort",
    ),
    Key(("r", "R", "I"), "r R I", "do('reverse')", "sort the other way round"),
    Key(("enter",), "Enter", "do('enlarge')", "enlarge the detail of the row, or the table again", "detail"),
    Key(("n",), "n", "do('toggle_noise')", "hide or show frees that are no loss (*)", "noise"),
    Key(("d", "s"), "d s", "pace", "change the interval", "interval"),
    Key(("z",), "z", "do('reset')", "count from zero", "zero"),
    Key(("w", "S"), "w S", "save", "save what is on the screen: name.txt, name.json, or both", "save"),
    Key(("L",), "L", "do('show_page', 'limits')", "what this run cannot know, in full"),
    Key(("up", "k"), "Up k", "do('move', -1)", "the row above"),
    Key(("down", "j"), "Down j", "do('move', 1)", "the row below"),
    Key(("pageup", "ctrl+b"), "PgUp", "do('turn_page', -1)", "a screen up"),
    Key(("pagedown", "ctrl+f"), "PgDn", "do('turn_page', 1)", "a screen down"),
    Key(("home", "g"), "Home g", "do('to_first')", "the first row, whichever it is from now on"),
    Key(("end", "G"), "End G", "do('to_last')", "the last row"),
    Key(("left_curly_bracket",), "{", "do('scroll', -1)", "scroll the detail up"),
    Key(("right_curly_bracket",), "}", "do('scroll', 1)", "scroll the detail down"),
    Key(("escape",), "Esc", "do('back')", "leave a page, drop the filter"),
    Key(("ctrl+l",), "Ctrl-L", "repaint", "paint the screen anew"),
    Key(("ctrl+z",), "Ctrl-Z", "suspend_process", "to the shell; fg comes back"),
)
