# SPDX-License-Identifier: MIT
"""Text that others chose, made harmless for a terminal and for programs."""

import json
import re
from typing import Any

_BYTES = range(0xDC80, 0xDD00)
"""What os.fsdecode() makes of bytes that are no UTF-8: names of interfaces, files and arguments have those."""
_ESCAPES = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|u....|.)")
_encode = json.JSONEncoder(separators=(",", ":")).encode


def safe(text: str) -> str:
    """Escape what would move the cursor or hide text: names of interfaces and processes come from anybody."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return f"\\x{ord(char) - 0xDC00:x}" if ord(char) in _BYTES else char.encode("unicode_escape").decode()


def json_text(value: Any) -> str:
    r"""Return a value as JSON that any parser takes: a byte that is no UTF-8, and so no character, is written \xff."""
    text = _encode(value)
    return _ESCAPES.sub(_without_surrogate, text) if r"\udc" in text else text


def json_line(value: Any) -> str:
    """Return a value as a line of JSON."""
    return json_text(value) + "\n"


def _without_surrogate(escape: re.Match[str]) -> str:
    is_single = escape[0].startswith(r"\u") and len(escape[0]) == len(r"\udcff")
    return rf"\\x{escape[0][-2:]}" if is_single and int(escape[0][2:], 16) in _BYTES else escape[0]
