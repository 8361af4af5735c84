# SPDX-License-Identifier: MIT
"""What crosses from the kernel to user space is laid out alike on both sides."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, NO_CPU, RawKey, RawValue

BPF = Path(__file__).parents[2] / "bpf"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
MEMBERS = {
    # member of the C struct: field of the Python one
    "drop_key": {
        "location": "location",
        "netns": "netns",
        "ifindex": "ifindex",
        "reason": "reason",
        "cpu": "cpu",
        "target_cpu": "target_cpu",
        "protocol": "protocol",
    },
    "drop_value": {"packets": "packets", "bytes": "octets", "interface": "interface"},
}
PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "drops.h"

#define NUMBER(name) printf(#name " %lu\\n", (unsigned long)(name))
#define MEMBER(type, name) do { \\
    struct type one; \\
    memset(&one, 0, sizeof(one)); \\
    memset(&one.name, 0xff, sizeof(one.name)); \\
    printf(#type "." #name); \\
    for (unsigned int i = 0; i < sizeof(one); i++) printf(" %02x", ((unsigned char *)&one)[i]); \\
    printf("\\n"); \\
} while (0)

int main(void)
{
    printf("drop_key %zu\\n", sizeof(struct drop_key));
    printf("drop_value %zu\\n", sizeof(struct drop_value));
    NUMBER(NO_CPU);
    NUMBER(INTERFACE_NAME_SIZE);
BODY
    return 0;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a C program says of drops.h: sizes, and for each member a struct of zeros in which it is all ones."""
    if CC is None:
        pytest.skip("there is no C compiler (gcc)")
    directory = tmp_path_factory.mktemp("records")
    body = "\n".join(f"    MEMBER({name}, {member});" for name, members in MEMBERS.items() for member in members)
    source = directory / "sizes.c"
    source.write_text(PROGRAM.replace("BODY", body))
    subprocess.run(
        [CC, "-std=gnu11", "-I", BPF, "-I", BPF / "include", source, "-o", directory / "sizes"],
        check=True,
        timeout=60,
    )
    output = subprocess.run([directory / "sizes"], check=True, capture_output=True, text=True, timeout=60).stdout
    return {name: value for name, _, value in (line.partition(" ") for line in output.splitlines())}


def test_sizes(compiled: dict[str, str]) -> None:
    """Both sides have structs of the same size."""
    assert int(compiled["drop_key"]) == DROP_KEY.size
    assert int(compiled["drop_value"]) == DROP_VALUE.size


@pytest.mark.parametrize(
    ("name", "member"), [(name, member) for name, members in MEMBERS.items() for member in members]
)
def test_members(compiled: dict[str, str], name: str, member: str) -> None:
    """A member that C fills with ones is the field of that name in Python, whole, and no other."""
    data = bytes.fromhex(compiled[f"{name}.{member}"])
    found = (
        RawKey._make(DROP_KEY.unpack(data))._asdict()
        if name == "drop_key"
        else RawValue._make(DROP_VALUE.unpack(data))._asdict()
    )
    field = MEMBERS[name][member]
    ones = found.pop(field)
    width = data.count(0xFF)
    assert ones == (b"\xff" * width if isinstance(ones, bytes) else (1 << 8 * width) - 1)
    assert not any(value.strip(b"\0") if isinstance(value, bytes) else value for value in found.values())


def test_every_field_has_a_member() -> None:
    """No field of the Python side is left out of the comparison with C."""
    assert set(MEMBERS["drop_key"].values()) == set(RawKey._fields)
    assert set(MEMBERS["drop_value"].values()) == set(RawValue._fields)


def test_constants(compiled: dict[str, str]) -> None:
    """The value that means "no CPU", and the length of an interface's name, are the same on both sides."""
    assert int(compiled["NO_CPU"]) == NO_CPU
    assert int(compiled["INTERFACE_NAME_SIZE"]) == len(RawValue._make(DROP_VALUE.unpack(bytes(32))).interface)


def test_a_key_as_the_kernel_writes_it() -> None:
    """A key of 32 bytes in host order reads back field by field."""
    data = struct.pack("=QIIIHHHHI", 0xFFFFFFFF818B524E, 4026532281, 12, 0x30002, 1, NO_CPU, 0x86DD, 0, 0)
    assert RawKey._make(DROP_KEY.unpack(data)) == RawKey(
        location=0xFFFFFFFF818B524E,
        netns=4026532281,
        ifindex=12,
        reason=0x30002,
        cpu=1,
        target_cpu=NO_CPU,
        protocol=0x86DD,
    )
