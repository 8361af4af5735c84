# SPDX-License-Identifier: MIT
"""All counters of one moment, and the difference of two moments."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pktdrop.counters import ethtool, links, mib, softnet
from pktdrop.counters.model import Reading, Row, Scope
from pktdrop.model import counted_since
from pktdrop.namespaces import Namespaces, inside

_WIDTHS = {"softnet": softnet.WIDTH}
"""In bits, of sources that are narrower than 64."""


@dataclass(frozen=True)
class Counters:
    """Counters by source and scope: as they stand, or by how much they rose."""

    time: float
    """Wall clock, seconds since the epoch."""
    monotonic: float
    rows: Mapping[str, Mapping[Scope, Row]]
    """Sources: "links", "softnet", "mib", "driver" (whose names begin with "ethtool." or "qstats.")."""
    backlogs: Mapping[int, Row]
    """Queue lengths of this moment, by CPU."""
    drivers: Mapping[tuple[int | None, str], str]
    """Driver of an interface, by namespace and name."""
    limits: tuple[str, ...]


class Collector:
    """Reads every source in every namespace asked for."""

    def __init__(self, namespaces: Namespaces, all_netns: bool) -> None:
        """Look into the own namespace only, or into all that can be found."""
        self._namespaces = namespaces
        self._all = all_netns
        self._mibs = mib.Mibs()

    def read(self) -> Counters:
        """Read all counters. What cannot be read is named in `limits`."""
        own = os.stat("/proc/thread-self/ns/net").st_ino
        cpus = softnet.read_all()
        rows: dict[str, dict[Scope, Row]] = {"softnet": dict(cpus.counters.rows), "links": {}, "driver": {}, "mib": {}}
        drivers: dict[tuple[int | None, str], str] = {}
        limits = list(cpus.counters.limits)
        for netns, path in ((own, None), *self._others(own)):
            try:
                if path is None:
                    readings = self._read_here(netns, drivers)
                else:
                    with inside(path):
                        readings = self._read_here(netns, drivers)
            except OSError as failed:
                limits.append(f"Network namespace {path} cannot be entered: {failed.strerror}.")
                continue
            for source, reading in readings.items():
                rows[source].update(reading.rows)
                limits += reading.limits
        backlogs = {scope.cpu: row for scope, row in cpus.gauges.rows.items() if scope.cpu is not None}
        return Counters(time.time(), time.monotonic(), rows, backlogs, drivers, tuple(limits))

    def _others(self, own: int) -> Iterator[tuple[int, Path]]:
        if self._all:
            for netns, path in self._namespaces.paths().items():
                if netns != own:
                    yield netns, path

    def _read_here(self, netns: int, drivers: dict[tuple[int | None, str], str]) -> dict[str, Reading]:
        """Read what belongs to the namespace this thread is in."""
        of_links = links.read(netns)
        interfaces = [scope.interface for scope in of_links.rows if scope.interface is not None]
        settings, refused = ethtool.settings(interfaces)
        drivers.update({(netns, name): nic.driver for name, nic in settings.items() if nic.driver})
        of_drivers = ethtool.read(netns, interfaces)
        return {
            "links": of_links,
            "driver": Reading(of_drivers.rows, (*refused, *of_drivers.limits)),
            "mib": self._mibs.read(netns),
        }


def since(before: Counters, after: Counters) -> Counters:
    """Return by how much each counter rose. What was not there before counts from zero; what is gone is left out."""
    rows = {
        source: {
            scope: _difference(before.rows[source].get(scope), row, _WIDTHS.get(source, 64))
            for scope, row in after.rows[source].items()
        }
        for source in after.rows
    }
    return replace(after, rows=rows)


def _difference(before: Row | None, after: Row, width: int) -> Row:
    if before is None:
        return after
    known = dict(zip(before.names, before.values, strict=True)) if before.names != after.names else None
    earlier = before.values if known is None else tuple(known.get(name, 0) for name in after.names)
    return Row(
        after.names, tuple(counted_since(was, now, width) for was, now in zip(earlier, after.values, strict=True))
    )
