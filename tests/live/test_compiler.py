# SPDX-License-Identifier: MIT
"""What goes into a compilation: nothing that another user can write, and for arm64 what this machine can tell of it."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.errors import PktdropError
from pktdrop.kernel import compile_worker, compiler
from pktdrop.kernel.code import Compiled, source_directory
from pktdrop.kernel.compiler import Compiler
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.layout import FROM_HEADERS
from pktdrop.kernel.prepared import Build
from tests.kit.caches import another_cache
from tests.kit.process import DEADLINE, command
from tests.kit.provoked import send
from tests.kit.trace import inside, total, tracing

CLOSED_PORT = next(cause for cause in CAUSES if cause.name == "udp_closed_port")
_INCLUDE = re.compile(rb'#\s*include\s*[<"]([^>"\n]+)[>"]')
HOSTILE = b"""\
#include "%s/reads.h"
#undef FROM_NETWORK16
#define FROM_NETWORK16(value) (0x6666)
"""
"""Stands in for any header: with it every drop would have the protocol 0x6666."""


@pytest.fixture(name="facts", scope="module")
def _facts() -> KernelFacts:
    facts = KernelFacts.read()
    if not facts.has_btf:
        pytest.skip("this kernel has no BTF, so its installed headers are compiled")
    return facts


def compiled(facts: KernelFacts) -> Compiled:
    """Compile as a start does."""
    with Compiler() as process:
        return process.compile(facts.layout, Build(safe_read=False).definitions(facts), hide_symbols=True)


def libraries(made: Compiled) -> list[Path]:
    """The files of bcc and its compiler."""
    found = [Path(path) for path in made.inputs]
    assert any(path.name.startswith("libbcc") for path in found)
    return found


def included(made: Compiled) -> set[str]:
    """Every name that our sources, and the headers inside bcc's library, include, by any path to it."""
    texts = [path.read_bytes() for path in source_directory().rglob("*.[ch]")] + [FROM_HEADERS.encode()]
    texts += [path.read_bytes() for path in libraries(made) if path.name.startswith("libbcc")]
    names = {name.decode() for text in texts for name in _INCLUDE.findall(text)}
    assert {"reads.h", "drops.h", "uapi/linux/ptrace.h", "linux/types.h", "uapi/linux/bpf.h"} <= names
    names |= {"linux/kconfig.h", "drops.c"} | {
        f"bcc/{name}.h" for name in "bpf bpf_workaround footer helpers proto".split()
    }
    return {name for name in names if ".." not in name and not name.startswith("/")}


@pytest.fixture(name="hostile")
def _hostile(tmp_path: Path, facts: KernelFacts) -> Path:
    """A directory with a hostile file for every name, also where a precompiled one would be looked for."""
    directory = tmp_path / "hostile"
    names = included(compiled(facts))
    for name in names:
        for place in (
            "",
            "include",
            "include/uapi",
            "arch/x86/include",
            "arch/arm64/include",
            "virtual/include",
            "bpf",
        ):
            for suffix in ("", ".gch", ".pch"):
                file = directory / place / f"{name}{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(HOSTILE % os.fsencode(source_directory()))
    return directory


def test_the_working_directory_changes_nothing(
    facts: KernelFacts, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled there, with every variable that bcc, clang or Python look at, it is the same to the byte."""
    clean = compiled(facts)
    monkeypatch.chdir(hostile)
    for name in ("CPATH", "C_INCLUDE_PATH", "BCC_KERNEL_SOURCE", "TMPDIR", "HOME", "PYTHONPATH", "PATH", "ARCH"):
        monkeypatch.setenv(name, str(hostile))
    monkeypatch.setenv("BCC_LINUX_VERSION_CODE", "1")
    assert compiled(facts) == clean


def test_hostile_headers_would_be_seen(facts: KernelFacts, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: a compiler started in that directory takes what is there, and is then not believed."""
    monkeypatch.setattr(compiler, "_empty_directory", lambda: str(hostile))
    with pytest.raises(PktdropError, match=r"cannot be trusted|could not compile"):
        compiled(facts)


@pytest.mark.parametrize("options", [[], ["--no-cache"]], ids=["cache", "no cache"])
def test_protocols_are_right_wherever_it_is_started(hostile: Path, tmp_path: Path, options: list[str]) -> None:
    """Started in a hostile directory, and afterwards elsewhere, trace shows the protocol that was sent."""
    (tmp_path / "cache").mkdir()
    with (
        another_cache(tmp_path / "cache") as host,
        CLOSED_PORT.net() as net,
        pytest.MonkeyPatch.context() as environment,
    ):
        traffic = CLOSED_PORT.build(net)
        for directory in (hostile, Path("/")):
            environment.setenv("PKTDROP", shlex.join([*host.enter, "env", "-C", str(directory), *host.pktdrop]))
            with tracing("60", *options) as trace:
                send(traffic, lose=11, spare=0, cpu=0)
                assert trace.stop() == 0
                drops = inside(trace.summary["drops"], net.namespaces.values())
            assert total(drops) == 11
            assert {drop["protocol"] for drop in drops} == {"IPv4"}


def test_nothing_is_left_behind(facts: KernelFacts) -> None:
    """The directory that is compiled in is empty, one's own, and gone afterwards, also where compiling failed."""
    for layout in (facts.layout, "#error no"):
        with Compiler() as process:
            directory = Path(process._directory)
            assert list(directory.iterdir()) == []
            assert directory.stat().st_mode & 0o777 == 0o700
            with suppress(PktdropError):
                process.compile(layout, {})
        assert not directory.exists()


def test_a_compiler_that_is_killed_is_said_to_be(facts: KernelFacts) -> None:
    """What ended the compiler's process is in the message, by number and name."""
    with Compiler() as process:
        os.kill(process._process.pid, signal.SIGSEGV)
        with pytest.raises(PktdropError, match=r"the compiler was killed by signal 11 \(SIGSEGV\)"):
            process.compile(facts.layout, {})


@pytest.fixture(name="worker")
def _worker(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to run a compiler's process in."""
    directory = tmp_path / "empty"
    directory.mkdir()
    return directory


def test_arm64_reads_its_arguments(facts: KernelFacts, worker: Path) -> None:
    """Compiled as bcc does on arm64, the kprobe's program reads x0 and x1: the first two words of struct pt_regs."""
    request = {
        "source": str(source_directory()),
        "own_headers": True,
        "hide_symbols": True,
        "layout": facts.layout,
        "definitions": Build(safe_read=True).definitions(facts),
    }
    done = subprocess.run(
        [sys.executable, "-I", compile_worker.__file__],
        **{"input": json.dumps(request), "text": True, "cwd": worker, "capture_output": True, "check": False},
        env={"ARCH": "arm64", "PATH": "/usr/bin:/bin"},
        timeout=2 * DEADLINE,
    )
    if "cannot be specified on this target" in done.stderr:
        pytest.skip("this bcc was built to give clang an option that only x86 has (bcc 0.31 of Debian 13)")
    assert done.returncode == 0, done.stderr
    code = base64.b64decode(json.loads(done.stdout)["compiled"]["programs"]["backlog_kprobe"]["instructions"])
    # struct bpf_insn: BPF_LDX | BPF_MEM | BPF_DW (0x79), or of 32 bits (0x61), from the context: r1, or its copy in r6
    loads = [
        offset for opcode, registers, offset, _ in struct.iter_unpack("=BBhi", code) if opcode in (0x79, 0x61)
        and registers >> 4 in (1, 6)
    ]  # fmt: skip
    assert sorted(set(loads[:2])) == [0, 8]


def test_a_compilation_in_a_chroot() -> None:
    """Below chroot(2), too, the compiler's own files are found again: the kernel has names for them from outside."""
    with tempfile.TemporaryDirectory() as root:
        enter = 'mount --rbind / "$0" && exec chroot "$0" "$@"'
        called = ["unshare", "--mount", "--", "sh", "-c", enter, root, *command()]
        done = subprocess.run(
            [*called, "trace", "-d", "0.1", "--no-cache"], cwd="/", capture_output=True, text=True, timeout=DEADLINE
        )
    assert done.returncode == 0, done.stderr
