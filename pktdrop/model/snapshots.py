# SPDX-License-Identifier: MIT
"""Counts of tens of thousands of kinds of drops: Snapshots of them, and the Intervals between two.

Kinds have numbers, and counts are arrays: a Count of its own for each of 65,536 kinds takes 10 MB, and looking one up
by its kind some 0.5 us, several times in each look.
"""

from array import array
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from itertools import compress
from operator import ne, sub
from typing import Final

from pktdrop.model.drops import Count, DropKey, Uncounted, counted_since

_CHUNK: Final = 512
"""Kinds that are compared at once, as most stand still."""


class Kinds:
    """Kinds of drops by number. There are only ever more: where some are given up, the others get new numbers."""

    __slots__ = ("_numbers", "keys")

    def __init__(self) -> None:
        """Start without any kind."""
        self.keys: Final[list[DropKey]] = []
        """By number."""
        self._numbers: dict[DropKey, int] = {}

    def __len__(self) -> int:
        """Return how many kinds there are."""
        return len(self.keys)

    def number(self, key: DropKey) -> int:
        """Return the number of a kind, which is the next one if it is new."""
        number = self._numbers.setdefault(key, len(self.keys))
        if number == len(self.keys):
            self.keys.append(key)
        return number

    def find(self, key: object) -> int | None:
        """Return the number of a kind; None: the kind has none."""
        return self._numbers.get(key)  # type: ignore[call-overload, no-any-return]


class Drops(Mapping[DropKey, Count]):
    """The counts of kinds of drops; never changes."""

    __slots__ = ("kinds", "numbers", "octets", "packets")

    def __init__(self, kinds: Kinds, numbers: Sequence[int], packets: "array[int]", octets: "array[int]") -> None:
        """Take numbers of kinds, in order, and of each packets and bytes."""
        self.kinds = kinds
        self.numbers = numbers
        self.packets = packets
        self.octets = octets

    @classmethod
    def of(cls, counts: Mapping[DropKey, Count]) -> "Drops":
        """Return the counts of any mapping as Drops; Drops are returned as they are."""
        if isinstance(counts, Drops):
            return counts
        kinds = Kinds()
        for key in counts:
            kinds.number(key)
        packets, octets = (array("Q", [count[part] for count in counts.values()]) for part in (0, 1))
        return cls(kinds, range(len(kinds)), packets, octets)

    def __len__(self) -> int:
        """Return how many kinds."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[DropKey]:
        """Yield the kinds."""
        return map(self.kinds.keys.__getitem__, self.numbers)

    def __getitem__(self, key: DropKey) -> Count:
        """Return the count of a kind."""
        at = self._at(key)
        if at is None:
            raise KeyError(key)
        return Count(self.packets[at], self.octets[at])

    def __contains__(self, key: object) -> bool:
        """Tell whether a kind is here."""
        return self._at(key) is not None

    def __repr__(self) -> str:
        """Return it as a dictionary is shown."""
        return repr(dict(self.items()))

    def items(self) -> ItemsView[DropKey, Count]:
        """Return kinds and counts."""
        return _Items(self)

    def values(self) -> ValuesView[Count]:
        """Return the counts."""
        return _Values(self)

    def most_first(self) -> Iterator[tuple[DropKey, Count]]:
        """Yield kinds and counts, those of most packets first."""
        keys = self.kinds.keys
        for at in sorted(range(len(self.numbers)), key=self.packets.__getitem__, reverse=True):
            yield keys[self.numbers[at]], Count(self.packets[at], self.octets[at])

    def those(self, chosen: Iterable[object]) -> "Drops":
        """Return the drops of some of these kinds: `chosen` says of each whether it is one of them."""
        at = array("L", compress(range(len(self.numbers)), chosen))
        if len(at) == len(self.numbers):
            return self
        parts = (array(kind, map(of.__getitem__, at)) for kind, of in zip("IQQ", self._columns, strict=True))
        return Drops(self.kinds, *parts)

    def since(self, before: "Drops") -> "Drops":
        """Return the drops since `before`, which are earlier counts of the same run.

        A kind that is not there any more goes on in that of other places, with all that it ever counted: what it had
        before is subtracted there, so that the sum is exact. Where there is no such kind it counted nothing since.
        """
        if before.kinds is not self.kinds:
            before = before._among(self)
        found = array("I"), array("Q"), array("Q")
        if before is not self:
            for begin in range(0, len(self), _CHUNK):
                _rise(self, before, begin, min(begin + _CHUNK, len(self)), found)
        return Drops(self.kinds, *found)

    def moved_since(self, before: "Drops") -> Iterator[DropKey]:
        """Yield the kinds that since() returns, which takes three times as long."""
        whole = range(len(before)), range(len(self))
        if before.kinds is not self.kinds or (before.numbers, self.numbers) != whole:
            yield from self.since(before)
            return
        keys, stay = self.kinds.keys, len(before)
        for begin in range(0, stay if before is not self else 0, _CHUNK):
            end = min(begin + _CHUNK, stay)
            now, was = self.packets[begin:end], before.packets[begin:end]
            if now != was:
                yield from compress(keys[begin:end], map(ne, now, was))
        yield from compress(keys[stay : len(self)], self.packets[stay:])

    def _among(self, later: "Drops") -> "Drops":
        """Return these counts with the kinds numbered as in `later`."""
        numbers, size = later.kinds.find, len(later)
        packets, octets = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        gone: list[tuple[DropKey, Count]] = []
        for key, count in self.items():
            number = numbers(key)
            if number is None or number >= size:
                gone.append((key, count))
                continue
            if later.packets[number] < count.packets or later.octets[number] < count.bytes:
                gone.append((key, count))  # and began anew
                continue
            packets[number], octets[number] = count
        for key, count in gone:
            number = numbers(key.of_other_places())
            if number is None or number >= size:
                continue
            sums = packets[number] + count.packets, octets[number] + count.bytes
            if sums[0] <= later.packets[number] and sums[1] <= later.octets[number]:
                packets[number], octets[number] = sums
        return Drops(later.kinds, range(size), packets, octets)

    def _at(self, key: object) -> int | None:
        number = self.kinds.find(key)
        if number is None:
            return None
        at = bisect_left(self.numbers, number)
        return at if at < len(self.numbers) and self.numbers[at] == number else None

    @property
    def _columns(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        return self.numbers, self.packets, self.octets


class _Items(ItemsView[DropKey, Count]):
    def __init__(self, drops: Drops) -> None:
        super().__init__(drops)
        self._drops = drops

    def __iter__(self) -> Iterator[tuple[DropKey, Count]]:
        return zip(self._drops, map(Count, self._drops.packets, self._drops.octets), strict=True)


class _Values(ValuesView[Count]):
    def __init__(self, drops: Drops) -> None:
        super().__init__(drops)
        self._drops = drops

    def __iter__(self) -> Iterator[Count]:
        return map(Count, self._drops.packets, self._drops.octets)


def _rise(
    now: Drops, before: Drops, begin: int, end: int, found: tuple["array[int]", "array[int]", "array[int]"]
) -> None:
    """Append numbers, packets and bytes of those kinds that moved."""
    packets, octets = now.packets[begin:end], now.octets[begin:end]
    packets_before, octets_before = before.packets[begin:end], before.octets[begin:end]
    if packets == packets_before and octets == octets_before:
        return
    missing = bytes(8 * (end - begin - len(packets_before)))  # kinds that are new
    packets_before.frombytes(missing)
    octets_before.frombytes(missing)
    risen = list(map(sub, packets, packets_before)), list(map(sub, octets, octets_before))
    moved = [*map(any, zip(*risen, strict=True))] if 0 in risen[0] else None
    for column, values in zip(found, (range(begin, end), *risen), strict=True):
        column.extend(values if moved is None else compress(values, moved))


@dataclass(frozen=True)
class Snapshot:
    """Everything read at one moment; all counts are cumulative."""

    time: float
    """Wall clock, seconds since the epoch."""
    monotonic: float
    """CLOCK_MONOTONIC, seconds."""
    drops: Mapping[DropKey, Count]
    uncounted: Uncounted


@dataclass(frozen=True)
class Interval:
    """What happened between two Snapshots."""

    start: float
    end: float
    seconds: float
    """Length by the monotonic clock, so that a step of the wall clock changes no rate."""
    drops: Mapping[DropKey, Count]
    uncounted: Uncounted


def interval(before: Snapshot, after: Snapshot) -> Interval:
    """Subtract two Snapshots. Kinds that did not move are left out; see Drops.since()."""
    return Interval(
        start=before.time,
        end=after.time,
        seconds=after.monotonic - before.monotonic,
        drops=Drops.of(after.drops).since(Drops.of(before.drops)),
        uncounted=Uncounted(
            *(counted_since(was, now) for was, now in zip(before.uncounted, after.uncounted, strict=True))
        ),
    )
