# SPDX-License-Identifier: MIT
"""What every source of counters returns."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit

#: "does not have it": no such operation, no such device any more, nothing of the kind.
NOT_REPORTED: Final = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL)


class Scope(NamedTuple):
    """What a counter belongs to. None: the counter is not divided by this."""

    netns: Netns | None = None
    interface: str | None = None
    queue: int | None = None
    cpu: int | None = None
    qdisc: str | None = None
    socket: str | None = None


class Row(NamedTuple):
    """Cumulative counters of one scope. All rows of a kind share one tuple of names."""

    names: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """The counters of one source at one moment."""

    rows: Mapping[Scope, Row]
    limits: tuple[Limit, ...] = ()
    """What could not be read."""
    gauges: Mapping[Scope, Row] = field(default_factory=dict)
    """What waited at that moment, of sources that know."""
    left_out: tuple[Limit, ...] = ()
    """What was not read, so that a look takes no longer than it may: no fault of what is here."""


class Interface(NamedTuple):
    """An interface at a moment."""

    name: str
    address: bytes | None
    """Hardware address, as the kernel writes it into struct sockaddr; None where it has none of its own."""


Interfaces = Mapping[Netns, Mapping[int, Interface]]
"""Interfaces by network namespace and ifindex."""


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


@dataclass(frozen=True)
class Counters:
    """Counters by source and scope: as they stand, or by how much they rose."""

    time: float
    """When reading began: wall clock, seconds since the epoch."""
    monotonic: float
    """When the counters were read, by CLOCK_MONOTONIC, in seconds."""
    rows: Mapping[str, Mapping[Scope, Row]]
    """SOURCES; names of "driver" begin with "ethtool." or "qstats."."""
    gauges: Mapping[str, Mapping[Scope, Row]]
    """What waits at this moment, of "softnet", "qdisc" and "socket"."""
    drivers: Mapping[tuple[Netns | None, str], str]
    """Driver of an interface, by namespace and name."""
    inodes: Mapping[Scope, int]
    """Inodes of the sockets that have counters."""
    netns: frozenset[Netns]
    """Network namespaces whose counters were read."""
    failed: frozenset[str]
    """Sources of which something could not be read."""
    limits: tuple[Limit, ...]
    interfaces: Interfaces = field(default_factory=dict)
    """Interfaces of the namespaces that were read, by namespace and ifindex."""
    late: int = 0
    """How many namespaces were left out, as time had run out."""
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
