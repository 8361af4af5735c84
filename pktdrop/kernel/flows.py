# SPDX-License-Identifier: MIT
"""Counts by port, address, flow or socket, out of the kernel.

The keys have the bank of the drops' keys in them, so they are given up with those: see `banks`. A drop is counted by
its kind first, and by its flow then: of what is read before the counts of kinds, no kind has more.
"""

import socket
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pktdrop.kernel import sysbpf
from pktdrop.kernel.programs import Programs
from pktdrop.kernel.records import DROP_KEY, FLOW_KEY, FLOW_VALUE
from pktdrop.model.drops import DropKey
from pktdrop.model.flow import CountedFlow

Kind = Callable[[bytes], DropKey | None]
"""Tells the kind of a key of the drops, without its bank; None: it is not known yet."""
_FEW = 512
"""Keys that are read one by one, see sysbpf.map_items()."""


class Risen(NamedTuple):
    """By how much a key rose."""

    kind: bytes
    """Key of the drops, without its bank."""
    flow: bytes
    """What else the packets were counted by; empty: they found no room."""
    packets: int
    octets: int


class FlowTable:
    """Reads the flows of running programs."""

    def __init__(self, programs: Programs, by: str) -> None:
        """Take the programs, and what they count by: one of model.flow.BY."""
        self._programs = programs
        self._by = by
        self._found: list[Risen] = []
        """Not handed on yet."""
        self._named: list[CountedFlow] = []
        """Not handed on yet, of keys that were given up."""
        self._before: dict[bytes, tuple[int, int]] = {}
        self._others: dict[bytes, tuple[int, int]] = {}
        self.is_full = False
        """Whether some found no room since the beginning, or since keys were given up."""

    def read(self) -> None:
        """Read what rose since the last reading; to be called before the counts of kinds are read."""
        self._found += self._risen("flows", self._before)
        self._found += self._risen("other_flows", self._others)

    def give_up(self, bank: int, kind: Kind) -> None:
        """Read a bank that no program uses any more, and forget its keys; `kind` tells what their kinds were."""
        self.read()
        self._named = self.take(kind)
        for name, before in (("flows", self._before), ("other_flows", self._others)):
            old = [key for key in before if key[0] & 1 == bank]
            sysbpf.map_delete(self._programs.map(name)[0], b"".join(old), self._programs.map(name)[1].key_size)
            for key in old:
                del before[key]
        self.is_full = False

    def take(self, kind: Kind) -> list[CountedFlow]:
        """Return by how much flows rose that were read, of those whose kind is known; the rest comes later."""
        named, self._named = self._named, []
        found, self._found = self._found, []
        for one in found:
            key = kind(one.kind)
            if key is None:
                self._found.append(one)
            else:
                named.append(counted(one, key, self._by))
        return named

    def _risen(self, name: str, before: dict[bytes, tuple[int, int]]) -> Iterator[Risen]:
        descriptor, definition = self._programs.map(name)
        size = definition.key_size
        for keys, values in sysbpf.map_items(descriptor, size, definition.value_size, at_once=len(before) > _FEW):
            for at, now in zip(range(0, len(keys), size), FLOW_VALUE.iter_unpack(values), strict=True):
                key = keys[at : at + size]
                was = before.get(key)
                if was == now:
                    continue
                before[key] = now
                packets, octets = (now[0] - was[0], now[1] - was[1]) if was else now
                self.is_full |= name == "other_flows"
                yield Risen(bytes((key[0] & ~1,)) + key[1 : DROP_KEY.size], key[DROP_KEY.size :], packets, octets)


def counted(risen: Risen, key: DropKey, by: str) -> CountedFlow:
    """Say what the numbers of a key mean, of which only those are set that are counted `by`."""
    if not risen.flow:
        return CountedFlow(key, risen.packets, risen.octets, is_other=True)
    source, destination, inode, source_port, destination_port, protocol, version, for_socket = FLOW_KEY.unpack(
        risen.flow
    )
    return CountedFlow(
        key=key,
        packets=risen.packets,
        bytes=risen.octets,
        source=_address(source, version) if by in ("source", "flow") else None,
        destination=_address(destination, version) if by not in ("source", "port") else None,
        source_port=source_port or None,
        destination_port=destination_port or None,
        protocol=protocol or None,
        inode=inode or None,
        is_for_socket=bool(for_socket),
    )


def _address(data: bytes, version: int) -> str | None:
    """Write an address, which is two numbers, the higher one first; None of what was not understood as IP."""
    high, low = (int.from_bytes(data[at : at + 8], sys.byteorder).to_bytes(8, "big") for at in (0, 8))
    if version == 6:
        return socket.inet_ntop(socket.AF_INET6, high + low)
    return socket.inet_ntoa(low[4:]) if version == 4 else None
