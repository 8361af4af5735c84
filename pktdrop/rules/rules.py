# SPDX-License-Identifier: MIT
"""All tables that a run is judged by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from pktdrop.rules import remedies
from pktdrop.rules.causes import Causes
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import Identities
from pktdrop.rules.layers import Layers
from pktdrop.rules.remedies import Remedy


@dataclass(frozen=True)
class Rules:
    """All tables that drops, counters and losses are judged by."""

    identities: Identities
    drivers: Drivers
    layers: Layers
    causes: Causes

    @classmethod
    def load(cls, tcp_input_has_events: bool = True, reasons: Collection[str] = ()) -> Rules:
        """Read those that come with pktdrop, for a kernel that frees TCP's input with events or without.

        `reasons` are those of the core that the kernel has. Raises as Table.load() does.
        """
        identities = Identities.load(tcp_input_has_events, reasons)
        return cls(identities, Drivers.load(), Layers.load(reasons=reasons), Causes.load())

    @cached_property
    def remedies(self) -> tuple[Remedy, ...]:
        """What to do about losses: read when it is first asked for."""
        return remedies.load()
