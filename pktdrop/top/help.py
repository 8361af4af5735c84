# SPDX-License-Identifier: MIT
"""The page that explains keys and marks."""

from pktdrop.text.table import cut
from pktdrop.top.keys import KEYS
from pktdrop.top.lines import EMPTY, ScreenLine


def help_page(width: int) -> list[ScreenLine]:
    """Return the keys and what they do, and the marks."""
    lines: list[ScreenLine] = [(("Keys", "strong"),)]
    lines += [((f"  {key.shown:<14}", "strong"), (key.help, "")) for key in KEYS]
    marks = (
        ("!", "loses packets now, or counted something that is missing"),
        (".", "a station that has lost packets, not now"),
        ("*", "frees that are no loss"),
        ("?", "counters that nothing explains, or packets that may be no loss"),
        ("4 of 12,300", "packets looked at, of those dropped in the same looks that may be alike"),
        ("0>3", "CPU 0 had them, the backlog of CPU 3 was full"),
        ("..", "cut: there was no room"),
    )
    lines += [EMPTY, (("Marks, the same that colour says", "strong"),)]
    lines += [((f"  {mark:<14}", "strong"), (text, "")) for mark, text in marks]
    lines += [EMPTY, (("The mouse chooses rows, sorts by titles, and presses the keys at the bottom.", ""),)]
    return [tuple((cut(text, width), style) for text, style in line) for line in lines]
