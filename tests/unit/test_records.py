# SPDX-License-Identifier: MIT
"""What crosses from the kernel to user space is laid out alike on both sides."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pktdrop.kernel.records import (
    CONTROL,
    DROP_KEY,
    DROP_VALUE,
    NO_CPU,
    SAMPLE,
    SAMPLE_BYTES,
    SAMPLE_CPU,
    SAMPLE_RING,
    STACK_FRAMES,
    RawKey,
    RawSample,
    RawValue,
)
from tests.kit.patience import PATIENCE

BPF = Path(__file__).parents[2] / "bpf"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# Values of which each byte is another one, and the largest and smallest there are.
KEYS = [
    RawKey(
        call_site=0xFFFFA1B2C3D4E5F6,
        netns=0x11121314,
        ifindex=0x21222324,
        reason=0x31323334,
        cpu=0x2142,
        target_cpu=0x5152,
        protocol=0x6162,
        to_group=True,
        matches=False,
    ),
    RawKey(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x3FFFFFFF, 0x7FFF, 0xFFFF, 0xFFFF, True),
    RawKey(0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x3FFFFFFF, 0x7FFF, 0xFFFF, 0xFFFF),
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
                int to_group, int matches)
{
    struct drop_key one = {
        .call_site = CALL_SITE(location, SECTION(cpu, 1)),
        .netns = netns,
        .ifindex = ifindex,
        .reason = reason | (to_group ? TO_GROUP : 0) | (matches ? 0 : NO_MATCH),
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

    struct sample sample = {
        .time = 0x0102030405060708,
        .key = { .call_site = CALL_SITE(0xffffa1b2c3d4e5f6, SECTION(1, 1)), .netns = 9, .ifindex = 8, .reason = 7 },
        .cgroup = 0x1112131415161718,
        .inode = 0x2122232425262728,
        .length = 0x31323334,
        .iif = 0x41424344,
        .vlan = 0x51525354,
        .captured = 5,
        .network = 0x7172,
        .transport = 0x8182,
        .data = 0x9192,
        .device_type = 0xa1a2,
        .family = 0xb1b2,
        .local_port = 0xc1c2,
        .remote_port = 0xd1d2,
        .protocol = 0xe1e2,
        .state = 0xf1,
        .flags = 0xf2,
        .bytes = "abcdefgh",
    };
    struct control control = { 1, 0x01020304, 0x11121314, 0x21222324, 0x31323334, 0x41424344 };
    struct sample_cpu cpu = { 0x0102030405060708, 0x1112131415161718, 0x21222324 };

    printf("%lu %lu %d %d\\n", (unsigned long)sizeof(struct drop_key), (unsigned long)sizeof(value), NO_CPU,
           INTERFACE_NAME_SIZE);
    show(&value, sizeof(value));
KEYS
    show(&sample, sizeof(sample));
    show(&control, sizeof(control));
    show(&cpu, sizeof(cpu));
    printf("%d %d %lu\\n", SAMPLE_BYTES, SAMPLE_RING, (unsigned long)sizeof(sample));
    return 0;
}
"""


STACK_PROGRAM = """
#include <stdio.h>
#include "drops.h"

int main(void)
{
    struct sample sample = { .captured = 1, .bytes = "ab", .stack = { 0xffffffff81000001, 0xffffffff81000002 } };

    for (unsigned long i = 0; i < sizeof(sample); i++)
        printf("%02x", ((const unsigned char *)&sample)[i]);
    return 0;
}
"""


def _said_by(program: str, directory: Path, *options: str) -> list[str]:
    """What a C program over drops.h prints."""
    if CC is None:
        pytest.skip("there is no C compiler (gcc)")
    (directory / "records.c").write_text(program)
    subprocess.run(
        [CC, "-std=gnu11", *options, "-I", BPF, "-I", BPF / "include", "records.c", "-o", "records"],
        cwd=directory,
        timeout=60 * PATIENCE,
    )
    done = subprocess.run([directory / "records"], check=True, capture_output=True, text=True, timeout=60 * PATIENCE)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Sizes and constants, a value, and each of KEYS in hex."""
    calls = "\n".join(f"    key({', '.join(f'{number:#x}' for number in key)});" for key in KEYS)
    return _said_by(PROGRAM.replace("KEYS", calls), tmp_path_factory.mktemp("records"))


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
    assert value == RawValue(0x0102030405060708, 0x1112131415161718, inode, cookie, name)


def test_sample(lines: list[str]) -> None:
    """A sample that C fills in is read with each number in its place, and of its bytes those that were captured."""
    sample = RawSample.decode(bytes.fromhex(lines[-4]))
    assert RawKey.decode(sample.key) == RawKey(0xFFFFA1B2C3D4E5F6, 9, 8, 7, 1, 0, 0)
    assert sample._replace(key=b"") == RawSample(
        0x0102030405060708, b"", 0x1112131415161718, 0x2122232425262728, 0x31323334, 0x41424344, 0x51525354, 5, 0x7172,
        0x8182, 0x9192, 0xA1A2, 0xB1B2, 0xC1C2, 0xD1D2, 0xE1E2, 0xF1, 0xF2, b"abcde",
    )  # fmt: skip
    assert lines[-1].split() == [str(number) for number in (SAMPLE_BYTES, SAMPLE_RING, SAMPLE.size + SAMPLE_BYTES)]


def test_stack(tmp_path: Path) -> None:
    """A stack that C fills in is read up to its end; a sample without one has none."""
    (record,) = _said_by(STACK_PROGRAM, tmp_path, f"-DSTACK_FRAMES={STACK_FRAMES}")
    sample = RawSample.decode(bytes.fromhex(record))
    assert sample.stack == (0xFFFFFFFF81000001, 0xFFFFFFFF81000002)
    assert sample.content == b"a"
    assert RawSample.decode(bytes.fromhex(record)[: SAMPLE.size + SAMPLE_BYTES]).stack == ()


def test_control_and_cpu(lines: list[str]) -> None:
    """What user space writes and reads of samples has each number in its place."""
    assert CONTROL.unpack(bytes.fromhex(lines[-3])) == (1, 0x01020304, 0x11121314, 0x21222324, 0x31323334, 0x41424344)
    assert SAMPLE_CPU.unpack(bytes.fromhex(lines[-2])) == (0x0102030405060708, 0x1112131415161718, 0x21222324)


@pytest.mark.parametrize("captured", [0, 5, 128, 129, 0xFFFF])
def test_no_more_bytes_than_there_are(captured: int) -> None:
    """Whatever the record says was captured, nothing behind its bytes is taken for the packet."""
    record = bytearray(SAMPLE.size) + b"x" * SAMPLE_BYTES + b"behind"
    record[SAMPLE.size - 20 : SAMPLE.size - 18] = captured.to_bytes(2, "little")
    assert RawSample.decode(bytes(record)).content == b"x" * min(captured, SAMPLE_BYTES)


@pytest.mark.parametrize("size", [0, DROP_KEY.size - 1, DROP_KEY.size + 1, 32])
def test_a_key_of_another_size(size: int) -> None:
    """A key that is too short or too long is an error, not a wrong drop."""
    with pytest.raises(struct.error):
        RawKey.decode(bytes(size))
