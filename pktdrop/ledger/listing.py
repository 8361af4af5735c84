# SPDX-License-Identifier: MIT
"""The list of losses: each lost packet in exactly one, by events, by what drivers count, by what other counters have.

Every total is a sum over this list. The list of a run is that of its intervals, added up.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pktdrop.counters.increments import Increments
from pktdrop.ledger.entry import STAT_CLASS_LAYERS, Entry
from pktdrop.ledger.events import EventGroup, LossOf
from pktdrop.ledger.loss import Loss, Whereabouts
from pktdrop.ledger.nics import Nic, Nics
from pktdrop.ledger.rests import Rests
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.causes import Causes
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import NO_COUNTER, Identities

_UNSPECIFIED: Final = "unspecified"
#: Losses of a run that are told apart; of more, the small ones lose their whereabouts.
_KEPT: Final = 4_096
SeenGroups = Sequence[tuple[EventGroup, int]]
"""Lost packets by group of events."""
LossKey = tuple[str, str, str, Whereabouts, bool, bool, str | None]
"""What losses are told apart by."""
_Key = TypeVar("_Key")


def key_of(loss: Loss) -> LossKey:
    """Return what a loss is told apart by from others, in each interval."""
    whereabouts = loss.whereabouts
    if "cpu" in loss.cause.words:
        whereabouts = Whereabouts(cpu=whereabouts.cpu)
    elif whereabouts.queues or whereabouts.sources or whereabouts.others:
        whereabouts = whereabouts._replace(queues=(), sources=(), others=False)
    return loss.layer, loss.nature, loss.cause.name, whereabouts, loss.is_guess, bool(loss.note), loss.stat_class


class Listing:
    """Lists the losses of a run, one interval after the other."""

    def __init__(self, identities: Identities, drivers: Drivers, causes: Causes, is_traced: bool = True) -> None:
        """Take the tables, and whether there are events at all."""
        self._causes = causes
        self._facts = identities.counters
        self._is_traced = is_traced
        self.doubts: tuple[Entry, ...] = ()
        """What counters of the last interval have, of which only events would tell whether it was lost."""
        self._nics = Nics(drivers)
        self._rests = Rests(identities, is_traced)

    def step(
        self, seen: SeenGroups, entries: Iterable[Entry], increments: Increments, driver_of: Mapping[Nic, str]
    ) -> tuple[Loss, ...]:
        """Return the losses of the next interval; which socket or queueing discipline it was is not said yet."""
        for group, packets in seen:
            if group.of.interface is not None:
                self._nics.see((group.of.netns, group.of.interface), group.layer, packets)
        found, doubts = [*of_events(seen)], Tally[tuple[str, str]]()
        for (netns, interface), stat in self._nics.step(increments, driver_of):
            layer, cause = STAT_CLASS_LAYERS[stat.stat_class], self._causes.of_driver(stat.stat_class)
            if cause is not None:
                found.append(
                    Loss(
                        packets=stat.packets,
                        layer=layer,
                        nature=cause.nature or _UNSPECIFIED,
                        cause=cause,
                        whereabouts=Whereabouts(netns, interface, queues=ranked(stat.queues)),
                        counters=stat.counters,
                        without_event=stat.packets,
                        is_guess=stat.confidence == "generic",
                        stat_class=stat.stat_class,
                    )
                )
        for entry, beyond in self._rests.step(entries):
            scope = entry.scope
            interface = scope.interface or ""
            told = self._nics.counted[scope.netns, interface, entry.layer]
            inside = self._nics.inside[scope.netns, interface, entry.counter]
            packets = beyond - (max(told, inside) if scope.interface is not None else 0)
            if packets > 0 and not self._is_traced and self._facts[entry.counter].loss == "either":
                doubts[entry.layer, entry.counter] += packets
            elif packets > 0:
                found.append(self._of_counter(entry, packets))
        self.doubts = tuple(self._doubt(layer, counter, packets) for (layer, counter), packets in doubts.items())
        return added(found)

    def _doubt(self, layer: str, counter: str, packets: int) -> Entry:
        by, why = ((counter, packets),), self._facts[counter].note
        return Entry(layer, NO_COUNTER, Scope(), 0, 0, 0, "doubt", by, why)

    def _of_counter(self, entry: Entry, packets: int) -> Loss:
        cause, scope = self._causes.of_counter(entry.counter), entry.scope
        return Loss(
            packets=packets,
            layer=entry.layer,
            nature=cause.nature or _UNSPECIFIED,
            cause=cause,
            whereabouts=Whereabouts(
                netns=scope.netns,
                interface=scope.interface,
                cpu=scope.cpu,
                sockets=(scope,) if scope.socket is not None else (),
                qdiscs=(scope.qdisc,) if scope.qdisc is not None else (),
            ),
            counters=(entry.counter,),
            without_event=packets,
            note=(entry.note or "nothing explains it") if entry.status == "unexplained" else "",
        )


# ----------------------------------------------------------------------------------------------------------- events


@dataclass(slots=True)
class _Sum:
    """Events of one loss, while they are added up; no Tally, as there may be thousands."""

    reasons: dict[str, int] = field(default_factory=dict)
    interfaces: dict[tuple[Netns | None, str | None], int] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)


def of_events(seen: SeenGroups) -> Iterator[Loss]:
    """Yield the losses that events show."""
    sums: dict[LossOf, _Sum] = {}
    for group, packets in seen:
        total = sums.get(group.loss)
        if total is None:
            total = sums[group.loss] = _Sum()
        of = group.of
        name = of.rule.why.name
        total.reasons[name] = total.reasons.get(name, 0) + packets
        if "cpu" in group.loss.cause.words:
            nic = of.netns, of.interface
            total.interfaces[nic] = total.interfaces.get(nic, 0) + packets
            if of.cpu is not None:
                total.sources[of.cpu] = total.sources.get(of.cpu, 0) + packets
    for loss, total in sums.items():
        whereabouts = Whereabouts(
            netns=loss.event_scope.netns, interface=loss.event_scope.interface, cpu=loss.event_scope.cpu
        )
        if total.interfaces:
            (netns, interface), _ = ranked(total.interfaces)[0]
            cpus = tuple(cpu for cpu, _ in ranked(total.sources)) if whereabouts.cpu is not None else ()
            whereabouts = whereabouts._replace(
                netns=netns, interface=interface, sources=cpus, others=len(total.interfaces) > 1
            )
        reasons = tuple(reason for reason, _ in ranked(total.reasons))
        yield Loss(sum(total.reasons.values()), loss.layer, loss.nature, loss.cause, whereabouts, reasons)


# --------------------------------------------------------------------------------------------------------- sums


def added(losses: Iterable[Loss], to: Iterable[Loss] = ()) -> tuple[Loss, ...]:
    """Add up losses with the same cause and whereabouts. Of very many, the small ones lose their whereabouts."""
    sums: dict[LossKey, list[Loss]] = {}
    for loss in (*to, *losses):
        sums.setdefault(key_of(loss), []).append(loss)
    found = tuple(_together(parts) for parts in sums.values())
    if len(found) <= _KEPT:
        return found
    order = sorted(found, key=lambda loss: -loss.packets)
    return added([*order[: _KEPT // 2], *(loss._replace(whereabouts=Whereabouts()) for loss in order[_KEPT // 2 :])])


def _together(parts: Sequence[Loss]) -> Loss:
    if len(parts) == 1:
        return parts[0]
    packets, without_event = sum(loss.packets for loss in parts), sum(loss.without_event for loss in parts)
    first = parts[0]
    if len(parts) == 2 and not first.whereabouts.queues and _is_like(*parts):  # most of a run, look by look
        return first._replace(packets=packets, without_event=without_event)
    queues: Tally[int] = Tally()
    for loss in parts:
        queues.update(dict(loss.whereabouts.queues))
    largest = max(parts, key=lambda loss: loss.packets)
    return largest._replace(
        packets=packets,
        without_event=without_event,
        reasons=tuple(dict.fromkeys(reason for loss in parts for reason in loss.reasons)),
        counters=tuple(dict.fromkeys(counter for loss in parts for counter in loss.counters)),
        whereabouts=largest.whereabouts._replace(
            queues=ranked(queues),
            sources=tuple(dict.fromkeys(cpu for loss in parts for cpu in loss.whereabouts.sources)),
            others=any(loss.whereabouts.others for loss in parts)
            or len({(loss.whereabouts.netns, loss.whereabouts.interface) for loss in parts}) > 1,
        ),
    )


def _is_like(one: Loss, other: Loss) -> bool:
    """Tell whether two losses differ in nothing but their packets."""
    return one == other._replace(packets=one.packets, without_event=one.without_event)


def added_doubts(doubts: Iterable[Entry], to: Iterable[Entry]) -> tuple[Entry, ...]:
    """Add up doubts that counters leave; there are no more of them than the tables have."""
    sums: dict[tuple[str, str], Entry] = {}
    for doubt in (*to, *doubts):
        ((counter, packets),) = doubt.by
        before = sums.get((doubt.layer, counter))
        sums[doubt.layer, counter] = doubt._replace(by=((counter, packets + (before.by[0][1] if before else 0)),))
    return tuple(sums.values())


def ranked(tally: Mapping[_Key, int]) -> tuple[tuple[_Key, int], ...]:
    """Return what is above zero, most first."""
    if len(tally) == 1:
        return tuple(item for item in tally.items() if item[1])
    return tuple(sorted(((key, n) for key, n in tally.items() if n), key=lambda item: (-item[1], str(item[0]))))
