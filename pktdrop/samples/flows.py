# SPDX-License-Identifier: MIT
"""Many samples in few words: alike packets in a line, and who stood out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pktdrop.model.drops import DropKey, Judge
from pktdrop.model.packet import Packet
from pktdrop.model.sample import Sample
from pktdrop.samples.words import Ethertype, describe, endpoint

_MOST, _KEPT = 512, 128
"""Names of a sort that are counted at once, and how many of those most seen go on when there are more."""

Likeness = tuple[object, ...]
"""What alike samples have in common, to be compared."""


class Flow(NamedTuple):
    """Samples that have the same ends and protocol, so that they tell who is talking to whom."""

    text: str
    whose: str | None
    seen: int


def flows(samples: Sequence[Sample], ethertype: Ethertype) -> list[Flow]:
    """Return alike samples together, the most first; of what differs within a flow, nothing is said.

    A client has another port each time, so of two ports the higher one makes no difference.
    """
    return [
        Flow(describe(common([one.packet for one in some]), ethertype), some[0].whose, len(some))
        for some in sorted(alike(samples).values(), key=len, reverse=True)
    ]


def alike(samples: Iterable[Sample]) -> dict[Likeness, list[Sample]]:
    """Group samples by what tells who is talking to whom."""
    groups: dict[Likeness, list[Sample]] = {}
    for sample in samples:
        groups.setdefault((*_likeness(sample.packet), sample.whose), []).append(sample)
    return groups


def _likeness(packet: Packet) -> tuple[object, ...]:
    ports = packet.source_port, packet.destination_port
    service: tuple[bool, int | None] = (False, None)
    if ports[0] is not None and ports[1] is not None:
        service = (ports[0] < ports[1], min(ports[0], ports[1]))
    inner = () if packet.inner is None else _likeness(packet.inner)
    return (
        packet.source, packet.destination, packet.protocol, service, packet.flags, packet.what, packet.vlans,
        packet.ethertype, *((packet.link_source, packet.link_destination) if packet.source is None else ()), inner,
    )  # fmt: skip


def common(packets: Sequence[Packet]) -> Packet:
    """Return what alike packets have in common."""
    first = packets[0]
    inner = [packet.inner for packet in packets if packet.inner is not None]
    return replace(
        first,
        source_port=_same([packet.source_port for packet in packets]),
        destination_port=_same([packet.destination_port for packet in packets]),
        payload=_same([packet.payload for packet in packets]),
        fragment=_same([packet.fragment for packet in packets]),
        inner=common(inner) if inner else None,
    )


def _same(values: Sequence[int | None]) -> int | None:
    return values[0] if all(value == values[0] for value in values) else None


class Outstanding(NamedTuple):
    """What of a sort most samples of a reason have."""

    name: str
    seen: int


@dataclass
class Tallies:
    """Samples of one reason, by what may stand out."""

    samples: int = 0
    sources: "Counter[str]" = field(default_factory=Counter)
    destinations: "Counter[str]" = field(default_factory=Counter)
    owners: "Counter[str]" = field(default_factory=Counter)
    addresses: "Counter[str]" = field(default_factory=Counter)
    """IP addresses of destinations, without ports."""
    ports: "Counter[str]" = field(default_factory=Counter)
    """Of destinations: "UDP 53"."""

    def add(self, sample: Sample) -> None:
        """Count one more sample."""
        packet = sample.packet
        self.samples += 1
        _count(self.sources, packet.source or packet.link_source)
        _count(self.destinations, _destination(packet))
        _count(self.owners, sample.whose)
        _count(self.addresses, packet.destination)
        port = packet.destination_port
        _count(self.ports, None if port is None else f"{packet.protocol} {port}")


def _destination(packet: Packet) -> str | None:
    if packet.destination is None:
        return packet.link_destination
    protocol = "" if packet.protocol is None else f" {packet.protocol}"
    return endpoint(packet.destination, packet.destination_port) + protocol


def _count(names: "Counter[str]", name: str | None) -> None:
    """Count a name. Senders choose some: where there are too many, those that were seen least are forgotten."""
    if name is None:
        return
    names[name] += 1
    if len(names) > _MOST:
        kept = names.most_common(_KEPT)
        names.clear()
        names.update(dict(kept))


def outstanding(names: "Counter[str]") -> Outstanding | None:
    """Return the name that was seen most; None where there is none."""
    return next((Outstanding(*one) for one in names.most_common(1)), None)


class Standouts:
    """Who stood out, by reason, over a run."""

    def __init__(self) -> None:
        """Start with nobody."""
        self.of_reason: dict[tuple[str, str], Tallies] = {}
        """By subsystem and reason."""

    def add(self, samples: Mapping[DropKey, Iterable[Sample]], shown: Mapping[DropKey, object], judge: Judge) -> None:
        """Count the samples of the kinds that are shown and are a loss, or may be one."""
        for key, some in samples.items():
            if key in shown and judge(key).noise is None:
                tallies = self.of_reason.setdefault((key.subsystem, key.reason), Tallies())
                for sample in some:
                    tallies.add(sample)
