# SPDX-License-Identifier: MIT
"""How a program may read the bytes of a packet, which no type describes: the ways, best first, chosen by trying.

plain  loads from skb->head on: a pointer to bytes that are read without a guarantee (Linux 6.17 and later).
cast   the same loads, of an array in a struct that the kfunc bpf_rdonly_cast() says is there (6.2 and later).
probe  bpf_probe_read_kernel(), which lockdown=confidentiality forbids.
none   there are no samples.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pktdrop.kernel import layout, sysbpf
from pktdrop.kernel.btf import Btf, BtfKind

NONE, PLAIN, CAST, PROBE = "none", "plain", "cast", "probe"
READERS: Mapping[str, int] = {NONE: 0, PLAIN: 1, CAST: 2, PROBE: 3}
"""The ways to read packets, by their names, and their numbers READER_* in bpf/samples.h."""
ORDER = (PLAIN, CAST, PROBE)
"""Names of the ways to read packets, the best first."""
_CAST_FUNCTION = "bpf_rdonly_cast"
_CAST_STRUCT = "linux_mib"
"""include/net/snmp.h: it is an array of some hundred longs, and nothing else."""

# struct bpf_insn: code, registers (source << 4 | destination), offset, immediate
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD64, _LOAD16 = 0x79, 0x69  # BPF_LDX | BPF_MEM | BPF_DW or BPF_H
_ADD, _ADD_NUMBER, _SET, _SET_NUMBER = 0x0F, 0x07, 0xBF, 0xB7  # BPF_ALU64
_CALL, _EXIT = 0x85, 0x95
_PROBE_READ_KERNEL, _KFUNC_CALL = 113, 2  # enum bpf_func_id; BPF_PSEUDO_KFUNC_CALL


class SampleFacts(NamedTuple):
    """What a kernel's types say of packets and sockets."""

    head: int
    """Offset of sk_buff.head, in bytes."""
    mac_header: int
    cast_function: int = 0
    """BTF id of the kfunc bpf_rdonly_cast(); 0: it is not there."""
    cast_type: int = 0
    """BTF id of a struct that is a long array."""
    inode: bool = False
    """Whether the inode of a socket can be found."""
    cgroup: bool = False
    vlan: bool = False
    no_carrier_bit: int | None = None
    """Bit of net_device.state that says that an interface has no carrier; None: that cannot be known."""

    def members(self) -> Mapping[str, Sequence[str]]:
        """Return what bpf/samples.h reads."""
        optional = (
            (self.inode, layout.INODE_MEMBERS),
            (self.cgroup, layout.CGROUP_MEMBERS),
            (self.vlan, layout.VLAN_MEMBERS),
            (self.no_carrier_bit is not None, layout.CARRIER_MEMBERS),
        )
        return layout.with_members(layout.SAMPLE_MEMBERS, *(part for there, part in optional if there))


def facts(btf: Btf) -> SampleFacts | None:
    """Return what a kernel has for samples; None where something is missing."""
    if not layout.has_members(btf, layout.SAMPLE_MEMBERS):
        return None
    skb = btf.find("sk_buff", BtfKind.STRUCT) or 0
    head, mac = btf.member(skb, "head"), btf.member(skb, "mac_header")
    if head is None or mac is None:
        return None
    return SampleFacts(
        head.offset // 8,
        mac.offset // 8,
        btf.function(_CAST_FUNCTION) or 0,
        btf.find(_CAST_STRUCT, BtfKind.STRUCT) or 0,
        inode=layout.has_members(btf, layout.INODE_MEMBERS),
        cgroup=layout.has_members(btf, layout.CGROUP_MEMBERS),
        vlan=layout.has_members(btf, layout.VLAN_MEMBERS),
        no_carrier_bit=layout.no_carrier_bit(btf) if layout.has_members(btf, layout.CARRIER_MEMBERS) else None,
    )


def choose(of: SampleFacts | None, tracepoint_id: int) -> str:
    """Return the best way that a BTF-typed program of a tracepoint, whose first argument is an skb, is let."""
    if of is None or not has_ring():
        return NONE
    for reader in ORDER:
        if reader == CAST and not (of.cast_function and of.cast_type):
            continue
        try:
            program = sysbpf.program_load(
                sysbpf.ProgramType.TRACING,
                _trial(of, reader),
                f"read_{reader}",
                sysbpf.AttachType.TRACE_RAW_TP,
                tracepoint_id,
            )
        except OSError:
            continue
        os.close(program)
        return reader
    return NONE


def has_ring() -> bool:
    """Tell whether the kernel has BPF ring buffers (Linux 5.8) for whom asks."""
    try:
        os.close(sysbpf.map_create(sysbpf.MapType.RINGBUF, 0, 0, 64 * 1024, "ring"))
    except OSError:
        return False
    return True


def _trial(of: SampleFacts, reader: str) -> bytes:
    """Return a program that reads eight bytes of a packet: from skb->head + skb->mac_header on."""
    steps = [
        (_LOAD64, 0x11, 0, 0),  # r1 = skb
        (_LOAD16, 0x12, of.mac_header, 0),  # r2 = skb->mac_header
        (_LOAD64, 0x11, of.head, 0),  # r1 = skb->head
        (_ADD, 0x21, 0, 0),  # r1 += r2
    ]
    if reader == PROBE:
        steps += [
            (_SET, 0x13, 0, 0),  # r3 = r1
            (_SET_NUMBER, 0x02, 0, 8),
            (_SET, 0xA1, 0, 0),  # r1 = r10
            (_ADD_NUMBER, 0x01, 0, -8),
            (_CALL, 0, 0, _PROBE_READ_KERNEL),
        ]
    else:
        if reader == CAST:
            steps += [
                (_SET_NUMBER, 0x02, 0, of.cast_type),
                (_CALL, _KFUNC_CALL << 4, 0, of.cast_function),
                (_SET, 0x01, 0, 0),  # r1 = r0
            ]
        steps += [(_LOAD64, 0x10, 0, 0)]  # r0 = *(u64 *)r1
    steps += [(_SET_NUMBER, 0, 0, 0), (_EXIT, 0, 0, 0)]
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)
