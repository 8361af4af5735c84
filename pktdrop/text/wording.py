# SPDX-License-Identifier: MIT
"""Numbers and lists in words, the same in every sentence and table."""

from collections.abc import Sequence
from typing import Final

#: So many names are listed, of more there is the number.
_LISTED: Final = 3


def number(value: float) -> str:
    """Write a count with separators, and a rate below ten with one digit behind the point."""
    if isinstance(value, int) or value >= 10:
        return f"{round(value):,}"
    return "<0.1" if 0 < value < 0.1 else f"{value:.1f}"


def counted(count: int, what: str) -> str:
    """Write "1 packet", "2,000 packets"."""
    return f"{number(count)} {what}{'s' * (count != 1)}"


def share(part: int, whole: int) -> str:
    """Write a share in percent; never "0 %" for something, never "100 %" for less than all."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<1 %"
    if 99 < percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def listed(items: Sequence[str]) -> str:
    """Join items as a sentence does; of many only the first ones and how many more."""
    if len(items) > _LISTED + 1:
        return f"{', '.join(items[:_LISTED])} and {number(len(items) - _LISTED)} more"
    return " and ".join([part for part in (", ".join(items[:-1]), items[-1]) if part]) if items else ""
