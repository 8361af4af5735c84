# SPDX-License-Identifier: MIT
"""Plausible whole objects, of which a test changes what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pktdrop.filters import Selection
from pktdrop.ledger.books import Ledger
from pktdrop.ledger.entry import Entry
from pktdrop.ledger.loss import Loss, Whereabouts
from pktdrop.model.counters import Counters
from pktdrop.model.drops import Count, DropKey, Known, Netns, Uncounted
from pktdrop.model.look import Kernel, Look
from pktdrop.model.sample import Sample
from pktdrop.model.snapshots import Interval, Snapshot
from pktdrop.rules.causes import Cause
from pktdrop.rules.drivers import NicLoss
from pktdrop.rules.layers import Layers
from pktdrop.rules.protocols import Protocols
from pktdrop.views.jsonlines import JsonView
from tests.kit.frames import ether, ipv4, udp

UNTOLD = Cause("unknown", None, (), "in {netns}", "Nothing is said of the cause.", "-", 0)
"""Of events whose cause does not matter."""
NOON = 1_700_000_000.0
"""A wall-clock time: 22:13:20 UTC."""

JUDGE = Layers.load().of
"""The rules that come with pktdrop."""

_DROP = DropKey(
    reason="NO_SOCKET",
    subsystem="core",
    cpu=0,
    target_cpu=None,
    ifindex=1,
    interface="lo",
    netns=Netns(4026532281, 7),
    netns_name="blue",
    protocol=0x0800,
    call_site="udp_rcv+0x49e",
)


def make_drop(**changes: Any) -> DropKey:
    """A UDP packet to a closed port, in the namespace "blue"."""
    return _DROP._replace(**changes)


def make_backlog_drop(**changes: Any) -> DropKey:
    """A packet that CPU 0 had for the full queue of CPU 3."""
    backlog: dict[str, Any] = {
        "reason": "CPU_BACKLOG",
        "target_cpu": 3,
        "ifindex": 2,
        "interface": "eth0",
        "netns": Netns(4026531833, 1),
        "netns_name": "host",
        "call_site": "enqueue_to_backlog+0x1a8",
    }
    return make_drop(**(backlog | changes))


def make_doubt(**changes: Any) -> DropKey:
    """A segment that reached a TIME_WAIT socket, or a SYN at a full accept queue."""
    doubt: dict[str, Any] = {
        "reason": "NOT_SPECIFIED",
        "call_site": "tcp_v4_rcv+0x91",
    }
    return make_drop(**(doubt | changes))


def make_noise(**changes: Any) -> DropKey:
    """A frame for another host, seen by an interface that lets all pass."""
    noise: dict[str, Any] = {
        "reason": "OTHERHOST",
        "ifindex": 2,
        "interface": "eth0",
        "call_site": "ip_rcv_core+0x1b",
    }
    return make_drop(**(noise | changes))


def make_sample(content: bytes | None = None, **changes: Any) -> Sample:
    """The frame of a UDP datagram from 10.0.0.5:43210 to 10.0.0.9:8125, with 48 bytes, for the drop of make_drop()."""
    content = ether(0x0800, ipv4(17, udp())) if content is None else content
    values: dict[str, Any] = {
        "time": NOON - 1,
        "key": make_drop(),
        "content": content,
        "length": len(content),
        "has_mac": True,
        "network": 14,
        "device_type": 1,
        "received": True,
        "tag": None,
        "socket": None,
    }
    return Sample(**(values | changes))


def make_snapshot(drops: Mapping[DropKey, Count] | None = None, **changes: Any) -> Snapshot:
    """What was read at NOON, ten seconds after the machine's start."""
    values: dict[str, Any] = {"time": NOON, "monotonic": 10.0, "drops": drops or {}, "uncounted": Uncounted(0, 0)}
    return Snapshot(**(values | changes))


def make_interval(drops: Mapping[DropKey, Count] | None = None, **changes: Any) -> Interval:
    """Two seconds that end at NOON."""
    values: dict[str, Any] = {
        "start": NOON - 2,
        "end": NOON,
        "seconds": 2.0,
        "drops": drops or {},
        "uncounted": Uncounted(0, 0),
    }
    return Interval(**(values | changes))


def make_selection(drops: Mapping[DropKey, Count] | None = None, filtered: int = 0) -> Selection:
    """All drops shown."""
    return Selection(drops or {}, filtered, JUDGE)


def make_look(counters: Counters, **changes: Any) -> Look:
    """What was read at NOON: counters, and no drop."""
    values: dict[str, Any] = {
        "kernel": Kernel("6.18.44", {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}),
        "before": make_snapshot(),
        "after": make_snapshot(),
        "namespaces": Known(),
        "unread": frozenset(),
    }
    return Look(counters=counters, **(values | changes))


def make_loss(packets: int, layer: str, whereabouts: Whereabouts | None = None, **changes: Any) -> Loss:
    """Packets lost for an unknown reason, with events unless that is changed."""
    return Loss(packets, layer, "unspecified", UNTOLD, whereabouts or Whereabouts(), **changes)


def make_ledger(*entries: Entry, **changes: Any) -> Ledger:
    """What counters say: nothing but the entries given."""
    values: dict[str, Any] = {"losses": (), "hints": frozenset()}
    return Ledger(entries=entries, **(values | changes))


def amounts(losses: tuple[NicLoss, ...]) -> dict[str, int]:
    """Packets by class, without the classes that lost nothing."""
    return {loss.stat_class: loss.packets for loss in losses if loss.packets}


VIEW = JsonView(Protocols.load())
