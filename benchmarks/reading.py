# SPDX-License-Identifier: MIT
"""CPU time of reading the counts: 10,000 keys, and a usual interval with 100."""

import time
from collections.abc import Callable
from statistics import median

from benchmarks.processes import sender
from benchmarks.report import Row, limit_row
from pktdrop import filters
from pktdrop.kernel import sysbpf
from pktdrop.kernel.tracer import Tracer
from pktdrop.namespaces import Namespaces
from pktdrop.protocols import Protocols
from pktdrop.views.table import TableView
from pktdrop.watch import Watch

_MANY = 10_000
_FEW = 100
_ROUNDS = 10
_WIDTH = 120


def _ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1000


def _many() -> list[Row]:
    with sender(0) as source, Tracer(Namespaces()) as tracer:
        tracer.snapshot()
        source.send("ethertypes", _MANY, _MANY)
        first = _ms(tracer.snapshot)
        keys = len(tracer.snapshot().drops)
        if keys < _MANY:
            raise RuntimeError(f"{keys} keys were counted, {_MANY} were made")
        later = median(_ms(tracer.snapshot) for _ in range(_ROUNDS))
        bare = median(_ms(lambda: _drain(tracer)) for _ in range(_ROUNDS))
    return [
        limit_row(f"{keys:,} keys: the batched read alone, CPU", "ms", bare, 50),
        limit_row("  a snapshot, names known", "ms", later, 50),
        Row("  a snapshot, all names new", f"{first:.3g} ms"),
    ]


def _drain(tracer: Tracer) -> None:
    """Read the map and do nothing with it."""
    descriptor, definition = tracer._probes.programs.map("drops")
    for _ in sysbpf.map_items(descriptor, definition.key_size, definition.value_size):
        pass


def _few() -> list[Row]:
    """Read, subtract, explain, select and render, as one tick of `pktdrop trace` does, with all keys moving."""
    namespaces = Namespaces()
    view, everything = TableView(Protocols.load(), 20, namespaces.name), filters.Filters([], noise=True)
    spent = []
    with sender(0) as source, Tracer(namespaces) as tracer:
        watch = Watch(namespaces, tracer)
        source.send("ethertypes", _FEW, _FEW)
        watch.step()
        for _ in range(_ROUNDS):
            source.send("ethertypes", _FEW * 10, _FEW)
            start = time.process_time()
            step = watch.step()
            view.interval(step.interval, everything.select(step.interval.drops), step.ledger, _WIDTH)
            spent.append((time.process_time() - start) * 1000)
    return [limit_row(f"a tick with {_FEW} moving keys: read, ledger, table, CPU", "ms", median(spent), 30)]


def measure() -> list[Row]:
    """Measure both."""
    return [*_many(), *_few()]
