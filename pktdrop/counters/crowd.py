# SPDX-License-Identifier: MIT
"""Which of very many sockets are told apart: any user may open a hundred thousand, and have packets sent to all."""

from collections.abc import Callable
from typing import Final

MOST: Final = 8192
"""Sockets of a namespace that are told apart, of those that dropped packets."""
Admits = Callable[[bytes], bool]
"""Takes what identifies a socket that dropped packets; tells whether it is told apart."""


def any_socket(_: bytes) -> bool:
    """Admit whatever there is."""
    return True


class Crowd:
    """The sockets of one namespace that dropped packets, by what identifies each: the first ones are told apart.

    One that was left out stays so as long as it is there, as what it dropped before is not known: it would be counted
    as dropped now.
    """

    def __init__(self) -> None:
        """Start without any."""
        self._told: set[bytes] = set()
        self._left_out: set[bytes] = set()
        self._told_now: set[bytes] = set()
        self._left_out_now: set[bytes] = set()
        self._room = MOST

    def admits(self, identity: bytes) -> bool:
        """Tell whether a socket is told apart."""
        if identity in self._told:
            self._told_now.add(identity)
            return True
        if identity not in self._told_now:
            if identity in self._left_out or not self._room:
                self._left_out_now.add(identity)
                return False
            self._room -= 1
            self._told_now.add(identity)
        return True

    def end(self, is_whole: bool) -> int:
        """Forget the sockets that were not asked for in this reading, if it was whole; return how many are left out."""
        self._told = self._told_now if is_whole else self._told | self._told_now
        self._left_out = self._left_out_now if is_whole else self._left_out | self._left_out_now
        self._told_now, self._left_out_now = set(), set()
        self._room = max(0, MOST - len(self._told))
        return len(self._left_out)
