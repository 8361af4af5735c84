# SPDX-License-Identifier: MIT
"""BTF, the kernel's description of its own types: Documentation/bpf/btf.rst, include/uapi/linux/btf.h."""

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_TYPE_WORDS = 3  # struct btf_type: name_off, info, size or type


class BtfError(ValueError):
    """The bytes are no BTF that can be read."""


class BtfKind(IntEnum):
    """BTF_KIND_* of include/uapi/linux/btf.h."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Words that follow struct btf_type: a fixed number, and some for each of its vlen members.
_FIXED_WORDS = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
_MEMBER_WORDS = {
    BtfKind.STRUCT: 3, BtfKind.UNION: 3, BtfKind.ENUM: 2, BtfKind.FUNC_PROTO: 2, BtfKind.DATASEC: 3, BtfKind.ENUM64: 3,
}  # fmt: skip
_COMPOUNDS = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_MODIFIERS = frozenset({BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})


class Member(NamedTuple):
    """A member of a struct or union: where it is in bits, and its type without typedefs and qualifiers."""

    offset: int
    type: int
    bits: int
    """Width of a bit-field, 0 for others."""


class Btf:
    """One BTF blob; a module's counts its type ids and string offsets on from those of `base`."""

    def __init__(self, data: bytes, base: "Btf | None" = None) -> None:
        """Index the blob. Raises BtfError where it is damaged or of the other byte order."""
        if sys.byteorder != "little":
            raise BtfError("BTF is read on little-endian machines only")
        if len(data) < _HEADER.size:
            raise BtfError("BTF is shorter than its header")
        if data[:2] == _MAGIC.to_bytes(2, "big"):
            raise BtfError("this BTF is big-endian; only little-endian BTF is read")
        magic, version, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != 1:
            raise BtfError(f"not BTF version 1: it starts with {data[:3].hex()}")
        if types_size % 4 or header + max(types + types_size, strings + strings_size) > len(data):
            raise BtfError("BTF is cut off")
        self._base = base
        self._first: int = base._first + len(base._offsets) if base else 1
        self._first_string: int = base._first_string + len(base._strings) if base else 0
        self._strings: bytes = data[header + strings : header + strings + strings_size]
        self._types = data[header + types : header + types + types_size]
        self._words = memoryview(self._types).cast("I")
        self._offsets: array[int] = _index(self._words)

    @classmethod
    def load(cls, path: Path, base: "Btf | None" = None) -> "Btf":
        """Read a file such as /sys/kernel/btf/vmlinux. Raises OSError, BtfError."""
        return cls(path.read_bytes(), base)

    def find(self, name: str, kind: BtfKind) -> int | None:
        """Return the id of the first type of this name and kind in this blob, or None."""
        for string in self._string_offsets(name):
            pattern = struct.pack("<I", string)
            at = self._types.find(pattern)
            while at >= 0:
                index = bisect_left(self._offsets, at // 4)
                if at % 4 == 0 and index < len(self._offsets) and self._offsets[index] == at // 4:
                    type_id = self._first + index
                    if self.kind(type_id) == kind:
                        return type_id
                at = self._types.find(pattern, at + 1)
        return None

    def function(self, name: str) -> int | None:
        """Return the id of a function, which a BPF trampoline is attached by."""
        return self.find(name, BtfKind.FUNC)

    def kind(self, type_id: int) -> BtfKind:
        """Return the kind of a type."""
        return BtfKind(self._header(type_id)[1] >> 24 & 0x1F)

    def name(self, type_id: int) -> str:
        """Return the name of a type, "" for one without."""
        return self._string(self._header(type_id)[0])

    def size(self, type_id: int) -> int:
        """Return the size in bytes of an integer, enum, struct or union."""
        return self._header(type_id)[2]

    def target(self, type_id: int) -> int:
        """Return the type that a pointer, typedef, qualifier or function refers to; 0 is void."""
        return self._header(type_id)[2]

    def resolve(self, type_id: int) -> int:
        """Return the type behind typedefs and qualifiers. Raises BtfError where they go round in circles."""
        for _ in range(64):
            if not type_id or self.kind(type_id) not in _MODIFIERS:
                return type_id
            type_id = self.target(type_id)
        raise BtfError("a typedef refers to itself")

    def is_signed(self, type_id: int) -> bool:
        """Tell whether an integer type is signed (BTF_INT_SIGNED)."""
        return bool(self._tail(type_id, 1)[0] >> 24 & 1)

    def array(self, type_id: int) -> tuple[int, int]:
        """Return the element type and the number of elements of an array type."""
        element, _, count = self._tail(type_id, 3)
        return self.resolve(element), count

    def enum(self, name: str) -> dict[str, int] | None:
        """Return names and values of an enum, in its order; None if this BTF has no enum of this name."""
        type_id = self.find(name, BtfKind.ENUM)
        if type_id is not None:
            words, sign = self._tail(type_id, 2 * self._length(type_id)), self._flag(type_id) << 31
            return {self._string(words[at]): (words[at + 1] ^ sign) - sign for at in range(0, len(words), 2)}
        type_id = self.find(name, BtfKind.ENUM64)
        if type_id is None:
            return None
        words, sign = self._tail(type_id, 3 * self._length(type_id)), self._flag(type_id) << 63
        return {
            self._string(words[at]): ((words[at + 1] | words[at + 2] << 32) ^ sign) - sign
            for at in range(0, len(words), 3)
        }

    def member(self, type_id: int, name: str) -> Member | None:
        """Find a member of a struct or union by name, also inside its anonymous members."""
        searched: set[int] = set()  # damaged BTF can nest a struct in itself
        pending = [(type_id, 0)]
        while pending:
            compound, start = pending.pop()
            if compound in searched or self.kind(compound) not in _COMPOUNDS:
                continue
            searched.add(compound)
            for name_offset, found in self._members(compound):
                if not name_offset:
                    pending.append((self.resolve(found.type), start + found.offset))
                elif self._string(name_offset) == name:
                    return Member(start + found.offset, self.resolve(found.type), found.bits)
        return None

    def tracepoint_parameters(self, name: str) -> int | None:
        """Return how many arguments a tracepoint hands to a program; None if there is no such tracepoint.

        The prototype is behind the typedef btf_trace_NAME (include/trace/bpf_probe.h); its first parameter is the
        tracepoint's own context.
        """
        typedef = self.find(f"btf_trace_{name}", BtfKind.TYPEDEF)
        if typedef is None:
            return None
        prototype = self.target(self.target(typedef))
        if self.kind(prototype) != BtfKind.FUNC_PROTO or not self._length(prototype):
            return None
        return self._length(prototype) - 1

    def _members(self, type_id: int) -> Iterator[tuple[int, Member]]:
        """Yield of each member the offset of its name (0: anonymous) and the member, its type not resolved."""
        words, bit_fields = self._tail(type_id, 3 * self._length(type_id)), self._flag(type_id)
        for at in range(0, len(words), 3):
            offset, bits = (words[at + 2] & 0xFFFFFF, words[at + 2] >> 24) if bit_fields else (words[at + 2], 0)
            yield words[at], Member(offset, words[at + 1], bits)

    def _header(self, type_id: int) -> tuple[int, int, int]:
        if type_id < self._first and self._base is not None:
            return self._base._header(type_id)
        at = self._at(type_id)
        return self._words[at], self._words[at + 1], self._words[at + 2]

    def _tail(self, type_id: int, count: int) -> memoryview:
        if type_id < self._first and self._base is not None:
            return self._base._tail(type_id, count)
        at = self._at(type_id) + _TYPE_WORDS
        return self._words[at : at + count]

    def _flag(self, type_id: int) -> int:
        """Return kind_flag: a struct has bit-fields, an enum is signed."""
        return self._header(type_id)[1] >> 31

    def _length(self, type_id: int) -> int:
        return self._header(type_id)[1] & 0xFFFF

    def _at(self, type_id: int) -> int:
        index = type_id - self._first
        if not 0 <= index < len(self._offsets):
            raise BtfError(f"there is no type {type_id}")
        return self._offsets[index]

    def _string_offsets(self, name: str) -> Iterator[int]:
        """Yield where a name is. A module's types also use the strings of vmlinux: they are kept once."""
        string = name.encode() + b"\0"
        if self._strings.startswith(string):  # a module's strings do not begin with the empty one
            yield self._first_string
        found = self._strings.find(b"\0" + string)
        if found >= 0:
            yield self._first_string + found + 1
        if self._base is not None:
            yield from self._base._string_offsets(name)

    def _string(self, offset: int) -> str:
        if offset < self._first_string and self._base is not None:
            return self._base._string(offset)
        start = offset - self._first_string
        end = self._strings.find(b"\0", start)
        if start > len(self._strings) or end < 0:
            raise BtfError("a name lies outside the strings")
        return self._strings[start:end].decode(errors="backslashreplace")


def _steps() -> tuple[list[int], list[int]]:
    """Return, by kind, how many words a type takes, and how many more for each member; 0 for unknown kinds."""
    fixed = [0] * 32
    members = [0] * 32
    for kind in BtfKind:
        fixed[kind] = _TYPE_WORDS + _FIXED_WORDS.get(kind, 0)
        members[kind] = _MEMBER_WORDS.get(kind, 0)
    return fixed, members


def _index(words: memoryview) -> "array[int]":
    """Return where each type starts, in words. This loop runs 120,000 times at a start: it is written for speed."""
    fixed, members = _steps()
    offsets = array("I")
    append = offsets.append
    at, end = 0, len(words)
    try:
        while at < end:
            append(at)
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            step = fixed[kind]
            if not step:
                raise BtfError(f"unknown kind {kind}")
            at += step + members[kind] * (info & 0xFFFF) if members[kind] else step
    except IndexError:
        raise BtfError("BTF is cut off inside a type") from None
    if at != end:
        raise BtfError("BTF is cut off inside a type")
    return offsets
