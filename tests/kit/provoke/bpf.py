# SPDX-License-Identifier: MIT
"""BPF programs that give one verdict on every packet, attached where no command of ours can."""

import ctypes
import os
import platform
import struct

from pktdrop.demo.net import Net

_CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]  # bpf(2)
_PROG_LOAD, _LINK_CREATE = 5, 28  # include/uapi/linux/bpf.h, as those below
SCHED_CLS, XDP, CGROUP_SKB = 3, 6, 8
AT_CGROUP_EGRESS, AT_XDP, AT_TCX_INGRESS = 1, 37, 46
XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE = 2, 4  # include/uapi/linux/if_link.h


def _bpf(command: int, attributes: bytes) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    fd = int(call(_CALL, command, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def returning(verdict: int) -> bytes:
    """A program that is "return verdict"."""
    return struct.pack("=BBhiBBhi", 0xB7, 0, 0, verdict, 0x95, 0, 0, 0)  # r0 = v; exit


def redirecting(ifindex: int) -> bytes:
    """A program that is "return bpf_redirect(ifindex, 0)"."""
    arguments = struct.pack("=BBhiBBhi", 0xB7, 1, 0, ifindex, 0xB7, 2, 0, 0)  # r1 = ifindex; r2 = 0
    return arguments + struct.pack("=BBhiBBhi", 0x85, 0, 0, 23, 0x95, 0, 0, 0)  # call; exit


def attach(net: Net, program: int, instructions: bytes, target: int, where: int, flags: int = 0) -> None:
    """Load a program and attach it to an interface of this thread's namespace, or to a cgroup, until the end."""
    code, size = ctypes.create_string_buffer(instructions), len(instructions) // 8
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")
    pointers = ctypes.addressof(code), ctypes.addressof(licence)
    loaded = _bpf(_PROG_LOAD, struct.pack("=IIQQIIQII16sII", program, size, *pointers, 0, 0, 0, 0, 0, b"", 0, where))
    net.stack.callback(os.close, loaded)
    net.stack.callback(os.close, _bpf(_LINK_CREATE, struct.pack("=IIII48x", loaded, target, where, flags)))
