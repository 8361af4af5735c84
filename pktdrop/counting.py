# SPDX-License-Identifier: MIT
"""The run of `pktdrop counters`: readings at each tick, subtracted, handed to a view."""

import time
from dataclasses import dataclass
from functools import partial

from pktdrop.clock import Clock
from pktdrop.counters.collect import Collector, Counters, since
from pktdrop.counters.drivers import Drivers
from pktdrop.ledger.identities import Identities
from pktdrop.ledger.told import Meanings
from pktdrop.messages import say
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


def run(settings: Settings, clock: Clock, output: Output) -> None:
    """Show counters once, or what they rise by at each tick."""
    namespaces = Namespaces()
    collector = Collector(namespaces)
    meanings = Meanings(Identities.load(), Drivers.load())
    before = collector.read(namespaces.paths() if settings.all_netns else ())
    said = before.limits
    say(*(f"Limit: {limit}" for limit in said))
    if not settings.differences:
        output.write(_text(settings, meanings, before, None, namespaces, output.width))
        return
    with clock:
        for _ in clock.ticks():
            namespaces.look()
            now = collector.read(namespaces.paths() if settings.all_netns else ())
            output.write(_text(settings, meanings, since(before, now), before, namespaces, output.width))
            say(*(f"Limit: {limit}" for limit in now.limits if limit not in said))
            said, before = now.limits, now


def _text(
    settings: Settings,
    meanings: Meanings,
    counters: Counters,
    before: Counters | None,
    namespaces: Namespaces,
    width: int,
) -> str:
    seconds = counters.monotonic - before.monotonic if before else None
    rose_in = partial(counters.seconds_since, before) if before else None
    if settings.like:
        return as_other(settings.like, counters, seconds, namespaces.label) + "\n" * (before is not None)
    told = [one for one in meanings.told(counters) if settings.everything or (one.value != 0 and one.kind is not None)]
    if settings.style == "json":
        return as_json(told, before.time if before else None, counters.time, counters.limits, counters.backlogs)
    clock = time.strftime("%H:%M:%S", time.localtime(counters.time))
    title = f"{clock}  in {seconds:.1f} s" if seconds is not None else f"{clock}  since boot"
    if not told:
        return f"{title}: {nothing(before is not None, settings.all_netns)}\n"
    return f"{title}\n{as_table(told, rose_in, width, namespaces.label)}\n"
