# SPDX-License-Identifier: MIT
"""All counters of one moment, and the difference of two moments."""

import errno
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from pktdrop.counters import ethtool, links, mib, packets, procstat, qdisc, sockets, softnet, xfrm
from pktdrop.counters.model import Reading, Row, Scope
from pktdrop.model import Netns, counted_since
from pktdrop.namespaces import Namespaces

SOURCES: Final = (
    "softnet",
    "links",
    "driver",
    "mib",
    "qdisc",
    "socket",
    "conntrack",
    "neigh",
    "rt_cache",
    "xfrm",
    "packet_socket",
)
NOTHING: Final = Row((), ())
Width = Callable[[str, Scope, str], int]
"""Takes source, scope and name of a counter; returns at how many bits it wraps."""


@dataclass(frozen=True)
class Counters:
    """Counters by source and scope: as they stand, or by how much they rose."""

    time: float
    """When reading began: wall clock, seconds since the epoch."""
    monotonic: float
    """The same by CLOCK_MONOTONIC, seconds."""
    rows: Mapping[str, Mapping[Scope, Row]]
    """SOURCES; names of "driver" begin with "ethtool." or "qstats."."""
    gauges: Mapping[str, Mapping[Scope, Row]]
    """What waits at this moment, of "softnet", "qdisc" and "socket"."""
    drivers: Mapping[tuple[Netns | None, str], str]
    """Driver of an interface, by namespace and name."""
    inodes: Mapping[Scope, int]
    """Of sockets."""
    netns: frozenset[Netns]
    """Namespaces that were read."""
    failed: frozenset[str]
    """Sources that could not be read whole."""
    limits: tuple[str, ...]
    read_at: Mapping[Netns | None, float] = field(default_factory=dict)
    """When the counters of each namespace were read, None: those of the host; CLOCK_MONOTONIC."""

    def seconds_since(self, before: "Counters", scope: Scope) -> float:
        """Return in how many seconds the counters of a scope rose by their difference to those of an earlier reading.

        Of a namespace that is new: the seconds between the readings.
        """
        whole = self.monotonic - before.monotonic
        if scope.netns not in self.read_at or scope.netns not in before.read_at:
            return whole
        return self.read_at[scope.netns] - before.read_at[scope.netns]

    @property
    def backlogs(self) -> Mapping[int, Row]:
        """Lengths of the queues of CPUs."""
        return {scope.cpu: row for scope, row in self.gauges["softnet"].items() if scope.cpu is not None}


class Collector:
    """Reads every source, in the namespace it is called in and in those asked for."""

    def __init__(self, namespaces: Namespaces) -> None:
        """Take what finds namespaces."""
        self._namespaces = namespaces
        self._ethtool = ethtool.Reader()
        self._mibs = mib.Mibs()
        self._qdiscs = qdisc.Reader()
        self._sockets = sockets.Reader()
        self._packets = packets.Reader()

    def read(self, others: Iterable[Netns] = ()) -> Counters:
        """Read all counters of the own namespace and of `others`. What cannot be read is named in `limits`."""
        own = self._namespaces.own()
        moment, monotonic = time.time(), time.monotonic()
        found = _Found()
        found.read_at[None] = monotonic
        cpus = softnet.read_all()
        found.add("softnet", cpus.counters, cpus.gauges)
        found.add("rt_cache", procstat.rt_cache())
        found.add("neigh", self._neighbours())
        for netns in dict.fromkeys((own, *others)):
            try:
                with nullcontext() if netns == own else self._namespaces.entered(netns):
                    self._read_here(netns, found)
            except OSError as failed:
                self._qdiscs.forget(netns)
                if failed.errno not in (errno.ENOENT, errno.ESTALE):  # it is there, that is
                    name = self._namespaces.name(netns) or netns
                    found.limits.append(f"Network namespace {name} cannot be entered: {failed.strerror}.")
            else:
                found.netns.add(netns)
        return Counters(
            time=moment,
            monotonic=monotonic,
            rows=found.rows,
            gauges=found.gauges,
            drivers=found.drivers,
            inodes=found.inodes,
            netns=frozenset(found.netns),
            failed=frozenset(found.failed),
            limits=(*found.limits, *self._namespaces.limits),
            read_at=found.read_at,
        )

    def _read_here(self, netns: Netns, found: "_Found") -> None:
        """Read what belongs to the namespace this thread is in."""
        found.read_at[netns] = time.monotonic()
        of_links = links.read(netns)
        found.add("links", of_links)
        interfaces = [scope.interface for scope in of_links.rows if scope.interface is not None]
        drivers = self._ethtool.drivers(netns, interfaces)
        found.drivers.update({(netns, name): driver for name, driver in drivers.items() if driver})
        found.add("driver", self._ethtool.read(netns, interfaces))
        found.add("mib", self._mibs.read(netns))
        qdiscs = self._qdiscs.read_all(netns)
        found.add("qdisc", qdiscs.counters, qdiscs.gauges)
        of_sockets = self._sockets.read_all(netns)
        found.add("socket", of_sockets.counters, of_sockets.gauges)
        found.inodes.update(of_sockets.inodes)
        found.add("packet_socket", self._packets.read(netns))
        found.add("conntrack", procstat.conntrack(netns))
        found.add("xfrm", xfrm.read(netns))

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
    """What was read so far."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[Scope, Row]] = {source: {} for source in SOURCES}
        self.gauges: dict[str, dict[Scope, Row]] = {"softnet": {}, "qdisc": {}, "socket": {}}
        self.drivers: dict[tuple[Netns | None, str], str] = {}
        self.inodes: dict[Scope, int] = {}
        self.netns: set[Netns] = set()
        self.failed: set[str] = set()
        self.limits: list[str] = []
        self.read_at: dict[Netns | None, float] = {}

    def add(self, source: str, counters: Reading, gauges: Reading | None = None) -> None:
        self.rows[source].update(counters.rows)
        if gauges is not None:
            self.gauges[source].update(gauges.rows)
        self.limits += counters.limits
        if counters.limits:
            self.failed.add(source)


def kernel_width(source: str, _scope: Scope, _name: str) -> int:
    """Return at how many bits a counter wraps, as far as the kernel decides it; drivers may have narrower ones."""
    return softnet.WIDTH if source == "softnet" else 64


def since(before: Counters, after: Counters, width: Width = kernel_width) -> Counters:
    """Return by how much each counter rose. What was not there before counts from zero; what is gone is left out."""
    rows = {
        source: {
            scope: difference(before.rows[source].get(scope, NOTHING), row, partial(width, source, scope))
            for scope, row in after.rows[source].items()
        }
        for source in after.rows
    }
    return replace(after, rows=rows)


def difference(before: Row, after: Row, width: Callable[[str], int]) -> Row:
    """Return by how much the counters of one scope rose; those that have no name in `before` from zero."""
    known = dict(zip(before.names, before.values, strict=True)) if before.names != after.names else None
    earlier = before.values if known is None else tuple(known.get(name, 0) for name in after.names)
    return Row(
        after.names,
        tuple(
            now - was if now >= was else counted_since(was, now, width(name))
            for name, was, now in zip(after.names, earlier, after.values, strict=True)
        ),
    )
