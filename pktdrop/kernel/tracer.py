# SPDX-License-Identifier: MIT
"""The running probes, read as Snapshots."""

import math
import struct
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

from pktdrop.kernel import host, probes, sysbpf
from pktdrop.kernel.banks import Banks, Block
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, RawKey, RawValue
from pktdrop.kernel.tally import Row, Tally
from pktdrop.model import DropKey, Lost, Netns, Snapshot
from pktdrop.namespaces import Namespaces

if TYPE_CHECKING:
    from pktdrop.kernel.naming import Naming

_KEY = struct.Struct(f"={DROP_KEY.size}s")
_COUNTS = struct.Struct(f"=QQ{DROP_VALUE.size - 16}x")
_MANY_KEYS = 1024
"""In the map, besides those in the table in front of it: with fewer there is no reason to give any up."""
_FULL = 15 / 16
_SETTLE = 5.0
"""Seconds in which keys that live come back after they were given up; and the least between two times."""
_IDLE_KINDS = 8192
"""Beyond the kinds that moved since the kernel gave them up last, so many of those that moved before are kept apart."""
MAP_ENTRIES = 65536
"""How many different drop keys the kernel has room for; each takes some 150 bytes of its memory from the start on."""


class _Kind:
    """A kind of drops, and what the kernel had counted of it at the last reading."""

    __slots__ = ("key", "octets", "packets")

    def __init__(self, key: DropKey) -> None:
        self.key = key
        self.packets = self.octets = 0


class Tracer:
    """Counts drops from the moment it is made until it is closed."""

    def __init__(
        self,
        namespaces: Namespaces,
        wanted: Collection[str] = (),
        map_entries: int = MAP_ENTRIES,
        cache: Cache | None = None,
    ) -> None:
        """Attach the probes, by the rungs in `wanted` where it names some. Raises PktdropError."""
        self._namespaces = namespaces
        host.require_bpf_rights()
        host.raise_memlock()
        self._facts, self._probes = probes.attach(cache or Cache(default_directory()), map_entries, wanted)
        self.start = Snapshot(time=time.time(), monotonic=time.monotonic(), drops={}, lost=Lost(0, 0))
        """Before all drops: the maps were made for this run, so nothing needs to be read."""
        self._kinds: dict[bytes, _Kind] = {}
        """By the keys that the kernel has, or had in the bank before."""
        self._other_kinds: dict[bytes, _Kind] = {}
        """The same of the table of other places."""
        self._blocks: list[Block] = []
        """As they were at the last reading of this bank: most are the same at the next."""
        self._unnamed: set[Netns] = set()
        """Namespaces that may have had no name when a drop in them was first seen, and may have one by now."""
        self._renames = 0
        self._banks = Banks(self._probes.programs)
        self._tally = Tally()
        self._map_entries = map_entries
        self._gave_up = -math.inf
        """When, by the monotonic clock."""
        self._keys_that_live: int | None = 0
        """How many keys were in the map again soon after it was given up; None: not known yet."""

    def __enter__(self) -> "Tracer":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach the probes."""
        self._banks.close()
        self._probes.programs.close()

    @cached_property
    def _naming(self) -> "Naming":
        from pktdrop.kernel.naming import Naming  # not needed before the probes are attached

        return Naming(self._facts.reasons, self._namespaces)

    @property
    def rungs(self) -> dict[str, str]:
        """By which rung each probe is attached: {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}."""
        return {"kfree_skb": self._probes.kfree_skb, "enqueue_to_backlog": self._probes.enqueue_to_backlog}

    @property
    def reasons(self) -> Collection[str]:
        """Names of the core's drop reasons that this kernel has."""
        return self._facts.reasons.core.values()

    @property
    def tcp_input_has_events(self) -> bool:
        """Whether this kernel raises an event for the input that TCP drops."""
        return self._facts.reasons.tcp_input_has_events

    @property
    def limits(self) -> tuple[str, ...]:
        """What this run cannot know, and why: a sentence each. More may turn up while it runs."""
        refused = self._probes.refused
        found = []
        if self._probes.kfree_skb == "raw" and "tp_btf" in refused:
            found.append(f"kfree_skb is traced at about three times the cost (tp_btf: {refused['tp_btf']}).")
        if self._probes.enqueue_to_backlog == "none":
            why = "; ".join(f"{rung}: {refused[rung]}" for rung in probes.BACKLOG if rung in refused)
            found.append(f"drops of the CPU backlog carry no target CPU ({why or 'not probed'}).")
        if self._facts.reasons.source == "none":
            found.append("this kernel gives no drop reasons: all are NOT_SPECIFIED, the call site tells.")
        if not self.tcp_input_has_events:
            found.append("this kernel frees the input that TCP drops without an event: counters only.")
        elif self._facts.arguments < 4:
            # tcp_v4_rcv() clears skb->dev before the socket looks at the packet (net/ipv4/tcp_ipv4.c, v6.1)
            found.append("drops of TCP input carry no namespace: this kernel does not say for which socket (rx_sk).")
        if self._banks.reads_in_batches:
            found.append(
                "there are thousands of kinds of drops: each time they are read, the CPU that reads traces none for "
                "a few milliseconds, and those are not counted as missed (the ledger tells)."
            )
        if self._kinds and self._naming.symbols.hidden:
            found.append(
                f"call sites are addresses: {self._naming.symbols.hidden}. What only they tell is not known: the layer "
                "of a drop, and whether it is noise; such drops are counted as not known whether lost."
            )
        return tuple(found)

    def give_up(self, at_once: bool = False) -> None:
        """Let the kernel begin anew, where it is time to or `at_once`: see `banks` and `Tally`. No count changes.

        So that keys of what is gone, and kinds that come and go, neither fill the map nor cost each reading time.
        Waits some 20 ms where it does. To be called before a Snapshot, not between two that are to be close.
        """
        now = time.monotonic()
        if not (at_once or self._is_time(now)):
            return
        self._gave_up, self._keys_that_live = now, None
        final, self._blocks = self._banks.give_up(), []
        self._tally.add(self._risen(final, self._kinds, other_places=False))
        live = {raw for block in final for (raw,) in _KEY.iter_unpack(block.keys)}
        if not self._facts.netns_cookie:  # by then, another namespace may have the inode that stands for this one
            live.clear()
        self._kinds = {raw: kind for raw, kind in self._kinds.items() if raw in live}
        for kind in self._kinds.values():
            kind.packets = kind.octets = 0
        self._tally.keep(len(live) + _IDLE_KINDS)

    def _is_time(self, now: float) -> bool:
        if now - self._gave_up < _SETTLE:
            return False
        keys = self._banks.in_map
        if self._keys_that_live is None:
            self._keys_that_live = keys
        return keys > min(_FULL * self._map_entries, max(_MANY_KEYS, 2 * self._keys_that_live))

    def snapshot(self) -> Snapshot:
        """Read all counts. Names are looked up for keys not seen before."""
        blocks, others, missed = self._banks.read(), self._banks.other_places(), self._missed()
        moment, monotonic = time.time(), time.monotonic()  # of the counts: names take a while, symbols at first 0.1 s
        self._name_again()
        read, self._blocks = self._blocks, blocks
        moved = [block for block, was in zip_longest(blocks, read[: len(blocks)]) if block != was]
        self._tally.add(self._risen(moved, self._kinds, other_places=False))
        self._tally.add(self._risen(others, self._other_kinds, other_places=True))
        lost = Lost(map_full=sum(kind.packets for kind in self._other_kinds.values()), missed=missed)
        return Snapshot(time=moment, monotonic=monotonic, drops=self._tally.totals, lost=lost)

    def _risen(self, blocks: Sequence[Block], known: dict[bytes, _Kind], other_places: bool) -> Iterator[Row]:
        """Yield what moved since the last reading of this bank, and by how much."""
        for block in blocks:
            self._learn(block, known, other_places)
        for block in blocks:
            for (raw,), (packets, octets) in zip(
                _KEY.iter_unpack(block.keys), _COUNTS.iter_unpack(block.values), strict=True
            ):
                kind = known[raw]
                if packets != kind.packets or octets != kind.octets:
                    yield kind.key, packets - kind.packets, octets - kind.octets
                    kind.packets, kind.octets = packets, octets

    def _learn(self, block: Block, known: dict[bytes, _Kind], other_places: bool) -> None:
        """Name the keys that are new; all names of interfaces first, as not every drop comes with one."""
        keys = [raw for (raw,) in _KEY.iter_unpack(block.keys)]
        if all(map(known.__contains__, keys)):
            return
        new = [at for at, raw in enumerate(keys) if raw not in known]
        raws = [keys[at] for at in new]
        values = [RawValue._make(DROP_VALUE.unpack_from(block.values, at * DROP_VALUE.size)) for at in new]
        for raw, value in zip(raws, values, strict=True):
            netns = self._netns(value)
            if netns is not None:
                self._namespaces.expect(netns)
                self._unnamed.add(netns)
            if netns is not None and value.interface[0]:
                name = value.interface.split(b"\0", 1)[0].decode(errors="backslashreplace")
                self._namespaces.learn_interface(netns, RawKey.decode(raw).ifindex, name)
        for raw, value in zip(raws, values, strict=True):
            key = self._naming.key(RawKey.decode(raw), self._netns(value))
            known[raw] = _Kind(key.of_other_places() if other_places else key)

    def _name_again(self) -> None:
        """Call what is counted from now on by the names of now: some are learnt late, and interfaces get others."""
        named = {netns: name for netns in self._unnamed if (name := self._namespaces.name(netns)) is not None}
        self._unnamed = {one for one in self._unnamed if one not in named and not self._namespaces.is_settled(one)}
        renames = self._namespaces.renames_before
        if not named and self._renames == renames:
            return
        self._renames = renames
        for kind in self._kinds.values():
            key = kind.key
            if key.netns is not None:
                interface = self._namespaces.known_interface(key.netns, key.ifindex or 0) or key.interface
                name = key.netns_name or named.get(key.netns)
                if (interface, name) != (key.interface, key.netns_name):
                    kind.key = key._replace(interface=interface, netns_name=name)

    def _netns(self, value: RawValue) -> Netns | None:
        if not value.netns_inode:
            return None
        return self._namespaces.of_drop(value.netns_inode, value.netns_cookie if self._facts.netns_cookie else None)

    def _missed(self) -> int:
        skipped = sum(sysbpf.program_statistics(program).recursion_misses for program in self._probes.descriptors[:1])
        return skipped + self._banks.uncounted
