# SPDX-License-Identifier: MIT
"""The C declarations made from BTF, checked by working out the layout that a C compiler gives them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel.btf import Btf, BtfError
from pktdrop.kernel.layout import (
    FROM_HEADERS,
    READ_MEMBERS,
    SAMPLE_MEMBERS,
    LayoutError,
    declarations,
    flat,
    packet_type,
)

BTF = Path(__file__).parents[1] / "data" / "btf"

# offsetof() in bytes, by the C compiler over `bpftool btf dump file FILE format c` of each kernel's whole BTF
# (gcc -fms-extensions, tests/data/README.md).
MEMBERS = (
    ("sk_buff", "dev"), ("sk_buff", "sk"), ("sk_buff", "len"), ("sk_buff", "skb_iif"), ("sk_buff", "protocol"),
    ("net_device", "ifindex"), ("net_device", "name"), ("net_device", "nd_net.net"),
    ("net", "ns.inum"), ("net", "loopback_dev"), ("sock", "__sk_common.skc_net.net"),
)  # fmt: skip
OFFSETS = {
    "5.10.0-32-debian": (16, 24, 112, 144, 176, 256, 0, 1264, 136, 328, 48),
    "6.1.0-50-debian": (16, 24, 112, 144, 180, 216, 0, 1272, 144, 336, 48),
    "6.12.95-debian": (16, 24, 112, 148, 180, 224, 304, 280, 136, 352, 48),
    "6.18.44": (16, 24, 112, 144, 176, 224, 280, 264, 176, 440, 48),
    "7.3.4-debian": (16, 24, 112, 148, 180, 224, 288, 264, 280, 720, 48),
}
SIZES = {"char": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8}
DECLARATION = re.compile(
    r"\t(?:(?P<scalar>\w+) |(?P<pointer>(?:struct \w+|void) \*))(?P<name>\w+)(?:\[(?P<count>\d+)\])?;"
)

Placed = dict[tuple[str, str], tuple[int, str]]


def load(kernel: str) -> Btf:
    """Return the BTF of a kernel's vmlinux."""
    return Btf.load(BTF / kernel / "vmlinux")


def compiled(text: str) -> Placed:
    """Return offset and type of each member, by the rules of the x86-64 psABI: natural size, natural alignment."""
    placed: Placed = {}
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL):
        end = 0
        for line in body.splitlines():
            found = DECLARATION.fullmatch(line)
            assert found, line
            size = SIZES[found["scalar"]] if found["scalar"] else 8
            end += -end % size
            placed[name, found["name"]] = (end, (found["scalar"] or found["pointer"]).strip())
            end += size * int(found["count"] or 1)
    return placed


@pytest.mark.parametrize("kernel", OFFSETS)
def test_offsets(kernel: str) -> None:
    """A C compiler puts each member where this kernel has it."""
    placed = compiled(declarations(load(kernel)))
    found = tuple(placed[name, flat(path)][0] for name, path in MEMBERS)
    assert found == OFFSETS[kernel]


@pytest.mark.parametrize("kernel", OFFSETS)
def test_static_assertions(kernel: str) -> None:
    """The compiler is told to prove the offset of each member."""
    text = declarations(load(kernel))
    for (name, path), offset in zip(MEMBERS, OFFSETS[kernel], strict=True):
        assert f"_Static_assert(__builtin_offsetof(struct {name}, {flat(path)}) == {offset}," in text
    assert text.count("_Static_assert") == len(MEMBERS)


@pytest.mark.parametrize("kernel", OFFSETS)
def test_types(kernel: str) -> None:
    """Pointers keep their struct, integers their size and sign, so that the C source can follow and compare them."""
    placed = compiled(declarations(load(kernel)))
    char = "s8" if kernel == "6.1.0-50-debian" else "u8"  # the sign of "char" in its BTF
    assert {member: kind for member, (_, kind) in placed.items() if not member[1].startswith("pad")} == {
        ("sk_buff", "dev"): "struct net_device *",
        ("sk_buff", "sk"): "struct sock *",
        ("sk_buff", "len"): "u32",
        ("sk_buff", "skb_iif"): "s32",
        ("sk_buff", "protocol"): "u16",
        ("net_device", "ifindex"): "s32",
        ("net_device", "name"): char,
        ("net_device", "nd_net_net"): "struct net *",
        ("net", "ns_inum"): "u32",
        ("net", "loopback_dev"): "struct net_device *",
        ("sock", "sk_common_skc_net_net"): "struct net *",
    }


def test_text() -> None:
    """The declarations read like this."""
    assert declarations(load("6.12.95-debian"), {"net_device": ("name", "ifindex", "nd_net.net")}) == (
        "#include <linux/types.h>\n"
        "struct net_device;\n"
        "struct net_device {\n"
        "\tchar pad0[224];\n"
        "\ts32 ifindex;\n"
        "\tchar pad228[52];\n"
        "\tstruct net *nd_net_net;\n"
        "\tchar pad288[16];\n"
        "\tu8 name[16];\n"
        "};\n"
        "_Static_assert(__builtin_offsetof(struct net_device, ifindex) == 224,"
        ' "struct net_device: ifindex is misplaced");\n'
        "_Static_assert(__builtin_offsetof(struct net_device, nd_net_net) == 280,"
        ' "struct net_device: nd_net.net is misplaced");\n'
        "_Static_assert(__builtin_offsetof(struct net_device, name) == 304,"
        ' "struct net_device: name is misplaced");\n'
    )


@given(st.sampled_from(sorted(OFFSETS)), st.lists(st.sampled_from(MEMBERS), min_size=1, unique=True))
def test_any_members_in_any_order(kernel: str, members: list[tuple[str, str]]) -> None:
    """Which members are wanted, and in which order, moves none of them."""
    wanted: dict[str, list[str]] = {}
    for name, path in members:
        wanted.setdefault(name, []).append(path)
    placed = compiled(declarations(load(kernel), wanted))
    real = dict(zip(MEMBERS, OFFSETS[kernel], strict=True))
    assert {member: placed[member[0], flat(member[1])][0] for member in members} == {m: real[m] for m in members}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"sk_buff": ("len", "alloc_cpu")}, "struct sk_buff has no member alloc_cpu"),
        ({"net_device": ("nd_net.nosuch",)}, "struct net_device has no member nd_net.nosuch"),
        ({"sk_buff": ("len.x",)}, "struct sk_buff has no member len.x"),
        ({"nosuch": ("x",)}, "no struct nosuch"),
        ({"sk_buff": ("pkt_type",)}, "pkt_type is a bit-field in this kernel's struct sk_buff"),
    ],
)
def test_missing(wanted: Mapping[str, tuple[str, ...]], message: str) -> None:
    """What this kernel has not, or not as a whole member, is named."""
    with pytest.raises(LayoutError, match=re.escape(message)):
        declarations(load("6.12.95-debian"), wanted)


def one_member(*member_type: int) -> Btf:
    """Return BTF of a `struct s` whose member `m` is of the type that these words describe, which has the id 2."""
    words = (1, 4 << 24 | 1, 64, 3, 2, 0, *member_type, 0, 1 << 24, 4, 32)
    types = struct.pack(f"<{len(words)}I", *words)
    strings = b"\0s\0m\0"
    return Btf(struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings)


@pytest.mark.parametrize(
    ("member_type", "message"),
    [
        ((0, 3 << 24, 0, 2, 3, 4), "array of arrays"),  # of itself
        ((0, 16 << 24, 8), "FLOAT"),
        ((0, 5 << 24, 8), "UNION"),
    ],
)
def test_unreadable_types(member_type: tuple[int, ...], message: str) -> None:
    """A member of a type that has no declaration here is refused, not guessed."""
    with pytest.raises(BtfError, match=message):
        declarations(one_member(*member_type), {"s": ("m",)})


@pytest.mark.parametrize("target", [0, 3])
def test_pointer_to_what_has_no_name(target: int) -> None:
    """A pointer to void or to an integer is a void pointer."""
    assert "\tvoid *m;\n" in declarations(one_member(0, 2 << 24, target), {"s": ("m",)})


def test_same_names_over_headers() -> None:
    """Over installed kernel headers each dotted member has the flat name that it has in the declarations."""
    read = (*READ_MEMBERS.values(), *SAMPLE_MEMBERS.values())
    dotted = [path for paths in read for path in paths if "." in path]
    defined = re.findall(r"^#define ([a-z]\w+) (.+)$", FROM_HEADERS, re.MULTILINE)
    assert defined == [(flat(path), path) for path in dotted]


@pytest.mark.parametrize("kernel", OFFSETS)
def test_packet_type(kernel: str) -> None:
    """Byte 128, its lowest three bits: __pkt_type_offset and PKT_TYPE_MAX in include/linux/skbuff.h."""
    assert packet_type(load(kernel)) == (
        "#define PACKET_TYPE_BYTE 128\n#define PACKET_TYPE(byte) (((byte) >> 0) & 0x7)\n"
    )


def test_a_kernel_without_packet_types() -> None:
    """What is no bit-field within a byte is said not to be there."""
    with pytest.raises(LayoutError, match="no bit-field pkt_type"):
        packet_type(one_member(0, 2 << 24, 0))


def test_everything_read_is_checked_here() -> None:
    """No member is read whose offset these tests do not know."""
    assert {(name, path) for name, paths in READ_MEMBERS.items() for path in paths} == set(MEMBERS)
