# SPDX-License-Identifier: MIT
"""CPU time of reading the counts: 10,000 kinds and 60,000, a usual interval with 100, and many possible CPUs."""

import os
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.counters import populated
from benchmarks.processes import sender
from benchmarks.report import Row, limit_row, ratio_row
from pktdrop import filters
from pktdrop.host.namespaces import Namespaces
from pktdrop.host.netns import inside
from pktdrop.kernel import sysbpf
from pktdrop.kernel.tracer import Tracer
from pktdrop.observe.observer import Observer
from pktdrop.rules.protocols import Protocols
from pktdrop.views.table import TableView
from pktdrop.watch import Watch

_MANY, _CROWD = 10_000, 60_000
_FEW, _LINKS = 100, 300
_POSSIBLE = 512
_CROWDED = 4
"""Rounds with so many kinds."""
_ROUNDS = 10
_WIDTH = 120


def _ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1000


def _many() -> list[Row]:
    """Read 10,000 kinds, then 60,000."""
    small, large = _Reading.of(_MANY), _Reading.of(_CROWD)
    growth = (large.look / _CROWD) / (small.look / _MANY)
    return [
        limit_row(f"{_MANY:,} kinds: fetched from the kernel and nothing else, CPU", "ms", small.bare, "keys.batched"),
        limit_row("  a snapshot, names known", "ms", small.snapshot, "keys.snapshot"),
        Row("  a snapshot, all names new", f"{small.first:.3g} ms"),
        limit_row(f"{_CROWD:,} kinds in the kernel: a look, CPU", "s", large.look / 1000, "kinds.look"),
        ratio_row("  beside", "ms", large.look, "fetched and nothing else", large.bare, "kinds.bare"),
        limit_row("  where all of them moved", "s", large.moving / 1000, "kinds.moving"),
        Row(f"  per kind, of that at {_MANY:,}", f"{large.look / _CROWD * 1000:.3g} us",
            f"{small.look / _MANY * 1000:.3g} us", growth, "kinds.growth", growth),
    ]  # fmt: skip


class _Reading(NamedTuple):
    """Milliseconds of CPU: medians, but for the first."""

    bare: float
    """To fetch the kinds from the kernel and do nothing with them."""
    first: float
    """A snapshot that names all of them."""
    snapshot: float
    moving: float
    """A look of `Watch` after drops of every kind: two snapshots, the counters, what moved, and the ledger."""
    look: float
    """The look after that one, in which they are read and stand still."""

    @classmethod
    def of(cls, kinds: int) -> "_Reading":
        """Measure it with so many kinds."""
        namespaces = Namespaces()
        with sender(0) as source, Tracer(namespaces) as tracer:
            watch = Watch(Observer(namespaces, tracer))
            source.send("kinds", kinds, kinds)
            first = _ms(tracer.snapshot)
            counted = len(tracer.snapshot().drops)
            if counted < kinds:
                raise RuntimeError(f"{counted} kinds were counted, {kinds} were made")
            spent = []
            for _ in range(_CROWDED):
                source.send("kinds", kinds, kinds)  # those that are idle for long are given up
                read = [_ms(step) for step in (lambda: _drain(tracer), tracer.snapshot)]
                if tracer._banks.in_map < kinds * 0.8:  # the others are in the table in front of the map
                    raise RuntimeError(f"{tracer._banks.in_map} keys were read from the map, not {kinds}")
                spent.append([*read, *(_ms(step) for step in (watch.step, watch.step))])
        bare, snapshot, moving, look = map(median, zip(*spent, strict=True))
        return cls(bare, first, snapshot, moving, look)


def _drain(tracer: Tracer) -> None:
    """Read the map and do nothing with it."""
    descriptor, definition = tracer._probes.programs.map("drops")
    for _ in sysbpf.map_items(descriptor, definition.key_size, definition.value_size):
        pass


def _few() -> list[Row]:
    """Read, subtract, explain, select and render, as one tick of `pktdrop trace` does, with all keys moving."""
    with populated(_LINKS) as path, inside(path):
        spent = _ticks()
    what = f"a refresh of trace with {_FEW} moving kinds and {_LINKS} links, CPU"
    return [limit_row(what, "ms", median(spent), "look.trace")]


def _ticks() -> list[float]:
    namespaces = Namespaces()
    view, everything = TableView(Protocols.load(), 20, namespaces.name), filters.Filters([], noise=True)
    spent = []
    with sender(0) as source, Tracer(namespaces) as tracer:
        watch = Watch(Observer(namespaces, tracer))
        source.send("kinds", _FEW, _FEW)
        watch.step()
        for _ in range(_ROUNDS):
            source.send("kinds", _FEW * 10, _FEW)
            start = time.process_time()
            step = watch.step()
            view.interval(step.interval, everything.select(step.interval.drops, step.judge), step.ledger, _WIDTH)
            spent.append((time.process_time() - start) * 1000)
    return spent


def _cpus() -> list[Row]:
    """Read the tables of a kernel that may have 512 CPUs, of which this machine's drop."""
    with patch.object(sysbpf, "cpu_numbers", lambda: _POSSIBLE), sender(0) as source, Tracer(Namespaces()) as tracer:
        source.send("kinds", _FEW, _FEW)
        tracer.snapshot()
        spent = median(_ms(tracer.snapshot) for _ in range(_ROUNDS))
    return [
        limit_row(
            f"a snapshot with {_POSSIBLE} possible CPUs, {os.cpu_count()} of which drop, CPU", "ms", spent, "look.cpus"
        )
    ]


def measure() -> list[Row]:
    """Measure all."""
    return [*_many(), *_few(), *_cpus()]


def measure_short() -> list[Row]:
    """Measure what can be told on a busy machine."""
    return _many()
