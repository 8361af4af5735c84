# SPDX-License-Identifier: MIT
"""Text that others chose, made harmless for a terminal."""


def safe(text: str) -> str:
    """Escape what would move the cursor or hide text: names of interfaces and processes come from anybody."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
