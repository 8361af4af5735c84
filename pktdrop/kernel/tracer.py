# SPDX-License-Identifier: MIT
"""The running probes, read as Snapshots."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host, probes, readers, sysbpf
from pktdrop.kernel.banks import Banks
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.extras import USUAL, Extras
from pktdrop.kernel.facts import XDP_TRACEPOINTS
from pktdrop.kernel.records import RawKey, RawSample, RawValue
from pktdrop.kernel.ring import Ring
from pktdrop.kernel.sources import Sources
from pktdrop.kernel.tally import DropTally
from pktdrop.model.drops import DropKey, Netns, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.model.snapshots import Snapshot

if TYPE_CHECKING:
    from pktdrop.kernel.flows import FlowTable
    from pktdrop.kernel.naming import Naming
    from pktdrop.model.flow import CountedFlow
    from pktdrop.model.sample import Sample

_MANY_KEYS = 1024
"""Keys in the map, besides those in the table in front of it: with fewer, there is no reason to give any up."""
_FULL = 15 / 16
_SETTLE = 5.0
"""Seconds in which keys that live come back after they were given up; and the least between two times."""
_IDLE_KINDS = 8192
"""Beyond the kinds that moved since the kernel gave them up last, so many of those that moved before are kept apart."""
MAP_ENTRIES = 65536
"""How many different drop keys the kernel has room for; each takes some 150 bytes of its memory from the start on."""


class Tracer:
    """Counts drops from the moment the Tracer is made until it is closed."""

    def __init__(
        self,
        namespaces: Namespaces,
        wanted: Collection[str] = (),
        map_entries: int = MAP_ENTRIES,
        cache: Cache | None = None,
        extras: Extras = USUAL,
    ) -> None:
        """Attach the probes, by the rungs in `wanted` where it names some. Raises PktdropError."""
        self.packets = extras.packets
        self._namespaces = namespaces
        host.require_bpf_rights()
        host.raise_memlock()
        self._facts, self._probes = probes.attach(cache or Cache(default_directory()), map_entries, wanted, extras)
        self.start = Snapshot(time=time.time(), monotonic=time.monotonic(), drops={}, uncounted=Uncounted(0, 0))
        """Before all drops: the maps were made for this run, so nothing needs to be read."""
        self._unnamed: set[Netns] = set()
        """Namespaces that may have had no name when a drop in them was first seen, and may have one by now."""
        self._renames = 0
        self._kept_apart, self._other_places = Sources(self._named), Sources(self._named_elsewhere)
        self._banks = Banks(self._probes.programs)
        self._ring: Ring | None = None
        self._flows: FlowTable | None = None
        if self._facts.reader != readers.NONE:
            if extras.packets:
                self._ring = Ring(self._probes.programs, extras.packets, extras.stacks)
            if extras.by:
                self._flows = self._flow_table(extras.by)
        self._by = extras.by
        self._samples: list[tuple[DropKey, RawSample]] = []
        """Samples that were read from the ring and not handed on yet, with their kinds."""
        self._unknown: list[RawSample] = []
        """Samples of keys that were not read yet."""
        self._counted = -math.inf
        """When the last reading of counts began, by the monotonic clock."""
        self._wall = 0.0
        """What the wall clock is ahead of the monotonic one."""
        self._tally = DropTally()
        self._same: dict[Any, Any] = {}
        """One of all numbers and namespaces that are equal: those of tens of thousands of keys take megabytes."""
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
        if self._ring is not None:
            self._ring.close()
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
    def limits(self) -> tuple[Limit, ...]:
        """What this run cannot know, and why. More may turn up while it runs."""
        refused = self._probes.refused
        found = []
        if self._probes.kfree_skb == "raw" and "tp_btf" in refused:
            found.append(Limit("slow-kfree-skb", why=refused["tp_btf"]))
        if self._probes.enqueue_to_backlog == "none":
            why = "; ".join(f"{rung}: {refused[rung]}" for rung in probes.BACKLOG if rung in refused)
            found.append(Limit("no-target-cpu", why=why or "not probed"))
        lacking = [f"{name}: {refused[name]}" for name in XDP_TRACEPOINTS if name in refused]
        if lacking:
            found.append(Limit("not-all-of-xdp", why="; ".join(lacking)))
        if self._facts.reasons.source == "none":
            found.append(Limit("no-reasons"))
        if not self.tcp_input_has_events:
            found.append(Limit("no-tcp-input"))
        elif self._facts.arguments < 4:
            # tcp_v4_rcv() clears skb->dev before the socket looks at the packet (net/ipv4/tcp_ipv4.c, v6.1)
            found.append(Limit("tcp-input-without-netns"))
        if self._banks.reads_in_batches:
            found.append(Limit("read-in-batches"))
        if self.packets and self._ring is None:
            why = refused.get("samples", "this kernel lets no program read their bytes")
            found.append(Limit("no-samples", why=why))
        if self._by and self._flows is None:
            found.append(
                Limit("no-flows", (self._by,), why=refused.get("samples", "this kernel lets no program read packets"))
            )
        if self._ring is not None and any(self._ring.refused):
            found.append(Limit("few-samples"))
        if len(self._kept_apart) and self._naming.symbols.hidden:
            found.append(Limit("no-symbols", why=self._naming.symbols.hidden))
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
        self._same.clear()
        self._collect()
        final = self._banks.give_up()
        self._tally.add(self._kept_apart.risen(final, self._tally))
        if self._flows is not None:  # while the kinds of the old keys are known
            self._flows.give_up(1 - self._banks.bank, self._kind)
        # without cookies: by then, another namespace may have the inode that stands for this one
        self._kept_apart.begin_anew(final, forget=not self._facts.netns_cookie)
        self._tally.keep(len(self._kept_apart) + _IDLE_KINDS)

    def _is_time(self, now: float) -> bool:
        if now - self._gave_up < _SETTLE:
            return False
        if self._flows is not None and self._flows.is_full:
            return True
        keys = self._banks.in_map
        if self._keys_that_live is None:
            self._keys_that_live = keys
        return keys > min(_FULL * self._map_entries, max(_MANY_KEYS, 2 * self._keys_that_live))

    def snapshot(self) -> Snapshot:
        """Read all counts. Names are looked up for keys not seen before."""
        self._counted = time.monotonic()
        blocks, others, missed = self._banks.read(), self._banks.other_places(), self._missed()
        moment, monotonic = time.time(), time.monotonic()  # of the counts: names take a while, symbols at first 0.1 s
        self._wall = moment - monotonic
        self._name_again()
        self._tally.add(self._kept_apart.risen(blocks, self._tally))
        self._tally.add(self._other_places.risen(others, self._tally))
        uncounted = Uncounted(map_full=self._other_places.packets, missed=missed)
        return Snapshot(time=moment, monotonic=monotonic, drops=self._tally.totals, uncounted=uncounted)

    def samples(self) -> "list[Sample]":
        """Return the samples of drops that the last Snapshot has counted, and let each kind have new ones."""
        self._collect()
        if self._ring is not None:
            self._ring.allow()
        counted: list[tuple[DropKey, RawSample]] = []
        later: list[tuple[DropKey, RawSample]] = []
        for one in self._samples:
            (counted if one[1].time <= self._counted * 1e9 else later).append(one)
        self._samples = later
        if not counted:
            return []
        from pktdrop.kernel.sampled import sample  # not needed before there is one

        # by the names that they have now, if the key is still there
        found = []
        left: dict[DropKey, int] = defaultdict(lambda: self.packets)
        for kind, raw in counted:
            key = self._kind_of(raw) or kind
            left[key] -= 1
            if left[key] >= 0:  # with what the look before left, there may be more
                found.append(sample(raw, key, self._wall, self._naming.symbols.name))
        return found

    def _flow_table(self, by: str) -> "FlowTable":
        from pktdrop.kernel.flows import FlowTable  # not needed where nobody asks for flows

        return FlowTable(self._probes.programs, by)

    def read_flows(self) -> None:
        """Read what drops are counted by besides their kind; to be called before a Snapshot."""
        if self._flows is not None:
            self._flows.read()

    def flows(self) -> "list[CountedFlow]":
        """Return by how much flows rose that were read before the last Snapshot."""
        return [] if self._flows is None else self._flows.take(self._kind)

    def _collect(self) -> None:
        """Take what is in the ring, and give it the names that its keys have now: they may be given up."""
        if self._ring is None:
            return
        found, self._unknown = self._unknown, []
        known = len(found)
        self._ring.read(found.append)
        for at, raw in enumerate(found):
            kind = self._kind_of(raw)
            if kind is not None:
                self._samples.append((kind, raw))
            elif at >= known:  # a key of after the last reading; it is known by the next time, or given up
                self._unknown.append(raw)

    def _kind_of(self, raw: RawSample) -> DropKey | None:
        return self._kind(bytes((raw.key[0] & ~1,)) + raw.key[1:])

    def _kind(self, key: bytes) -> DropKey | None:
        """Return the kind of a key, which is without its bank."""
        return self._kept_apart.kind(key) or self._other_places.kind(key)

    def _named(self, found: Sequence[tuple[RawKey, RawValue]]) -> list[DropKey]:
        """Name kinds; all names of interfaces are learnt first, as not every drop comes with one."""
        same = self._same.setdefault
        # the flags apart from the numbers: False is equal to 0, and would be one CPU's number
        found = [(RawKey._make((*(same(part, part) for part in raw[:-2]), *raw[-2:])), value) for raw, value in found]
        netns = [same(where, where) for where in (self._netns(value) for _, value in found)]
        for (raw, value), where in zip(found, netns, strict=True):
            if where is not None:
                self._namespaces.expect(where)
                self._unnamed.add(where)
            if where is not None and value.interface[0]:
                name = os.fsdecode(value.interface.split(b"\0", 1)[0])
                self._namespaces.learn_interface(where, raw.ifindex, name)
        return [self._naming.key(raw, where) for (raw, _), where in zip(found, netns, strict=True)]

    def _named_elsewhere(self, found: Sequence[tuple[RawKey, RawValue]]) -> list[DropKey]:
        return [key.of_other_places() for key in self._named(found)]

    def _name_again(self) -> None:
        """Call what is counted from now on by the names of now: some are learnt late, and interfaces get others."""
        named = {netns: name for netns in self._unnamed if (name := self._namespaces.name(netns)) is not None}
        self._unnamed = {one for one in self._unnamed if one not in named and not self._namespaces.is_settled(one)}
        renames = self._namespaces.renames_before
        if not named and self._renames == renames:
            return
        concerned = named if self._renames == renames else None
        self._renames = renames
        self._kept_apart.rename(lambda key: self._called_now(key, named), concerned)

    def _called_now(self, key: DropKey, named: Mapping[Netns, str]) -> DropKey:
        if key.netns is None:
            return key
        interface = self._namespaces.known_interface(key.netns, key.ifindex or 0) or key.interface
        name = key.netns_name or named.get(key.netns)
        if (interface, name) == (key.interface, key.netns_name):
            return key
        return key._replace(interface=interface, netns_name=name)

    def _netns(self, value: RawValue) -> Netns | None:
        if not value.netns_inode:
            return None
        return self._namespaces.of_drop(value.netns_inode, value.netns_cookie if self._facts.netns_cookie else None)

    def _missed(self) -> int:
        programs = (self._probes.program, *self._probes.others)
        return sum(map(sysbpf.recursion_misses, programs)) + self._banks.uncounted
