# SPDX-License-Identifier: MIT
"""Counts from the beginning on, of as many kinds of drops as are kept apart."""

from collections.abc import Iterable, Mapping

from pktdrop.model import Count, DropKey

KINDS = 65536
"""How many kinds of drops are kept apart."""

Row = tuple[DropKey, int, int]
"""A kind, and how many packets and bytes more it has."""


class Tally:
    """Adds up by how much kinds of drops rise.

    Kinds beyond those that are kept apart, those first that did not move for the longest time, go on as the kind of
    other places with the same reason and call site: no count is lost, see `model.interval`.
    """

    def __init__(self, kinds: int = KINDS) -> None:
        """Take how many kinds are kept apart, not counting those of other places."""
        self._kinds = kinds
        self._totals: dict[DropKey, Count] = {}
        """The one that moved last comes last."""

    @property
    def totals(self) -> Mapping[DropKey, Count]:
        """All counts; never changed, so that it can be kept, and the same object until something moves."""
        return self._totals

    def add(self, rows: Iterable[Row]) -> None:
        """Add what was counted since. The Count of a kind that did not move stays the same object."""
        totals: dict[DropKey, Count] | None = None
        for key, packets, octets in rows:
            if totals is None:
                totals = self._totals.copy()
            was = totals.pop(key, None)
            totals[key] = Count(packets, octets) if was is None else Count(was[0] + packets, was[1] + octets)
        if totals is not None:
            self._fold(totals, self._kinds)

    def keep(self, kinds: int) -> None:
        """Keep only so many kinds apart, of those that there are now."""
        self._fold(self._totals.copy(), kinds)

    def _fold(self, totals: dict[DropKey, Count], kinds: int) -> None:
        self._totals = totals
        if len(totals) <= kinds:
            return
        apart = [key for key in totals if not key.other_places]
        for key in apart[: max(len(apart) - kinds, 0)]:
            other = key.of_other_places()
            totals[other] = totals.pop(other, Count(0, 0)).plus(totals.pop(key))
