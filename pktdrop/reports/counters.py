# SPDX-License-Identifier: MIT
"""The report of `pktdrop counters`: as they stand since boot, or what they rise by, and what reads them."""

import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

from pktdrop.counters.collect import since
from pktdrop.ledger.told import Meanings
from pktdrop.model.counters import Counters
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.process.output import Output
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import Identities
from pktdrop.views.counters import as_json, as_other, as_table, nothing
from pktdrop.watch import Looks


class Rise(NamedTuple):
    """By how much counters rose, and the counters before; if there are none before, counters as they stand."""

    counters: Counters
    before: Counters | None


class Rises:
    """A run's source of what counters rise by."""

    def __init__(self, looks: Looks) -> None:
        """Take where Looks are from."""
        self._looks = looks

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What could not be read."""
        return self._looks.last.limits

    @property
    def last(self) -> Counters:
        """The counters of the last look."""
        return self._looks.last.counters

    def step(self, is_last: bool) -> Rise:
        """Look again. The last look is as the others: none goes on to namespaces without drops."""
        before, after = self.last, self._looks.look().counters
        return Rise(since(before, after), before)

    def label(self, netns: Netns) -> str | None:
        """Return what a network namespace was called at the last look."""
        return self._looks.last.namespaces.label(netns)


@dataclass
class CountersReport:
    """Counters as a table, in the columns of another tool, or as JSON lines."""

    rises: Rises
    output: Output
    all_netns: bool
    differences: bool
    """Whether to show by how much counters rise, rather than how they stand."""
    everything: bool
    like: str | None
    """The tool whose columns to show."""
    style: str
    """ "table" or "json"."""

    def start(self) -> None:
        """Show how counters stand, unless only their differences are wanted."""
        if not self.differences:
            self.step(Rise(self.rises.last, None))

    def step(self, step: Rise) -> None:
        """Show by how much counters rose since the look before."""
        self.output.write(self._text(*step))

    def end(self) -> None:
        """Show nothing more."""

    @cached_property
    def _meanings(self) -> Meanings:
        return Meanings(Identities.load(), Drivers.load())

    def _text(self, counters: Counters, before: Counters | None) -> str:
        label = self.rises.label
        seconds = counters.monotonic - before.monotonic if before else None
        rose_in = partial(counters.seconds_since, before) if before else None
        if self.like:
            return as_other(self.like, counters, seconds, label) + "\n" * (before is not None)
        found = self._meanings.told(counters)
        told = [one for one in found if self.everything or (one.value != 0 and one.layer_or_class is not None)]
        if self.style == "json":
            return as_json(told, before.time if before else None, counters.time, counters.limits, counters.backlogs)
        clock = time.strftime("%H:%M:%S", time.localtime(counters.time))
        title = f"{clock}  in {seconds:.1f} s" if seconds is not None else f"{clock}  since boot"
        if not told:
            return f"{title}: {nothing(before is not None, self.all_netns)}\n"
        return f"{title}\n{as_table(told, rose_in, self.output.width, label)}\n"
