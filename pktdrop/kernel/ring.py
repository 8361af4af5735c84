# SPDX-License-Identifier: MIT
"""Samples out of the kernel: the ring buffer they come in, and the budget that says how many may.

The ring is laid out as Documentation/bpf/ringbuf.rst says: a page with how far it was read, one with how far it was
written, then the data twice, one behind the other, so that no record is in two pieces.
"""

import mmap
import struct
from collections.abc import Callable
from contextlib import ExitStack

from pktdrop.kernel import sysbpf
from pktdrop.kernel.programs import Programs
from pktdrop.kernel.records import CONTROL, SAMPLE, SAMPLE_BYTES, SAMPLE_CPU, SAMPLE_RING, STACK_FRAMES, RawSample

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")  # struct bpf_ringbuf_hdr: length, offset in pages
_BUSY, _DISCARD = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
_LIMITS = struct.Struct("=IIIII4x")
_ROUND = 1 << 32
MOST = SAMPLE_RING // (_HEADER.size + SAMPLE.size + SAMPLE_BYTES)
"""Samples that the ring has room for."""
WITH_STACKS = SAMPLE_RING // (_HEADER.size + SAMPLE.size + SAMPLE_BYTES + 8 * STACK_FRAMES)
"""Samples with a stack that the ring has room for."""
LEAST = 16
"""Samples of each CPU between two looks, however many CPUs share the ring: they do not all drop at once."""


class Ring:
    """Reads the samples of running programs, and lets them take more."""

    def __init__(self, programs: Programs, budget: int, stacks: bool = False) -> None:
        """Map the ring. `budget` is how many packets of each kind and CPU may be taken between two looks."""
        self._cpus = sysbpf.cpu_numbers()
        self._budget = budget
        self._limit = self._limit_of_cpu = 0
        self._of_cpu = max(LEAST, (WITH_STACKS if stacks else MOST) // self._cpus)
        page, ring = mmap.PAGESIZE, programs.map("sample_ring")[0]
        with ExitStack() as undo:
            self._read = undo.enter_context(mmap.mmap(ring, page, flags=mmap.MAP_SHARED))
            self._data = undo.enter_context(
                mmap.mmap(ring, page + 2 * SAMPLE_RING, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=page)
            )
            self._state = undo.enter_context(
                sysbpf.map_memory(programs.map("sample_cpus")[0], SAMPLE_CPU.size, self._cpus)
            )
            self._control = undo.enter_context(sysbpf.map_memory(programs.map("controls")[0], CONTROL.size, 1))
            self._open = undo.pop_all()
        self.allow()

    def close(self) -> None:
        """Let go of the memory."""
        self._open.close()

    def allow(self) -> None:
        """Let each kind and CPU begin anew with its budget."""
        floor, floor_of_cpu = self._limit, self._limit_of_cpu
        self._limit = (floor + self._budget) % _ROUND
        self._limit_of_cpu = (floor_of_cpu + self._of_cpu) % _ROUND
        scarce = (floor_of_cpu + self._of_cpu // 2) % _ROUND
        limits = _LIMITS.pack(floor, self._limit, floor_of_cpu, self._limit_of_cpu, scarce)
        self._control[8 : CONTROL.size] = limits

    def read(self, take: Callable[[RawSample], None]) -> None:
        """Hand on all samples that are complete, and make room in the ring for others."""
        page, data = mmap.PAGESIZE, self._data
        (at,) = _POSITION.unpack_from(self._read)
        (end,) = _POSITION.unpack_from(data)
        while at < end:
            start = page + at % SAMPLE_RING
            length, _ = _HEADER.unpack_from(data, start)
            if length & _BUSY:
                break
            size = length & ~_DISCARD
            start += _HEADER.size
            if not length & _DISCARD:
                take(RawSample.decode(data[start : start + size]))
            at += _HEADER.size + size + -size % 8
        self._read[: _POSITION.size] = _POSITION.pack(at)

    @property
    def refused(self) -> tuple[int, int]:
        """How many packets were not taken whose kind had a budget: as their CPU had none, or the ring no room."""
        rows = [*SAMPLE_CPU.iter_unpack(self._state[: self._cpus * SAMPLE_CPU.size])]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)
