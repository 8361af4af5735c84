# SPDX-License-Identifier: MIT
"""The system calls, as far as they can be tried without rights."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel import sysbpf

UAPI = Path("/usr/include/linux/bpf.h")
NO_FILE = 0x7FFFFFFF
"""A file descriptor that no process has open."""


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("0\n", 1),
        ("0-3\n", 4),
        ("0-3,8-11\n", 12),
        ("0,2,4\n", 5),
        ("1,5-5,7-8", 9),
        ("0-127\n", 128),
    ],
)
def test_cpu_numbers(text: str, end: int) -> None:
    """A list of CPUs, with holes or without, ends with the highest number."""
    assert sysbpf.cpu_numbers(text) == end


@given(st.sets(st.integers(0, 300), min_size=1))
def test_any_list_of_cpus(cpus: set[int]) -> None:
    """However a set of CPUs is written as ranges (kernel: bitmap_print_to_pagebuf), its end is found."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][-1] == cpu - 1:
            ranges[-1].append(cpu)
        else:
            ranges.append([cpu])
    text = ",".join(f"{one[0]}-{one[-1]}" if len(one) > 1 else str(one[0]) for one in ranges) + "\n"
    assert sysbpf.cpu_numbers(text) == max(cpus) + 1


def test_cpu_numbers_of_this_host() -> None:
    """The highest number is that of a directory of a CPU, if all of them are present."""
    present = Path("/sys/devices/system/cpu/present").read_text()
    if present != Path("/sys/devices/system/cpu/possible").read_text():
        pytest.skip("not all possible CPUs are present, so they cannot be counted by their directories")
    found = [int(entry[3:]) for entry in os.listdir("/sys/devices/system/cpu") if re.fullmatch(r"cpu[0-9]+", entry)]
    assert sysbpf.cpu_numbers() == max(found) + 1


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "0: R1=ctx() R10=fp0\n; LOAD(len, skb->len);\n5: (61) r1 = *(u32 *)(r1 +112)\n"
            "func 'kfree_skb' doesn't have 7-th argument\ninvalid bpf_context access off=56 size=8\n"
            "processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n",
            "invalid bpf_context access off=56 size=8",
        ),
        ("program of this type cannot use helper bpf_probe_read_kernel#113\n\n",
         "program of this type cannot use helper bpf_probe_read_kernel#113"),
        (
            "0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n\n"
            "Verification failed: Register Type Safety: Unreadable register\n\n"
            "Reason:\n  R0 has never been initialized on this path, so the verifier cannot use it as an input.\n\n"
            "Suggestion:\n  Initialize R0 on every path before this instruction.\n\n"
            "processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n\n",
            "R0 !read_ok",
        ),
        ("processed 0 insns (limit 1000000) max_states_per_insn 0\n", os.strerror(errno.EPERM)),
        ("", os.strerror(errno.EPERM)),
    ],
)  # fmt: skip
def test_why_a_program_was_refused(log: str, reason: str) -> None:
    """The reason is what the verifier said last, without its statistics; without a log, the error's own text."""
    error = sysbpf.LoadError(errno.EPERM, log)
    assert error.reason == reason
    assert error.errno == errno.EPERM


def _enumerator(name: str) -> int:
    """The value of an enumerator of the kernel's header, by its place in its enum."""
    text = re.sub(r"/\*.*?\*/", "", UAPI.read_text(), flags=re.DOTALL)
    for body in re.findall(r"^enum\s*\w*\s*\{(.*?)\}", text, re.DOTALL | re.MULTILINE):
        if not re.search(rf"\b{name}\b", body):
            continue
        values: dict[str, int] = {}
        value = -1
        for part in filter(None, (part.strip() for part in body.split(","))):
            found, _, given_value = (piece.strip() for piece in part.partition("="))
            value = values[given_value] if given_value in values else int(given_value, 0) if given_value else value + 1
            values[found] = value
        return values[name]
    raise LookupError(name)


@pytest.mark.parametrize(
    ("member", "name"),
    [
        *((member, f"BPF_MAP_TYPE_{member.name}") for member in sysbpf.MapType),
        *((member, f"BPF_PROG_TYPE_{member.name}") for member in sysbpf.ProgramType),
        (sysbpf.AttachType.TRACE_RAW_TP, "BPF_TRACE_RAW_TP"),
        (sysbpf.AttachType.TRACE_FENTRY, "BPF_TRACE_FENTRY"),
        *((member, f"BPF_{member.name}") for member in sysbpf._Command if member.name != "PROG_LOAD"),
        (sysbpf._Command.PROG_LOAD, "BPF_PROG_LOAD"),
    ],
)
def test_constants_are_those_of_the_kernel(member: IntEnum, name: str) -> None:
    """Commands and types have the numbers of the kernel's own header."""
    if not UAPI.exists():
        pytest.skip(f"{UAPI} is not installed (linux-libc-dev)")
    assert member == _enumerator(name)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sysbpf.map_lookup(NO_FILE, bytes(4), 8),
        lambda: list(sysbpf.map_items(NO_FILE, 32, 32)),
        lambda: sysbpf.recursion_misses(NO_FILE),
        lambda: sysbpf.raw_tracepoint_open(NO_FILE, "kfree_skb"),
    ],
)
def test_errors_of_the_kernel_are_raised(call: Callable[[], object]) -> None:
    """A call that the kernel refuses raises OSError with the kernel's errno, never a wrong result."""
    with pytest.raises(OSError, match=r"\S") as refused:
        call()
    assert refused.value.errno in (errno.EBADF, errno.EBADFD, errno.EPERM)


def test_the_c_library_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look makes hundreds of system calls; loading it for each takes longer than they do."""
    loaded: list[object] = []
    library = ctypes.CDLL

    def load(*names: object, **options: bool) -> ctypes.CDLL:
        loaded.append(names)
        return library(*names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ctypes, "CDLL", load)
    for _ in range(3):
        with pytest.raises(OSError, match=r"Bad file descriptor|not permitted"):
            sysbpf.map_lookup(1 << 20, b"\0" * 4, 8)
    assert len(loaded) <= 1
