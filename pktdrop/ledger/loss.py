# SPDX-License-Identifier: MIT
"""What was lost: packets of one cause with the same whereabouts, and the evidence for it."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.causes import Cause
from pktdrop.rules.layers import LAYERS

#: What shows a loss. events: the drops themselves. counters: such packets raise no event. both: some of each. guess: a
#: field of the kernel, as filled by a driver that is not known. unexplained: a counter whose packets raise events,
#: without one.
EVIDENCE: Final = ("events", "counters", "both", "guess", "unexplained")


class Whereabouts(NamedTuple):
    """Where packets were lost, as far as it is known."""

    netns: Netns | None = None
    interface: str | None = None
    queues: tuple[tuple[int, int], ...] = ()
    """Pairs of RX queue and packets, most packets first."""
    cpu: int | None = None
    """CPU whose backlog was full."""
    sources: tuple[int, ...] = ()
    """CPUs that had packets for that backlog, most first."""
    others: bool = False
    """Whether packets of other interfaces than this one, which had most, were lost in that backlog, too."""
    sockets: tuple[Scope, ...] = ()
    """The socket; if there are several, one or some of these, it is not known which."""
    qdiscs: tuple[str, ...] = ()
    """The queueing discipline; if there are several, one or some of these, it is not known which."""


class Loss(NamedTuple):
    """Packets lost for one cause, with the same whereabouts."""

    packets: int
    layer: str
    nature: str
    """One of layers.NATURES."""
    cause: Cause
    whereabouts: Whereabouts
    reasons: tuple[str, ...] = ()
    """Drop reasons, those of most packets first."""
    counters: tuple[str, ...] = ()
    """Where the number of those without an event is from."""
    without_event: int = 0
    """How many of these packets only counters show."""
    is_guess: bool = False
    """The driver is not known: it may count other packets in a field than the kernel asks for."""
    stat_class: str | None = None
    """Class of the driver's counters that show the loss, one of driver_tables.STAT_CLASSES; None: no driver counted
    it."""
    note: str = ""
    """Why counters rose by what nothing explains; empty if it is explained."""

    @property
    def evidence(self) -> str:
        """Return what shows the loss, one of EVIDENCE."""
        if self.note:
            return "unexplained"
        if self.is_guess:
            return "guess"
        if not self.without_event:
            return "events"
        return "counters" if self.without_event == self.packets else "both"

    def split(self, packets: int) -> tuple[Loss, Loss]:
        """Return the loss in two parts, the first of so many packets: if it can be, of those that events show."""
        without = max(0, packets - (self.packets - self.without_event))
        first = self._replace(packets=packets, without_event=without)
        return first, self._replace(packets=self.packets - packets, without_event=self.without_event - without)


def by_layer(losses: Iterable[Loss]) -> Mapping[str, int]:
    """Sum up packets by layer, in the order of LAYERS; layers without loss are left out."""
    sums: Tally[str] = Tally()
    for loss in losses:
        sums[loss.layer] += loss.packets
    return {layer: sums[layer] for layer in LAYERS if sums[layer]}


def in_order(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Return losses in the order of layers, the largest first."""
    return tuple(sorted(losses, key=lambda loss: (LAYERS.index(loss.layer), -loss.packets, loss.cause.name)))
