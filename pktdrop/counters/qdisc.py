# SPDX-License-Identifier: MIT
"""Counters of every queueing discipline in a network namespace, as `tc -s qdisc` shows them.

A qdisc that has others below it counts once more what they drop: it sees that enqueueing failed (net_xmit_drop_count in
include/net/sch_generic.h), or is told (qdisc_tree_reduce_backlog in net/sched/sch_api.c). It may drop packets itself,
too: tbf those larger than its burst, htb and prio those that a filter refuses, netem and red those that they exist to
drop. So `drops` of such a qdisc is what remains without those below, and the sum of `drops` over all qdiscs of an
interface counts each lost packet once; `tree_drops` is the number that tc shows. What tc does not show needs no such
care (tbf, red and each class of htb have a queue of their own unless they are given another): its drops are in those of
the qdisc that has it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from pktdrop.counters import interfaces
from pktdrop.counters.netlink import Netlink, NetlinkAnswer, attributes
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns, counted_since
from pktdrop.model.limits import Limit, of_source, refused

#: Counters of a qdisc with nothing below it. overlimits counts packets that had to wait, requeues those the device gave
#: back: no losses.
NAMES: Final = ("drops", "overlimits", "requeues", "packets", "bytes")
#: Counters of a qdisc that has or had others below it.
PARENT_NAMES: Final = (*NAMES, "tree_drops")
#: What waits at this moment, in bytes and in packets.
GAUGES: Final = ("backlog", "qlen")

# What these count is what the qdiscs below them count, and nothing else: mq_dump in net/sched/sch_mq.c, mqprio_dump in
# sch_mqprio.c, cake_mq_dump in sch_cake.c (Linux 7); cbs is told of some drops, and has none (sch_cbs.c).
_DROP_NOTHING = frozenset(("mq", "mqprio", "cake_mq", "cbs"))
# It does not count what the qdiscs below it drop (taprio_enqueue_one in sch_taprio.c).
_COUNTS_ITS_OWN = frozenset(("taprio",))

# include/uapi/linux/rtnetlink.h
_RTM_NEWQDISC, _RTM_GETQDISC = 36, 38
_TCA_KIND, _TCA_STATS2 = 1, 7
# include/uapi/linux/gen_stats.h
_TCA_STATS_BASIC, _TCA_STATS_QUEUE, _TCA_STATS_PKT64 = 1, 3, 8
# include/uapi/linux/pkt_sched.h
_TC_H_ROOT, _TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_TC_H_MAJ_MASK = 0xFFFF0000

_TCMSG = struct.Struct("=B3xiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_BASIC = struct.Struct("=QI")  # struct gnet_stats_basic: bytes, packets
_QUEUE = struct.Struct("=IIIII")  # struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits
_PACKETS = struct.Struct("=Q")


class Qdisc(NamedTuple):
    """One qdisc as the kernel tells of it."""

    ifindex: int
    kind: str
    handle: int
    """Number of the qdisc; 0 if the kernel made it by default."""
    parent: int
    """The class that the qdisc is attached to: in its upper half the handle of another qdisc."""
    drops: int
    overlimits: int
    requeues: int
    packets: int
    bytes: int
    backlog: int
    qlen: int

    @property
    def is_root(self) -> bool:
        """Whether the qdisc has no other one above it."""
        return self.parent in (_TC_H_ROOT, _TC_H_INGRESS, 0)

    @property
    def name(self) -> str:
        """Kind and handle, as tc writes them; where the handle is not unique, its parent, too."""
        unique = self.handle or self.is_root
        return f"{self.kind} {self.handle >> 16:x}:" + ("" if unique else f" parent {_class_id(self.parent)}")


class QdiscDump(NamedTuple):
    """What the kernel answered to one RTM_GETQDISC."""

    qdiscs: tuple[Qdisc, ...]
    faults: tuple[Limit, ...]


_Key = tuple[int, str]
"""Index of the interface, which it keeps when it is renamed, and name of the qdisc."""


@dataclass(frozen=True)
class _Own:
    """What a qdisc with others below it has dropped itself, so far.

    The kernel counts below first and then above, and both may be read in between: the balance may go down for a while,
    what it has been does not.
    """

    total: int
    below: Mapping[_Key, int]
    balance: int
    most: int

    @classmethod
    def first(cls, total: int, below: Mapping[_Key, int]) -> _Own:
        balance = total - sum(below.values())
        return cls(total, below, balance, max(0, balance))

    def then(self, total: int, below: Mapping[_Key, int]) -> _Own:
        if total < self.total:  # another one that has its name
            return self.first(total, below)
        risen = sum(counted_since(self.below.get(key, 0), drops) for key, drops in below.items())
        balance = self.balance + total - self.total - risen
        return _Own(total, {**self.below, **below}, balance, max(self.most, balance))


class QdiscReader:
    """Reads the qdiscs of any number of namespaces; remembers which drops are those of qdiscs below."""

    def __init__(self) -> None:
        self._own: dict[Netns, dict[_Key, _Own]] = {}

    def read(self, netns: Netns, known: Mapping[int, str] = MappingProxyType({})) -> Reading:
        """Read counters and queue lengths at once. `known` are names of interfaces, as they were read just before."""
        try:
            dump = _dump()
            others, faults = interfaces.names({qdisc.ifindex for qdisc in dump.qdiscs} - known.keys())
        except OSError as error:
            return Reading({}, of_source("qdisc", netns, [refused(error)]))
        names = {**known, **others}
        limits = of_source("qdisc", netns, (*dump.faults, *faults))
        qdiscs = {(qdisc.ifindex, qdisc.name): qdisc for qdisc in dump.qdiscs if qdisc.ifindex in names}
        own = _tell_apart(self._own.get(netns, {}), qdiscs)
        if dump.faults:  # what is missing may be below one of these: what those dropped themselves is not known now
            qdiscs = {key: qdisc for key, qdisc in qdiscs.items() if key not in own}
        else:
            self._own[netns] = own
        scopes = {key: Scope(netns=netns, interface=names[key[0]], qdisc=key[1]) for key in qdiscs}
        counters = {scopes[key]: _counters(qdisc, own.get(key)) for key, qdisc in qdiscs.items()}
        gauges = {scopes[key]: Row(GAUGES, (qdisc.backlog, qdisc.qlen)) for key, qdisc in qdiscs.items()}
        return Reading(counters, limits, gauges)

    def forget(self, netns: Netns) -> None:
        """Drop what is remembered of a namespace that is gone."""
        self._own.pop(netns, None)


def _class_id(parent: int) -> str:
    above = parent >> 16
    return f"{above:x}:{parent & 0xFFFF:x}" if above else f":{parent & 0xFFFF:x}"


def _counters(qdisc: Qdisc, own: _Own | None) -> Row:
    others = qdisc.overlimits, qdisc.requeues, qdisc.packets, qdisc.bytes
    if own is None:
        return Row(NAMES, (qdisc.drops, *others))
    if qdisc.kind in _DROP_NOTHING:
        drops = 0
    elif qdisc.kind in _COUNTS_ITS_OWN:
        drops = qdisc.drops
    else:
        drops = own.most
    return Row(PARENT_NAMES, (drops, *others, qdisc.drops))


def _tell_apart(before: Mapping[_Key, _Own], qdiscs: Mapping[_Key, Qdisc]) -> dict[_Key, _Own]:
    """Tell what each qdisc dropped itself that has others below it, or had them before."""
    below: dict[_Key, dict[_Key, int]] = {key: {} for key in before if key in qdiscs}
    handles = {(qdisc.ifindex, qdisc.handle): key for key, qdisc in qdiscs.items() if qdisc.handle or qdisc.is_root}
    for key, qdisc in qdiscs.items():
        above = None if qdisc.is_root else handles.get((qdisc.ifindex, qdisc.parent & _TC_H_MAJ_MASK))
        if above is not None and above != key:
            below.setdefault(above, {})[key] = qdisc.drops
    own = {}
    for key, drops in below.items():
        known, total = before.get(key), qdiscs[key].drops
        own[key] = _Own.first(total, drops) if known is None else known.then(total, drops)
    return own


def _dump() -> QdiscDump:
    with closing(Netlink(socket.NETLINK_ROUTE)) as netlink:
        return parse(netlink.ask(_RTM_GETQDISC, _TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)))


def parse(answer: NetlinkAnswer) -> QdiscDump:
    """Take one RTM_GETQDISC dump apart.

    Malformed messages are left out and counted in the faults.
    """
    qdiscs = []
    for message in answer.messages(_RTM_NEWQDISC):
        try:
            qdiscs.append(_qdisc(*message))
        except (ValueError, struct.error):
            answer.malformed += 1
    return QdiscDump(tuple(qdiscs), tuple(answer.faults()))


def _qdisc(data: bytes, start: int, end: int) -> Qdisc:
    """Unpack a message. Raises ValueError or struct.error if it is malformed."""
    body = start + _TCMSG.size
    _, ifindex, handle, parent, _ = _TCMSG.unpack(data[start : min(body, end)])
    kind = stats = None
    for what, begin, behind in attributes(data, body, end):
        if what == _TCA_KIND:
            kind = data[begin:behind].partition(b"\0")[0].decode(errors="backslashreplace")
        elif what == _TCA_STATS2:
            stats = {part: data[first:last] for part, first, last in attributes(data, begin, behind)}
            break  # what follows is for older programs
    if kind is None or stats is None:
        raise ValueError("no kind or no statistics")
    if _TCA_STATS_QUEUE not in stats or _TCA_STATS_BASIC not in stats:
        raise ValueError("no struct gnet_stats_queue or gnet_stats_basic")
    octets, packets = _BASIC.unpack_from(stats[_TCA_STATS_BASIC])
    qlen, backlog, drops, requeues, overlimits = _QUEUE.unpack_from(stats[_TCA_STATS_QUEUE])
    if _TCA_STATS_PKT64 in stats:  # there if they do not fit in 32 bits
        (packets,) = _PACKETS.unpack_from(stats[_TCA_STATS_PKT64])
    return Qdisc(ifindex, kind, handle, parent, drops, overlimits, requeues, packets, octets, backlog, qlen)
