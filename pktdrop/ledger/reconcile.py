# SPDX-License-Identifier: MIT
"""Compare the counters that moved with the drop events of the same time. No I/O, no state but in Steady.

An event is one skb. It explains an increment of a counter if a row of ``data/identities.tsv`` says so and both belong
to the same scope. What is left of a counter is named: it is within what the identity leaves open, or such packets have
no events, or it is unexplained.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from pktdrop.counters.model import Scope
from pktdrop.layers import LAYERS
from pktdrop.ledger.identities import ANY_LAYER, NO_COUNTER, Counter, Identities
from pktdrop.model import Count, DropKey

#: exact: the events are the increments. bound: they differ as far as the identity allows. no-event: such packets have
#: no events. silent: events that no counter shows. unexplained: none of these.
STATUSES: Final = ("exact", "bound", "unexplained", "no-event", "silent")

#: The layer that lost what a driver counts, by class of the counter (pktdrop.counters.drivers.CLASSES).
#: Classes that are no loss of this host (pause, filter, warning) are not here.
CLASS_LAYERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fifo": "nic-fifo",
        "host": "nic-fifo",
        "limit": "nic-fifo",
        "ring": "nic-ring",
        "alloc": "driver",
        "error": "driver",
        "software": "driver",
        "xdp": "driver",
        "tx": "tx",
    }
)
#: Layers whose packets never had an event: what their counters say comes on top of all events.
_BEFORE_EVENTS: Final = ("nic-fifo", "nic-ring")
#: Sources of what drivers count; names of "driver" are whole: "ethtool.rx_missed".
_DRIVER_SOURCES: Final = ("driver", "ethtool", "qstats", "links")
#: rtnl_link_stats64 fields that the driver and the rest of the kernel both count in.
_SHARED_FIELDS: Final = ("links.rx_dropped", "links.tx_dropped")
#: What classify() says of an interface that counts what events place at another: at the other end of a veth pair, or
#: at the interface below a tunnel. Only there do events of other interfaces explain a counter.
PEER: Final = "peer"
#: Drivers, as ethtool names them, of such interfaces: veth_xmit (drivers/net/veth.c), vxlan_rcv (vxlan_core.c),
#: geneve_udp_encap_recv (geneve.c), tap_handle_frame (tap.c) for macvtap and ipvtap.
PEER_DRIVERS: Final = ("veth", "vxlan", "geneve", "macvlan", "macvtap", "ipvlan", "ipvtap")
_NUMBER: Final = re.compile(r"[0-9]+")

_NOT_TRACED: Final = "drops are not traced here: the counter stands alone"
_SUM_OVER_CPUS: Final = "sum over all CPUs: it is not known for which CPU the dropped packets were"
_DRIVER_TOO: Final = "the driver counts its own drops here too"
_PLACE_UNKNOWN: Final = "it is not known of which interface or namespace some of the events are"
_JITTER: Final = "counter and events are read one after the other; reported if it stays"
_STAYED: Final = "unexplained for more than one interval"

Drops = Mapping[DropKey, Count]
Moved = Mapping[str, Mapping[Scope, Mapping[str, int]]]
#: Takes a counter ("ethtool.rx_missed", "links.rx_dropped") and its scope; returns the class of the packets that
#: the driver counts there as lost, None if these are no lost packets, or the driver does not count there; PEER for
#: links.* of PEER_DRIVERS.
Classify = Callable[[str, Scope], str | None]


def _no_driver(_counter: str, _scope: Scope) -> str | None:
    return None


@dataclass(frozen=True)
class Entry:
    """One counter that moved in one scope; or, with status silent, events that no counter shows."""

    layer: str
    counter: str
    """"softnet.dropped"; "none" if there is no counter of these events."""
    scope: Scope
    delta: int
    """By how much the counter rose."""
    explained: int
    """How much of it events account for."""
    unexplained: int
    """The rest: delta - explained. What it means is in the status; only with "unexplained" it is a riddle."""
    status: str
    by: tuple[tuple[str, int], ...] = ()
    """Events by reason, most first. They may be more than the counter rose."""
    note: str = ""

    @property
    def surplus(self) -> int:
        """Events beyond what the counter rose by."""
        return sum(count for _, count in self.by) - self.explained


class Bracket(NamedTuple):
    """Events of two windows, one inside and one around the time between the readings of the counters."""

    inner: Drops
    outer: Drops


class _Place(NamedTuple):
    """What a counter and events are compared by."""

    netns: int | None = None
    interface: str | None = None
    cpu: int | None = None


class _Events(NamedTuple):
    """Events of one counter in one place, by reason."""

    equal: Tally[str]
    at_most: Tally[str]
    at_least: Tally[str]
    loose: Tally[str]

    @classmethod
    def none(cls) -> _Events:
        return cls(Tally(), Tally(), Tally(), Tally())

    def of(self, relation: str) -> Tally[str]:
        return {"=": self.equal, "<=": self.at_most, ">=": self.at_least}.get(relation, self.loose)

    @property
    def total(self) -> int:
        return sum(tally.total() for tally in self)

    @property
    def surely_counted(self) -> int:
        """How many of the events the counter must have counted."""
        return self.equal.total() + self.at_most.total()

    def by(self) -> tuple[tuple[str, int], ...]:
        whole: Tally[str] = Tally()
        for tally in self:
            whole.update(tally)
        return tuple(sorted(whole.items(), key=lambda item: (-item[1], item[0])))


_Key = tuple[str, _Place]


class _Floating(NamedTuple):
    """Events that explain what one of the counters lacks, in their own place first."""

    counters: tuple[str, ...]
    place: _Place | None
    reason: str
    packets: int
    layer: str
    note: str


@dataclass
class _Found:
    """Events sorted by the counters they belong to."""

    fixed: dict[_Key, _Events] = field(default_factory=dict)
    """Events of one counter in a known place."""
    open: list[tuple[tuple[_Key, ...], str, str, int]] = field(default_factory=list)
    """Counters one of which counted them, relation, reason, events: still to be given to one."""
    floating: list[_Floating] = field(default_factory=list)
    """Events that may belong to another place than theirs."""
    layers: dict[_Key, Tally[str]] = field(default_factory=dict)
    """Where the packets of a counter were lost."""
    notes: dict[_Key, str] = field(default_factory=dict)
    """Why the events of a counter are only a bound."""

    def at(self, key: _Key) -> _Events:
        return self.fixed.setdefault(key, _Events.none())


# ------------------------------------------------------------------------------------------------------ reconcile


def reconcile(
    drops: Drops,
    moved: Moved,
    rungs: Mapping[str, str],
    identities: Identities,
    classify: Classify = _no_driver,
    bracket: Bracket | None = None,
) -> tuple[Entry, ...]:
    """Explain each loss counter that moved, and name the events that no counter shows.

    ``drops`` are those of one interval, noise included (it moves counters as well). ``moved`` are the differences of
    the counters by source, scope and name. ``rungs`` are the probes: without "kfree_skb" there are no events, and
    nothing is called unexplained. ``bracket``: a counter that differs from ``drops`` but not from both of its windows
    was only read at another moment.
    """
    traced = rungs.get("kfree_skb", "none") != "none"
    summed = _sums_cpus(drops, moved, identities)
    found = _sort(drops, identities, summed)
    deltas = _deltas(moved, identities, summed)
    kinds = {key: _kind(key, classify) for key in deltas}
    _share_out(found, {key: sum(parts.values()) for key, parts in deltas.items()}, kinds)
    windows = (
        None
        if bracket is None
        else (_sort(bracket.inner, identities, summed), _sort(bracket.outer, identities, summed))
    )
    entries = [
        _entry(key, parts, found, identities, kinds[key], traced, windows, key[0] in summed)
        for key, parts in deltas.items()
    ]
    entries.extend(_hardware(moved, identities, classify))
    entries.extend(_silent(drops, deltas, found, identities, summed))
    return tuple(sorted(entries, key=_order))


def _order(entry: Entry) -> tuple[int, str, tuple[str, ...]]:
    return LAYERS.index(entry.layer), entry.counter, tuple("" if part is None else f"{part}" for part in entry.scope)


def _sums_cpus(drops: Drops, moved: Moved, identities: Identities) -> frozenset[str]:
    """Return the counters by CPU of which only the sum can be compared: for which CPU some events were is not known."""
    by_cpu = {name for name, fact in identities.counters.items() if fact.scope == "cpu"}
    return frozenset(
        name
        for key in drops
        if key.target_cpu is None
        for row in identities.of(key.subsystem, key.reason, key.location, key.protocol)
        for name in row.counters
        if name in by_cpu
    )


def _place(fact: Counter, scope: Scope, summed: frozenset[str]) -> _Place:
    """Return the place that a scope of a counter is in."""
    if fact.scope == "cpu":
        return _Place() if fact.name in summed else _Place(cpu=scope.cpu)
    if fact.scope in ("interface", "qdisc"):
        return _Place(netns=scope.netns, interface=scope.interface)
    if fact.scope in ("netns", "socket"):
        return _Place(netns=scope.netns)
    return _Place()


def _place_of(fact: Counter, key: DropKey, summed: frozenset[str]) -> _Place | None:
    """Return the place where an event moved a counter; None if it is not known."""
    if fact.scope == "cpu":
        return _Place() if fact.name in summed else _Place(cpu=key.target_cpu)
    if fact.scope == "global":
        return _Place()
    if key.netns is None or (fact.scope in ("interface", "qdisc") and key.interface is None):
        return None
    return _Place(netns=key.netns, interface=key.interface if fact.scope in ("interface", "qdisc") else None)


def _sort(drops: Drops, identities: Identities, summed: frozenset[str]) -> _Found:
    found = _Found()
    for key, count in drops.items():
        for row in identities.of(key.subsystem, key.reason, key.location, key.protocol):
            if not row.counters:
                continue
            place = _place_of(identities.counters[row.counters[0]], key, summed)
            if row.relation == "other" or place is None:
                found.floating.append(_Floating(row.counters, place, key.reason, count.packets, key.layer, row.note))
                continue
            keys = tuple((name, place) for name in row.counters)
            for one in keys:
                found.layers.setdefault(one, Tally())[key.layer] += count.packets
                if row.relation != "=" and row.note:
                    found.notes.setdefault(one, row.note)
            if len(keys) == 1:
                found.at(keys[0]).of(row.relation)[key.reason] += count.packets
            else:
                found.open.append((keys, row.relation, key.reason, count.packets))
    return found


def _deltas(moved: Moved, identities: Identities, summed: frozenset[str]) -> dict[_Key, dict[Scope, int]]:
    """Differences of the counters in loss_counters.tsv, by what they are compared by."""
    deltas: dict[_Key, dict[Scope, int]] = {}
    for source, rows in moved.items():
        for scope, differences in rows.items():
            for name, delta in differences.items():
                fact = identities.counters.get(f"{source}.{name}")
                if fact is not None and delta > 0:
                    deltas.setdefault((fact.name, _place(fact, scope, summed)), {})[scope] = delta
    return deltas


def _kind(key: _Key, classify: Classify) -> str | None:
    """Return what the driver counts in a field of rtnl_link_stats64."""
    name, place = key
    return classify(name, Scope(netns=place.netns, interface=place.interface)) if _is_of_interface(key) else None


def _is_of_interface(key: _Key) -> bool:
    return key[0].startswith("links.")


def _share_out(found: _Found, deltas: Mapping[_Key, int], kinds: Mapping[_Key, str | None]) -> None:
    """Give each event that one of several counters counted to the first of them that has room, else to the last."""
    for keys, relation, reason, packets in found.open:
        left = packets
        for key in keys:
            room = max(0, deltas.get(key, 0) - found.at(key).total)
            given = min(left, room)
            if given:
                found.at(key).of(relation)[reason] += given
                left -= given
        if left:
            # to one that moved, where there is one: then this shows as events beyond the counter
            last = next((key for key in reversed(keys) if deltas.get(key)), keys[-1])
            found.at(last).of(relation)[reason] += left
    by_name: dict[str, list[_Key]] = {}
    for key in deltas:
        by_name.setdefault(key[0], []).append(key)
    for events in found.floating:
        _fill(found, events, deltas, kinds, by_name)


def _fill(
    found: _Found,
    events: _Floating,
    deltas: Mapping[_Key, int],
    kinds: Mapping[_Key, str | None],
    by_name: Mapping[str, Sequence[_Key]],
) -> None:
    """Let events that may belong anywhere explain what counters lack, those of their own place first."""
    left = events.packets
    # what a driver counts itself is not explained by the events of another interface
    keys = [
        key
        for name in events.counters
        for key in by_name.get(name, ())
        if key[1] == events.place or kinds[key] == PEER or not _is_of_interface(key)
    ]
    keys.sort(key=lambda key: (key[1] != events.place, events.counters.index(key[0])))
    for key in keys:
        if not left:
            return
        given = min(left, max(0, deltas[key] - found.at(key).total))
        if given:
            found.at(key).loose[events.reason] += given
            found.layers.setdefault(key, Tally())[events.layer] += given
            found.notes.setdefault(key, events.note or _PLACE_UNKNOWN)
            left -= given


def _entry(
    key: _Key,
    parts: Mapping[Scope, int],
    found: _Found,
    identities: Identities,
    kind: str | None,
    traced: bool,
    windows: tuple[_Found, _Found] | None,
    summed: bool,
) -> Entry:
    name, place = key
    fact = identities.counters[name]
    events = found.fixed.get(key, _Events.none())
    delta = sum(parts.values())
    scope = (
        next(iter(parts))
        if len(parts) == 1 and not summed
        else Scope(netns=place.netns, interface=place.interface, cpu=place.cpu)
    )
    if fact.scope == "global":
        scope = Scope()
    status, note = _judge(key, delta, events, found.notes.get(key, ""), identities, kind, traced, windows)
    by = events.by()
    explained = delta if status == "exact" else min(delta, events.total)
    if summed:
        note = f"{_SUM_OVER_CPUS}; {note}" if note else _SUM_OVER_CPUS
    layer = fact.layer if fact.layer != ANY_LAYER else _layer(name, kind, found.layers.get(key), delta - explained)
    return Entry(layer, name, scope, delta, explained, delta - explained, status, by, note)


def _layer(name: str, kind: str | None, of_events: Tally[str] | None, rest: int) -> str:
    """Return the layer of a counter that several layers count in: the one that lost most of its packets."""
    if of_events and max(of_events.values()) >= rest:
        return max(of_events, key=lambda layer: (of_events[layer], -LAYERS.index(layer)))
    if kind is not None and kind != PEER:
        return CLASS_LAYERS.get(kind, "driver")
    if ".tx_" in name:
        return "tx"
    return "stack" if kind is None else "driver"


def _judge(
    key: _Key,
    delta: int,
    events: _Events,
    bound: str,
    identities: Identities,
    kind: str | None,
    traced: bool,
    windows: tuple[_Found, _Found] | None,
) -> tuple[str, str]:
    """Return status and note."""
    name = key[0]
    slack = identities.slack(name)
    if not traced:
        return "no-event", _NOT_TRACED
    if not identities.has_events(name):
        return "no-event", slack
    if delta == events.equal.total() == events.total:
        return "exact", ""
    upper = events.total
    open_ended = identities.may_exceed(name)
    if events.surely_counted <= delta and (delta <= upper or open_ended):
        if not events.total and identities.counters[name].loss != "shown":
            return "no-event", slack
        return "bound", bound if delta <= upper and bound else slack
    if windows is not None and _within(key, delta, windows, open_ended):
        return "exact", _read_apart(delta - events.total)
    if kind is not None and events.surely_counted <= delta:
        return ("bound" if events.total else "no-event"), _DRIVER_TOO
    return "unexplained", _riddle(delta, events, slack)


def _within(key: _Key, delta: int, windows: tuple[_Found, _Found], open_ended: bool) -> bool:
    """Tell whether a counter is between the events of the inner and those of the outer window."""
    inner, outer = windows
    low = inner.fixed.get(key, _Events.none()).surely_counted
    at_last = outer.fixed.get(key, _Events.none()).total + sum(
        packets for keys, _, _, packets in outer.open if key in keys
    )
    at_last += sum(events.packets for events in outer.floating if key[0] in events.counters)
    return low <= delta and (open_ended or delta <= at_last)


def _read_apart(difference: int) -> str:
    kind = "more than the events" if difference > 0 else "less than the events"
    return f"{abs(difference)} {kind}, as it was read at another moment"


def _riddle(delta: int, events: _Events, slack: str) -> str:
    if events.total > delta:
        return f"{events.total - delta} more events than it counted"
    return slack


# ------------------------------------------------------------------------------- counters of drivers, silent drops


def _hardware(moved: Moved, identities: Identities, classify: Classify) -> Iterator[Entry]:
    """Counters of drivers that say that packets were lost: there can be no event."""
    for source, rows in moved.items():
        for scope, differences in rows.items():
            if scope.interface is None or source not in _DRIVER_SOURCES:
                continue
            for name, delta in differences.items():
                counter = name if source == "driver" else f"{source}.{name}"
                if delta <= 0 or counter in identities.counters:
                    continue
                kind = classify(counter, scope)
                if kind is not None and kind in CLASS_LAYERS:
                    yield Entry(CLASS_LAYERS[kind], counter, scope, delta, 0, delta, "no-event", (), _class_note(kind))


def _class_note(kind: str) -> str:
    return (
        f"counted by the driver ({kind}), never an event"
        if kind in ("fifo", "ring")
        else f"counted by the driver ({kind})"
    )


def _silent(
    drops: Drops,
    deltas: Mapping[_Key, Mapping[Scope, int]],
    found: _Found,
    identities: Identities,
    summed: frozenset[str],
) -> Iterator[Entry]:
    """Lost packets that no counter shows: none exists, or none of theirs moved."""
    explaining = {
        (name, reason) for (name, _), events in found.fixed.items() for reason, used in events.loose.items() if used
    }
    quiet: dict[tuple[str, str, Scope, str], Tally[str]] = {}
    notes: dict[tuple[str, str, Scope, str], str] = {}
    for key, count in drops.items():
        if key.noise is not None or not count.packets:
            continue
        rows = identities.of(key.subsystem, key.reason, key.location, key.protocol)
        if any(
            (name, key.reason) in explaining or (name, _place_of(identities.counters[name], key, summed)) in deltas
            for row in rows
            for name in row.counters
        ):
            continue
        expected = next((row.counters[-1] for row in rows if row.relation == "="), NO_COUNTER)
        scope = Scope(netns=key.netns, interface=key.interface)
        place = None if expected == NO_COUNTER else _place_of(identities.counters[expected], key, summed)
        if place is not None:
            scope = Scope(netns=place.netns, interface=place.interface, cpu=place.cpu)
        question = (key.layer, key.reason, scope, expected)
        quiet.setdefault(question, Tally())[key.reason] += count.packets
        notes.setdefault(question, _silence(rows[0].note if rows else "", expected))
    for question, tally in quiet.items():
        layer, _, scope, expected = question
        yield Entry(layer, expected, scope, 0, 0, 0, "silent", tuple(tally.items()), notes[question])


def _silence(note: str, expected: str) -> str:
    return note if expected == NO_COUNTER else f"expected in {expected}, which did not move"


# --------------------------------------------------------------------------------------------------------- totals


def totals(
    entries: Iterable[Entry],
    drops: Drops,
    identities: Identities,
    hardware: Mapping[tuple[int | None, str], Mapping[str, int]] | None = None,
) -> dict[str, int]:
    """Return packets lost by layer, each packet in one layer, in the order of LAYERS; layers without loss left out.

    Events count in their layer. To these come the rests of counters: what is lost without events, and what is
    unexplained. A rest that another counter contains too (part_of) is taken out of that. What the NIC lost comes from
    ``hardware``, which has packets by class for each (netns, interface) (Drivers.nic_loss); without it, from the
    largest counter of each layer and interface, as several may count the same packets. In the layers driver and tx it
    is not known whether such packets had events: there only what exceeds the events of the interface is added.
    """
    entries = tuple(entries)
    lost: Tally[str] = Tally()
    at_interface: Tally[tuple[int | None, str | None, str]] = Tally()
    for key, count in drops.items():
        if key.noise is None:
            lost[key.layer] += count.packets
            at_interface[key.netns, key.interface, key.layer] += count.packets
    nic = _largest(entries, identities) if hardware is None else _by_layer(hardware)
    for (netns, interface, layer), packets in nic.items():
        with_events = 0 if layer in _BEFORE_EVENTS else at_interface[netns, interface, layer]
        lost[layer] += max(0, packets - with_events)
    for entry, packets in _rests(entries, identities):
        counted = 0
        if entry.scope.interface is not None:
            counted = nic.get((entry.scope.netns, entry.scope.interface, entry.layer), 0)
        lost[entry.layer] += max(0, packets - counted)
    return {layer: lost[layer] for layer in LAYERS if lost[layer]}


_Nic = dict[tuple[int | None, str, str], int]


def _by_layer(hardware: Mapping[tuple[int | None, str], Mapping[str, int]]) -> _Nic:
    nic: _Nic = {}
    for (netns, interface), by_class in hardware.items():
        for kind, packets in by_class.items():
            layer = CLASS_LAYERS.get(kind)
            if layer is not None:
                nic[netns, interface, layer] = nic.get((netns, interface, layer), 0) + packets
    return nic


def _largest(entries: Iterable[Entry], identities: Identities) -> _Nic:
    """Find the largest counter of each layer and interface; names that differ only by numbers are parts of one."""
    groups: Tally[tuple[int | None, str, str, str]] = Tally()
    for entry in entries:
        if (
            entry.counter not in identities.counters
            and entry.status == "no-event"
            and entry.scope.interface is not None
        ):
            shape = _NUMBER.sub("#", entry.counter)
            groups[entry.scope.netns, entry.scope.interface, entry.layer, shape] += entry.delta
    nic: _Nic = {}
    for (netns, interface, layer, _), packets in groups.items():
        nic[netns, interface, layer] = max(packets, nic.get((netns, interface, layer), 0))
    return nic


def _rests(entries: Iterable[Entry], identities: Identities) -> Iterator[tuple[Entry, int]]:
    """Give what counters counted beyond the events, each packet with one of them."""
    known = [(identities.counters[entry.counter], entry) for entry in entries if entry.counter in identities.counters]
    known.sort(key=lambda pair: -_depth(pair[0], identities))  # parts before what contains them
    inside: Tally[tuple[str, int | None]] = Tally()
    for fact, entry in known:
        rest = _rest(fact, entry)
        if fact.part_of is not None:
            netns = entry.scope.netns if identities.counters[fact.part_of].scope != "global" else None
            inside[fact.part_of, netns] += rest
        left = rest
        for pool in dict.fromkeys(((fact.name, entry.scope.netns), (fact.name, None))):
            taken = min(left, inside[pool])
            inside[pool] -= taken
            left -= taken
        if left:
            yield entry, left


def _rest(fact: Counter, entry: Entry) -> int:
    """Return how many packets a counter says were lost that no event shows."""
    if entry.status == "unexplained" or fact.name in _SHARED_FIELDS:
        return 0 if fact.loss == "no" else max(0, entry.unexplained)
    if fact.loss == "own" or (fact.loss == "shown" and entry.status == "no-event"):
        return max(0, entry.unexplained)
    return 0


def _depth(fact: Counter, identities: Identities) -> int:
    depth = 0
    while fact.part_of is not None:
        fact = identities.counters[fact.part_of]
        depth += 1
    return depth


# --------------------------------------------------------------------------------------------------------- Steady


@dataclass
class _Balance:
    """Increments beyond the events of one counter in one scope, since the beginning; negative: events beyond it."""

    now: int = 0
    told: int = 0
    """How much of it was reported, with its sign."""
    quiet: int = 0
    """Intervals without a change."""
    last: Entry | None = None


class Steady:
    """Tells an unexplained rest that stays from one that the next interval makes good.

    Counters and events are read one after the other, so an increment may be seen an interval before its event, or
    after it.  What is out of balance at the end of two intervals in a row is no such thing, and is reported.
    """

    #: Intervals without a change after which a balance is forgotten.
    KEPT: Final = 60

    def __init__(self) -> None:
        self._balances: dict[tuple[str, Scope], _Balance] = {}

    def settle(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Take the entries of the next interval; return them with "unexplained" only where it is certain.

        The number unexplained is then what became certain in this interval: some of it may have been counted in the
        one before. An entry with delta 0 is added for a rest of a counter that has not moved since.
        """
        settled: list[Entry] = []
        seen: set[tuple[str, Scope]] = set()
        for entry in entries:
            # events know no qdisc and no socket
            key = entry.counter, entry.scope._replace(qdisc=None, socket=None)
            if entry.counter == NO_COUNTER or (
                entry.status not in ("unexplained", "silent") and key not in self._balances
            ):
                settled.append(entry)
                continue
            seen.add(key)
            settled.append(self._weigh(key, entry))
        settled.extend(self._carried(seen))
        return tuple(sorted(settled, key=_order))

    def _weigh(self, key: tuple[str, Scope], entry: Entry) -> Entry:
        balance = self._balances.setdefault(key, _Balance())
        balance.last = entry
        out_of_balance = entry.status in ("unexplained", "silent")
        certain = self._advance(balance, entry.unexplained - entry.surplus if out_of_balance else 0)
        if certain:
            note = entry.note if out_of_balance and entry.note else _STAYED
            return replace(entry, status="unexplained", unexplained=max(0, certain), note=note)
        return replace(entry, status="bound", note=_JITTER) if out_of_balance else entry

    def _carried(self, seen: set[tuple[str, Scope]]) -> Iterator[Entry]:
        for key, balance in list(self._balances.items()):
            if key in seen:
                continue
            certain = self._advance(balance, 0)
            balance.quiet += 1
            if balance.quiet > self.KEPT:
                del self._balances[key]
            if certain and balance.last is not None:
                by = () if certain > 0 else balance.last.by
                yield replace(
                    balance.last,
                    delta=0,
                    explained=0,
                    unexplained=max(0, certain),
                    status="unexplained",
                    by=by,
                    note=_STAYED,
                )

    def _advance(self, balance: _Balance, change: int) -> int:
        """Add to a balance; return what became certain: what was out of balance before, and still is."""
        before = balance.now
        balance.now += change
        balance.quiet = 0 if change else balance.quiet
        stayed = min(before, balance.now) if balance.now > 0 else max(before, balance.now)
        if stayed * balance.now <= 0:  # made good, or turned into its opposite
            return 0
        if balance.told * stayed > 0 and abs(balance.told) >= abs(stayed):
            return 0
        certain = stayed - balance.told if balance.told * stayed > 0 else stayed
        balance.told = stayed
        return certain
