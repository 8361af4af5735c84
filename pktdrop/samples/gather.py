# SPDX-License-Identifier: MIT
"""Samples by what they were counted as, in one look and over a run, in bounded memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pktdrop.model.drops import Count, DropKey
from pktdrop.model.flow import CountedFlow

if TYPE_CHECKING:
    from pktdrop.model.sample import Sample

ByKind = Mapping[DropKey, Sequence["Sample"]]
_KEPT = 2048
"""Samples of a whole run that stay, the first of each kind."""
_OF_A_KIND = 8
_KINDS = 8192
"""Kinds of a whole run whose samples are counted: there may be any number, as namespaces come and go."""


def by_kind(samples: "Iterable[Sample]", drops: Mapping[DropKey, Count]) -> ByKind:
    """Group the samples of a look, the first ones first.

    What was counted just before the look before, and sampled after it, is left out: of no kind are there more samples
    than drops.
    """
    found: dict[DropKey, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.key, []).append(sample)
    counted = ((key, some, drops.get(key)) for key, some in found.items())
    return {key: some[: count.packets] for key, some, count in counted if count is not None}


def by_time(samples: ByKind, drops: Mapping[DropKey, object]) -> "list[Sample]":
    """Return the samples of these kinds of drops, as they were taken one after the other."""
    return sorted((one for key, some in samples.items() if key in drops for one in some), key=lambda one: one.time)


class RunSamples:
    """What is remembered of all samples of a run: how many of each kind, and the first ones."""

    def __init__(self) -> None:
        """Start with none."""
        self.taken: dict[DropKey, int] = {}
        """How many samples there were of each kind that has any; where very many kinds have, only of the first ones."""
        self.first: dict[DropKey, list[Sample]] = {}
        self._room = _KEPT

    def add(self, samples: ByKind) -> None:
        """Add the samples of a look."""
        for key, some in samples.items():
            if key not in self.taken and len(self.taken) >= _KINDS:
                continue
            self.taken[key] = self.taken.get(key, 0) + len(some)
            kept = self.first.setdefault(key, []) if self._room else self.first.get(key, [])
            more = some[: min(self._room, max(_OF_A_KIND - len(kept), 0))]
            kept += more
            self._room -= len(more)


_FLOWS = 65536
"""Flows of a whole run that are kept apart; those that come later are counted together, by the kind of their drops."""


class RunFlows:
    """What was dropped of each flow in a run."""

    def __init__(self) -> None:
        """Start with none."""
        self._counts: dict[CountedFlow, Count] = {}

    def add(self, flows: Sequence[CountedFlow]) -> None:
        """Add what rose in a look."""
        for flow in flows:
            apart = flow._replace(packets=0, bytes=0)
            if apart not in self._counts and len(self._counts) >= _FLOWS:
                apart = CountedFlow(flow.key, 0, 0, is_other=True)
            count = Count(flow.packets, flow.bytes)
            before = self._counts.get(apart)
            self._counts[apart] = count if before is None else before.plus(count)

    def all(self) -> list[CountedFlow]:
        """Return all of them."""
        return [flow._replace(packets=count.packets, bytes=count.bytes) for flow, count in self._counts.items()]
