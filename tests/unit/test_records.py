# SPDX-License-Identifier: MIT
"""What crosses from the kernel to user space is laid out alike on both sides."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, NO_CPU, RawKey, RawValue
from tests.patience import PATIENCE

BPF = Path(__file__).parents[2] / "bpf"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# Values of which each byte is another one, and the largest and smallest there are.
KEYS = [
    RawKey(
        location=0xFFFFA1B2C3D4E5F6,
        netns=0x11121314,
        ifindex=0x21222324,
        reason=0x31323334,
        cpu=0x2142,
        target_cpu=0x5152,
        protocol=0x6162,
        to_group=True,
    ),
    RawKey(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF, 0xFFFF, 0xFFFF, True),
    RawKey(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF, 0xFFFF, 0xFFFF),
    RawKey(0xFFFF000000000000, 0, 0, 0, 0, 0, 0),
    RawKey(0xFFFFFFFF818B524E, 4026532281, 12, 0x30002, 1, NO_CPU, 0x86DD),
    RawKey(0xFFFFFFFFC04720E2, 0, 0, 0, 8191, 0, 0x0800),
]
PROGRAM = """
#include <stdio.h>
#include "drops.h"

static void show(const void *data, unsigned long size)
{
    for (unsigned long i = 0; i < size; i++)
        printf("%02x", ((const unsigned char *)data)[i]);
    printf("\\n");
}

static void key(u64 location, u32 netns, u32 ifindex, u32 reason, u32 cpu, u16 target_cpu, u16 protocol,
                int to_group)
{
    struct drop_key one = {
        .place = PLACE(location, SECTION(cpu, 1)),
        .netns = netns,
        .ifindex = ifindex,
        .reason = reason | (to_group ? TO_GROUP : 0),
        .target_cpu = target_cpu,
        .protocol = protocol,
    };
    show(&one, sizeof(one));
}

int main(void)
{
    struct drop_value value = {
        .packets = 0x0102030405060708,
        .bytes = 0x1112131415161718,
        .interface = "veth-abcdefghij",
        .netns_cookie = 0x2122232425262728,
        .netns_inode = 0x31323334,
    };

    printf("%lu %lu %d %d\\n", (unsigned long)sizeof(struct drop_key), (unsigned long)sizeof(value), NO_CPU,
           INTERFACE_NAME_SIZE);
    show(&value, sizeof(value));
KEYS
    return 0;
}
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a C program over drops.h prints: sizes and constants, a value, and each of KEYS in hex."""
    if CC is None:
        pytest.skip("there is no C compiler (gcc)")
    directory = tmp_path_factory.mktemp("records")
    calls = "\n".join(f"    key({', '.join(f'{number:#x}' for number in key)});" for key in KEYS)
    (directory / "records.c").write_text(PROGRAM.replace("KEYS", calls))
    subprocess.run(
        [CC, "-std=gnu11", "-I", BPF, "-I", BPF / "include", "records.c", "-o", "records"],
        check=True,
        cwd=directory,
        timeout=60 * PATIENCE,
    )
    done = subprocess.run([directory / "records"], check=True, capture_output=True, text=True, timeout=60 * PATIENCE)
    return done.stdout.splitlines()


def test_sizes_and_constants(lines: list[str]) -> None:
    """Both sides have structs of the same size, and the same idea of no CPU and of a name's length."""
    name = RawValue._make(DROP_VALUE.unpack(bytes(DROP_VALUE.size))).interface
    assert lines[0].split() == [str(number) for number in (DROP_KEY.size, DROP_VALUE.size, NO_CPU, len(name))]


@pytest.mark.parametrize("place", range(len(KEYS)))
def test_keys(lines: list[str], place: int) -> None:
    """A key that C fills in is read in Python with each number in its place, whole and unmixed."""
    assert RawKey.decode(bytes.fromhex(lines[2 + place])) == KEYS[place]


def test_value(lines: list[str]) -> None:
    """A value that C fills in is read in Python with each number in its place."""
    value = RawValue._make(DROP_VALUE.unpack(bytes.fromhex(lines[1])))
    name, cookie, inode = b"veth-abcdefghij\0", 0x2122232425262728, 0x31323334
    assert value == RawValue(0x0102030405060708, 0x1112131415161718, name, cookie, inode)


@pytest.mark.parametrize("size", [0, DROP_KEY.size - 1, DROP_KEY.size + 1, 32])
def test_a_key_of_another_size(size: int) -> None:
    """A key that is too short or too long is an error, not a wrong drop."""
    with pytest.raises(struct.error):
        RawKey.decode(bytes(size))
