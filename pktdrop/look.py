# SPDX-License-Identifier: MIT
"""What was read at one moment: facts only, which never change. All else follows from Looks."""

from collections.abc import Mapping
from dataclasses import dataclass

from pktdrop.counters.collect import Counters
from pktdrop.drops import Snapshot
from pktdrop.model import Known, Netns


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
    """Everything read at one moment."""

    kernel: Kernel
    before: Snapshot
    """Events before the counters were read."""
    counters: Counters
    after: Snapshot
    namespaces: Known
    unread: frozenset[Netns]
    """Namespaces that were there at the first look, and of which no counters have been read."""
    dropped_in: tuple[Netns, ...] = ()
    """Namespaces with drops since the look before."""
    limits: tuple[str, ...] = ()
    """What cannot be known, and why: a sentence each."""
    is_last: bool = False
    """Whether it is the last one of a run."""
