# SPDX-License-Identifier: MIT
"""Programs ready to load, with the kernel facts they were made from: out of the cache, or made anew."""

import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from pktdrop.kernel import readers
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.code import Compiled, source_directory
from pktdrop.kernel.digest import digest
from pktdrop.kernel.facts import XDP_TRACEPOINTS, KernelFacts
from pktdrop.kernel.programs import MapsRefused
from pktdrop.kernel.records import STACK_FRAMES
from pktdrop.model.flow import BY
from pktdrop.rules.tables import DATA

_BTF = Path("/sys/kernel/btf/vmlinux")
_NOTES = Path("/sys/kernel/notes")
"""The kernel's ELF notes, its build id among them."""
_Result = TypeVar("_Result")


class Doubted(Exception):
    """A rung that cannot be stood on with what is stored, but was not refused when that was new."""


_NOT_OURS = (AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)
"""What comes of stored data of another form."""


class _Outdated(Exception):
    """Stored programs that were made by another compiler, or from other headers, than those that are here."""


@dataclass(frozen=True)
class Prepared:
    """What a start needs before the kernel is asked for anything."""

    facts: KernelFacts
    compiled: Compiled
    cached: bool
    refused: set[str] = field(default_factory=set)
    """Rungs that the kernel refused when the programs were new."""

    def refuse(self, rung: str) -> None:
        """Note that a rung cannot be stood on. Raises Doubted where that is news for something stored."""
        if self.cached and rung not in self.refused:
            raise Doubted(rung)
        self.refused.add(rung)


@dataclass(frozen=True)
class Build:
    """One way of making the programs: with typed loads or safe reads, and with which reader of packets."""

    safe_read: bool
    """With bpf_probe_read_kernel(), which lockdown=confidentiality forbids; else with typed loads, which need BTF."""

    samples: bool = True
    """Whether packets are sampled, where the kernel lets programs read them."""

    stacks: bool = False
    """Whether samples come with the kernel's stack, which takes some microseconds each."""

    filters: bool = False
    """Whether the programs call a filter of packets, where they may read them. Which one makes no difference here."""

    by: str | None = None
    """What else drops are counted by, one of model.flow.BY."""

    def make(self) -> Prepared:
        """Compile the programs. Raises PktdropError."""
        from pktdrop.kernel.compiler import Compiler  # a start from the cache does without

        with Compiler() as compiler:  # imports bcc while the facts are read
            facts = KernelFacts.read()
            facts = replace(facts, reader=self.reader(facts))
            compiled = compiler.compile(
                facts.layout, self.definitions(facts), own_headers=facts.has_btf, hide_symbols=not self.safe_read
            )
            return Prepared(facts, compiled, cached=False)

    def reader(self, facts: KernelFacts) -> str:
        """Return how the programs read packets: the best way that the kernel lets them."""
        if not self.samples:
            return readers.NONE
        if self.safe_read:  # programs that can be loaded at all read so
            return readers.PROBE if facts.samples is not None and readers.has_ring() else readers.NONE
        return readers.choose(facts.samples, facts.tracepoint_id)

    def definitions(self, facts: KernelFacts) -> dict[str, str]:
        """Return the macros that bpf/drops.c asks for, by name."""
        from pktdrop.rules.protocols import Protocols  # a start from the cache does without

        samples = facts.samples or readers.SampleFacts(0, 0)
        return {
            "STACK_FRAMES": str(STACK_FRAMES if self.stacks else 0),
            "FLOWS": str(BY.index(self.by) + 1 if self.by and facts.reader != readers.NONE else 0),
            "READER": str(readers.READERS[facts.reader]),
            "FILTER": str(int(self.filters and facts.reader != readers.NONE)),
            "HAS_INODE": str(int(samples.inode)),
            "HAS_CGROUP": str(int(samples.cgroup)),
            "HAS_VLAN": str(int(samples.vlan)),
            "HAS_CARRIER": str(int(samples.no_carrier_bit is not None)),
            "NO_CARRIER_BIT": str(samples.no_carrier_bit or 0),
            "CAST_TYPE": str(samples.cast_type),
            "SAFE_READ": str(int(self.safe_read)),
            "ARGUMENTS": str(facts.arguments),
            "NETNS_COOKIE": str(int(facts.netns_cookie)),
            "NESTS": str(int(facts.nests)),
            "MAY_BE_TO_GROUP(reason)": facts.may_be_to_group,
            "MAY_BE_UNSENT(reason)": facts.may_be_unsent,
            "HAS_NO_PORT(reason)": facts.has_no_port,
            "XDP": str(int(XDP_TRACEPOINTS[0] in facts.tracepoints)),
            "IS_QDISC_DROP(reason)": facts.is_qdisc_drop,
            "QDISC_GENERIC": str(facts.qdisc_generic),
            "MAY_BE_OF_XDP(reason)": facts.may_be_of_xdp,
            "MAY_BE_BACKLOG(reason)": facts.may_be_backlog,
            "IS_KNOWN_PROTOCOL(protocol)": " || ".join(f"(protocol) == {one}" for one in Protocols.load().numbers()),
        }

    def key(self) -> str:
        """Hash everything that the result depends on: sources, kernel, bcc, machine, options.

        What else was compiled, and by what, is only known afterwards, and stored with it: Compiled.inputs.
        """
        of_host = (os.uname().machine, os.uname().release, sys.version, _bcc_version())
        parts = [str(part) for part in (self.safe_read, self.samples, self.stacks, self.filters, self.by, *of_host)]
        pieces = ["\0".join(parts).encode()]
        sources = [*source_directory().rglob("*.[ch]"), *Path(__file__).parent.glob("*.py"), DATA / "ethertypes.tsv"]
        for path in sorted(sources):
            content = path.read_bytes()
            # with the length, so that no byte can move to another file unseen
            pieces += f"{path.name}\0{len(content)}\0".encode(), content
        return digest(*pieces, _kernel_identity())[:32]


def prepare(build: Build, cache: Cache, use: Callable[[Prepared], _Result]) -> _Result:
    """Return what `use` makes of the programs of a build: of those stored, if they work.

    Whatever is wrong with those, they are compiled anew, for `use` to start again. Raises PktdropError, and what `use`
    raises.
    """
    key = build.key()
    stored = cache.load(key)
    if stored is not None:
        try:
            return use(_decode(stored))
        except Doubted as rung:
            cache.state = f"miss: the kernel refuses what is stored for {rung}"
        except _Outdated:
            cache.state = "miss: what it was compiled with has changed"
        except MapsRefused:
            cache.state = "miss: the kernel refuses a map that is stored"
        except _NOT_OURS:
            cache.state = "miss: what is stored is not understood"
    new = build.make()
    try:
        return use(new)
    finally:
        cache.store(key, _encode(new))


def _bcc_version() -> str:
    """Return the text that holds bcc's version, without importing it; "" where there is no bcc."""
    spec = find_spec("bcc")
    if spec is None or spec.origin is None:
        return ""
    version = Path(spec.origin).with_name("version.py")
    return version.read_text(encoding="utf-8") if version.exists() else spec.origin


def _kernel_identity() -> bytes:
    """Return what changes with the kernel's types: its build id and the size of its BTF; else all of the BTF."""
    try:
        return _NOTES.read_bytes() + str(_BTF.stat().st_size).encode()
    except OSError:
        return _BTF.read_bytes() if _BTF.exists() else b"no BTF"


def _encode(prepared: Prepared) -> bytes:
    data = {
        "facts": prepared.facts.as_json(),
        "compiled": prepared.compiled.as_json(),
        "refused": sorted(prepared.refused),
    }
    return json.dumps(data).encode()


def _decode(stored: bytes) -> Prepared:
    data = json.loads(stored)
    facts, compiled = KernelFacts.from_json(data["facts"]), Compiled.from_json(data["compiled"])
    if not compiled.is_current():
        raise _Outdated
    return Prepared(facts, compiled, cached=True, refused=set(data["refused"]))
