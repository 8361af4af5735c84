# SPDX-License-Identifier: MIT
"""What a row of the live view stands for; the same whichever interval it is."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.model.sample import Owner
from pktdrop.samples.flows import Likeness

NO_EVENT: Final = "(no event)"
"""In place of a reason: what was lost without a drop event, by NICs and full queues."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Packets that were lost in one layer for one reason, or were no loss there."""

    layer: str
    name: str
    noise: str | None
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU."""

    number: int


@dataclass(frozen=True, slots=True)
class InterfaceQueue:
    """An interface, or one of its queues; without a queue the interface as a whole."""

    netns: Netns | None
    interface: str
    queue: int | None = None


@dataclass(frozen=True, slots=True)
class OneNetns:
    """A network namespace; None: stands for drops whose namespace is not known."""

    netns: Netns | None


@dataclass(frozen=True, slots=True)
class CounterScope:
    """A row of the ledger."""

    counter: str
    scope: Scope


class SampledFlow(NamedTuple):
    """Samples in one namespace that differ in nothing that tells who is talking to whom."""

    netns: Netns | None
    likeness: Likeness
    mark: str
    """As behind the name of a reason: what is no loss is another row."""


class SampledProcess(NamedTuple):
    """Samples of one process; owner None: of those whose process is not known."""

    owner: Owner | None
    mark: str
    """As of a flow."""


Subject = Reason | Cpu | InterfaceQueue | OneNetns | CounterScope | SampledFlow | SampledProcess
