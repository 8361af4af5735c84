# SPDX-License-Identifier: MIT
"""What was read at one moment: facts only, which never change. All else follows from Looks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pktdrop.model.counters import Counters
from pktdrop.model.drops import Known, Netns
from pktdrop.model.flow import CountedFlow
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Sample
from pktdrop.model.snapshots import Snapshot

Answer = str | int | tuple[str | int | None, ...] | None
"""What a host answers to a Question; None: it does not know."""


class Question(NamedTuple):
    """What a host is asked for, besides drops and counters: see `ask.Asker`."""

    what: str
    netns: Netns | None
    name: str


Ask = Callable[[Question], Answer]


class NicSettings(NamedTuple):
    """How an interface is set up: the answer to "nic". None: the driver does not report it."""

    rx_ring: int | None = None
    """Descriptors in each RX ring."""
    rx_ring_max: int | None = None
    combined: int | None = None
    """Queues that receive and send."""
    combined_max: int | None = None
    rx_channels: int | None = None
    rx_channels_max: int | None = None
    tx_pause: int | None = None
    """Not 0: the NIC asks the other side to stop when its own memory fills up."""


@dataclass(frozen=True)
class Kernel:
    """What traces drops, and how far."""

    release: str
    rungs: Mapping[str, str]
    """By which rung each probe is attached; "none": it is not."""
    reasons: tuple[str, ...] = ()
    """Names of the core's drop reasons that this kernel has; none where drops are not traced."""
    tcp_input_has_events: bool = True
    """Whether this kernel raises an event for the input that TCP drops."""


@dataclass(frozen=True)
class Look:
    """Everything read at one moment: facts only."""

    kernel: Kernel
    before: Snapshot
    """Events before the counters were read."""
    counters: Counters
    after: Snapshot
    namespaces: Known
    unread: frozenset[Netns]
    """Namespaces that were there at the first Look, and whose counters were in no Look so far."""
    dropped_in: tuple[Netns, ...] = ()
    """Namespaces with drops since the look before."""
    limits: tuple[Limit, ...] = ()
    """What cannot be known, and why."""
    is_last: bool = False
    """Whether this is the last Look of a run."""
    answers: Mapping[Question, Answer] = field(default_factory=dict)
    """What the host said of itself, when something was lost and it was asked."""
    samples: tuple[Sample, ...] = ()
    """Packets dropped since the look before, of each kind the first ones."""
    flows: tuple[CountedFlow, ...] = ()
    """Where drops are counted by more than their kind: those that rose since the look before, and by how much."""
