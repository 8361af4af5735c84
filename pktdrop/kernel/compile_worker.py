# SPDX-License-Identifier: MIT
"""The process that compiles: the only import of bcc. Run by path, it imports nothing of pktdrop.

It is started in an empty directory of its own, as bcc has clang look there first for every header, and with nothing in
its environment. Reads one request (JSON on stdin), writes one answer (JSON on stdout), leaves clang's messages on
stderr. Exit status: 0 compiled, 1 refused by clang, BCC_IS_MISSING where bcc cannot be imported, DENIED where the host
denies a file (the answer is then the number of the error).
"""

import base64
import ctypes
import json
import os
import re
import struct
import sys
from pathlib import Path
from typing import Any

BCC_IS_MISSING = 3
DENIED = 4

# struct bpf_insn (include/uapi/linux/bpf.h): a load of a 64-bit immediate whose source is a map file descriptor.
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD = 1
_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_DIALECT = ("-fms-extensions", "-Wno-microsoft-anon-tag")
"""What installed headers are compiled with besides: newer ones have members without a name that are of a struct with
one, which are no members at all without this (Makefile, CC_FLAGS_DIALECT, v7.3); to older ones it makes no difference.
"""
_MS_BIND, _MS_REC, _MS_SLAVE = 1 << 12, 1 << 14, 1 << 19  # include/uapi/linux/mount.h
_VIRTUAL = "/virtual/"
"""Files of this directory are bcc's own, in memory (src/cc/export/, v0.26)."""
_COMPILER = re.compile(r"/lib(?:bcc|bpf|clang|LLVM)[^/]*$")
_INCLUDE = re.compile(r'^(#include )(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)

# bcc/bcc_common.h; bcc's Python module declares some of these only, and a pointer is cut where none is declared
_NUMBER_OF = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_NAME = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_SIZE = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)
_TYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_DESCRIPTOR = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
# unshare(2), mount(2)
_UNSHARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
_MOUNT = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p
)


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
    unshare, mount = _UNSHARE(("unshare", libc)), _MOUNT(("mount", libc))
    if unshare(_CLONE_NEWNS) == 0 and mount(None, b"/", None, _MS_REC | _MS_SLAVE, None) == 0:
        mount(b"/dev/null", b"/proc/kallsyms", None, _MS_BIND, None)


def _text(source: Path, request: dict[str, Any]) -> str:
    """Return what is compiled: the layouts, then drops.c and xdp.c, with their headers by their whole paths."""

    def whole(include: re.Match[str]) -> str:
        beside, below = include.group(2), include.group(3)
        if below and not request["own_headers"]:
            return include.group()
        return f'{include.group(1)}"{source / beside if beside else source / "include" / below}"'

    parts = [_INCLUDE.sub(whole, request["layout"])]
    for name in ("drops.c", "xdp.c"):
        main = (source / name).read_text(encoding="utf-8")
        parts.append(f'#line 1 "{source / name}"\n' + _INCLUDE.sub(whole, main))
    return "\n".join(parts)


def _compiled_files(listed: Path) -> list[str]:
    """Return the absolute paths of the files that clang names in a rule for make(1): all that it has read.

    bcc runs clang in the directory that it takes headers from, where relative ones are.
    """
    rule = listed.read_text(encoding="utf-8", errors="surrogateescape").replace("\\\n", " ").partition(": ")[2]
    names = [name.replace("\\ ", " ").replace("\\#", "#").replace("$$", "$") for name in re.split(r"(?<!\\)\s+", rule)]
    base = os.environ.get("BCC_KERNEL_SOURCE") or _headers()
    return sorted({os.path.normpath(os.path.join(base, name)) for name in names if name})


def _headers() -> str:
    """Return the directory of installed headers that bcc takes: ClangLoader::parse(), src/cc/frontends/clang, v0.26."""
    modules = f"/lib/modules/{os.uname().release}"
    both = all(os.path.isdir(f"{modules}/{name}") for name in ("build", "source"))
    return f"{modules}/{'source' if both else 'build'}"


def _libraries() -> list[str]:
    """Return the files of the compiler: the libraries that this process has mapped, as the kernel names them."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    mapped = {line.split(maxsplit=5)[5] for line in lines if "/" in line}  # proc(5): the sixth field is the path
    return sorted(path for path in mapped if _COMPILER.search(path))


def _compile(request: dict[str, Any]) -> dict[str, Any]:
    import bcc
    from bcc.libbcc import lib

    source, listed = Path(request["source"]), Path("read").absolute()
    flags = [f"-I{source}", "-Werror", *(f"-D{name}={value}" for name, value in request["definitions"].items())]
    flags += () if request["own_headers"] else _DIALECT
    module = bcc.BPF(text=_text(source, request), cflags=[*flags, "-MD", "-MF", str(listed)])
    handle = module.module
    table_name, table_fd = _NAME(("bpf_table_name", lib)), _DESCRIPTOR(("bpf_table_fd_id", lib))
    table_type, entries = _TYPE(("bpf_table_type_id", lib)), _SIZE(("bpf_table_max_entries_id", lib))
    key_size, leaf_size = _SIZE(("bpf_table_key_size_id", lib)), _SIZE(("bpf_table_leaf_size_id", lib))
    maps = {}
    descriptors = {}
    for number in range(_NUMBER_OF(("bpf_num_tables", lib))(handle)):
        name = table_name(handle, number).decode()
        descriptors[table_fd(handle, number)] = name
        maps[name] = {
            "type": table_type(handle, number),
            "key_size": key_size(handle, number),
            "value_size": leaf_size(handle, number),
            "max_entries": entries(handle, number),
        }
    function_name = _NAME(("bpf_function_name", lib))
    programs = {}
    for number in range(_NUMBER_OF(("bpf_num_functions", lib))(handle)):
        name = function_name(handle, number)
        instructions = module.dump_func(name)
        programs[name.decode()] = {
            "instructions": base64.b64encode(instructions).decode(),
            "maps": _map_references(instructions, descriptors),
        }
    files = [path for path in _compiled_files(listed) if not path.startswith(_VIRTUAL)]
    return {
        "compiled": {"maps": maps, "programs": programs, "bcc_version": bcc.__version__},
        "files": files,
    }


def main() -> int:
    """Answer the one request on stdin: compile, and write what bcc made to stdout."""
    try:
        import bcc  # noqa: F401  imported before the request is here, to overlap with the caller's work
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return BCC_IS_MISSING
    request = json.load(sys.stdin)
    libraries = _libraries()  # of another mount namespace the kernel tells no path that is one below chroot(2)
    if request["hide_symbols"]:
        _hide_symbols()
    if request["own_headers"]:
        os.environ["BCC_KERNEL_SOURCE"] = request["source"]
    elif not os.path.isfile(f"{_headers()}/include/linux/kconfig.h"):
        # bcc would unpack or take what is in /tmp
        print(f"error: the kernel's headers are not installed: there is no {_headers()}/include", file=sys.stderr)
        return 1
    try:
        json.dump({**_compile(request), "libraries": libraries}, sys.stdout)
    except OSError as denied:
        print(denied.errno or 0)
        return DENIED
    return 0


if __name__ == "__main__":
    sys.exit(main())
