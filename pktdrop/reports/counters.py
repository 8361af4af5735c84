# SPDX-License-Identifier: MIT
"""The report of `pktdrop counters`: as they stand since boot, or what they rise by, and what reads them."""

import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pktdrop.counters.collect import Collector, Counters, since
from pktdrop.counters.drivers import Drivers
from pktdrop.ledger.identities import Identities
from pktdrop.ledger.told import Meanings
from pktdrop.namespaces import Namespaces
from pktdrop.output import Output
from pktdrop.views.counters import as_json, as_other, as_table, nothing


@dataclass(frozen=True)
class Settings:
    """What to show."""

    differences: bool
    """By how much counters rise, rather than how they stand."""
    everything: bool
    all_netns: bool
    like: str | None
    """A tool whose columns to show."""
    style: str
    """ "table" or "json"."""


class Rise(NamedTuple):
    """By how much counters rose, and since when; as they stand, where that is None."""

    counters: Counters
    before: Counters | None


class Readings:
    """Counters alone, of this namespace or of all."""

    def __init__(self, namespaces: Namespaces, all_netns: bool) -> None:
        """Read them for the first time."""
        self._namespaces = namespaces
        self._all = all_netns
        self._collector = Collector(namespaces)
        self.last = self._read()

    @property
    def limits(self) -> tuple[str, ...]:
        """What could not be read, a sentence each."""
        return self.last.limits

    def step(self, is_last: bool) -> Rise:
        """Read them again."""
        self._namespaces.look()
        before, self.last = self.last, self._read()
        return Rise(since(before, self.last), before)

    def _read(self) -> Counters:
        return self._collector.read(self._namespaces.paths() if self._all else ())


class CountersReport:
    """Counters as a table, in the columns of another tool, or as JSON lines."""

    def __init__(self, readings: Readings, settings: Settings, namespaces: Namespaces, output: Output) -> None:
        """Take what is read, what to show of it, what names namespaces and what writes."""
        self._readings = readings
        self._settings = settings
        self._namespaces = namespaces
        self._output = output
        self._meanings = Meanings(Identities.load(), Drivers.load())

    def start(self) -> None:
        """Show how counters stand, where that is wanted."""
        if not self._settings.differences:
            self.step(Rise(self._readings.last, None))

    def step(self, step: Rise) -> None:
        """Show by how much they rose."""
        self._output.write(self._text(*step))

    def end(self) -> None:
        """Show nothing more."""

    def _text(self, counters: Counters, before: Counters | None) -> str:
        settings, label = self._settings, self._namespaces.label
        seconds = counters.monotonic - before.monotonic if before else None
        rose_in = partial(counters.seconds_since, before) if before else None
        if settings.like:
            return as_other(settings.like, counters, seconds, label) + "\n" * (before is not None)
        found = self._meanings.told(counters)
        told = [one for one in found if settings.everything or (one.value != 0 and one.kind is not None)]
        if settings.style == "json":
            return as_json(told, before.time if before else None, counters.time, counters.limits, counters.backlogs)
        clock = time.strftime("%H:%M:%S", time.localtime(counters.time))
        title = f"{clock}  in {seconds:.1f} s" if seconds is not None else f"{clock}  since boot"
        if not told:
            return f"{title}: {nothing(before is not None, settings.all_netns)}\n"
        return f"{title}\n{as_table(told, rose_in, self._output.width, label)}\n"
