# SPDX-License-Identifier: MIT
"""The process that compiles: the only import of bcc. Run by path, it imports nothing of pktdrop.

Reads one request (JSON on stdin), writes one answer (JSON on stdout), leaves clang's messages on stderr. Exit status:
0 compiled, 1 refused by clang, BCC_IS_MISSING where bcc cannot be imported.
"""

import base64
import ctypes
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

BCC_IS_MISSING = 3

# struct bpf_insn (include/uapi/linux/bpf.h): a load of a 64-bit immediate whose source is a map file descriptor.
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD = 1
_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_DIALECT = ("-fms-extensions", "-Wno-microsoft-anon-tag")
"""What installed headers are compiled with besides: newer ones have members without a name that are of a struct with
one, which are no members at all without this (Makefile, CC_FLAGS_DIALECT, v7.3); to older ones it makes no difference.
"""
_MS_BIND, _MS_REC, _MS_SLAVE = 1 << 12, 1 << 14, 1 << 19  # include/uapi/linux/mount.h


def _map_references(instructions: bytes, names: dict[int, str]) -> dict[int, str]:
    """Find the instructions that load a map, and the map's name by the descriptor they hold."""
    found = {}
    for index, (code, registers, _, immediate) in enumerate(struct.iter_unpack("=BBhi", instructions)):
        if code == _LOAD_IMMEDIATE_64 and registers >> 4 == _PSEUDO_MAP_FD:
            found[index] = names[immediate]
    return found


def _hide_symbols() -> None:
    """Let bcc find /proc/kallsyms empty, in a mount namespace of this process.

    bcc reads all of it, which is half the time of a compilation, only to learn which of the kernel's helpers
    bpf_probe_read_kernel() is. Where a mount namespace is not allowed, it takes that time.
    """
    libc = ctypes.CDLL(None)
    if libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None) == 0:
        libc.mount(b"/dev/null", b"/proc/kallsyms", None, ctypes.c_ulong(_MS_BIND), None)


def _compile(request: dict[str, Any]) -> dict[str, Any]:
    import bcc
    from bcc.libbcc import lib

    source = Path(request["source"])
    text = request["layout"] + f'\n#line 1 "{source}/drops.c"\n' + (source / "drops.c").read_text(encoding="utf-8")
    flags = [f"-I{source}", "-Werror", *(f"-D{name}={value}" for name, value in request["definitions"].items())]
    flags += () if request["own_headers"] else _DIALECT
    module = bcc.BPF(text=text, cflags=flags)
    handle = module.module
    # bcc/bcc_common.h has these, bcc's Python module does not declare them
    for function, result in (
        (lib.bpf_table_name, ctypes.c_char_p),
        (lib.bpf_table_key_size_id, ctypes.c_size_t),
        (lib.bpf_table_leaf_size_id, ctypes.c_size_t),
    ):
        function.restype, function.argtypes = result, [ctypes.c_void_p, ctypes.c_ulonglong]
    maps = {}
    descriptors = {}
    for number in range(lib.bpf_num_tables(handle)):
        name = lib.bpf_table_name(handle, number)
        descriptors[lib.bpf_table_fd(handle, name)] = name.decode()
        maps[name.decode()] = {
            "type": lib.bpf_table_type_id(handle, number),
            "key_size": lib.bpf_table_key_size_id(handle, number),
            "value_size": lib.bpf_table_leaf_size_id(handle, number),
            "max_entries": lib.bpf_table_max_entries_id(handle, number),
        }
    programs = {}
    for number in range(lib.bpf_num_functions(handle)):
        name = lib.bpf_function_name(handle, number)
        instructions = module.dump_func(name)
        programs[name.decode()] = {
            "instructions": base64.b64encode(instructions).decode(),
            "maps": _map_references(instructions, descriptors),
        }
    return {"maps": maps, "programs": programs, "bcc_version": bcc.__version__}


def main() -> int:
    """Answer the one request on stdin."""
    try:
        import bcc  # noqa: F401  imported before the request is here, to overlap with the caller's work
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return BCC_IS_MISSING
    request = json.load(sys.stdin)
    if request["hide_symbols"]:
        _hide_symbols()
    if request["own_headers"]:
        os.environ["BCC_KERNEL_SOURCE"] = request["source"]
    answer = _compile(request)
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
