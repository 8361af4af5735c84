# SPDX-License-Identifier: MIT
"""What the kernel counts by, and had counted at the last reading."""

import struct
from array import array
from collections.abc import Callable, Container, Iterator, Sequence

from pktdrop.kernel.banks import Block
from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, RawKey, RawValue
from pktdrop.kernel.tally import DropTally, TallyRow
from pktdrop.model.drops import DropKey

_KEY = struct.Struct(f"={DROP_KEY.size}s")
_WORDS = DROP_VALUE.size // 8
_NOT_NUMBERED = -1

NameKinds = Callable[[Sequence[tuple[RawKey, RawValue]]], Sequence[DropKey]]
"""Names the kinds of new keys."""


class Sources:
    """Keys of one table of the kernel's; each has a kind, which others may have, too.

    As there are tens of thousands, each has a position in arrays, and blocks of keys that come again unchanged keep the
    list of theirs.
    """

    def __init__(self, name: NameKinds) -> None:
        """Take what names kinds."""
        self._name = name
        self._forget()

    def _forget(self) -> None:
        self._positions: dict[bytes, int] = {}
        self._kinds: list[DropKey] = []
        self._numbers = array("l")
        """Of the kinds in a tally."""
        self._numbered: object = None
        """By which these are numbered."""
        self._packets, self._octets = array("Q"), array("Q")
        self._blocks: list[tuple[Block, Sequence[int]]] = []
        """As they were at the last reading, with the positions of their keys: most are the same at the next."""

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._kinds)

    @property
    def packets(self) -> int:
        """How many packets the keys had at the last reading, in all."""
        return sum(self._packets)

    def kind(self, raw: bytes) -> DropKey | None:
        """Return the kind of a key, None if it is not known."""
        position = self._positions.get(raw)
        return None if position is None else self._kinds[position]

    def risen(self, blocks: Sequence[Block], tally: DropTally) -> Iterator[TallyRow]:
        """Yield by how much the kinds of `tally` rose since the last reading."""
        moved = self._moved(blocks)
        if self._numbered is not tally.kinds:
            self._numbered = tally.kinds
            self._numbers = array("l", [_NOT_NUMBERED]) * len(self._kinds)
        self._numbers.extend([_NOT_NUMBERED] * (len(self._kinds) - len(self._numbers)))
        numbers, packets, octets = self._numbers, self._packets, self._octets
        for block, positions in moved:
            words = memoryview(block.values).cast("Q")
            for position, now, now_octets in zip(
                positions, words[::_WORDS].tolist(), words[1::_WORDS].tolist(), strict=True
            ):
                more, more_octets = now - packets[position], now_octets - octets[position]
                if more or more_octets:
                    number = numbers[position]
                    if number < 0:
                        number = numbers[position] = tally.number(self._kinds[position])
                    yield number, more, more_octets
                    packets[position], octets[position] = now, now_octets

    def _moved(self, blocks: Sequence[Block]) -> list[tuple[Block, Sequence[int]]]:
        """Return the blocks that are not as they were at the last reading."""
        before, self._blocks = self._blocks, []
        moved = []
        for at, block in enumerate(blocks):
            was, positions = before[at] if at < len(before) else (None, ())
            if was is None or block.keys != was.keys:
                positions = self._positions_of(block)
            self._blocks.append((block, positions))
            if was is None or block != was:
                moved.append((block, positions))
        return moved

    def _positions_of(self, block: Block) -> Sequence[int]:
        keys = [raw for (raw,) in _KEY.iter_unpack(block.keys)]
        known = self._positions
        new = [at for at, raw in enumerate(keys) if raw not in known]
        if new:
            values = (DROP_VALUE.unpack_from(block.values, at * DROP_VALUE.size) for at in new)
            found = [(RawKey.decode(keys[at]), RawValue._make(value)) for at, value in zip(new, values, strict=True)]
            for at, kind in zip(new, self._name(found), strict=True):
                self._learn(keys[at], kind)
        return array("L", map(known.__getitem__, keys))

    def _learn(self, raw: bytes, kind: DropKey) -> None:
        self._positions[raw] = len(self._kinds)
        self._kinds.append(kind)
        self._packets.append(0)
        self._octets.append(0)

    def rename(self, renamed: Callable[[DropKey], DropKey], netns: Container[object] | None = None) -> None:
        """Let keys count for other kinds from now on: keys in these network namespaces only, or all if None."""
        for position, kind in enumerate(self._kinds):
            if netns is not None and kind.netns not in netns:
                continue  # a namespace has a name every second, and there are tens of thousands of kinds
            now = renamed(kind)
            if now is not kind:
                self._kinds[position] = now
                if position < len(self._numbers):
                    self._numbers[position] = _NOT_NUMBERED

    def begin_anew(self, blocks: Sequence[Block], forget: bool) -> None:
        """Count from zero, as the kernel does: it gave up all keys.

        Those that are not in `blocks`, its last counts, are forgotten, with `forget` all of them.
        """
        kinds, positions = self._kinds, self._positions
        live = bytearray(len(kinds))  # by position: a set of so many keys takes 8 MB for a moment
        for block in () if forget else blocks:
            for (raw,) in _KEY.iter_unpack(block.keys):
                live[positions[raw]] = True
        if all(live):
            self._packets, self._octets = (array("Q", bytes(8 * len(kinds))) for _ in range(2))
            self._blocks = []
            return
        self._forget()
        for raw, position in positions.items():
            if live[position]:
                self._learn(raw, kinds[position])
