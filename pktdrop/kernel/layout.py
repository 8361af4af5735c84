# SPDX-License-Identifier: MIT
"""C declarations of the kernel's structs, for the few members that pktdrop reads, exact to the byte.

Each struct is padding plus those members, under flat names: `nd_net.net` becomes `nd_net_net`. The C compiler proves
every offset by a static assertion.
"""

from collections.abc import Iterator, Mapping, Sequence

from pktdrop.kernel.btf import Btf, BtfError, BtfKind, Member

_COOKIE_SIZE = 8
READ_MEMBERS: Mapping[str, Sequence[str]] = {
    "net": ("ns.inum", "loopback_dev"),
    "net_device": ("ifindex", "name", "nd_net.net"),
    "sock": ("__sk_common.skc_net.net",),
    "sk_buff": ("dev", "len", "protocol", "skb_iif", "sk"),
}
"""What bpf/reads.h uses on every kernel."""
NETNS_COOKIE = "net_cookie"
"""Member of struct net that bpf/reads.h uses where `has_netns_cookie`."""
SAMPLE_MEMBERS: Mapping[str, Sequence[str]] = {
    "net_device": ("type",),
    "sk_buff": ("head", "data", "tail", "mac_header", "network_header", "transport_header"),
    "sock": ("__sk_common.skc_family", "__sk_common.skc_num", "__sk_common.skc_dport", "__sk_common.skc_state",
             "sk_protocol"),
}  # fmt: skip
"""What bpf/samples.h uses besides."""
INODE_MEMBERS: Mapping[str, Sequence[str]] = {
    "sock": ("sk_socket",), "socket": ("file",), "file": ("f_inode",), "inode": ("i_ino",),
}  # fmt: skip
"""Members that tell a socket's inode; where all of these are there, the programs are compiled with HAS_INODE."""
CGROUP_MEMBERS: Mapping[str, Sequence[str]] = {
    "sock": ("sk_cgrp_data.cgroup",), "cgroup": ("kn",), "kernfs_node": ("id",),
}  # fmt: skip
"""Members that tell a socket's cgroup: the programs are then compiled with HAS_CGROUP. Before Linux 5.15 a number holds
the pointer, or something else."""
VLAN_MEMBERS: Mapping[str, Sequence[str]] = {"sk_buff": ("vlan_all",)}
"""Members that tell a VLAN tag: the programs are then compiled with HAS_VLAN. Before Linux 6.3 a bit says whether what
is in the tag is one."""
XDP_MEMBERS: Mapping[str, Sequence[str]] = {"net_device": ("xdp_prog",)}
"""Members that tell generic XDP: bpf/xdp.c counts what ends in XDP where they are there."""
CARRIER_MEMBERS: Mapping[str, Sequence[str]] = {"net_device": ("state", "adj_list.lower.next")}
"""Members that tell whether an interface has a carrier: the programs are then compiled with HAS_CARRIER."""

FROM_HEADERS = """\
#include <linux/skbuff.h>
#include <linux/netdevice.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#define ns_inum ns.inum
#define nd_net_net nd_net.net
#define sk_common_skc_net_net __sk_common.skc_net.net
#define sk_common_skc_family __sk_common.skc_family
#define sk_common_skc_num __sk_common.skc_num
#define sk_common_skc_dport __sk_common.skc_dport
#define sk_common_skc_state __sk_common.skc_state
#define PACKET_TYPE_BYTE __builtin_offsetof(struct sk_buff, __pkt_type_offset)
#define PACKET_TYPE(byte) ((byte) & 0x7)
"""
"""The same names over the installed headers of a kernel without BTF."""


class LayoutError(ValueError):
    """The kernel's types lack something that must be read."""


def has_netns_cookie(btf: Btf) -> bool:
    """Tell whether struct net has its cookie as a plain number, given when it is made (Linux 5.12 and later).

    Before, it is an atomic64_t that is 0 until somebody asks for it (net_gen_cookie() in net/core/net_namespace.c).
    """
    net = btf.find("net", BtfKind.STRUCT)
    member = None if net is None else btf.member(net, NETNS_COOKIE)
    return member is not None and btf.kind(member.type) == BtfKind.INT and btf.size(member.type) == _COOKIE_SIZE


def with_members(*parts: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Return all members of some parts."""
    found: dict[str, Sequence[str]] = {}
    for part in parts:
        for name, paths in part.items():
            found[name] = (*found.get(name, ()), *paths)
    return found


def has_members(btf: Btf, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether a kernel has all of these members, in a form that can be read."""
    try:
        declarations(btf, wanted)
    except (LayoutError, BtfError):
        return False
    return True


def members(netns_cookie: bool) -> Mapping[str, Sequence[str]]:
    """Return what is read, with the namespace's cookie or without."""
    return {**READ_MEMBERS, "net": (*READ_MEMBERS["net"], NETNS_COOKIE)} if netns_cookie else READ_MEMBERS


def declarations(btf: Btf, wanted: Mapping[str, Sequence[str]] = READ_MEMBERS) -> str:
    """Return the declarations of the wanted structs.

    Raises LayoutError where one lacks a member, BtfError where a member is of a type that is not read.
    """
    text = ["#include <linux/types.h>", *(f"struct {name};" for name in wanted)]
    for name, paths in wanted.items():
        text += _struct(btf, name, paths)
    return "\n".join(text) + "\n"


def packet_type(btf: Btf) -> str:
    """Return macros for the bit-field sk_buff.pkt_type: the byte it is in, and how it is taken out of that.

    Raises LayoutError where it is not there, or not within a byte.
    """
    sk_buff = btf.find("sk_buff", BtfKind.STRUCT)
    found = None if sk_buff is None else btf.member(sk_buff, "pkt_type")
    if found is None or not 0 < found.bits <= 8 - found.offset % 8:
        raise LayoutError("this kernel's struct sk_buff has no bit-field pkt_type")
    byte, shift = divmod(found.offset, 8)
    return (
        f"#define PACKET_TYPE_BYTE {byte}\n"
        f"#define PACKET_TYPE(byte) (((byte) >> {shift}) & {(1 << found.bits) - 1:#x})\n"
    )


def no_carrier_bit(btf: Btf) -> int | None:
    """Return the bit of net_device.state that says that there is no carrier; None: not known."""
    states = btf.enum("netdev_state_t") or {}  # include/linux/netdevice.h
    return states.get("__LINK_STATE_NOCARRIER")


def flat(path: str) -> str:
    """Return the name of a member in the generated struct."""
    return path.lstrip("_").replace(".", "_")


def _struct(btf: Btf, name: str, paths: Sequence[str]) -> Iterator[str]:
    struct_id = btf.find(name, BtfKind.STRUCT)
    if struct_id is None:
        raise LayoutError(f"this kernel's BTF has no struct {name}")
    members = sorted((_find(btf, struct_id, name, path), path) for path in paths)
    yield f"struct {name} {{"
    end = 0
    for member, path in members:
        offset = member.offset // 8
        if offset > end:
            yield f"\tchar pad{end}[{offset - end}];"
        declaration, size = _declaration(btf, member.type, flat(path))
        yield f"\t{declaration};"
        end = offset + size
    yield "};"
    for member, path in members:
        yield (
            f"_Static_assert(__builtin_offsetof(struct {name}, {flat(path)}) == {member.offset // 8}, "
            f'"struct {name}: {path} is misplaced");'
        )


def _find(btf: Btf, struct_id: int, struct_name: str, path: str) -> Member:
    offset = 0
    member = Member(0, struct_id, 0)
    for part in path.split("."):
        found = btf.member(member.type, part)
        if found is None:
            raise LayoutError(f"this kernel's struct {struct_name} has no member {path}")
        offset += found.offset
        member = found._replace(offset=offset)
    if member.bits or member.offset % 8:
        raise LayoutError(f"{path} is a bit-field in this kernel's struct {struct_name}")
    return member


def _declaration(btf: Btf, type_id: int, name: str) -> tuple[str, int]:
    """Return the C declaration of a member and its size in bytes."""
    kind = btf.kind(type_id)
    if kind == BtfKind.PTR:
        target = btf.resolve(btf.target(type_id))
        if target and btf.kind(target) == BtfKind.STRUCT and btf.name(target):
            return f"struct {btf.name(target)} *{name}", 8
        return f"void *{name}", 8
    if kind == BtfKind.INT:
        size = btf.size(type_id)
        return f"{'s' if btf.is_signed(type_id) else 'u'}{8 * size} {name}", size
    if kind == BtfKind.ARRAY:
        element, count = btf.array(type_id)
        if btf.kind(element) == BtfKind.ARRAY:
            raise BtfError(f"{name} is an array of arrays")
        declaration, size = _declaration(btf, element, f"{name}[{count}]")
        return declaration, size * count
    raise BtfError(f"{name} is of a kind that is not read: {kind.name}")
