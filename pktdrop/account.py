# SPDX-License-Identifier: MIT
"""Accounts of what lies between two Looks, judged by the rules. Nothing is asked of any host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pktdrop.counters.gone import Together
from pktdrop.counters.increments import CounterKeeper, Increments
from pktdrop.model.counters import Counters
from pktdrop.model.drops import Count, DropKey, Judge, Netns, netns_order
from pktdrop.model.flow import CountedFlow
from pktdrop.model.limits import Limit
from pktdrop.model.look import Look
from pktdrop.model.snapshots import Drops, Interval, Snapshot, interval
from pktdrop.process import memory
from pktdrop.samples.gather import ByKind, RunFlows, RunSamples, by_kind

if TYPE_CHECKING:
    from pktdrop.ledger.books import Books, Ledger
    from pktdrop.ledger.verdict import Windows
    from pktdrop.rules.rules import Rules

_MANY: Final = 4096
"""Kinds that moved: only with so many it is worth the time to give memory back."""
_GONE: Final = 256
"""Namespaces that are gone whose counters and drops the summary of a run tells apart: the last ones."""
_TOGETHER: Final = Limit("gone-together", number=_GONE)


@dataclass(frozen=True)
class Account:
    """One interval: what was dropped, what was counted, and how the two go together."""

    interval: Interval
    """All drops, whatever the user wants to see."""
    ledger: "Ledger"
    increments: Increments
    """By how much counters rose from the look before to this one."""
    look: Look
    """The Look at the end of the interval."""
    windows: "Windows"
    """The events between the readings of the counters, at least and at most."""
    judge: Judge
    """What the rules say of each kind of drops."""
    seconds: Mapping[Netns | None, float] = field(default_factory=dict)
    """Seconds in which the counters of each namespace rose; None: those of the host. Namespaces that are new are left
    out."""
    is_kept: Callable[[Netns], bool] = lambda netns: True
    """Tells whether a namespace has drops and counters of its own still: it is there, or was not long ago."""
    samples: ByKind = field(default_factory=dict)
    """Samples by kind, of the kinds that have any; of a whole run, the first ones of each kind."""
    sampled: Mapping[DropKey, int] = field(default_factory=dict)
    """How many packets of each kind were sampled."""
    flows: Sequence[CountedFlow] = ()
    """Where drops are counted by more than their kind: what was dropped of each flow."""

    @property
    def counters(self) -> Counters:
        """Counters as they stand at the end; only the namespaces that were read."""
        return self.look.counters

    def rate(self, netns: Netns | None, increment: int) -> float:
        """Return by how much a counter of a namespace rose in a second."""
        seconds = self.seconds.get(netns, self.interval.seconds)
        return increment / seconds if seconds else 0.0


class Accountant:
    """Makes the Accounts of a run, from one Look after the other."""

    def __init__(self, first: Look) -> None:
        """Take the first one."""
        self._last = first
        # with kinds of its own: those of the tracer are given up now and then
        self._first = replace(first, after=replace(first.after, drops=Drops.of(dict(first.after.drops))))
        self._keeper = CounterKeeper(first.counters)
        self._known = dict.fromkeys(first.counters.netns, True)
        """Namespaces with counters or drops, those last that had one last, and whether their counters were read."""
        self._samples = RunSamples()
        self._flows = RunFlows()
        self._has_many = False
        """Many kinds moved in the last look."""
        self._searches = first.namespaces.searches

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the summary of a run does not tell apart."""
        return (_TOGETHER,) if self._keeper.has_folded else ()

    @cached_property
    def rules(self) -> "Rules":
        """The tables that all is judged by."""
        from pktdrop.rules.rules import Rules  # big tables that are not needed before the first interval

        return Rules.load(self._first.kernel.tcp_input_has_events, self._first.kernel.reasons)

    @cached_property
    def _books(self) -> "Books":
        from pktdrop.ledger.books import Books

        counters = self._first.counters
        books = Books(self._first.kernel.rungs, self.rules, counters.netns)
        books.learn_drivers(counters.drivers, counters.rows.get("driver", {}))
        return books

    def step(self, look: Look) -> Account:
        """Return the account since the look before."""
        then, self._last = self._last, look
        counters = look.counters
        self._books.learn_drivers(counters.drivers, counters.rows.get("driver", {}))
        read = counters.netns - then.unread
        for netns in look.dropped_in:
            self._known[netns] = self._known.pop(netns, False)
        for netns in sorted(read, key=netns_order):
            self._known.pop(netns, None)
            self._known[netns] = True
        increments = self._keeper.add(counters, self._books.width, then.unread)
        if self._searches != look.namespaces.searches or self._keeper.is_crowded:
            self._searches = look.namespaces.searches
            self._forget_gone()
        step = interval(then.after, look.after)
        windows = _Windows(then, look)
        ledger = self._books.of_interval(step.drops, increments, windows, read, _unattributed(step), look.is_last)
        had_many, self._has_many = self._has_many, len(step.drops) > _MANY
        if had_many or self._has_many:  # in the look after those, too, when they are free themselves
            memory.give_back()
        samples = by_kind(look.samples, step.drops)
        self._samples.add(samples)
        self._flows.add(look.flows)
        return Account(
            step, ledger, increments, look, windows, self.rules.layers.of, self._keeper.seconds, self._is_kept,
            samples, {key: len(some) for key, some in samples.items()}, look.flows,
        )  # fmt: skip

    def whole(self) -> Account:
        """Return the account from the beginning to the last look."""
        run = interval(self._first.after, self._last.after)
        increments = self._keeper.total
        called = Together(self._is_kept, self._keeper.interfaces()) if self._keeper.has_folded else None
        windows = _Windows(self._first, self._last, called)
        drops = run.drops if called is None else called(run.drops)
        read = {netns for netns, is_read in self._known.items() if is_read}
        ledger = self._books.of_run(drops, increments, windows, read, _unattributed(run))
        judge, of_run = self.rules.layers.of, self._samples
        return Account(
            run,
            ledger,
            increments,
            self._last,
            windows,
            judge,
            samples=of_run.first,
            sampled=of_run.taken,
            flows=self._flows.all(),
        )

    def _forget_gone(self) -> None:
        """Drop what is remembered of namespaces that are gone."""
        look = self._last

        def is_present(netns: Netns) -> bool:
            return netns in look.counters.netns or look.namespaces.is_present(netns)

        self._keeper.keep(is_present)
        absent = [netns for netns in self._known if not is_present(netns)]
        if len(absent) < _GONE + _GONE // 2 and not self._keeper.is_crowded:
            return  # it takes a while with thousands of interfaces and sockets: not for each that ends
        for netns in absent[:-_GONE]:
            del self._known[netns]
        self._keeper.fold(self._known.__contains__, self._books.driver)
        self._books.keep(self._is_kept, self._keeper.interfaces())

    def _is_kept(self, netns: Netns) -> bool:
        """Tell whether a namespace keeps drops and counters of its own: it is there, or was not long ago."""
        return netns in self._known or self._last.namespaces.is_present(netns)


def _unattributed(step: Interval) -> int:
    """Return how many drops may be what any counter has beyond the events: those not counted, or counted elsewhere."""
    drops = Drops.of(step.drops)
    elsewhere = compress(drops.packets, map(attrgetter("other_places"), drops))
    return step.uncounted.missed + sum(elsewhere)


class _Windows:
    """Events between two readings of the counters, at least and at most; worked out when asked for."""

    def __init__(self, first: Look, last: Look, called: Together | None = None) -> None:
        # not the looks, whose counters are not needed as long as these windows are
        self._inner = first.after, last.before
        self._outer = first.before, last.after
        self._called = called

    @property
    def inner(self) -> Mapping[DropKey, Count]:
        return self._of(*self._inner)

    @property
    def outer(self) -> Mapping[DropKey, Count]:
        return self._of(*self._outer)

    def _of(self, first: Snapshot, last: Snapshot) -> Mapping[DropKey, Count]:
        drops = interval(first, last).drops
        return drops if self._called is None else self._called(drops)
