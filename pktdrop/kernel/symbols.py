# SPDX-License-Identifier: MIT
"""Names of kernel addresses, from /proc/kallsyms and /proc/modules."""

import re
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

# address, type (text, also weak), name and, behind a tab, the module
_SYMBOL = re.compile(rb"^([0-9a-f]+) [tTwW] (\S+)(?:\t\[(\S+)\])?$", re.MULTILINE)


class _Text(NamedTuple):
    """Text symbols of the kernel or of one module, sorted by address, and where that text ends."""

    addresses: "array[int]"
    starts: "array[int]"
    """Where in `names` the symbol's name starts: 100,000 names as objects of their own would take 10 MB."""
    names: bytes
    """All names, a line each."""
    end: int
    module: str

    def name(self, address: int) -> tuple[int, str] | None:
        """Return how far an address is from the nearest symbol below it, and its name; None outside this text."""
        index = bisect_right(self.addresses, address) - 1
        if index < 0 or address >= self.end:
            return None
        offset = address - self.addresses[index]
        where = f"{self._symbol(self.starts[index])}+{offset:#x}"
        return offset, f"{where} [{self.module}]" if self.module else where

    def _symbol(self, start: int) -> str:
        return self.names[start : self.names.index(b"\n", start)].decode()


class Symbols:
    """Resolver of addresses to "symbol+offset"; reads the tables when the first address is asked for."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Take the directory that holds kallsyms and modules."""
        self.hidden: str | None = None
        """Why addresses cannot be named, in a sentence, once that is known."""
        self._proc = proc
        self._texts: list[_Text] = []
        self._names: dict[int, str] = {}
        self._modules: bytes | None = None

    def name(self, address: int) -> str:
        """Return "symbol+offset", with " [module]" behind it for a module; the address in hex if it has no name.

        Each address is resolved once.
        """
        known = self._names.get(address)
        if known is None:
            known = self._names[address] = self._find(address) or f"{address:#x}"
        return known

    def _find(self, address: int) -> str | None:
        """Find the nearest symbol at or below an address, in the text of the kernel or of a module as loaded now."""
        if self._texts and (name := self._texts[0].name(address)):
            return name[1]
        self._read()
        # since Linux 6.4 a module's size covers more than its text: ranges overlap, the nearest symbol decides
        found = [name for text in self._texts if (name := text.name(address))]
        return min(found)[1] if found else None

    def _read(self) -> None:
        """Read the tables if they were not read yet, or if modules came or went since."""
        try:
            modules = (self._proc / "modules").read_bytes() if (self._proc / "modules").exists() else b""
            if modules == self._modules:
                return
            self._modules = modules
            self._texts = _texts((self._proc / "kallsyms").read_bytes(), modules)
        except OSError as unreadable:
            self.hidden = f"{unreadable.filename} cannot be read: {unreadable.strerror}"
            return
        if not self._texts:
            self.hidden = "/proc/kallsyms hides all addresses (kernel.kptr_restrict, or no CAP_SYSLOG)"


def _texts(kallsyms: bytes, modules: bytes) -> list[_Text]:
    """Split the table (proc(5), kallsyms) by module; empty where all addresses are hidden, that is zero."""
    ends = {b"": 0}
    for line in modules.splitlines():
        name, size, *_, base = line.split(b" (")[0].split()  # "(OE)" may follow: the module taints the kernel
        ends[name] = int(base, 16) + int(size)
    found = {module: (array("Q"), array("L")) for module in ends}
    names = bytearray()
    for symbol in _SYMBOL.finditer(kallsyms):
        address, name, module = symbol.groups()
        if module is None and name == b"_etext":
            ends[b""] = int(address, 16)
        elif (module or b"") in found:
            addresses, starts = found[module or b""]
            addresses.append(int(address, 16))
            starts.append(len(names))
            names += name + b"\n"
    texts, text = [], bytes(names)
    for module, (addresses, starts) in found.items():
        if not any(addresses):
            continue
        order = sorted(range(len(addresses)), key=addresses.__getitem__)
        texts.append(
            _Text(
                array("Q", [addresses[index] for index in order]),
                array("L", [starts[index] for index in order]),
                text,
                ends[module] or max(addresses) + 1,
                module.decode(),
            )
        )
    return texts
