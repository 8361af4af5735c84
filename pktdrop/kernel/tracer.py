# SPDX-License-Identifier: MIT
"""The running probes, read as Snapshots."""

import mmap
import struct
import time
from collections.abc import Collection, Mapping
from functools import cached_property
from itertools import starmap
from typing import TYPE_CHECKING

from pktdrop.kernel import host, probes, sysbpf
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, HOT_DROP, HOT_DROPS, RawKey, RawValue
from pktdrop.model import Count, DropKey, Lost, Netns, Snapshot
from pktdrop.namespaces import Namespaces

if TYPE_CHECKING:
    from pktdrop.kernel.naming import Naming

_ONE_BY_ONE = 512
"""With more keys in the map than that it is read in batches, which is faster, and has a price: see `limits`."""
MAP_ENTRIES = 65536
"""How many different drop keys are counted; each takes some 150 bytes of kernel memory, taken at the start."""


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
        self._keys: dict[bytes, DropKey] = {}
        self._in_map = 0
        """Keys in the map at the last reading."""
        # read without a system call: in one on maps, the kernel runs no tracing program on that CPU (sysbpf.map_items)
        self._table = self._memory("hot_drops", HOT_DROPS * sysbpf.cpu_numbers())
        self._full = self._memory("map_full", sysbpf.cpu_numbers())

    def _memory(self, name: str, entries: int) -> mmap.mmap:
        descriptor, definition = self._probes.programs.map(name)
        return sysbpf.map_memory(descriptor, definition.value_size, entries)

    def __enter__(self) -> "Tracer":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach the probes."""
        self._table.close()
        self._full.close()
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
        if self._in_map > _ONE_BY_ONE:
            found.append(
                "there are thousands of kinds of drops: each time they are read, the CPU that reads traces none for "
                "a few milliseconds, and those are not counted as missed (the ledger tells)."
            )
        if self._keys and self._naming.symbols.hidden:
            found.append(
                f"call sites are addresses: {self._naming.symbols.hidden}. What only they tell is not known: the layer "
                "of a drop, and whether it is noise; such drops are counted as not known whether lost."
            )
        return tuple(found)

    def snapshot(self) -> Snapshot:
        """Read all counts. Names are looked up for keys not seen before."""
        rows, lost = self._read(), self._lost()
        moment, monotonic = time.time(), time.monotonic()  # of the counts: names take a while, symbols at first 0.1 s
        self._learn_interfaces(rows)
        drops: dict[DropKey, Count] = {}
        for raw, value in rows.items():
            key = self._keys.get(raw)
            if key is None:
                key = self._keys[raw] = self._naming.key(RawKey.decode(raw), self._netns(value))
            count = Count(value.packets, value.octets)
            known = drops.get(key)
            # two raw keys get one name where their difference proves meaningless
            drops[key] = Count(known.packets + count.packets, known.bytes + count.bytes) if known else count
        return Snapshot(time=moment, monotonic=monotonic, drops=drops, lost=lost)

    def _read(self) -> dict[bytes, RawValue]:
        """Read the map and the table in front of it. A key is in one of them only."""
        rows = self._read_map()
        table = self._table[:]
        places = memoryview(table).cast("Q")[:: HOT_DROP.size // 8].tolist()
        for number, place in enumerate(places):
            if place:  # it is 0 where no key has the entry
                raw, value = HOT_DROP.unpack_from(table, number * HOT_DROP.size)
                rows[raw] = RawValue._make(DROP_VALUE.unpack(value))
        return rows

    def _read_map(self) -> dict[bytes, RawValue]:
        """Read the keys that the table has no room for: none on most hosts."""
        descriptor, definition = self._probes.programs.map("drops")
        rows: dict[bytes, RawValue] = {}
        at_once = self._in_map > _ONE_BY_ONE
        for keys, values in sysbpf.map_items(descriptor, definition.key_size, definition.value_size, at_once):
            raw_keys = (raw for (raw,) in struct.iter_unpack(f"={DROP_KEY.size}s", keys))
            rows.update(zip(raw_keys, starmap(RawValue, DROP_VALUE.iter_unpack(values)), strict=True))
            if not at_once and len(rows) > _ONE_BY_ONE:
                self._in_map = len(rows)
                return self._read_map()
        self._in_map = len(rows)
        return rows

    def _learn_interfaces(self, rows: Mapping[bytes, RawValue]) -> None:
        for raw, value in rows.items():
            if raw not in self._keys and value.interface[0]:
                netns = self._netns(value)
                name = value.interface.split(b"\0", 1)[0].decode(errors="backslashreplace")
                if netns is not None:
                    self._namespaces.learn_interface(netns, RawKey.decode(raw).ifindex, name)

    def _netns(self, value: RawValue) -> Netns | None:
        if not value.netns_inode:
            return None
        return self._namespaces.of_drop(value.netns_inode, value.netns_cookie if self._facts.netns_cookie else None)

    def _lost(self) -> Lost:
        missed = sum(sysbpf.program_statistics(program).recursion_misses for program in self._probes.descriptors[:1])
        return Lost(map_full=sum(memoryview(self._full[:]).cast("Q").tolist()), missed=missed)
