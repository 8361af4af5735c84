# SPDX-License-Identifier: MIT
"""When programs come out of the cache, and what makes them be compiled again."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pktdrop.kernel import prepared as module
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.code import Code, Compiled, MapDefinition, identity, source_directory
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.prepared import Build, Prepared, prepare
from pktdrop.kernel.programs import MapsRefused
from pktdrop.kernel.reasons import ReasonNames

REASONS = ReasonNames("BTF", {2: "NOT_SPECIFIED", 3: "NO_SOCKET"}, {0: "core", 3: "openvswitch"}, Path("/elsewhere"))
FACTS = KernelFacts("struct sk_buff { int len; };", 4, 1234, 5678, False, True, REASONS)
COMPILED = Compiled(
    {"drops": MapDefinition(1, 40, 32, 65536)},
    {"kfree_skb": Code(bytes(range(256)), {3: "drops", 17: "drops"})},
    "0.26.0",
)


@dataclass
class World:
    """All that a compilation depends on, as copies that a test may change; what is compiled is only noted."""

    root: Path
    made: list[bool] = field(default_factory=list)
    """The value of safe_read at each compilation."""

    def __post_init__(self) -> None:
        """Copy it all."""
        self.bpf, self.kernel = self.root / "bpf", self.root / "kernel"
        shutil.copytree(source_directory(), self.bpf)
        shutil.copytree(Path(module.__file__).parent, self.kernel)
        self.notes, self.btf = self.root / "notes", self.root / "vmlinux"
        self.notes.write_bytes(b"GNU\0build id")
        self.btf.write_bytes(b"BTF of a kernel")
        self.bcc = self.root / "site" / "bcc"
        self.bcc.mkdir(parents=True)
        (self.bcc / "__init__.py").write_text("raise AssertionError('bcc is imported')\n")
        (self.bcc / "version.py").write_text("__version__ = '0.26.0'\n")

    def make(self, safe_read: bool) -> Prepared:
        """Stand in for the compilation."""
        self.made.append(safe_read)
        return Prepared(FACTS, COMPILED, cached=False)

    def start(self, safe_read: bool = False, *refused: str) -> tuple[bool, str]:
        """Ask for programs as a start does, on a kernel that refuses some rungs.

        Return whether they are out of the cache, and what the cache says.
        """
        cache = Cache(self.root / "cache")
        before = len(self.made)

        def attach(prepared: Prepared) -> Prepared:
            for rung in refused:
                prepared.refuse(rung)
            return prepared

        found = prepare(Build(safe_read), cache, attach)
        assert (found.facts, found.compiled) == (FACTS, COMPILED)
        assert found.cached == (len(self.made) == before)
        return found.cached, cache.state


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setattr(module, "source_directory", lambda: world.bpf)
    monkeypatch.setattr(module, "__file__", str(world.kernel / "prepared.py"))
    monkeypatch.setattr(module, "_NOTES", world.notes)
    monkeypatch.setattr(module, "_BTF", world.btf)
    monkeypatch.setattr(Build, "make", lambda build: world.make(build.safe_read))
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    monkeypatch.syspath_prepend(world.bcc.parent)
    return world


def test_the_second_start_is_a_hit(world: World) -> None:
    """What the first start compiled, the second one has again, to the last byte, without compiling or importing bcc."""
    assert world.start()[0] is False
    cached, state = world.start()
    assert cached is True
    assert state.startswith("hit: ")
    assert world.made == [False]
    assert "bcc" not in sys.modules


def test_what_the_kernel_refuses_is_compiled_again_and_replaced(world: World) -> None:
    """A rung that is refused, but was not when it was new, may be the fault of what is stored."""
    world.start()
    (stored,) = (world.root / "cache").iterdir()
    inode = stored.stat().st_ino
    assert world.start(False, "tp_btf") == (False, "miss: the kernel refuses what is stored for tp_btf")
    assert stored.stat().st_ino != inode
    assert len(world.made) == 2


def test_what_the_kernel_always_refuses_is_no_reason_to_compile(world: World) -> None:
    """A kernel that refused the same rungs when they were new has a hit, also where it refuses fewer now."""
    assert world.start(False, "fentry", "kprobe")[0] is False
    assert [world.start(False, *rungs)[0] for rungs in (("kprobe", "fentry"), ("fentry",), ())] == [True] * 3
    assert world.start(False, "fentry", "tp_btf")[0] is False
    assert world.start(False, "tp_btf", "fentry")[0] is True
    assert len(world.made) == 2


@pytest.mark.parametrize(
    "fault",
    [
        MapsRefused("Operation not permitted"),
        KeyError("count_kfree_skb"),
        ValueError("77 is not a valid MapType"),
        struct.error(),
    ],
    ids=repr,
)
def test_whatever_comes_of_what_is_stored(world: World, fault: Exception) -> None:
    """Stored programs that cannot be used, for any reason, are compiled again, and the start goes on."""
    world.start()
    cache = Cache(world.root / "cache")
    used = []

    def attach(prepared: Prepared) -> str:
        used.append(prepared.cached)
        if prepared.cached:
            raise fault
        return "attached"

    assert prepare(Build(False), cache, attach) == "attached"
    assert used == [True, False]
    assert cache.state.startswith("miss: ")
    assert world.start()[0] is True


def test_the_fault_of_new_programs_is_raised(world: World) -> None:
    """What new programs cannot do is not hidden; they are kept nevertheless, as it may be the kernel that cannot."""

    def attach(_: Prepared) -> str:
        raise MapsRefused("Operation not permitted")

    with pytest.raises(MapsRefused):
        prepare(Build(False), Cache(world.root / "cache"), attach)
    assert world.start()[0] is True
    assert len(world.made) == 1


def _append(*path: str) -> Callable[[World], object]:
    def change(world: World) -> None:
        with world.root.joinpath(*path).open("a", encoding="utf-8") as file:
            file.write("\n")

    return change


def _move_a_byte(world: World) -> None:
    """Take the last byte of one file to the start of the next: the same bytes in the same order."""
    first, second = world.bpf / "drops.c", world.bpf / "drops.h"
    text = first.read_bytes()
    first.write_bytes(text[:-1])
    second.write_bytes(text[-1:] + second.read_bytes())


def _no_notes(world: World) -> None:
    world.notes.unlink()


CHANGES: dict[str, Callable[[World], object]] = {
    "C source": _append("bpf", "drops.c"),
    "C header": _append("bpf", "reads.h"),
    "C header below include": _append("bpf", "include", "uapi", "added.h"),
    "C header renamed": lambda world: (world.bpf / "reads.h").rename(world.bpf / "reads2.h"),
    "C header gone": lambda world: (world.bpf / "reads.h").unlink(),
    "C source cut elsewhere": _move_a_byte,
    "Python source": _append("kernel", "programs.py"),
    "Python source of the worker": _append("kernel", "compile_worker.py"),
    "build id": lambda world: world.notes.write_bytes(b"GNU\0BUILD ID"),
    "size of the BTF": lambda world: world.btf.write_bytes(b"BTF of another kernel"),
    "no BTF": lambda world: world.btf.unlink(),
    "no notes": _no_notes,
    "bcc's version": lambda world: (world.bcc / "version.py").write_text("__version__ = '0.27.0'\n"),
    "no bcc's version": lambda world: (world.bcc / "version.py").unlink(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_part_of_the_key_makes_a_miss(world: World, what: str) -> None:
    """A change of anything that the programs depend on has them compiled again, once."""
    world.start()
    assert world.start()[0] is True
    CHANGES[what](world)
    assert world.start() == (False, "miss: nothing is stored for this kernel and version")
    assert world.start()[0] is True
    assert len(world.made) == 2


@pytest.mark.parametrize("part", ["machine", "release"])
def test_another_machine_or_kernel_is_a_miss(world: World, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory may be shared by machines of another architecture and with other kernels."""
    world.start()
    real = os.uname()
    names = ("sysname", "nodename", "release", "version", "machine")
    other = os.uname_result("another" if name == part else getattr(real, name) for name in names)
    monkeypatch.setattr(os, "uname", lambda: other)
    assert world.start()[0] is False
    monkeypatch.undo()


def test_kernel_without_notes_is_known_by_its_types(world: World) -> None:
    """Where the kernel shows no build id, BTF of the same size but with other content is a miss."""
    _no_notes(world)
    world.start()
    assert world.start()[0] is True
    world.btf.write_bytes(world.btf.read_bytes().upper())
    assert world.start()[0] is False


def test_typed_loads_and_safe_reads_are_kept_apart(world: World) -> None:
    """Programs that read memory safely, for the rung raw, are other programs; both are kept."""
    assert [world.start(safe_read)[0] for safe_read in (False, True, False, True)] == [False, False, True, True]
    assert world.made == [False, True]
    assert len(list((world.root / "cache").iterdir())) == 2


def test_programs_that_call_a_filter_are_kept_apart(world: World) -> None:
    """Those with a filter of packets are others, whichever filter it is: many do not fill the directory."""
    builds = (
        Build(False),
        Build(False, filters=True),
        Build(False, stacks=True),
        Build(False, stacks=True, filters=True),
    )
    assert len({build.key() for build in builds}) == 4
    assert Build(False, filters=True).key() == builds[1].key()


def test_what_does_not_matter_is_a_hit(world: World) -> None:
    """Files that are neither C nor Python sources, and when a source was last written, are no part of the key."""
    world.start()
    (world.bpf / "README").write_text("C\n")
    (world.kernel / "notes.txt").write_text("Python\n")
    for path in world.bpf.rglob("*.[ch]"):
        os.utime(path, (1, 1))
    assert world.start()[0] is True


def test_another_compiler_or_header_is_a_miss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled besides pktdrop's own, and by what, is looked at again: changed or gone, it is made anew."""
    header = world.root / "header.h"
    header.write_text("int a;\n")

    def make(safe_read: bool) -> Prepared:
        inputs = {str(header): identity(str(header))} if header.exists() else {}
        world.made.append(safe_read)
        return Prepared(FACTS, replace(COMPILED, inputs=inputs), cached=False)

    monkeypatch.setattr(Build, "make", lambda build: make(build.safe_read))

    def start() -> tuple[bool, str]:
        cache = Cache(world.root / "cache")
        return prepare(Build(False), cache, lambda prepared: prepared).cached, cache.state

    assert [start()[0] for _ in range(2)] == [False, True]
    header.write_text("int b, c;\n")
    assert start() == (False, "miss: what it was compiled with has changed")
    assert start()[0] is True
    header.unlink()
    assert [start()[0] for _ in range(2)] == [False, True]


def test_without_bcc_what_is_stored_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bcc is gone altogether its version is unknown, which is another one than the known: no error here."""
    world.start()
    monkeypatch.setattr(sys, "path", [])
    assert world.start()[0] is False
    monkeypatch.undo()


def _store_whole(content: bytes, directory: Path) -> None:
    """Put content, with the right checksum, under the key of the one file that is there."""
    (path,) = directory.iterdir()
    Cache(directory).store(path.name, content)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"facts": {}, "compiled": {}}', b'{"facts": [], "compiled": 3}'),
        b"[" * 1_000_000,
        b'{"facts":' * 100_000,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_stored_whole_but_not_understood(world: World, content: bytes) -> None:
    """A file with a right checksum and anything else inside is a miss that says so, and is replaced."""
    world.start()
    _store_whole(content, world.root / "cache")
    cached, state = world.start()
    assert cached is False
    assert state.startswith("miss: ")
    assert world.start()[0] is True


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage_compiles_again(world: World, data: st.DataObject) -> None:
    """Whatever is changed in or cut from the stored file, a start has the same programs as before."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        prepare(Build(False), Cache(directory), lambda prepared: prepared)
        (path,) = directory.iterdir()
        whole = path.read_bytes()
        first = data.draw(st.integers(0, len(whole)), label="first")
        last = data.draw(st.one_of(st.just(len(whole)), st.integers(first, len(whole))), label="last")
        damaged = whole[:first] + data.draw(st.binary(max_size=3), label="instead") + whole[last:]
        path.write_bytes(damaged)
        again = prepare(Build(False), Cache(directory), lambda prepared: prepared)
        assert (again.facts, again.compiled) == (FACTS, COMPILED)
        assert again.cached == (damaged == whole)
        assert path.read_bytes() == whole
