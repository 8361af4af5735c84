# SPDX-License-Identifier: MIT
"""Whose packets were dropped so far, by those that were looked at; in bounded memory, whatever senders choose."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from pktdrop.filters import Selection
from pktdrop.model.drops import Count, DropKey, Verdict
from pktdrop.model.packet import Packet
from pktdrop.model.sample import Owner, Sample
from pktdrop.samples.flows import alike, common
from pktdrop.samples.gather import ByKind
from pktdrop.top.subjects import SampledFlow, SampledProcess
from pktdrop.views.kinds import mark, reason

_MOST, _KEPT = 1_024, 512
"""Flows, and processes, that are told apart, and how many of those most seen go on when there are more."""
_KINDS: Final = 256
"""Kinds of drops whose last samples are remembered."""
_NEWEST: Final = 4


class Recent(NamedTuple):
    """The samples of a kind of drop in the last look that had any."""

    samples: tuple[Sample, ...]
    packets: int
    """Packets of the kind that were dropped in that look."""
    when: float
    """When that look was, in seconds of the history."""


class Sampled(NamedTuple):
    """The samples of a flow or a process, added up."""

    seen: int = 0
    packets: int = 0
    """Drops of the kinds that the samples are of, in the looks in which there were such samples."""
    received: int = 0
    """Samples that were for the process, if that is known."""
    last: float = -1.0
    """When the last sample was taken, in seconds of the history; below zero: never."""
    reasons: frozenset[str] = frozenset()
    packet: Packet | None = None
    """What the packets of a flow have in common."""
    owner: Owner | None = None
    newest: tuple[tuple[Sample, Verdict], ...] = ()
    """The last samples, in the order in which they were taken, each with what the rules say of it."""


_NOTHING: Final = Sampled()
_Of = TypeVar("_Of", SampledFlow, SampledProcess)


class Whose:
    """Adds up the samples of a run by flow and by process."""

    def __init__(self) -> None:
        """Start with none."""
        self.flows: dict[SampledFlow, Sampled] = {}
        self.processes: dict[SampledProcess, Sampled] = {}
        self.recent: dict[DropKey, Recent] = {}
        """Samples of each kind in the last look that had any; kinds that had samples last are last."""
        self.forgotten: dict[str, int] = {"flows": 0, "processes": 0}
        """Samples of flows, and of processes, that are not told apart any more."""

    def copy(self) -> "Whose":
        """Return sums that do not change with these."""
        other = Whose()
        other.__dict__.update({name: part.copy() for name, part in self.__dict__.items()})
        return other

    def add(self, samples: ByKind, selection: Selection, now: float) -> None:
        """Add the samples of the last look, as far as the kinds they are of are shown."""
        for key, some in samples.items():
            count = selection.drops.get(key)
            if count is not None:
                self._add(key, some, count, selection.judge(key), now)
        for key in [*self.recent][:-_KINDS]:
            del self.recent[key]
        self.forgotten["flows"] += _fold(self.flows)
        self.forgotten["processes"] += _fold(self.processes)

    def _add(self, key: DropKey, some: Sequence[Sample], count: Count, verdict: Verdict, now: float) -> None:
        self.recent.pop(key, None)
        self.recent[key] = Recent(tuple(some), count.packets, now)
        processes: dict[Owner | None, list[Sample]] = {}
        marked, name = mark(verdict), reason(key, verdict)
        for likeness, group in alike(some).items():
            flow = SampledFlow(key.netns, likeness, marked)
            before = self.flows.get(flow, _NOTHING)
            self.flows[flow] = _plus(before, group, _shared(before.packet, group), count, verdict, name, now)
            processes.setdefault(group[0].owner, []).extend(group)
        for owner, group in processes.items():
            process = SampledProcess(owner and owner._replace(is_receiver=True), marked)
            before = self.processes.get(process, _NOTHING)
            again = before.last == now and before.newest[-1][0].key == key  # for it and from it
            packets = Count(0, 0) if again else count
            self.processes[process] = _plus(before, group, None, packets, verdict, name, now)


def _shared(before: Packet | None, some: Sequence[Sample]) -> Packet:
    """Return what alike packets have in common with those before."""
    if before is None and len(some) == 1:
        return some[0].packet
    packets = [one.packet for one in some if one.packet != before]
    if before is not None:
        packets.append(before)
    return packets[0] if len(packets) == 1 else common(packets)


def _plus(
    was: Sampled, some: Sequence[Sample], packet: Packet | None, count: Count, verdict: Verdict, name: str, now: float
) -> Sampled:
    """Return what was seen before with samples of one kind, of that reason, in one look."""
    return Sampled(
        was.seen + len(some),
        was.packets + count.packets,
        was.received + sum([one.owner is not None and one.owner.is_receiver for one in some]),
        now,
        was.reasons if name in was.reasons else was.reasons | {name},
        packet,
        some[0].owner,
        (*was.newest, *[(one, verdict) for one in some])[-_NEWEST:],
    )


def _fold(sums: dict[_Of, Sampled]) -> int:
    """Forget those that were seen least where there are too many, at first what is no loss; return their samples."""
    if len(sums) <= _MOST:
        return 0
    ranked = sorted(sums, key=lambda one: (not one.mark, sums[one].seen, sums[one].last))
    return sum(sums.pop(one).seen for one in ranked[:-_KEPT])


def latest(recent: Mapping[DropKey, Recent], keys: Sequence[DropKey]) -> list[tuple[Sequence[Sample], int]]:
    """Return the samples of some kinds of drops in the last look that had any, alike ones together.

    Beside them are the packets of their kinds in that look. What was seen most comes first.
    """
    found = [recent[key] for key in keys if key in recent]
    last = max((one.when for one in found), default=0.0)
    groups: dict[object, tuple[list[Sample], int]] = {}
    for one in found:
        for likeness, some in alike(one.samples).items() if one.when == last else ():
            samples, packets = groups.get(likeness, ([], 0))
            groups[likeness] = ([*samples, *some], packets + one.packets)
    return sorted(groups.values(), key=lambda group: -len(group[0]))
