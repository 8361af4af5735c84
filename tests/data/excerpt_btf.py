#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Cut a kernel's BTF down to what the tests need: a few kB that bpftool still reads.

    excerpt_btf.py VMLINUX DIRECTORY [MODULE...]

VMLINUX and each MODULE are raw BTF: /sys/kernel/btf/vmlinux, or the section .BTF of a vmlinux or module file, taken out
with `objcopy --dump-section .BTF=OUTPUT FILE /dev/null`. A MODULE's file name is the module's name. The results are
DIRECTORY/vmlinux and DIRECTORY/MODULE, as in /sys/kernel/btf.

What stays: the structs of STRUCTS (of modules: MODULE_STRUCTS) with the listed members alone, at their place, and the
anonymous structs and unions around them; the enums of ENUMS whole; the prototypes behind TYPEDEFS and FUNCTIONS. Any
other struct becomes a forward declaration. Type ids and string offsets are new; names, kinds, sizes, offsets and values
are the kernel's own.

This file reads BTF in its own way (Documentation/bpf/btf.rst), not with pktdrop's parser, so that a mistake there is
not copied into what it is tested with.
"""

import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STRUCTS = {
    "sk_buff": ("dev", "len", "protocol", "skb_iif", "sk", "pkt_type"),
    "net_device": ("ifindex", "name", "nd_net.net"),
    "net": ("ns.inum", "loopback_dev"),
    "sock": ("__sk_common.skc_net.net",),
}
MODULE_STRUCTS = {"deferred_action": ("skb",)}  # net/openvswitch/actions.c: it points to an sk_buff
ENUMS = ("skb_drop_reason", "skb_drop_reason_subsys", "qdisc_drop_reason", "mac80211_drop_reason", "ovs_drop_reason")
TYPEDEFS = ("btf_trace_kfree_skb",)
FUNCTIONS = ("enqueue_to_backlog",)

HEADER = struct.Struct("<HBBIIIII")
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, FUNC, FUNC_PROTO, ENUM64 = 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 19
TAIL = {INT: 1, ARRAY: 3, 14: 1, 17: 1}  # words after struct btf_type
TAIL_EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, 15: 3, ENUM64: 3}  # and for each member
REFERS = {PTR, TYPEDEF, 9, 10, 11, FUNC, 18}  # the third word is a type
FLAG = 1 << 31


@dataclass
class Type:
    """One type: struct btf_type and what follows it, as words."""

    name: str
    info: int
    size_or_type: int
    tail: list[int]

    @property
    def kind(self) -> int:
        """BTF_KIND_*."""
        return self.info >> 24 & 0x1F

    @property
    def members(self) -> Iterable[list[int]]:
        """The entries of a struct, union, enum or prototype."""
        each = TAIL_EACH[self.kind]
        return (self.tail[at : at + each] for at in range(0, len(self.tail), each))


@dataclass
class Blob:
    """All types by id, those of the base included, and all strings by offset."""

    strings: bytes
    types: list[Type]

    def name(self, offset: int) -> str:
        """Return the string at an offset."""
        return self.strings[offset : self.strings.index(b"\0", offset)].decode()

    def find(self, name: str, kinds: Iterable[int], first: int) -> int | None:
        """Return the first id from `first` on with this name and one of these kinds."""
        for type_id in range(first, len(self.types)):
            if self.types[type_id].name == name and self.types[type_id].kind in kinds:
                return type_id
        return None

    def plain(self, type_id: int) -> int:
        """Follow typedefs and qualifiers."""
        while type_id and self.types[type_id].kind in REFERS - {PTR, FUNC}:
            type_id = self.types[type_id].size_or_type
        return type_id


@dataclass
class Excerpt:
    """The types that stay, in their new order, and by old id the new one."""

    types: list[Type] = field(default_factory=list)
    ids: dict[int, int] = field(default_factory=lambda: {0: 0})
    strings: bytes = b"\0"
    first: int = 1


def read(data: bytes, base: Blob | None = None) -> Blob:
    """Read a blob; that of a module goes on where `base` ends."""
    _, _, _, header, types, types_size, strings, strings_size = HEADER.unpack_from(data)
    start = header + strings
    blob = Blob(
        (base.strings if base else b"") + data[start : start + strings_size],
        list(base.types) if base else [Type("", 0, 0, [])],
    )
    words = struct.unpack_from(f"<{types_size // 4}I", data, header + types)
    at = 0
    while at < len(words):
        name, info, size_or_type = words[at : at + 3]
        kind, length = info >> 24 & 0x1F, info & 0xFFFF
        end = at + 3 + TAIL.get(kind, 0) + TAIL_EACH.get(kind, 0) * length
        blob.types.append(Type(blob.name(name), info, size_or_type, list(words[at + 3 : end])))
        at = end
    return blob


def kept_members(blob: Blob, first: int, structs: Mapping[str, tuple[str, ...]]) -> dict[int, set[int]]:
    """Return by struct or union the indices of its members that stay."""
    kept: dict[int, set[int]] = {}
    for name, paths in structs.items():
        root = blob.find(name, (STRUCT,), first)
        if root is None:
            continue
        for path in paths:
            at = root
            for part in path.split("."):
                steps = locate(blob, at, part)
                if steps is None:
                    raise SystemExit(f"struct {name} has no member {path}")
                for compound, index in steps:
                    kept.setdefault(compound, set()).add(index)
                last, index = steps[-1]
                at = blob.plain(list(blob.types[last].members)[index][1])
    return kept


def locate(blob: Blob, compound: int, wanted: str) -> list[tuple[int, int]] | None:
    """Return the way to a member: each struct or union and the index in it."""
    for index, (name, member_type, _) in enumerate(blob.types[compound].members):
        if name and blob.name(name) == wanted:
            return [(compound, index)]
        inner = blob.plain(member_type)
        if not name and blob.types[inner].kind in (STRUCT, UNION):
            rest = locate(blob, inner, wanted)
            if rest is not None:
                return [(compound, index), *rest]
    return None


def cut(blob: Blob, first: int, base: Excerpt | None = None) -> Excerpt:
    """Cut out what stays of the types from id `first` on, over the excerpt of the base."""
    result = Excerpt(ids=dict(base.ids), strings=b"", first=base.first + len(base.types)) if base else Excerpt()
    structs = MODULE_STRUCTS if base else STRUCTS
    kept = kept_members(blob, first, structs)
    known = base.strings if base else b""

    def string(name: str) -> int:
        for table, start in ((known, 0), (result.strings, len(known))):
            found = (b"\0" + table).find(b"\0" + name.encode() + b"\0")
            if found >= 0:
                return start + found
        result.strings += name.encode() + b"\0"
        return len(known) + len(result.strings) - len(name) - 1

    def keep(type_id: int) -> int:
        if type_id in result.ids:
            return result.ids[type_id]
        old = blob.types[type_id]
        new = Type(old.name, old.info, old.size_or_type, list(old.tail))
        result.types.append(new)
        result.ids[type_id] = result.first + len(result.types) - 1
        name = string(new.name) if new.name else 0
        if new.kind in (STRUCT, UNION):
            shrink(type_id, new)
        elif new.kind in (ENUM, ENUM64):
            each = TAIL_EACH[new.kind]
            new.tail = [string(blob.name(word)) if at % each == 0 else word for at, word in enumerate(old.tail)]
        elif new.kind == FUNC_PROTO:
            new.size_or_type = keep(old.size_or_type)
            new.tail = []
            for parameter, parameter_type in old.members:
                new.tail += [string(blob.name(parameter)) if parameter else 0, keep(parameter_type)]
        elif new.kind == ARRAY:
            new.tail[:2] = [keep(old.tail[0]), keep(old.tail[1])]
        elif new.kind in REFERS:
            new.size_or_type = keep(old.size_or_type)
        new.tail.insert(0, name)  # for pack(): the name's new offset
        return result.ids[type_id]

    def shrink(type_id: int, new: Type) -> None:
        members = list(blob.types[type_id].members)
        if type_id not in kept:
            new.info = FWD << 24 | (FLAG if new.kind == UNION else 0)
            new.size_or_type, new.tail = 0, []
            return
        new.info = new.info & ~0xFFFF | len(kept[type_id])
        new.tail = []
        for index in sorted(kept[type_id]):
            name, member_type, offset = members[index]
            new.tail += [string(blob.name(name)) if name else 0, keep(member_type), offset]

    for names, kinds in ((structs, (STRUCT,)), (ENUMS, (ENUM, ENUM64)), (TYPEDEFS, (TYPEDEF,)), (FUNCTIONS, (FUNC,))):
        for wanted in names:
            found = blob.find(wanted, kinds, first)
            if found is not None:
                keep(found)
    return result


def pack(excerpt: Excerpt) -> bytes:
    """Write the excerpt as BTF."""
    words = [word for t in excerpt.types for word in (t.tail[0], t.info, t.size_or_type, *t.tail[1:])]
    types = struct.pack(f"<{len(words)}I", *words)
    header = HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(excerpt.strings))
    return header + types + excerpt.strings


def main(vmlinux: Path, directory: Path, *modules: Path) -> None:
    """Cut vmlinux, then each module over it."""
    directory.mkdir(parents=True, exist_ok=True)
    base_blob = read(vmlinux.read_bytes())
    base = cut(base_blob, 1)
    (directory / "vmlinux").write_bytes(pack(base))
    for module in modules:
        blob = read(module.read_bytes(), base_blob)
        (directory / module.name).write_bytes(pack(cut(blob, len(base_blob.types), base)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
