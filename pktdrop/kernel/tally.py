# SPDX-License-Identifier: MIT
"""Counts from the beginning on, of as many kinds of drops as are kept apart."""

from array import array
from collections.abc import Iterable

from pktdrop.model.drops import DropKey
from pktdrop.model.snapshots import Drops, Kinds

KINDS = 65536
"""How many kinds of drops are kept apart; one in SPARE more may be there until those beyond are given up together."""
SPARE = 16

TallyRow = tuple[int, int, int]
"""The number of a kind, and how many packets and bytes more it has."""


class DropTally:
    """Adds up by how much kinds of drops rise.

    Kinds beyond those that are kept apart, those first that did not move for the longest time, go on as the kind of
    other places with the same reason and call site: no count is lost, see `Drops.since`.
    """

    def __init__(self, kinds: int = KINDS) -> None:
        """Take how many kinds are kept apart, not counting those of other places."""
        self._most = kinds
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.kinds = Kinds()
        """Those that are kept apart by now. Others in place of them where some were given up: numbers are new, then."""
        self._apart = 0
        self._round = 0
        self._packets, self._octets = array("Q"), array("Q")
        self._moved = array("L")
        """The round in which each moved last."""
        self._totals: Drops | None = None

    @property
    def totals(self) -> Drops:
        """All counts; the same object until something moves."""
        if self._totals is None:
            self._totals = Drops(self.kinds, range(len(self.kinds)), self._packets[:], self._octets[:])
        return self._totals

    def number(self, key: DropKey) -> int:
        """Return the number of a kind. It holds until kinds are given up: `kinds` is another object, then."""
        number = self.kinds.number(key)
        if number == len(self._packets):
            for column in (self._packets, self._octets, self._moved):
                column.append(0)
            self._apart += not key.other_places
            self._totals = None
        return number

    def add(self, rows: Iterable[TallyRow]) -> None:
        """Add what was counted since; rows may be made, and kinds numbered, meanwhile."""
        self._round += 1
        now, packets, octets, moved = self._round, self._packets, self._octets, self._moved
        for number, more_packets, more_octets in rows:
            self._totals = None
            packets[number] += more_packets
            octets[number] += more_octets
            moved[number] = now
        if self._apart > self._most + self._most // SPARE:
            self.keep(self._most)

    def keep(self, kinds: int) -> None:
        """Keep at most `kinds` of the present kinds apart; let the others go on as kinds of other places."""
        if self._apart <= kinds:
            return
        keys, counts, moved = self.kinds.keys, (self._packets, self._octets), self._moved
        apart = [number for number, key in enumerate(keys) if not key.other_places]
        apart.sort(key=moved.__getitem__)
        given_up = set(apart[: len(apart) - kinds])
        now = self._round
        self._begin_anew()
        self._round = now
        for old, key in enumerate(keys):
            number = self.number(key.of_other_places() if old in given_up else key)
            for column, was in zip((self._packets, self._octets), counts, strict=True):
                column[number] += was[old]
            self._moved[number] = moved[old]  # of other places it does not matter: they are never given up
