# SPDX-License-Identifier: MIT
"""The bpf(2) system call against the kernel; what is in a map, and what exists, says bpftool."""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pktdrop.kernel import host, sysbpf
from pktdrop.kernel.sysbpf import AttachType, MapType, ProgramType
from tests.kit.process import run, wait_until

# struct bpf_insn (include/uapi/linux/bpf.h): code, registers, offset, immediate
RETURN_0 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
ONLY_EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


@pytest.fixture(autouse=True)
def room_for_maps() -> None:
    """Kernels before 5.11 charge maps to a limit of the process, as pktdrop knows."""
    host.raise_memlock()


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close a file descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def identity(descriptor: int, kind: str) -> int:
    """The number that the kernel gave a map or program (proc(5), fdinfo)."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{kind}_id:")))


def bpftool(*arguments: str) -> Any:
    """What bpftool says, taken apart."""
    return json.loads(run("bpftool", "--json", *arguments))


def fill(map_id: int, pairs: dict[bytes, bytes]) -> None:
    """Have bpftool put pairs into a map."""
    with tempfile.NamedTemporaryFile("w", suffix=".batch") as batch:
        for key, value in pairs.items():
            words = (" ".join(str(byte) for byte in one) for one in (key, value))
            batch.write("map update id {} key {} value {}\n".format(map_id, *words))
        batch.flush()
        run("bpftool", "batch", "file", batch.name)


def test_a_map_is_as_asked_for() -> None:
    """Type, sizes and name are those that bpftool reads back; the map ends with its descriptor."""
    with opened(sysbpf.map_create(MapType.HASH, 24, 32, 100, "a_name_longer_than_15")) as descriptor:
        number = identity(descriptor, "map")
        shown = bpftool("map", "show", "id", str(number))
        told = {key: shown[key] for key in ("type", "name", "bytes_key", "bytes_value", "max_entries")}
        assert told == {
            "type": "hash", "name": "a_name_longer_t", "bytes_key": 24, "bytes_value": 32, "max_entries": 100,
        }  # fmt: skip
    wait_until(lambda: number not in [one["id"] for one in bpftool("map", "show")], "the map to be gone")


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 9000])
def test_all_items_of_a_map_are_read(count: int) -> None:
    """Around and beyond the size of one batch, each pair comes once, in batches and one by one alike."""
    pairs = {struct.pack("=QQ", number, ~number & 0xFFFF): struct.pack("=Q", number**3) for number in range(count)}
    with opened(sysbpf.map_create(MapType.HASH, 16, 8, 10_000, "items")) as descriptor:
        fill(identity(descriptor, "map"), pairs)
        for read in (sysbpf.map_items, sysbpf._one_by_one):
            blocks = list(read(descriptor, 16, 8))
            keys, values = (b"".join(block[part] for block in blocks) for part in (0, 1))
            assert len(keys) == 16 * count
            found = [(keys[16 * place : 16 * place + 16], values[8 * place : 8 * place + 8]) for place in range(count)]
            assert dict(found) == pairs
        for key in list(pairs)[:3]:
            assert sysbpf.map_lookup(descriptor, key, 8) == pairs[key]
        with pytest.raises(FileNotFoundError):
            sysbpf.map_lookup(descriptor, bytes(15) + b"\1", 8)


def test_an_array_is_read_by_the_same_call() -> None:
    """All entries of an array come in order, also those never written."""
    with opened(sysbpf.map_create(MapType.ARRAY, 4, 8, 5, "array")) as descriptor:
        fill(identity(descriptor, "map"), {struct.pack("=I", 3): bytes(range(8))})
        values = b"".join(block for _, block in sysbpf.map_items(descriptor, 4, 8))
        assert values == bytes(24) + bytes(range(8)) + bytes(8)


def test_a_value_for_each_cpu() -> None:
    """A per-CPU map has as many values as bpftool shows, each in the place of its CPU."""
    with opened(sysbpf.map_create(MapType.PERCPU_ARRAY, 4, 8, 1, "per_cpu")) as descriptor:
        number = identity(descriptor, "map")
        fill(number, {bytes(4): b"\7" + bytes(7)})
        (shown,) = bpftool("map", "dump", "id", str(number))
        cpus = len(shown["values"])
        assert sysbpf.map_lookup(descriptor, bytes(4), 8 * cpus) == (b"\7" + bytes(7)) * cpus


@pytest.mark.parametrize(
    ("sizes", "number"),
    [((0, 8, 1), errno.EINVAL), ((8, 0, 1), errno.EINVAL), ((8, 8, 0), errno.EINVAL)],
    ids=["no key", "no value", "no entries"],
)
def test_a_map_that_is_refused(sizes: tuple[int, int, int], number: int) -> None:
    """The kernel's own error is raised."""
    with pytest.raises(OSError, match=r"\S") as refused:
        sysbpf.map_create(MapType.HASH, *sizes, "refused")
    assert refused.value.errno == number


def test_a_program_is_loaded_and_attached() -> None:
    """bpftool shows it under its name, type and licence; it never ran, and ends with its descriptors."""
    with opened(sysbpf.program_load(ProgramType.RAW_TRACEPOINT, RETURN_0, "returns_0")) as program:
        number = identity(program, "prog")
        shown = bpftool("prog", "show", "id", str(number))
        assert (shown["name"], shown["type"], shown["gpl_compatible"]) == ("returns_0", "raw_tracepoint", True)
        with opened(sysbpf.raw_tracepoint_open(program, "kfree_skb")) as link:
            target = Path(f"/proc/self/fd/{link}").readlink().name
            assert target.startswith("anon_inode:bpf")  # bpf_link, before 5.8 bpf-raw-tracepoint
        with pytest.raises(FileNotFoundError):
            sysbpf.raw_tracepoint_open(program, "no_such_tracepoint")
    wait_until(lambda: number not in [one["id"] for one in bpftool("prog", "show")], "the program to be gone")


def test_why_a_program_is_refused() -> None:
    """The verifier's last words and its errno are in the error."""
    with pytest.raises(sysbpf.LoadError) as refused:
        sysbpf.program_load(ProgramType.RAW_TRACEPOINT, ONLY_EXIT, "only_exit")
    assert refused.value.reason == "R0 !read_ok"
    assert refused.value.errno == errno.EACCES


def test_a_type_that_is_none() -> None:
    """A typed program with the number of no type is refused, by whatever error."""
    with pytest.raises(sysbpf.LoadError):
        sysbpf.program_load(ProgramType.TRACING, RETURN_0, "typed", AttachType.TRACE_RAW_TP, 0x7FFFFFFF)


def test_a_program_that_never_ran_skipped_no_run() -> None:
    """Nothing is missed by a program that is not attached."""
    with opened(sysbpf.program_load(ProgramType.RAW_TRACEPOINT, RETURN_0, "idle")) as program:
        assert sysbpf.recursion_misses(program) == 0
