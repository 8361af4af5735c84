# SPDX-License-Identifier: MIT
"""From a program of the classic BPF machine to one of the kernel's, which reads a packet that was dropped.

The result is a function for programs of bpf/drops.c to call, see bpf/filter.h: it takes the address of a struct frame
on the stack of its caller, and the address that the packet's bytes count from; and returns 1 for a match, else 0. It
says what pcap_offline_filter(3) says, instruction by instruction; a load beyond the packet's end ends it without a
match.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pktdrop.kernel import readers
from pktdrop.kernel.pcap import Instruction

# offsets in struct frame
_LENGTH, _CAPTURED, _FIRST = 40, 44, 52
LINK: Final = 40
"""How many bytes of the frame are in struct frame itself."""

# registers: results and arguments of calls, then what calls leave alone, then the stack
_R0, _R1, _R2, _R3, _R4, _R5 = range(6)
_A, _X, _BYTES, _FRAME, _STACK = 6, 7, 8, 9, 10
_MEMORY_WORDS = 16
_READ = -4 * _MEMORY_WORDS - 8
"""Where on the stack bpf_probe_read_kernel() reads to, below the memory of the machine."""

# the kernel's instructions, include/uapi/linux/bpf.h; those of the classic machine have the same numbers
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_JMP32, _ALU64 = 6, 7
_X_SOURCE = 0x08
_ADD, _SUB, _DIV, _OR, _AND, _LSH, _RSH, _NEG, _MOD, _MOV, _END = (
    0x00, 0x10, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xB0, 0xD0,
)  # fmt: skip
_JA, _JEQ, _JGT, _JGE, _JSET, _JNE, _JLT, _JLE = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0xA0, 0xB0
_OPPOSITE = {_JEQ: _JNE, _JGT: _JLE, _JGE: _JLT}
_MEM, _DW = 0x60, 0x18
_IMM, _ABS, _IND, _MEMORY, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0  # modes of the classic machine
_SIZES: Final[Mapping[int, int]] = {0x00: 4, 0x08: 2, 0x10: 1}
_CALL, _EXIT = 0x85, 0x95
_PROBE_READ_KERNEL, _KFUNC = 113, 2
_RETURN_A = 0x10
_TXA = 0x80
_INSTRUCTION = struct.Struct("=BBhi")
_REJECT = "reject"
_LARGEST_JUMP = (1 << 15) - 1
_FAR = 1 << 30
"""No packet has bytes from here on."""

_Label = object


class _Assembly:
    """Instructions of the kernel's, with jumps to labels that are placed later."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int | _Label, int]] = []
        self._jumps: dict[int, _Label] = {}
        self._places: dict[_Label, int] = {}

    def put(self, code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> None:
        self._rows.append((code, to, source, offset, number))

    def jump(self, code: int, label: _Label, to: int = 0, source: int = 0, number: int = 0) -> None:
        self._jumps[len(self._rows)] = label
        self.put(code, to, source, 0, number)

    def place(self, label: _Label) -> None:
        self._places[label] = len(self._rows)

    def is_wanted(self, label: _Label) -> bool:
        return label in self._jumps.values()

    def code(self) -> bytes:
        """Return the whole. Raises ValueError where a jump is too long for the kernel's instructions."""
        found = bytearray()
        for at, (code, to, source, offset, number) in enumerate(self._rows):
            if at in self._jumps:
                offset = self._places[self._jumps[at]] - at - 1
                if offset > _LARGEST_JUMP:
                    raise ValueError("the program is too long")
            signed = (number & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
            found += _INSTRUCTION.pack(code, source << 4 | to, offset, signed)
        return bytes(found)


class ByteReader:
    """How the function reads bytes of a packet: as the samples are, see `readers`."""

    def __init__(self, way: str, cast_type: int = 0, cast_function: int = 0) -> None:
        """Take one of readers.ORDER, and what the way "cast" calls by BTF ids."""
        self.way = way
        self._cast_type = cast_type
        self._cast_function = cast_function

    def read(self, code: _Assembly, size: int) -> None:
        """Load from the address in R1 to A, in the order of this machine."""
        if self.way == readers.PROBE:
            code.put(_ALU64 | _MOV | _X_SOURCE, _R3, _R1)
            code.put(_ALU64 | _MOV | _X_SOURCE, _R1, _STACK)
            code.put(_ALU64 | _ADD, _R1, number=_READ)
            code.put(_ALU64 | _MOV, _R2, number=size)
            code.put(_CALL, number=_PROBE_READ_KERNEL)
            code.put(_load(size), _A, _STACK, _READ)
            return
        if self.way == readers.CAST:
            code.put(_ALU64 | _MOV, _R2, number=self._cast_type)
            code.put(_CALL, source=_KFUNC, number=self._cast_function)
            code.put(_ALU64 | _MOV | _X_SOURCE, _R1, _R0)
        code.put(_load(size), _A, _R1)


def translate(program: Sequence[Instruction], reader: ByteReader) -> bytes:
    """Return the function. Raises ValueError for what is no program of the classic machine, or too long a one."""
    return _Translation(program, reader).code()


def _load(size: int) -> int:
    return _LDX | _MEM | {4: 0x00, 2: 0x08, 1: 0x10, 8: _DW}[size]


class _Translation:
    def __init__(self, program: Sequence[Instruction], reader: ByteReader) -> None:
        self._program = program
        self._reader = reader
        self._code = _Assembly()
        self._classes: Mapping[int, Callable[[int, Instruction], None]] = {
            _LD: self._load, _LDX: self._load, _ST: self._store, _STX: self._store, _ALU: self._calculate,
            _JMP: self._jump, _RET: self._return, _MISC: self._move,
        }  # fmt: skip

    def code(self) -> bytes:
        put = self._code.put
        put(_ALU64 | _MOV | _X_SOURCE, _FRAME, _R1)
        put(_ALU64 | _MOV | _X_SOURCE, _BYTES, _R2)
        put(_ALU64 | _MOV, _A)
        put(_ALU64 | _MOV, _X)
        for word in sorted({one.number for one in self._program if _uses_memory(one)}):
            put(_ST | _MEM, _STACK, offset=_memory(word))
        # the kernel refuses code that nothing leads to
        reached = {0}
        for at, one in enumerate(self._program):
            if at in reached:
                self._code.place(at)
                self._classes[one.code & 7](at, one)
                reached.update(self._next(at, one))
        if self._code.is_wanted(_REJECT):
            self._code.place(_REJECT)
            put(_ALU64 | _MOV, _R0)
            put(_EXIT)
        return self._code.code()

    def _next(self, at: int, one: Instruction) -> tuple[int, ...]:
        """Return which instructions may be next. Raises ValueError where there is none."""
        found = {at + 1}
        if one.code & 7 == _JMP:
            numbers = [one.number] if one.code & 0xF0 == _JA else [one.jump_true, one.jump_false]
            found = {at + 1 + number for number in numbers}
        elif one.code & 7 == _RET or self._never_goes_on(one):
            return ()
        if max(found) >= len(self._program):
            raise ValueError(f"instruction {at} leads out of the program")
        return tuple(found)

    @staticmethod
    def _never_goes_on(one: Instruction) -> bool:
        """Tell whether an instruction ends the program without a match, whatever the packet."""
        if one.code & 7 == _ALU:
            return one.code & 0xF8 in (_DIV, _MOD) and not one.number
        return one.code & 7 in (_LD, _LDX) and one.code & 0xE0 in (_ABS, _IND, _MSH) and one.number >= _FAR

    # instructions that load

    def _load(self, at: int, one: Instruction) -> None:
        put, mode, to = self._code.put, one.code & 0xE0, _X if one.code & 7 == _LDX else _A
        if mode == _IMM:
            put(_ALU | _MOV, to, number=one.number)
        elif mode == _MEMORY:
            put(_LDX | _MEM, to, _STACK, _memory(one.number))
        elif mode == _LEN:
            put(_LDX | _MEM, to, _FRAME, _LENGTH)
        elif self._never_goes_on(one):
            self._code.jump(_JMP | _JA, _REJECT)
        elif mode == _MSH:
            self._header_length(one.number)
        elif mode == _ABS:
            self._at(one.number, _SIZES[one.code & 0x18])
        elif mode == _IND:
            self._at_x(one.number, _SIZES[one.code & 0x18])
        else:
            raise ValueError(f"no load of the classic machine: {one.code:#x}")

    def _header_length(self, offset: int) -> None:
        """Set X to four times the lower half of a byte; A stays."""
        put = self._code.put
        put(_ALU64 | _MOV | _X_SOURCE, _X, _A)
        self._at(offset, 1)
        put(_ALU64 | _MOV | _X_SOURCE, _R1, _A)
        put(_ALU64 | _MOV | _X_SOURCE, _A, _X)
        put(_ALU64 | _MOV | _X_SOURCE, _X, _R1)
        put(_ALU | _AND, _X, number=0xF)
        put(_ALU | _LSH, _X, number=2)

    def _at(self, offset: int, size: int) -> None:
        """Load to A from an offset that is known."""
        put, jump = self._code.put, self._code.jump
        put(_LDX | _MEM, _R1, _FRAME, _CAPTURED)
        jump(_JMP | _JLT, _REJECT, _R1, number=offset + size)
        if offset + size > LINK:
            put(_ALU64 | _MOV | _X_SOURCE, _R1, _BYTES)
            put(_ALU64 | _ADD, _R1, number=offset)
            self._direct(size)
            return
        put(_LDX | _MEM, _R1, _FRAME, _FIRST)
        jump(_JMP | _JGT, _REJECT, _R1, number=offset)
        word, shift = divmod(offset, 8)
        put(_load(8), _A, _FRAME, 8 * word)
        put(_ALU64 | _LSH, _A, number=8 * shift)
        if shift + size > 8:
            put(_load(8), _R1, _FRAME, 8 * word + 8)
            put(_ALU64 | _RSH, _R1, number=64 - 8 * shift)
            put(_ALU64 | _OR | _X_SOURCE, _A, _R1)
        put(_ALU64 | _RSH, _A, number=64 - 8 * size)

    def _at_x(self, offset: int, size: int) -> None:
        """Load to A from X bytes behind an offset."""
        put, jump = self._code.put, self._code.jump
        direct, done = object(), object()
        put(_ALU64 | _MOV | _X_SOURCE, _R1, _X)
        put(_ALU64 | _ADD, _R1, number=offset)
        put(_LDX | _MEM, _R2, _FRAME, _CAPTURED)
        put(_ALU64 | _MOV | _X_SOURCE, _R3, _R1)
        put(_ALU64 | _ADD, _R3, number=size)
        jump(_JMP | _JGT | _X_SOURCE, _REJECT, _R3, _R2)
        if offset + size <= LINK:
            jump(_JMP | _JGT, direct, _R3, number=LINK)
            put(_LDX | _MEM, _R2, _FRAME, _FIRST)
            jump(_JMP | _JGT | _X_SOURCE, _REJECT, _R2, _R1)
            self._in_link(size)
            jump(_JMP | _JA, done)
        self._code.place(direct)
        put(_ALU64 | _MOV | _X_SOURCE, _R2, _BYTES)
        put(_ALU64 | _ADD | _X_SOURCE, _R2, _R1)
        put(_ALU64 | _MOV | _X_SOURCE, _R1, _R2)
        self._direct(size)
        self._code.place(done)

    def _in_link(self, size: int) -> None:
        """Load to A from the offset in R1, out of struct frame."""
        put, jump, found = self._code.put, self._code.jump, object()
        put(_load(8), _A, _FRAME, 0)
        for begin in range(8, LINK, 8):
            put(_load(8), _R3, _FRAME, begin)
            jump(_JMP | _JLT, found, _R1, number=begin)
            put(_ALU64 | _MOV | _X_SOURCE, _A, _R3)
        put(_ALU64 | _MOV, _R3)
        self._code.place(found)
        put(_ALU64 | _AND, _R1, number=7)
        put(_ALU64 | _LSH, _R1, number=3)
        put(_ALU64 | _LSH | _X_SOURCE, _A, _R1)
        put(_ALU64 | _MOV, _R2, number=63)
        put(_ALU64 | _SUB | _X_SOURCE, _R2, _R1)
        put(_ALU64 | _RSH, _R3, number=1)  # by 64 in two steps, as by 64 at once it would not move
        put(_ALU64 | _RSH | _X_SOURCE, _R3, _R2)
        put(_ALU64 | _OR | _X_SOURCE, _A, _R3)
        put(_ALU64 | _RSH, _A, number=64 - 8 * size)

    def _direct(self, size: int) -> None:
        """Load to A from the address in R1."""
        self._reader.read(self._code, size)
        if size > 1:
            self._code.put(_ALU | _END | _X_SOURCE, _A, number=8 * size)  # from the order of the network

    # all others

    def _store(self, at: int, one: Instruction) -> None:
        self._code.put(_STX | _MEM, _STACK, _X if one.code & 7 == _STX else _A, _memory(one.number))

    def _calculate(self, at: int, one: Instruction) -> None:
        put, jump = self._code.put, self._code.jump
        does, by_x = one.code & 0xF0, one.code & _X_SOURCE
        if does == _NEG:
            put(_ALU | _NEG, _A)
        elif does in (_DIV, _MOD) and not by_x and not one.number:
            jump(_JMP | _JA, _REJECT)
        elif does in (_LSH, _RSH) and not by_x and one.number >= 32:
            put(_ALU | _MOV, _A)
        elif does in (_LSH, _RSH) and by_x:
            done, shift = object(), object()
            jump(_JMP | _JLT, shift, _X, number=32)
            put(_ALU | _MOV, _A)
            jump(_JMP | _JA, done)
            self._code.place(shift)
            put(one.code, _A, _X)
            self._code.place(done)
        else:
            if does in (_DIV, _MOD) and by_x:
                jump(_JMP | _JEQ, _REJECT, _X)
            put(one.code, _A, _X if by_x else 0, number=0 if by_x else one.number)

    def _jump(self, at: int, one: Instruction) -> None:
        jump, test = self._code.jump, one.code & 0xF0
        if test == _JA:
            jump(_JMP | _JA, at + 1 + one.number)
            return
        true, false = at + 1 + one.jump_true, at + 1 + one.jump_false
        source = one.code & _X_SOURCE
        given = {"to": _A, "source": _X if source else 0, "number": 0 if source else one.number}
        if one.jump_true == 0 and test in _OPPOSITE:
            jump(_JMP32 | _OPPOSITE[test] | source, false, **given)
            return
        jump(_JMP32 | test | source, true, **given)
        if one.jump_false:
            jump(_JMP | _JA, false)

    def _return(self, at: int, one: Instruction) -> None:
        put, done = self._code.put, object()
        put(_ALU64 | _MOV, _R0, number=int(one.code == _RET and one.number != 0))
        if one.code & 0x18 == _RETURN_A:
            self._code.jump(_JMP32 | _JEQ, done, _A)
            put(_ALU64 | _MOV, _R0, number=1)
            self._code.place(done)
        put(_EXIT)

    def _move(self, at: int, one: Instruction) -> None:
        to, source = (_A, _X) if one.code & 0xF8 == _TXA else (_X, _A)
        self._code.put(_ALU64 | _MOV | _X_SOURCE, to, source)


def _uses_memory(one: Instruction) -> bool:
    return one.code & 7 in (_ST, _STX) or (one.code & 7 in (_LD, _LDX) and one.code & 0xE0 == _MEMORY)


def _memory(word: int) -> int:
    if word >= _MEMORY_WORDS:
        raise ValueError(f"the classic machine has no word {word}")
    return -4 * word - 4
