# SPDX-License-Identifier: MIT
"""What is measured: drops, by what they are counted by; and what the rules say of them. No I/O, no formatting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pktdrop.model.container import Container

OTHER_PROTOCOL = 0xFFFF
"""Stands for protocols that are not told apart. Reserved by RFC 1701, so it is none itself."""


class Netns(NamedTuple):
    """One network namespace: never another one that had its inode before, or has it later."""

    inode: int
    cookie: int | None = None
    """struct net.net_cookie, which the kernel never gives again; None: it has none, or does not tell it."""
    number: int = 0
    """Without a cookie: how many others were seen to have the inode before."""

    def __str__(self) -> str:
        """Return the inode, as lsns(8) and readlink(1) show it."""
        return str(self.inode)


THE_GONE: Final = Netns(0)
"""Stands for all network namespaces that are gone and are not told apart any more: no inode is 0."""


def full_reason(subsystem: str, reason: str) -> str:
    """Return a reason with its subsystem, unless that is the core: "NO_SOCKET", "openvswitch/OVS_DROP_LAST_ACTION"."""
    return reason if subsystem == "core" else f"{subsystem}/{reason}"


def netns_order(netns: Netns | None) -> tuple[int, ...]:
    """Return what namespaces are sorted by: one of which nothing is known comes first."""
    return () if netns is None else (netns.inode, netns.cookie or 0, netns.number)


GONE = "gone"
"""How a namespace is marked that nothing leads to any more, and that had no name when it was first seen."""


@dataclass(frozen=True)
class Known:
    """What is known of network namespaces."""

    names: Mapping[Netns, str] = field(default_factory=dict)
    """ "host", the name under /run/netns, or the container or "comm[pid]" of the first process in it; also of some that
    are gone."""
    present: frozenset[Netns] = frozenset()
    """Namespaces that the last search found."""
    before: frozenset[Netns] = frozenset()
    """Namespaces that the search before the last one found."""
    gone: frozenset[Netns] = frozenset()
    """Namespaces that were searched for, and that nothing led to."""
    host: Netns | None = None
    """The kernel's first namespace; None: the last search did not see processes of the host, so others may be there."""
    own: Netns | None = None
    """The namespace that counters of the host were read in."""
    searches: int = 0
    """How many searches there were so far."""
    containers: Mapping[Netns, Container] = field(default_factory=dict)
    """Containers of namespaces that are called by them; also of some that are gone."""

    @property
    def sees_host(self) -> bool:
        """Whether the last search saw the processes of the host: else what was not found may well be there."""
        return self.host is not None

    def is_present(self, netns: Netns) -> bool:
        """Tell whether one of the last two searches found a namespace: processes may hand it on during one."""
        return netns in self.present or netns in self.before

    def is_gone(self, netns: Netns) -> bool:
        """Tell whether a namespace was searched for and nothing leads to it: no name, mount or process.

        False where processes of the host cannot be seen: it may well be there.
        """
        return self.sees_host and netns in self.gone

    def label(self, netns: Netns) -> str | None:
        """Return the name of a namespace; of one that is gone without a name, its inode with a mark; else None."""
        if netns == THE_GONE:
            return GONE
        return self.names.get(netns) or (f"{GONE}:{netns}" if self.is_gone(netns) else None)


class DropKey(NamedTuple):
    """What a drop is counted by. None means that this run cannot know."""

    reason: str
    """Name from the running kernel, "NO_SOCKET"; a number it has no name for as text, "137"."""
    subsystem: str
    """Part of the kernel whose reasons these are: "core", "mac80211_unusable", "openvswitch", "qdisc"..."""
    cpu: int
    """CPU that freed the skb."""
    target_cpu: int | None
    """CPU whose backlog had no room for the skb; only drops of enqueue_to_backlog() have one."""
    ifindex: int | None
    interface: str | None
    netns: Netns | None
    """Network namespace that the skb was in."""
    netns_name: str | None
    protocol: int
    """Ethertype; 0: the skb had none; OTHER_PROTOCOL: one of those that a call site has too many of."""
    call_site: str
    """Return address inside the function that freed the skb: "__udp4_lib_rcv+0x4bc", or an address in hex."""
    other_places: bool = False
    """Whether this is the kind of drops on many interfaces and namespaces, too many to be kept apart: both are None
    then."""
    to_group: bool = False
    """Whether the frame was sent to a group or to all; only known for reasons where it tells whether that is a loss."""
    matches: bool = True
    """Whether the packets match the user's filter of packets, if there is one."""

    def of_other_places(self) -> "DropKey":
        """Return the kind that drops go on as where their interface and namespace are not kept apart any more."""
        return self._replace(ifindex=None, interface=None, netns=None, netns_name=None, other_places=True)


class Count(NamedTuple):
    """How much: skbs, and the sum of their lengths."""

    packets: int
    bytes: int

    def plus(self, other: "Count") -> "Count":
        """Return the sum of two counts."""
        return Count(self.packets + other.packets, self.bytes + other.bytes)


class Uncounted(NamedTuple):
    """Drops that are missing from the counts by kind, in packets."""

    map_full: int
    """Drops of which only interface and namespace are missing: the map had no room for one more kind."""
    missed: int
    """Not counted at all: the kernel skipped the program, as it was already running on that CPU
    (bpf_prog_info.recursion_misses); or even the table of other places had no room, which was never seen."""


@dataclass(frozen=True)
class Verdict:
    """Where a packet was freed, what kind of event that was, and whether it is a loss: without noise or doubt it is."""

    layer: str
    """One of `layers.LAYERS`."""
    nature: str
    """One of `layers.NATURES`."""
    noise: str | None
    """Why no packet was lost; None: not noise."""
    doubt: str | None = None
    """Why it is not known whether a packet was lost; None: no doubt."""

    @property
    def is_loss(self) -> bool:
        """Tell whether a packet was lost: the drop is neither noise nor doubt."""
        return self.noise is None and self.doubt is None


Judge = Callable[[DropKey], Verdict]
"""Says what the rules say of a kind of drops."""


class Amounts(NamedTuple):
    """Packets lost, packets freed without loss, and packets of which it is not known whether they were lost."""

    loss: int
    noise: int
    doubt: int = 0

    @classmethod
    def of(cls, drops: Mapping[DropKey, Count], judge: Judge) -> "Amounts":
        """Sum up drops by what the rules say of them."""
        loss = noise = doubt = 0
        for key, (packets, _) in drops.items():
            verdict = judge(key)
            if verdict.noise is not None:
                noise += packets
            elif verdict.doubt is not None:
                doubt += packets
            else:
                loss += packets
        return cls(loss, noise, doubt)

    def plus(self, other: "Amounts") -> "Amounts":
        """Return the sum of two amounts."""
        return Amounts(self.loss + other.loss, self.noise + other.noise, self.doubt + other.doubt)


def counted_since(before: int, after: int, width: int = 64) -> int:
    """Return by how much a cumulative counter of `width` bits rose.

    A narrow counter that is smaller than before has wrapped (softnet_stat columns are 32 bits wide). A 64-bit counter
    does not wrap in a lifetime: when it is smaller it was reset, and what it shows now was counted since.
    """
    if after >= before:
        return after - before
    return after if width >= 64 else (after - before) % (1 << width)


HOST = "host"
"""How the kernel's first namespace is called: init_net, the one of its own threads."""
"""What the namespace of the host itself is called."""
