# SPDX-License-Identifier: MIT
"""Lines of a screen: pieces of text, each with the name of a style."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from pktdrop.text.escaping import safe

Piece = tuple[str, str]
"""Text, and its style, one of STYLES."""
ScreenLine = tuple[Piece, ...]

STYLES: Final = ("", "strong", "title", "loss", "odd", "quiet", "cursor", "bar")
"""What a piece is: plain, a figure that matters, a title, lost packets, unexplained ones, what does not matter, the row
that is chosen, the bar of keys."""
EMPTY: Final[ScreenLine] = ()


def plain(line: ScreenLine) -> str:
    """Return the text alone."""
    return "".join(text for text, _ in line)


def fitted(line: Iterable[Piece], width: int) -> ScreenLine:
    """Return a line of exactly `width` characters: cut, or filled up in the style of its last piece."""
    pieces: list[Piece] = []
    room, style = width, ""
    for text, style in line:
        if room <= 0:
            break
        if text:
            pieces.append((text[:room], style))
            room -= len(text)
    if room > 0:
        pieces.append((" " * room, style if style in ("cursor", "title", "bar") else ""))
    return tuple(pieces)


def joined(parts: Iterable[ScreenLine], width: int, gap: str = "  ") -> ScreenLine:
    """Put parts side by side, as many as there is room for; the first ones matter most."""
    line: list[Piece] = []
    room = width
    for part in parts:
        needed = len(plain(part)) + (len(gap) if line else 0)
        if needed > room:
            continue
        line += [(gap, ""), *part] if line else part
        room -= needed
    return tuple(line)


def labelled(label: str, text: str, width: int, style: str = "") -> list[ScreenLine]:
    """Return a paragraph that stands beside its label."""
    indent = 8
    body = textwrap.wrap(safe(text), max(20, width - indent), break_on_hyphens=False) or ["-"]
    return [
        ((label.ljust(indent) if first else " " * indent, "title"), (part, style))
        for first, part in zip([True, *[False] * len(body)], body, strict=False)
    ]


def window(lines: Sequence[ScreenLine], start: int, height: int) -> list[ScreenLine]:
    """Return `height` lines from one on, with how many more there are in the last one."""
    start = max(0, min(start, len(lines) - height))
    shown = list(lines[start : start + height])
    left = len(lines) - start - height
    if left > 0 and shown:
        shown[-1] = ((f"        and {left + 1} more lines: Enter shows all, {{ and }} scroll", "quiet"),)
    return shown
