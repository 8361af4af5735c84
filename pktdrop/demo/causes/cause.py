# SPDX-License-Identifier: MIT
"""What a way to lose packets is: how to do it, and what a tracer must say of it.

A cause builds its traffic inside a topology of net.py. Every call of `Traffic.lose` sends exactly one packet that the
kernel must drop for the stated reason; every call of `Traffic.spare` one much like it that must get through. Who drops
and who gets through is counted by somebody else than pktdrop: `lost` and `spared` read SNMP counters, nftables, ip(8),
tc(8) or the receiving socket. Both kinds of packets leave from the calling CPU, and nothing on their way moves them
to another one.

What a cause needs to be in place (a full buffer, a missing neighbour) is there when its function returns: whatever
was dropped for that came before the traffic, and is `Traffic.filled`.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from pktdrop.demo.net import Net, RoleNames

Topology = Callable[[bool, RoleNames | None], AbstractContextManager[Net]]
"""Sets up namespaces, with IPv6 or without, under names of the caller's or its own."""


@dataclass(frozen=True)
class Traffic:
    """Sends one packet at a time, to be lost or spared, and reads how many of each the kernel has counted."""

    lose: Callable[[], object]
    lost: Callable[[], int]
    spare: Callable[[], object]
    spared: Callable[[], int]
    filled: int = 0
    """How many were lost for the same reason before, as what is full had to be filled."""


class Scene(NamedTuple):
    """Where packets get lost: the namespace by its role in a topology, and the device that the packet is on."""

    topology: Topology
    role: str
    interface: str


@dataclass(frozen=True)
class DemoCause:
    """A way to lose packets, and what a tracer must say of it."""

    name: str
    short: str
    """For the name of a namespace, which has little room in a table."""
    description: str
    """What gets lost, in one sentence."""
    reason: str
    functions: tuple[str, ...]
    """Where the kernel may free the packet: compilers inline, and the functions get renamed."""
    layer: str
    role: str
    """Role in the topology of the namespace that loses the packets."""
    interface: str
    """The device that the packet was on: the one it came in by, unless the kernel has already moved it on."""
    protocol: str
    counters: tuple[str, ...]
    """Loss counters, by their names in the ledger, that rise by one for each such packet, and by nothing else."""
    bounds: tuple[str, ...]
    """Counters that rise by one for each such packet, but also by other things, or not for all of its kind. Where
    there are neither, the kernel counts such packets nowhere."""
    topology: Topology
    ipv6: bool
    build: Callable[[Net], Traffic]
    """Makes the traffic in a topology. Raises PktdropError or OSError where this host has not what it takes."""
    older: tuple[str, ...] = ()
    """Reasons that kernels without this reason give for such packets, the newest first; none: NOT_SPECIFIED."""
    since: str = ""
    """Another reason: only a kernel that has this one too gives `reason` for such packets. "": `reason` alone
    decides."""
    otherwise: Mapping[str, str] = field(default_factory=dict)
    """Layer and protocol of such a drop on kernels that do not name the reason, where these differ."""
    told_by: str = "device"
    """What tells the namespace: the "device" of the packet; or only the "socket" it was for, as the kernel forgets the
    device first, so that kernels that do not name the socket tell none."""
    needs_reasons: bool = False
    """Kernels without reasons free the packet without an event."""
    missing: str = ""
    """A counter of the ledger in which kernels that name a reason should count the packet and do not; "": none."""

    def is_named(self, reasons: Collection[str]) -> bool:
        """Tell whether a kernel with these drop reasons gives this cause's reason for such a packet."""
        return self.reason in reasons and (not self.since or self.since in reasons)

    def named(self, reasons: Collection[str]) -> str:
        """Return the reason that a kernel with these drop reasons gives for such a packet."""
        if self.is_named(reasons):
            return self.reason
        return next((reason for reason in self.older if reason in reasons), "NOT_SPECIFIED")

    def net(self, names: RoleNames | None = None) -> AbstractContextManager[Net]:
        """Set up the topology, its namespaces called what `names` makes of their roles."""
        return self.topology(self.ipv6, names)


def cause(
    reason: str,
    *functions: str,
    short: str,
    at: Scene,
    layer: str = "stack",
    versions: tuple[int, ...] = (4,),
    protocol: str | None = None,
    net_ipv6: bool | None = None,
    interface6: str | None = None,
    counters: tuple[str, ...] = (),
    counters6: tuple[str, ...] | None = None,
    bounds: tuple[str, ...] = (),
    bounds6: tuple[str, ...] | None = None,
    older: tuple[str, ...] = (),
    older6: tuple[str, ...] | None = None,
    since: str = "",
    otherwise: Mapping[str, str] | None = None,
    told_by: str = "device",
    needs_reasons: bool = False,
    missing: str = "",
) -> Callable[[Callable[[Net, bool], Traffic]], tuple[DemoCause, ...]]:
    """Make of a function one cause per IP version, described by the first line of its docstring.

    What ends in 6 is for IPv6, where that differs.
    """

    def causes(build: Callable[[Net, bool], Traffic]) -> tuple[DemoCause, ...]:
        return tuple(
            one(build, version == 6, "6" if version == 6 and len(versions) > 1 else "") for version in versions
        )

    def one(build: Callable[[Net, bool], Traffic], v6: bool, suffix: str) -> DemoCause:
        return DemoCause(
            name=build.__name__ + suffix,
            short=short + suffix,
            description=(build.__doc__ or build.__name__).splitlines()[0],
            reason=reason,
            functions=functions,
            layer=layer,
            role=at.role,
            interface=(interface6 or at.interface) if v6 else at.interface,
            protocol=protocol or ("IPv6" if v6 else "IPv4"),
            counters=counters6 if v6 and counters6 is not None else counters,
            bounds=bounds6 if v6 and bounds6 is not None else bounds,
            topology=at.topology,
            ipv6=v6 if net_ipv6 is None else net_ipv6,
            build=lambda net: build(net, v6),
            older=older6 if v6 and older6 is not None else older,
            since=since,
            otherwise=otherwise or {},
            told_by=told_by,
            needs_reasons=needs_reasons,
            missing=missing,
        )

    return causes
