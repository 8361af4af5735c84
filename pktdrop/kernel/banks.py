# SPDX-License-Identifier: MIT
"""The kernel's counts, and how the kernel gives them up without losing one.

What the programs count by is in the map `drops` and in the table `hot_drops` in front of it. Both hold two banks, told
apart by a bit of the key; the programs add to the active one. As keys come and go with interfaces and namespaces, a
bank is given up now and then: the other one is made active, the old one read, added up in user space, and cleared.

Why no packet is lost or counted twice then:

- A run of a program reads `active_bank` of struct control once, and finds or makes only entries of that bank. The whole
  run is one RCU read-side critical section: __bpf_trace_run(), kernel/trace/bpf_trace.c.
- `active_bank` is changed first. Then an element of an array of maps is updated, for its side effect: the kernel
  returns from that after synchronize_rcu(), "so that userspace, when we return to it, knows that all programs that
  could be running use the new map value" (maybe_wait_bpf_programs(), kernel/bpf/syscall.c, since Linux 4.20). So every
  run that saw the old bank is over, and what it added can be read; every later one uses the new bank.
- So nobody holds a pointer into the old bank, adds to it, or looks for its keys, when it is read and then cleared. The
  elements of a preallocated map are used again at once, for keys of the new bank. A reader in a program that follows a
  chain onto such an element starts anew (the "nulls" at the end of a chain, kernel/bpf/hashtab.c); were a key missed
  even so, making it fails, as it is there, and it is looked up again.
"""

import mmap
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple

from pktdrop.kernel import sysbpf
from pktdrop.kernel.programs import Programs
from pktdrop.kernel.records import CONTROL, DROP_KEY, DROP_VALUE, HOT_DROP, HOT_DROPS

_ONE_BY_ONE = 512
"""With more keys in a map than that it is read in batches, which is faster, and has a price: see sysbpf.map_items."""
_SECTION = HOT_DROPS * HOT_DROP.size
# the bank is the lowest bit of a key's first byte: both machines that pktdrop knows have the lowest byte first
_BANK_BIT = bytes(byte & 1 for byte in range(256))
_WITHOUT_BANK = bytes(byte & ~1 for byte in range(256))


class Block(NamedTuple):
    """Keys without their bank, and the values of as many, each one behind the other."""

    keys: bytes
    values: bytes


class Banks:
    """Reads the tables of running programs, and gives them up."""

    def __init__(self, programs: Programs) -> None:
        """Map what can be read without a system call: in one on maps, the kernel may run no tracing program."""
        self._programs = programs
        self.bank = 0
        """The active one."""
        self._cpus = sysbpf.cpu_numbers()
        self.in_map = 0
        """Keys in the map at the last reading."""
        self.reads_in_batches = False
        """Whether the last reading took the map in batches, as there were so many keys."""
        with ExitStack() as undo:
            self._open = undo
            self._table = self._memory("hot_drops", HOT_DROP.size, 2 * HOT_DROPS * self._cpus)
            self._claims = self._memory("hot_claims", 8, 2 * self._cpus)
            self._uncounted = self._memory("uncounted", 8, self._cpus)
            self._control = self._memory("controls", CONTROL.size, 1)
            self._open = undo.pop_all()

    def close(self) -> None:
        """Let go of the tables mapped into memory."""
        self._open.close()

    def _memory(self, name: str, size: int, entries: int) -> mmap.mmap:
        return self._open.enter_context(sysbpf.map_memory(self._programs.map(name)[0], size, entries))

    def read(self) -> list[Block]:
        """Return the counts of the active bank."""
        found = [_of_bank(block, self.bank) for block in self._map("drops")]
        self.in_map = sum(len(keys) for keys, _ in found) // DROP_KEY.size
        self.reads_in_batches = self.reads_in_batches or self.in_map > _ONE_BY_ONE
        return [*map(_without_bank, found), *self._hot(self.bank)]

    def other_places(self) -> list[Block]:
        """Return the counts of what found no room in the map: by reason, call site, CPUs and protocol only."""
        return list(self._map("other_places"))

    @property
    def uncounted(self) -> int:
        """How many drops found no room anywhere."""
        return sum(memoryview(self._uncounted[: 8 * self._cpus]).cast("Q"))

    def give_up(self) -> list[Block]:
        """Let the programs count anew in the other bank, and return what they counted in this one."""
        old, self.bank = self.bank, 1 - self.bank
        self._control[:8] = self.bank.to_bytes(8, sys.byteorder)
        self._programs.wait()
        final = [_of_bank(block, old) for block in self._map("drops")]
        descriptor, definition = self._programs.map("drops")
        for keys, _ in final:
            sysbpf.map_delete(descriptor, keys, definition.key_size)
        found = [*map(_without_bank, final), *self._hot(old)]
        for section in self._sections(old):
            self._table[section * _SECTION : (section + 1) * _SECTION] = bytes(_SECTION)
            self._claims[section * 8 : section * 8 + 8] = bytes(8)
        self.in_map = 0
        return found

    def _map(self, name: str) -> list[Block]:
        """Read a whole map: key by key, until there prove to be many."""
        descriptor, definition = self._programs.map(name)
        sizes = definition.key_size, definition.value_size
        if self.in_map <= _ONE_BY_ONE:
            found = [*islice(sysbpf.map_items(descriptor, *sizes, at_once=False), _ONE_BY_ONE + 1)]
            if len(found) <= _ONE_BY_ONE:
                return [Block(*map(b"".join, zip(*found, strict=True)))] if found else []
        return [Block(*each) for each in sysbpf.map_items(descriptor, *sizes)]

    def _sections(self, bank: int) -> list[int]:
        """Return the numbers of the sections of a bank that have entries in use."""
        claims = memoryview(self._claims[: 16 * self._cpus]).cast("Q")
        return [section for section in range(bank, len(claims), 2) if claims[section]]

    def _hot(self, bank: int) -> Iterator[Block]:
        for section in self._sections(bank):
            table = self._table[section * _SECTION : (section + 1) * _SECTION]
            call_sites = memoryview(table).cast("Q")[:: HOT_DROP.size // 8].tolist()
            used = [
                HOT_DROP.unpack_from(table, at * HOT_DROP.size) for at, call_site in enumerate(call_sites) if call_site
            ]
            yield _without_bank(Block(b"".join(key for key, _ in used), b"".join(value for _, value in used)))


def _of_bank(block: Block, bank: int) -> Block:
    """Return the part of a block that one bank has."""
    banks = block.keys[:: DROP_KEY.size].translate(_BANK_BIT)
    if banks.count(bank) == len(banks):
        return block
    chosen = [at for at, each in enumerate(banks) if each == bank]
    return Block(_pick(block.keys, DROP_KEY.size, chosen), _pick(block.values, DROP_VALUE.size, chosen))


def _pick(items: bytes, size: int, chosen: list[int]) -> bytes:
    return b"".join(items[at * size : (at + 1) * size] for at in chosen)


def _without_bank(block: Block) -> Block:
    keys = bytearray(block.keys)
    keys[:: DROP_KEY.size] = keys[:: DROP_KEY.size].translate(_WITHOUT_BANK)
    return Block(bytes(keys), block.values)
