# SPDX-License-Identifier: MIT
"""Programs ready to load, with the kernel facts they were made from: out of the cache, or made anew."""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pktdrop.kernel.cache import Cache
from pktdrop.kernel.code import Compiled, source_directory
from pktdrop.kernel.facts import KernelFacts

_BTF = Path("/sys/kernel/btf/vmlinux")
_NOTES = Path("/sys/kernel/notes")
"""The kernel's ELF notes, its build id among them."""


@dataclass(frozen=True)
class Prepared:
    """What a start needs before the kernel is asked for anything."""

    facts: KernelFacts
    compiled: Compiled
    cached: bool


def prepare(safe_read: bool, cache: Cache, anew: bool = False) -> Prepared:
    """Return the programs, with typed loads or safe reads; `anew` ignores what is stored. Raises PktdropError."""
    key = _key(safe_read)
    stored = None if anew else cache.load(key)
    if stored is not None:
        try:
            return _decode(stored)
        except (AttributeError, KeyError, TypeError, ValueError):  # whole, but none of ours
            cache.state = "miss: what is stored is not understood"
    prepared = _make(safe_read)
    cache.store(key, _encode(prepared))
    return prepared


def _make(safe_read: bool) -> Prepared:
    from pktdrop.kernel.compiler import Compiler  # a start from the cache does without

    with Compiler() as compiler:  # imports bcc while the facts are read
        facts = KernelFacts.read()
        definitions = {
            "SAFE_READ": str(int(safe_read)),
            "ARGUMENTS": str(facts.arguments),
            "NESTS": str(int(facts.nests)),
            "MAY_BE_BACKLOG(reason)": facts.may_be_backlog,
        }
        return Prepared(facts, compiler.compile(facts.layout, definitions, facts.has_btf), cached=False)


def _key(safe_read: bool) -> str:
    """Hash everything that the result depends on: sources, kernel, bcc, machine, options."""
    parts = [str(safe_read), os.uname().machine, os.uname().release, sys.version, _bcc_version()]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(source_directory().rglob("*.[ch]")) + sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())  # so that no byte can move to another file unseen
        digest.update(content)
    digest.update(_kernel_identity())
    return digest.hexdigest()[:32]


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
    return json.dumps({"facts": prepared.facts.as_json(), "compiled": prepared.compiled.as_json()}).encode()


def _decode(stored: bytes) -> Prepared:
    data = json.loads(stored)
    return Prepared(KernelFacts.from_json(data["facts"]), Compiled.from_json(data["compiled"]), cached=True)
