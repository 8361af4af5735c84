# SPDX-License-Identifier: MIT
"""SNMP counters of a network namespace: /proc/net/snmp, netstat and snmp6.

Names are those that nstat(8) prints: UdpRcvbufErrors, TcpExtListenDrops, Ip6InDiscards. snmp and netstat have two lines
for each section, one with names and one with numbers; snmp6 has a line for each counter.
"""

import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused

#: What is no counter: settings and numbers of the moment. A difference of two of them counts nothing.
#: All but the last are those nstat(8) never shows (misc/nstat.c); the last is MPTCP_MIB_CURRESTAB of net/mptcp/mib.c.
GAUGES: Final = frozenset(
    """
    IpForwarding IpDefaultTTL TcpRtoAlgorithm TcpRtoMin TcpRtoMax TcpMaxConn TcpCurrEstab MPTcpExtMPCurrEstab
    """.split()
)

# /proc/net is that of the process; this thread may be in another network namespace.
_PROC = "/proc/thread-self/net/"
_READ = 1 << 16
_NUMERIC = b"0123456789- "
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
# Which names there are depends on the types of ICMP messages seen, and others send those: do not remember them all.
_LAYOUTS = 1000


class Mib(NamedTuple):
    """Counters by name, and what could not be read, in a few words each."""

    counters: Row
    faults: tuple[Limit, ...]


class _Section(NamedTuple):
    """Names as the file has them, after a colon and what they all begin with; and their numbers."""

    title: bytes
    numbers: list[int]


_Layout = tuple[tuple[str, ...], tuple[int, ...]]
"""Names of the counters, and where in the list of all numbers each is."""


class Mibs:
    """Reads the counters of any number of namespaces; remembers what it read, so that reading it again is cheap."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[bytes, ...], _Layout] = {}
        self._last: dict[Netns, tuple[tuple[bytes, ...], Mib]] = {}

    def read(self, netns: Netns) -> Reading:
        """Read the counters of the network namespace this thread is in.

        Rows of namespaces with the same names share one tuple of them; a Row that did not change is the same object.
        """
        faults: list[Limit] = []
        files = (_contents("snmp", faults), _contents("netstat", faults), _contents("snmp6", faults))
        known = self._last.get(netns)
        if known is None or known[0] != files:
            known = self._last[netns] = files, self.parse(*files)
        row, of_files = known[1]
        return Reading({Scope(netns=netns): row} if row.names else {}, of_source("mib", netns, (*faults, *of_files)))

    def forget(self, netns: Netns) -> None:
        """Drop what is remembered of a namespace that is gone."""
        self._last.pop(netns, None)

    def parse(self, snmp: bytes, netstat: bytes, snmp6: bytes) -> Mib:
        """Parse the three files; each may be empty. What is malformed is left out and named in the faults."""
        faults: list[Limit] = []
        sections = [
            *_parse_pairs("snmp", snmp, faults),
            *_parse_pairs("netstat", netstat, faults),
            _parse_lines("snmp6", snmp6, faults),
        ]
        values = [number for section in sections for number in section.numbers]
        names, positions = self._layout(tuple([section.title for section in sections]))
        return Mib(Row(names, tuple([values[position] for position in positions])), tuple(faults))

    def _layout(self, titles: tuple[bytes, ...]) -> _Layout:
        layout = self._layouts.get(titles)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[titles] = _arrange([name for title in titles for name in _names(title)])
        return layout


def _contents(file: str, faults: list[Limit]) -> bytes:
    """Read a file of this namespace; empty, with a fault, if it cannot be read."""
    parts = []
    try:
        descriptor = os.open(_PROC + file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while part := os.read(descriptor, _READ):
                parts.append(part)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        if file != "snmp6":  # which is not there where the kernel has no IPv6
            faults.append(Limit("missing", (file,)))
    except OSError as error:
        faults.append(refused(error, "unreadable", file))
        return b""
    return b"".join(parts)


def _parse_pairs(file: str, data: bytes, faults: list[Limit]) -> list[_Section]:
    """Sections of two lines: "Udp: InDatagrams NoPorts" and "Udp: 5 0"."""
    sections = []
    whole, _, cut = data.rpartition(b"\n")
    lines = whole.splitlines()
    malformed = 1 if cut or len(lines) % 2 else 0
    for title, line in zip(lines[::2], lines[1::2], strict=False):
        prefix, colon, names = title.partition(b":")
        same, _, text = line.partition(b":")
        numbers = _numbers(text)
        if not colon or same != prefix or numbers is None or len(numbers) != len(names.split()):
            malformed += 1
            continue
        sections.append(_Section(title, numbers))
    if malformed:
        faults.append(Limit("malformed-sections", (file,), number=malformed))
    return sections


def _parse_lines(file: str, data: bytes, faults: list[Limit]) -> _Section:
    """Lines of a name and a number: "Ip6InReceives  5"."""
    words = data.split()
    numbers = _numbers(b" ".join(words[1::2])) if data.endswith(b"\n") and 2 * data.count(b"\n") == len(words) else None
    if numbers is not None:
        return _Section(b":" + b" ".join(words[::2]), numbers)
    whole, _, cut = data.rpartition(b"\n")
    pairs = [(line.split(), _numbers(b" ".join(line.split()[1:]))) for line in whole.splitlines()]
    good = [(words[0], found[0]) for words, found in pairs if found is not None and len(found) == 1]
    malformed = len(pairs) - len(good) + bool(cut)
    if malformed:
        faults.append(Limit("malformed-lines", (file,), number=malformed))
    return _Section(b":" + b" ".join([name for name, _ in good]), [number for _, number in good])


def _numbers(text: bytes) -> list[int] | None:
    """Numbers with blanks between them; None if there is anything else in the text."""
    if text.translate(None, _NUMERIC):
        return None
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        return None
    if numbers and (min(numbers) < _SMALLEST or max(numbers) > _LARGEST):
        return None
    return numbers


def _names(title: bytes) -> list[str]:
    prefix, _, names = title.partition(b":")
    return [(prefix + name).decode(errors="backslashreplace") for name in names.split()]


def _arrange(names: Sequence[str]) -> _Layout:
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        positions.setdefault(name, position)  # a name that is there twice counts as first seen
    names = tuple(name for name in positions if name not in GAUGES)
    return names, tuple(positions[name] for name in names)
