# SPDX-License-Identifier: MIT
"""Watching drops and counters together: one look after the other, and the account of what lies between them.

Events and counters cannot be read at one instant. Each look therefore reads the events, then the counters, then the
events again: what a counter rose by lies between the events of an inner and those of an outer window.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from itertools import count as counting
from typing import TYPE_CHECKING, NamedTuple

from pktdrop import memory
from pktdrop.counters.collect import Collector, Counters
from pktdrop.counters.gone import Together
from pktdrop.counters.increments import Increments, Moved
from pktdrop.drops import Drops, Interval, Snapshot, interval
from pktdrop.model import Count, DropKey, Judge, Lost, Netns
from pktdrop.namespaces import Namespaces

if TYPE_CHECKING:
    from pktdrop.kernel.tracer import Tracer
    from pktdrop.ledger.books import Books, Ledger, Rules
    from pktdrop.ledger.verdict import Between

AT_START = 64
"""So that a start is quick: a reading takes about two milliseconds for each namespace."""
_FIRST, _SPARE, _LAST = 0.4, 0.25, 0.6
"""Seconds in which namespaces without drops are read: at the start, in each look until all were read, at the end."""
_FIRST_OF_ALL, _SPARE_OF_ALL = 0.7, 0.5
"""The first two where what was there at the start is to be read as early as can be."""
_AT_LEAST = 16
"""Namespaces that are read whatever the time: on a slow or busy machine one takes a fifth of a second."""
_MANY = 4096
"""Kinds that moved: only with so many it is worth the time to give memory back."""
_RECENT = 3
"""Intervals for which a namespace is read after a drop in it: its counters may be late."""
_UNREAD = (
    "some network namespaces were gone, or hidden, before their counters were read: what only counters show of them, "
    "such as SYNs at a full listen queue, is not known."
)
_GONE = 256
"""Namespaces that are gone whose counters and drops the summary of a run tells apart: the last ones."""
_TOGETHER = (
    f"network namespaces that are gone, but for the last {_GONE}, are one in the summary's ledger, called gone; so are "
    f"interfaces and sockets that are gone, but for the last {_GONE} of namespaces that are there."
)
_NONE: Mapping[str, str] = {"kfree_skb": "none", "enqueue_to_backlog": "none"}


class Look(NamedTuple):
    """Everything read at one moment."""

    before: Snapshot
    """Events before the counters were read."""
    counters: Counters
    after: Snapshot


@dataclass(frozen=True)
class Account:
    """One window: what was dropped, what was counted, and how the two go together."""

    interval: Interval
    """All drops, whatever the user wants to see."""
    ledger: "Ledger"
    moved: Moved
    """By how much counters rose."""
    counters: Counters
    """As they stand at the end; only the namespaces that were read."""
    bracket: "Between"
    """The events between the readings of the counters, at least and at most."""
    judge: Judge
    """What the rules say of each kind of drops."""
    seconds: Mapping[Netns | None, float] = field(default_factory=dict)
    """In how many seconds the counters of each namespace rose, None: those of the host; new ones are left out."""
    is_kept: Callable[[Netns], bool] = lambda netns: True
    """Whether a namespace is told apart: it is there, or was not long ago."""

    def rate(self, netns: Netns | None, increment: int) -> float:
        """Return by how much a counter of a namespace rose in a second."""
        seconds = self.seconds.get(netns, self.interval.seconds)
        return increment / seconds if seconds else 0.0


class Watch:
    """Reads events and counters from its beginning on."""

    def __init__(
        self,
        namespaces: Namespaces,
        tracer: "Tracer | None" = None,
        all_netns: bool = False,
        at_start: int | None = AT_START,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Look for the first time, into `at_start` namespaces at most. Without a tracer there are only counters.

        The own namespace is read at each look; another one at the first and the last, and for a while after a drop in
        it; with `all_netns` at each. Where `at_start` is None, looks take longer until all that were there have been
        read. A look is cut short when `is_over` says so, to make room for the last one.
        """
        memory.prepare()
        self._namespaces = namespaces
        self._tracer = tracer
        self._all = all_netns
        self._due: dict[Netns, int] = {}
        """Namespaces with drops, and for how many looks they are still read."""
        self._collector = Collector(namespaces)
        before = self._events() if tracer is None else tracer.start
        found = list(namespaces.paths())
        self.is_over = is_over
        """Asked between two namespaces, whether to leave the rest of a look undone."""
        wanted = found if all_netns else found[:at_start]
        first, self._spare = (_FIRST_OF_ALL, _SPARE_OF_ALL) if at_start is None else (_FIRST, _SPARE)
        counters = self._collector.read(wanted, self._out_of_time(math.inf if all_netns else first))
        self._last = Look(before, counters, self._events())
        # with kinds of its own: those of the tracer are given up now and then
        alone = Drops.of(dict(self._last.after.drops))
        self._first = self._last._replace(after=replace(self._last.after, drops=alone))
        unread = set(found) - counters.netns
        self._increments = Increments(counters, unread)
        self._late = [
            f"{len(unread)} of {len(found)} network namespaces were not read at the start: the counters of each are "
            "compared from when it is first read (--all-netns reads all)."
        ][: len(unread)]
        self._known = dict.fromkeys(counters.netns, True)
        """Namespaces with counters or drops, those last that had one last, and whether their counters were read."""
        self._unread: tuple[str, ...] = ()
        """What to say of such that could not be read."""
        self._has_many = False
        """Many kinds moved in the last look."""
        self._searches = namespaces.searches

    @property
    def rungs(self) -> Mapping[str, str]:
        """By which rung each probe is attached; "none" for both without a tracer."""
        return _NONE if self._tracer is None else self._tracer.rungs

    @property
    def reasons(self) -> Collection[str]:
        """Names of the core's drop reasons that this kernel has; none without a tracer."""
        return () if self._tracer is None else self._tracer.reasons

    @property
    def limits(self) -> tuple[str, ...]:
        """What this run cannot know, and why: a sentence each. More may turn up while it runs."""
        of_events = () if self._tracer is None else self._tracer.limits
        together = (_TOGETHER,) if self._increments.has_folded else ()
        return *of_events, *self._last.counters.limits, *self._late, *self._unread, *together

    @property
    def start(self) -> float:
        """When the first interval began: wall clock, seconds since the epoch."""
        return self._first.after.time

    @cached_property
    def _rules(self) -> "Rules":
        from pktdrop.ledger.books import Rules  # big tables that are not needed before the first interval

        return Rules.load(self._tracer is None or self._tracer.tcp_input_has_events, self.reasons)

    @cached_property
    def _books(self) -> "Books":
        from pktdrop.ledger.books import Books

        books = Books(self.rungs, self._rules, self._first.counters.netns)
        books.learn_drivers(self._first.counters.drivers, self._first.counters.rows.get("driver", {}))
        return books

    def step(self, is_last: bool = False) -> Account:
        """Look again; return the account since the look before. The last one looks into every namespace it can."""
        self._namespaces.look()
        if self._tracer is not None and not is_last:
            self._tracer.give_up()
        before = self._events()
        wanted = self._wanted(before, is_last)
        counters = self._collector.read(wanted, self._out_of_time(_LAST if is_last else self._spare, is_last))
        if is_last and counters.late:
            self._late.append(
                f"{counters.late} of {len(wanted)} network namespaces were not read at the end, as time ran out: what "
                "their counters rose by since they were last read is missing."
            )
        then, self._last = self._last, Look(before, counters, self._events())
        self._books.learn_drivers(counters.drivers, counters.rows.get("driver", {}))
        read = counters.netns - self._increments.unread
        for netns in read:
            self._known.pop(netns, None)
            self._known[netns] = True
        if not counters.late and not counters.netns.issuperset(self._due):
            self._unread = (_UNREAD,)
        moved = self._increments.add(counters, self._books.width)
        if self._searches != self._namespaces.searches or self._increments.is_crowded:
            self._searches = self._namespaces.searches
            self._forget_gone(counters)
        step = interval(then.after, self._last.after)
        bracket = _Between(then, self._last)
        ledger = self._books.of_interval(step.drops, moved, bracket, read, _without_place(step), is_last)
        had_many, self._has_many = self._has_many, len(step.drops) > _MANY
        if had_many or self._has_many:  # in the look after those, too, when they are free themselves
            memory.give_back()
        return Account(
            step, ledger, moved, counters, bracket, self._rules.layers.of, self._increments.seconds, self._is_kept
        )

    def whole(self) -> Account:
        """Return the account from the beginning to the last look."""
        run = interval(self._first.after, self._last.after)
        moved = self._increments.total
        called = Together(self._is_kept, self._increments.places()) if self._increments.has_folded else None
        bracket = _Between(self._first, self._last, called)
        drops = run.drops if called is None else called(run.drops)
        read = {netns for netns, is_read in self._known.items() if is_read}
        ledger = self._books.of_run(drops, moved, bracket, read, _without_place(run))
        return Account(run, ledger, moved, self._last.counters, bracket, self._rules.layers.of)

    def _events(self) -> Snapshot:
        if self._tracer is not None:
            return self._tracer.snapshot()
        return Snapshot(time=time.time(), monotonic=time.monotonic(), drops={}, lost=Lost(0, 0))

    def _wanted(self, now: Snapshot, is_last: bool) -> Collection[Netns]:
        """Return the namespaces to read, besides the own one."""
        self._due = {netns: looks - 1 for netns, looks in self._due.items() if looks > 1}
        for netns in {key.netns for key in interval(self._last.before, now).drops}:
            if netns is not None:
                self._known[netns] = self._known.pop(netns, False)
                self._due[netns] = _RECENT
        due = [netns for netns in self._due if not self._namespaces.is_gone(netns)]
        if self._all or is_last:
            # of what was never read there is nothing to compare with; what was made meanwhile counts from its beginning
            unread = frozenset() if self._all else self._increments.unread
            return dict.fromkeys((*due, *(one for one in self._namespaces.paths() if one not in unread)))
        return dict.fromkeys((*due, *self._increments.unread))

    def _out_of_time(self, seconds: float, is_last: bool = False) -> Callable[[Netns], bool]:
        """Return what tells of a namespace whether it is too late to read it, asked once for each.

        Those with drops may take longer, but for the last look.
        """
        end = time.monotonic() + seconds
        asked = counting(1)

        def is_late(netns: Netns) -> bool:
            if not is_last and (self._all or netns in self._due):
                return False
            return next(asked) > _AT_LEAST and time.monotonic() >= end

        return is_late if is_last else lambda netns: self.is_over() or is_late(netns)

    def _forget_gone(self, counters: Counters) -> None:
        """Drop what is remembered of namespaces that are gone."""

        def is_present(netns: Netns) -> bool:
            return netns in counters.netns or self._namespaces.present(netns)

        self._increments.keep(is_present)
        absent = [netns for netns in self._known if not is_present(netns)]
        for netns in absent[:-_GONE]:
            del self._known[netns]
        self._increments.fold(self._known.__contains__, self._books.driver)
        self._books.keep(self._is_kept, self._increments.places())

    def _is_kept(self, netns: Netns) -> bool:
        """Tell whether a namespace is told apart: it is there, or was not long ago."""
        return netns in self._known or self._namespaces.present(netns)


def _without_place(step: Interval) -> int:
    """Return how many drops may be what any counter has beyond the events: those not counted, or counted elsewhere."""
    drops = Drops.of(step.drops)
    elsewhere = compress(drops.packets, (key.other_places for key in drops))
    return step.lost.missed + sum(elsewhere)


class _Between:
    """Events between two readings of the counters, at least and at most; worked out when asked for."""

    def __init__(self, first: Look, last: Look, called: Together | None = None) -> None:
        self._first = first
        self._last = last
        self._called = called

    @cached_property
    def inner(self) -> Mapping[DropKey, Count]:
        return self._of(self._first.after, self._last.before)

    @cached_property
    def outer(self) -> Mapping[DropKey, Count]:
        return self._of(self._first.before, self._last.after)

    def _of(self, first: Snapshot, last: Snapshot) -> Mapping[DropKey, Count]:
        drops = interval(first, last).drops
        return drops if self._called is None else self._called(drops)
