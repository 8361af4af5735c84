# SPDX-License-Identifier: MIT
"""All counters of one moment, and the difference of two moments."""

import errno
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from operator import sub
from typing import Final

from pktdrop.counters import ethtool, links, mib, packets, procstat, qdisc, sockets, softnet, xfrm
from pktdrop.counters.interfaces import addresses
from pktdrop.counters.moves import InterfaceKey, moves, rename
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.counters import NOTHING, SOURCES, Counters, Interface, Reading, Row, Scope
from pktdrop.model.drops import Netns, counted_since
from pktdrop.model.limits import Limit

_READ_AGAIN: Final = 4
"""Namespaces that are read again in one reading, at most."""
Width = Callable[[str, Scope, str], int]
"""Takes source, scope and name of a counter; returns at how many bits it wraps."""


class Collector:
    """Reads every source of counters, in the namespace it is called in and in those asked for."""

    def __init__(self, namespaces: Namespaces) -> None:
        """Take what finds namespaces."""
        self._namespaces = namespaces
        self._ethtool = ethtool.StatisticsReader()
        self._mibs = mib.Mibs()
        self._qdiscs = qdisc.QdiscReader()
        self._sockets = sockets.SocketReader()
        self._packets = packets.PacketSocketReader()
        self._interfaces: dict[Netns, dict[int, Interface]] = {}
        self._searches = 0
        self._is_running = False

    def read(self, others: Iterable[Netns] = (), is_over: Callable[[Netns], bool] = lambda netns: False) -> Counters:
        """Read all counters of the own namespace and of `others`, in their order, until `is_over` says so of one.

        What cannot be read is named in `limits`.
        """
        own = self._namespaces.own()
        moment, monotonic = time.time(), time.monotonic()
        found = _Found()
        found.read_at[None] = monotonic
        found.add("softnet", softnet.read())
        found.add("rt_cache", procstat.rt_cache())
        found.add("neigh", self._neighbours())
        wanted = list(dict.fromkeys((own, *others)))
        late = 0
        for number, netns in enumerate(wanted):
            if number and is_over(netns):
                late = len(wanted) - number
                break
            self._enter(netns, netns == own, found)
        for netns in list(found.doubtful)[:_READ_AGAIN]:
            found.drop(netns)
            self._enter(netns, netns == own, found)
        if self._searches != self._namespaces.searches:
            self._searches = self._namespaces.searches
            self._forget_gone(own)
        self._is_running = True
        interfaces = {netns: dict(known) for netns, known in self._interfaces.items() if netns in found.netns}
        found.call_as_before(interfaces)
        found.limits += [*self._namespaces.limits, *found.not_entered()]
        return Counters(
            time=moment,
            monotonic=monotonic,
            rows=found.rows,
            gauges=found.gauges,
            drivers=found.drivers,
            inodes=found.inodes,
            netns=frozenset(found.netns),
            failed=frozenset(found.failed),
            limits=tuple(found.limits),
            interfaces=interfaces,
            late=late,
            read_at=found.read_at,
        )

    def _enter(self, netns: Netns, is_own: bool, found: "_Found") -> None:
        try:
            with nullcontext() if is_own else self._namespaces.entered(netns):
                self._read_here(netns, found)
        except OSError as failed:
            if failed.errno not in (errno.ENOENT, errno.ESTALE):  # it is there, that is
                name = self._namespaces.name(netns) or str(netns)
                found.refused.setdefault(failed.strerror or str(failed), []).append(name)
        else:
            found.netns.add(netns)

    def _forget_gone(self, own: Netns) -> None:
        """Drop what is remembered of namespaces that are gone."""
        for netns in [one for one in self._interfaces if one != own and not self._namespaces.present(one)]:
            del self._interfaces[netns]
            for reader in (self._ethtool, self._mibs, self._qdiscs, self._sockets):
                reader.forget(netns)

    def _read_here(self, netns: Netns, found: "_Found") -> None:
        """Read what belongs to the namespace this thread is in."""
        found.read_at[netns] = time.monotonic()
        of_links, names = links.read(netns)
        found.add("links", of_links)
        self._learn(netns, names, found)
        drivers = self._ethtool.drivers(netns, names)
        found.drivers.update({(netns, name): driver for name, driver in drivers.items() if driver})
        found.add("driver", self._ethtool.read(netns, names))
        found.add("mib", self._mibs.read(netns))
        found.add("qdisc", self._qdiscs.read(netns, names))
        of_sockets, inodes = self._sockets.read(netns)
        found.add("socket", of_sockets)
        found.inodes.update(inodes)
        found.add("packet_socket", self._packets.read(netns))
        found.add("conntrack", procstat.conntrack(netns))
        found.add("xfrm", xfrm.read(netns))

    def _learn(self, netns: Netns, names: Mapping[int, str], found: "_Found") -> None:
        """Remember interfaces; those that are new are asked for their address."""
        known = self._interfaces.get(netns, {})
        new = addresses([name for ifindex, name in names.items() if ifindex not in known])
        if self._is_running:
            self._doubt(netns, new.values(), found)
        self._interfaces[netns] = {
            ifindex: Interface(name, known[ifindex].address if ifindex in known else new.get(name))
            for ifindex, name in names.items()
        }
        found.renamed.update(
            {(netns, ifindex): known[ifindex].name for ifindex, name in names.items()
             if ifindex in known and known[ifindex].name != name}
        )  # fmt: skip
        self._namespaces.learn_interfaces(netns, names)

    def _doubt(self, netns: Netns, came: Collection[bytes], found: "_Found") -> None:
        """Have namespaces read again whose interfaces may have come here after that: they would count twice."""
        for other, known in self._interfaces.items() if came else ():
            if other != netns and any(one.address in came for one in known.values()):
                found.doubtful[other] = None

    def _neighbours(self) -> Reading:
        """Read what the kernel shows in its first namespace only."""
        here = procstat.neighbours()
        if here.rows:
            return here
        try:
            with self._namespaces.entered_host():
                return procstat.neighbours()
        except OSError:  # it cannot be seen from here, which `here` says
            return here


class _Found:
    """What a reading has read so far, source by source."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Scope, Row]] = {source: {} for source in SOURCES}
        self.gauges: dict[str, dict[Scope, Row]] = {"softnet": {}, "qdisc": {}, "socket": {}}
        self.drivers: dict[tuple[Netns | None, str], str] = {}
        self.inodes: dict[Scope, int] = {}
        self.netns: set[Netns] = set()
        self.failed: set[str] = set()
        self.limits: list[Limit] = []
        self.renamed: dict[tuple[Netns, int], str] = {}
        """Interfaces that have another name than at the reading before, and that name."""
        self.doubtful: dict[Netns, None] = {}
        """Namespaces to be read again."""
        self.refused: dict[str, list[str]] = {}
        """Names of namespaces that cannot be entered, by why."""
        self.read_at: dict[Netns | None, float] = {}

    def call_as_before(self, interfaces: dict[Netns, dict[int, Interface]]) -> None:
        """Call interfaces as before that were renamed meanwhile, once more: so are the drops up to this reading."""
        moved_to: dict[InterfaceKey, InterfaceKey | None] = {}
        for (netns, ifindex), name in self.renamed.items():
            now = interfaces.get(netns, {}).get(ifindex)
            if now is not None and now.name != name:
                moved_to[netns, now.name] = netns, name
                interfaces[netns][ifindex] = now._replace(name=name)
        for rows in (*self.rows.values(), *self.gauges.values()) if moved_to else ():
            rename(rows, moved_to)

    def drop(self, netns: Netns) -> None:
        """Forget what was read of a namespace."""
        self.netns.discard(netns)
        for rows in (*self.rows.values(), *self.gauges.values()):
            for scope in [one for one in rows if one.netns == netns]:
                del rows[scope]
        self.read_at.pop(netns, None)
        self.drivers = {nic: driver for nic, driver in self.drivers.items() if nic[0] != netns}
        self.inodes = {scope: inode for scope, inode in self.inodes.items() if scope.netns != netns}

    def not_entered(self) -> Iterator[Limit]:
        """Say it once for all: there may be hundreds."""
        for why, names in self.refused.items():
            if len(names) == 1:
                yield Limit("not-entered", tuple(names), why)
            else:
                yield Limit("several-not-entered", tuple(names), why, number=len(names))

    def add(self, source: str, reading: Reading) -> None:
        self.rows[source].update(reading.rows)
        if source in self.gauges:
            self.gauges[source].update(reading.gauges)
        self.limits += (*reading.limits, *reading.left_out)
        if reading.limits:
            self.failed.add(source)


def kernel_width(source: str, _scope: Scope, _name: str) -> int:
    """Return at how many bits a counter wraps, as far as the kernel decides it; drivers may have narrower ones."""
    return softnet.WIDTH if source == "softnet" else 64


def since(before: Counters, after: Counters, width: Width = kernel_width) -> Counters:
    """Return by how much each counter rose. What was not there before counts from zero; what is gone is left out."""
    earlier = {source: dict(rows) for source, rows in before.rows.items()}
    if "links" not in after.failed:  # else one may be missing
        moved = moves(before.interfaces, after.interfaces, before.rows["links"], after.rows["links"]).moved_to
        for known in earlier.values() if moved else ():
            rename(known, moved)
    rows = {
        source: {
            scope: difference(earlier[source].get(scope, NOTHING), row, partial(width, source, scope))
            for scope, row in after.rows[source].items()
        }
        for source in after.rows
    }
    return replace(after, rows=rows)


def difference(before: Row, after: Row, width: Callable[[str], int]) -> Row:
    """Return by how much the counters of one scope rose; those that have no name in `before` from zero."""
    known = dict(zip(before.names, before.values, strict=True)) if before.names != after.names else None
    earlier = before.values if known is None else tuple(known.get(name, 0) for name in after.names)
    risen = tuple(map(sub, after.values, earlier))
    if min(risen, default=0) >= 0:
        return Row(after.names, risen)
    return Row(
        after.names,
        tuple(
            now - was if now >= was else counted_since(was, now, width(name))
            for name, was, now in zip(after.names, earlier, after.values, strict=True)
        ),
    )
