# SPDX-License-Identifier: MIT
"""The structs of bpf/drops.h as user space reads them."""

import struct
from itertools import takewhile
from typing import NamedTuple

DROP_KEY = struct.Struct("=QIIIHH")
DROP_VALUE = struct.Struct("=QQ4xIQ16s")  # without `taken`, which is between the kernel and itself
CONTROL = struct.Struct("=QIIIII4x")
"""The active bank; then floor and limit of the samples of each kind, and of each CPU, and where those are scarce."""
SAMPLE_CPU = struct.Struct("=QQI4x")
HOT_DROP = struct.Struct(f"={DROP_KEY.size}s{DROP_VALUE.size}s")
HOT_DROPS = 512
"""Entries of each section in the table in front of the map; a CPU has one section in each bank."""
OTHER_PLACES, OTHER_PLACES_OF_CPU = 4096, 128
"""Entries of the table of other places, in all and for each CPU: a busy host drops at some 100 call sites."""
NO_CPU = 0xFFFF
_TO_GROUP, _NO_MATCH = 1 << 31, 1 << 30
SAMPLE = struct.Struct(f"=Q{DROP_KEY.size}sQQIIIHHHHHHHHHBB")
"""struct sample up to its bytes; the fields of RawSample."""
SAMPLE_BYTES = 128
SAMPLE_RING = 512 * 1024
"""Size of the ring buffer for samples, in bytes."""
FLOW_KEY = struct.Struct("=16s16sQHHBBBx")
"""struct flow_key behind its struct drop_key: addresses, inode, ports, protocol, version of IP, is_for_socket."""
FLOW_VALUE = struct.Struct("=QQ")
STACK_FRAMES = 32
"""Return addresses in a sample, where they are asked for."""
_STACK = struct.Struct(f"={STACK_FRAMES}Q")
NO_DEVICE_TYPE = 0xFFFF
SAMPLE_HAS_MAC, SAMPLE_FOR_SOCKET = 1, 2
"""Of RawSample.flags."""
_TEXT = 0xFFFF << 48
"""The bits of an address of kernel text that the key leaves out."""
NO_CALL_SITE = _TEXT
"""Of what ends in XDP, see bpf/xdp.c."""


class RawKey(NamedTuple):
    """struct drop_key, taken apart: numbers as the kernel counts them, but for the bank; 0 and NO_CPU mean unknown."""

    call_site: int
    netns: int
    """Lower half of the namespace's cookie, or its inode: no more than a mark of it, see RawValue."""
    ifindex: int
    reason: int
    cpu: int
    target_cpu: int
    protocol: int
    to_group: bool = False
    """Whether the frame was sent to a group or to all, for reasons where that matters."""
    matches: bool = True
    """Whether the packet matches the filter, if there is one."""

    @classmethod
    def decode(cls, data: bytes) -> "RawKey":
        """Take apart what the map holds; raises struct.error where its size is another."""
        keyed, netns, ifindex, reason, target_cpu, protocol = DROP_KEY.unpack(data)
        call_site, cpu, to_group = _TEXT | keyed >> 16, (keyed & 0xFFFF) >> 1, reason >= _TO_GROUP
        matches, reason = not reason & _NO_MATCH, reason & ~(_TO_GROUP | _NO_MATCH)
        return cls(call_site, netns, ifindex, reason, cpu, target_cpu, protocol, to_group, matches)


class RawValue(NamedTuple):
    """struct drop_value."""

    packets: int
    octets: int
    netns_inode: int
    netns_cookie: int
    interface: bytes


class RawSample(NamedTuple):
    """struct sample, taken apart; `bytes` has only those that were captured."""

    time: int
    key: bytes
    cgroup: int
    inode: int
    length: int
    iif: int
    vlan: int
    captured: int
    network: int
    transport: int
    data: int
    device_type: int
    family: int
    local_port: int
    remote_port: int
    protocol: int
    state: int
    flags: int
    content: bytes
    stack: tuple[int, ...] = ()
    """Return addresses, the innermost first; none where they were not asked for."""

    @classmethod
    def decode(cls, record: bytes) -> "RawSample":
        """Take apart what the ring holds; raises struct.error where it is too short."""
        fields = SAMPLE.unpack_from(record)
        captured = min(fields[_CAPTURED], SAMPLE_BYTES)
        stack: tuple[int, ...] = ()
        if len(record) >= SAMPLE.size + SAMPLE_BYTES + _STACK.size:
            stack = tuple(takewhile(bool, _STACK.unpack_from(record, SAMPLE.size + SAMPLE_BYTES)))
        return cls._make((*fields, record[SAMPLE.size : SAMPLE.size + captured], stack))


_CAPTURED = RawSample._fields.index("captured")
