# SPDX-License-Identifier: MIT
"""The reader of BTF, over excerpts of real kernels' BTF (tests/data/README.md) and over damaged ones.

Where nothing else is said, expected ids, offsets and values are those that `bpftool btf dump file FILE` prints.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel import layout
from pktdrop.kernel.btf import Btf, BtfError, BtfKind
from pktdrop.kernel.reasons import ReasonNames

BTF = Path(__file__).parents[1] / "data" / "btf"
KERNELS = ("5.10.0-32-debian", "6.1.0-50-debian", "6.12.95-debian", "6.18.44", "7.3.4-debian")
WHOLE = (BTF / "6.12.95-debian" / "vmlinux").read_bytes()


def load(kernel: str) -> Btf:
    """Return the BTF of a kernel's vmlinux."""
    return Btf.load(BTF / kernel / "vmlinux")


def load_module(kernel: str, module: str) -> tuple[Btf, Btf]:
    """Return a module's BTF and that of its vmlinux."""
    base = load(kernel)
    return Btf.load(BTF / kernel / module, base), base


def blob(words: list[int], strings: bytes = b"\0", version: int = 1) -> bytes:
    """Return BTF of these words and strings: Documentation/bpf/btf.rst, "BTF Type and String Encoding"."""
    types = struct.pack(f"<{len(words)}I", *words)
    header = struct.pack("<HBBIIIII", 0xEB9F, version, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


def info(kind: int, length: int = 0, flag: int = 0) -> int:
    """Return the second word of struct btf_type."""
    return flag << 31 | kind << 24 | length


@pytest.mark.parametrize(
    ("kernel", "name", "kind", "type_id"),
    [
        ("5.10.0-32-debian", "btf_trace_kfree_skb", BtfKind.TYPEDEF, 25),
        ("6.12.95-debian", "sk_buff", BtfKind.STRUCT, 1),
        ("6.12.95-debian", "net_device", BtfKind.STRUCT, 6),
        ("6.12.95-debian", "int", BtfKind.INT, 7),
        ("6.12.95-debian", "skb_drop_reason", BtfKind.ENUM, 26),
        ("6.12.95-debian", "enqueue_to_backlog", BtfKind.FUNC, 33),
        ("7.3.4-debian", "enqueue_to_backlog", BtfKind.FUNC, 36),
    ],
)
def test_find(kernel: str, name: str, kind: BtfKind, type_id: int) -> None:
    """A type is found by name and kind, under the id that the kernel knows it by."""
    btf = load(kernel)
    assert btf.find(name, kind) == type_id
    assert (btf.kind(type_id), btf.name(type_id)) == (kind, name)


@pytest.mark.parametrize("name", ["sk_buf", "k_buff", "sk_buff_head", "sk_buff\0", "skb"])
def test_find_wants_the_whole_name(name: str) -> None:
    """Parts of a name, names of members and names that are nowhere are not found as structs."""
    assert load("6.12.95-debian").find(name, BtfKind.STRUCT) is None


def test_find_wants_the_kind() -> None:
    """A struct is not found as a union, nor as a function."""
    btf = load("6.12.95-debian")
    assert [btf.find("sk_buff", kind) for kind in (BtfKind.UNION, BtfKind.FUNC, BtfKind.FWD)] == [None, None, None]


def test_function() -> None:
    """A function is found by name; one that was inlined or renamed is not."""
    btf = load("6.18.44")
    assert btf.function("enqueue_to_backlog") == btf.find("enqueue_to_backlog", BtfKind.FUNC)
    assert btf.function("enqueue_to_backlog.isra.0") is None


@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [  # vlen of the FUNC_PROTO, without the tracepoint's own context
        ("5.10.0-32-debian", 2),  # skb, location
        ("6.1.0-50-debian", 3),  # + reason
        ("6.12.95-debian", 4),  # + rx_sk
        ("6.18.44", 4),
        ("7.3.4-debian", 4),
    ],
)
def test_tracepoint_parameters(kernel: str, parameters: int) -> None:
    """The arguments of the tracepoint are counted, which tells if it gives a reason."""
    assert load(kernel).tracepoint_parameters("kfree_skb") == parameters


def test_unknown_tracepoint() -> None:
    """A tracepoint that this kernel has not is no error."""
    assert load("6.18.44").tracepoint_parameters("qdisc_drop") is None


@pytest.mark.parametrize(
    ("kernel", "values"),
    [
        ("6.1.0-50-debian", (0, None, 1, 46, 65)),
        ("6.12.95-debian", (0, 1, 2, 56, 98)),
        ("6.18.44", (0, 1, 2, 71, 128)),
        ("7.3.4-debian", (0, 1, 2, 66, 126)),
    ],
)
def test_enum(kernel: str, values: tuple[int | None, ...]) -> None:
    """An enum's names have the values of that kernel, and stand in its order."""
    enum = load(kernel).enum("skb_drop_reason")
    assert enum is not None
    names = ("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", *(f"SKB_DROP_REASON_{n}" for n in ("NOT_SPECIFIED", "CPU_BACKLOG")))
    assert tuple(enum.get(name) for name in (*names, "SKB_DROP_REASON_MAX")) == values
    assert next(iter(enum)) == "SKB_NOT_DROPPED_YET"
    assert list(enum.values()) == sorted(enum.values())


def test_no_enum() -> None:
    """An enum that this kernel has not is no error."""
    assert load("5.10.0-32-debian").enum("skb_drop_reason") is None


def test_enum_signs() -> None:
    """kind_flag makes the values of an enum signed, in 32 and in 64 bits (btf.rst, BTF_KIND_ENUM, BTF_KIND_ENUM64)."""
    minus_two = 0xFFFFFFFE
    strings = b"\0u\0s\0U\0S\0x\0"
    words = [
        *(1, info(6, 1), 4, 9, minus_two),
        *(3, info(6, 1, flag=1), 4, 9, minus_two),
        *(5, info(19, 1), 8, 9, minus_two, 0xFFFFFFFF),
        *(7, info(19, 1, flag=1), 8, 9, minus_two, 0xFFFFFFFF),
    ]
    btf = Btf(blob(words, strings))
    assert [btf.enum(name) for name in "usUS"] == [{"x": 2**32 - 2}, {"x": -2}, {"x": 2**64 - 2}, {"x": -2}]


@pytest.mark.parametrize(
    ("kernel", "member", "offset", "bits"),
    [  # offsets in bits: the sum over the anonymous structs and unions around the member
        ("6.12.95-debian", "dev", 128, 0),
        ("6.12.95-debian", "sk", 192, 0),
        ("6.12.95-debian", "len", 896, 0),
        ("6.12.95-debian", "pkt_type", 1024, 3),
        ("6.12.95-debian", "skb_iif", 1024 + 160, 0),
        ("6.12.95-debian", "protocol", 1024 + 416, 0),
        ("5.10.0-32-debian", "pkt_type", 1024, 3),
    ],
)
def test_member(kernel: str, member: str, offset: int, bits: int) -> None:
    """A member is found at its bit, also in nested anonymous unions and as a bit-field."""
    btf = load(kernel)
    sk_buff = btf.find("sk_buff", BtfKind.STRUCT)
    assert sk_buff is not None
    found = btf.member(sk_buff, member)
    assert found is not None
    assert (found.offset, found.bits) == (offset, bits)


def test_missing_member() -> None:
    """A member that is not there is no error, nor is one of something that has no members."""
    btf = load("6.12.95-debian")
    assert btf.member(1, "no_such_member") is None
    for name, kind in (("int", BtfKind.INT), ("skb_drop_reason", BtfKind.ENUM), ("enqueue_to_backlog", BtfKind.FUNC)):
        type_id = btf.find(name, kind)
        assert type_id is not None
        assert btf.member(type_id, "len") is None


def test_member_types() -> None:
    """The type of a member is seen through typedefs: pointers, arrays, signs and sizes."""
    btf = load("6.12.95-debian")
    members = {name: btf.member(1, name) for name in ("dev", "len", "skb_iif", "protocol")}
    types = {name: member.type for name, member in members.items() if member is not None}
    assert btf.kind(types["dev"]) == BtfKind.PTR
    assert btf.name(btf.target(types["dev"])) == "net_device"
    integers = [(btf.size(types[name]), btf.is_signed(types[name])) for name in ("len", "skb_iif", "protocol")]
    assert integers == [(4, False), (4, True), (2, False)]
    name = btf.member(btf.target(types["dev"]), "name")
    assert name is not None
    element, count = btf.array(name.type)
    assert (btf.name(element), btf.size(element), count) == ("char", 1, 16)


@pytest.mark.parametrize(
    ("kernel", "module", "name", "kind", "type_id"),
    [  # the ids that `bpftool -B vmlinux btf dump file MODULE` prints
        ("6.12.95-debian", "mac80211", "mac80211_drop_reason", BtfKind.ENUM, 36),
        ("6.12.95-debian", "openvswitch", "deferred_action", BtfKind.STRUCT, 36),
        ("6.12.95-debian", "openvswitch", "ovs_drop_reason", BtfKind.ENUM, 37),
        ("7.3.4-debian", "openvswitch", "ovs_drop_reason", BtfKind.ENUM, 42),
    ],
)
def test_module_ids_go_on_from_vmlinux(kernel: str, module: str, name: str, kind: BtfKind, type_id: int) -> None:
    """A module's types are numbered after those of vmlinux; the first of its strings is a name like the others."""
    btf, base = load_module(kernel, module)
    assert btf.find(name, kind) == type_id
    assert base.find(name, kind) is None


def test_module_refers_to_vmlinux() -> None:
    """A type of vmlinux is reached from a module's type, with its name and members."""
    btf, _ = load_module("6.12.95-debian", "openvswitch")
    deferred_action = btf.find("deferred_action", BtfKind.STRUCT)
    assert deferred_action is not None
    skb = btf.member(deferred_action, "skb")
    assert skb is not None
    sk_buff = btf.target(skb.type)
    length = btf.member(sk_buff, "len")
    assert (btf.name(sk_buff), length and length.offset) == ("sk_buff", 896)


def test_module_uses_strings_of_vmlinux() -> None:
    """A module's type is found by a name whose string vmlinux has already, since the strings are kept once."""
    base = Btf(blob([], b"\0shared\0"))
    btf = Btf(blob([1, info(6, 1), 4, 8, 5], b"own\0"), base)
    assert btf.find("shared", BtfKind.ENUM) == 1
    assert btf.enum("shared") == {"own": 5}


def test_every_kind_is_stepped_over() -> None:
    """After a type of any of the 19 kinds, with members where it has them, the next one is found."""
    words_after = {  # btf.rst, section 2.2: what follows struct btf_type
        **{1: 1, 2: 0, 3: 3, 4: 2 * 3, 5: 2 * 3, 6: 2 * 2, 7: 0, 8: 0, 9: 0, 10: 0, 11: 0, 12: 0},
        **{13: 2 * 2, 14: 1, 15: 2 * 3, 16: 0, 17: 1, 18: 0, 19: 2 * 3},
    }
    assert set(words_after) == set(BtfKind)
    for kind, count in words_after.items():
        length = 2 if count > 3 else 0
        btf = Btf(blob([0, info(kind, length), 0, *[0] * count, 1, info(16), 8], b"\0last\0"))
        assert btf.find("last", BtfKind.FLOAT) == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter than its header"),
        (WHOLE[:23], "shorter than its header"),
        (b"\x7fELF" + WHOLE[4:], "not BTF"),
        (struct.pack(">HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0", "big-endian"),
        (blob([], version=2), "not BTF version 1"),
        (blob([0, info(0), 0]), "unknown kind 0"),
        (blob([0, info(20), 0]), "unknown kind 20"),
        (blob([0, info(4, 1), 8, 0, 0]), "cut off"),
        (blob([0]), "cut off"),
    ],
)
def test_no_btf(data: bytes, reason: str) -> None:
    """Bytes that are no readable BTF are refused in words."""
    with pytest.raises(BtfError, match=reason):
        Btf(data)


def test_no_such_type() -> None:
    """An id that no type has is refused."""
    btf = load("6.12.95-debian")
    for type_id in (-1, 0, 10**6):
        with pytest.raises(BtfError, match="there is no type"):
            btf.kind(type_id)


def test_cut_anywhere() -> None:
    """BTF that ends too early is refused, wherever it ends."""
    for end in range(len(WHOLE)):
        with pytest.raises(BtfError):
            Btf(WHOLE[:end])


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ([1, info(4, 1), 8, 0, 1, 0], lambda btf: btf.member(1, "x")),  # a struct inside itself
        ([0, info(8), 2, 0, info(9), 1], lambda btf: btf.resolve(1)),  # a typedef of itself
        ([99, info(2), 0], lambda btf: btf.name(1)),  # a name after the last string
        ([1, info(8), 7], lambda btf: btf.resolve(1)),  # a typedef of nothing
    ],
)
def test_damage_inside(words: list[int], question: Callable[[Btf], object]) -> None:
    """What goes round in circles or leads nowhere ends, with an answer or a BtfError."""
    btf = Btf(blob(words, b"\0S\0"))
    with suppress(BtfError):
        assert question(btf) is None


def ask_everything(data: bytes, base: Btf | None = None) -> None:
    """Ask for all that pktdrop reads, in BTF that may be damaged anywhere."""
    questions: tuple[Callable[[Btf], object], ...] = (
        lambda btf: btf.tracepoint_parameters("kfree_skb"),
        lambda btf: btf.function("enqueue_to_backlog"),
        lambda btf: btf.enum("ovs_drop_reason"),
        lambda btf: btf.member(btf.find("deferred_action", BtfKind.STRUCT) or 1, "skb"),
    )
    for question in questions:
        with suppress(BtfError):
            question(Btf(data, base))
    with suppress(BtfError):
        ReasonNames.from_btf(Btf(data, base), BTF / "none").names()
    with suppress(BtfError, layout.LayoutError):
        layout.declarations(Btf(data, base))


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    """Any bytes end in an answer or a BtfError."""
    ask_everything(data)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=60), st.binary(max_size=60))
def test_garbage_behind_a_good_header(words: list[int], strings: bytes) -> None:
    """Any types and strings end in an answer or a BtfError."""
    ask_everything(blob(words, strings))


WORDS = st.one_of(
    st.integers(0, 60), st.sampled_from([info(k, 2, f) for k in BtfKind for f in (0, 1)]), st.integers(0, 2**32 - 1)
)


@given(st.dictionaries(st.integers(0, len(WHOLE) // 4 - 1), WORDS, min_size=1, max_size=40))
def test_damaged_vmlinux(changes: dict[int, int]) -> None:
    """A real BTF with changed words ends in an answer or a BtfError."""
    data = bytearray(WHOLE)
    for word, value in changes.items():
        struct.pack_into("<I", data, 4 * word, value)
    ask_everything(bytes(data))


@given(st.dictionaries(st.integers(0, 110), WORDS, min_size=1, max_size=20))
def test_damaged_module(changes: dict[int, int]) -> None:
    """A module's BTF with changed words ends in an answer or a BtfError."""
    data = bytearray((BTF / "6.12.95-debian" / "openvswitch").read_bytes())
    for word, value in changes.items():
        struct.pack_into("<I", data, 4 * word, value)
    ask_everything(bytes(data), Btf(WHOLE))
