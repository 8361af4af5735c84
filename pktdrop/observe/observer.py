# SPDX-License-Identifier: MIT
"""Looks at drops and counters of this host, one after the other.

Events and counters cannot be read at one instant. Each look therefore reads the events, then the counters, then the
events again: what a counter rose by lies between the events of an inner and those of an outer window.
"""

import math
import os
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from itertools import count as counting
from operator import attrgetter
from typing import TYPE_CHECKING

from pktdrop.counters.collect import Collector
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.counters import Counters
from pktdrop.model.drops import Netns, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.model.look import Answer, Kernel, Look, Question
from pktdrop.model.snapshots import Drops, Snapshot
from pktdrop.process import memory

if TYPE_CHECKING:
    from pktdrop.counters.owners import Owners
    from pktdrop.kernel.tracer import Tracer
    from pktdrop.model.flow import CountedFlow
    from pktdrop.model.sample import Sample
    from pktdrop.observe.ask import Asker

AT_START = 64
"""So that a start is quick: a reading takes about two milliseconds for each namespace."""
_FIRST, _SPARE, _LAST = 0.4, 0.25, 0.6
"""Seconds in which namespaces without drops are read: at the start, in each look until all were read, at the end."""
_FIRST_OF_ALL, _SPARE_OF_ALL = 0.5, 0.5
"""The first two where what was there at the start is to be read as early as can be."""
_AT_LEAST = 16
"""Namespaces that are read whatever the time: on a slow or busy machine one takes a fifth of a second."""
_RECENT = 3
"""Intervals for which a namespace is read after a drop in it: its counters may be late."""


class Observer:
    """Makes the Looks of this host, from the moment the Observer is made."""

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
        read; where it is 0, others are not searched for, nor read without a drop, but at the last look. A look is cut
        short when `is_over` says so, to make room for the last one.
        """
        memory.prepare()
        self._namespaces = namespaces
        self._tracer = tracer
        self._all = all_netns
        self._due: dict[Netns, int] = {}
        """Namespaces with drops, and for how many looks they are still read."""
        self._collector = Collector(namespaces)
        before = self._events() if tracer is None else tracer.start
        found = list(namespaces.paths()) if all_netns or at_start != 0 else []
        self.is_over = is_over
        """Asked between two namespaces, whether to leave the rest of a look undone."""
        wanted = found if all_netns else found[:at_start]
        first, self._spare = (_FIRST_OF_ALL, _SPARE_OF_ALL) if at_start is None else (_FIRST, _SPARE)
        counters = self._collector.read(wanted, self._out_of_time(math.inf if all_netns else first))
        self._unread = frozenset(found) - counters.netns
        namespaces.name(namespaces.own())
        self._late = [Limit("unread-at-start", number=len(self._unread), of=len(found))] if self._unread else []
        """What to say of such that were not read, or not in time."""
        self._missed: tuple[Limit, ...] = ()
        """What to say of such that could not be read."""
        self._kernel = _kernel(tracer)
        self._asker: Asker | None = None
        self.last = self._look(before, counters)
        """The last Look."""

    def look(self, is_last: bool = False) -> Look:
        """Look again. The last time into every namespace that can be entered."""
        self._namespaces.look()
        if self._tracer is not None and not is_last:
            self._tracer.give_up()
        before = self._events()
        moved = Drops.of(before.drops).moved_since(Drops.of(self.last.before.drops))
        dropped_in = tuple(netns for netns in set(map(attrgetter("netns"), moved)) if netns is not None)
        wanted = self._wanted(dropped_in, is_last)
        counters = self._collector.read(wanted, self._out_of_time(_LAST if is_last else self._spare, is_last))
        if is_last and counters.late:
            self._late.append(Limit("unread-at-end", number=counters.late, of=len(wanted)))
        if not counters.late and not counters.netns.issuperset(self._due):
            self._missed = (Limit("unread-and-gone"),)
        self._unread = frozenset(filter(self._namespaces.present, self._unread - counters.netns))
        self.last = self._look(before, counters, dropped_in, is_last)
        return self.last

    def ask(self, question: Question) -> Answer:
        """Return what this host answers to a question, as of the last Look."""
        if self._asker is None:
            from pktdrop.observe.ask import Asker  # nothing that a start needs

            self._asker = Asker(self._namespaces, self.last.counters)
        return self._asker(question)

    @property
    def asked(self) -> Look:
        """The last Look, with what this host was asked for since."""
        return self.last if self._asker is None else replace(self.last, answers=dict(self._asker.answers))

    def _look(
        self, before: Snapshot, counters: Counters, dropped_in: tuple[Netns, ...] = (), is_last: bool = False
    ) -> Look:
        if self._tracer is not None:
            self._tracer.read_flows()  # before the drops: no kind has more
        after = self._events()
        flows = self._flows()
        self._asker = None
        samples = self._samples()
        limits = () if self._tracer is None else self._tracer.limits
        for netns in counters.netns:
            self._namespaces.settle(netns)
        return Look(
            kernel=self._kernel,
            before=before,
            counters=counters,
            after=after,
            namespaces=self._namespaces.known,
            unread=self._unread,
            dropped_in=dropped_in,
            limits=(*limits, *counters.limits, *self._late, *self._missed),
            is_last=is_last,
            samples=samples,
            flows=flows,
        )

    def _samples(self) -> "tuple[Sample, ...]":
        """Return the packets that were sampled, with their processes as long as these are there."""
        found = [] if self._tracer is None else self._tracer.samples()
        if found:
            self._owners.find(found)
        return tuple(found)

    def _flows(self) -> "tuple[CountedFlow, ...]":
        """Return by how much flows rose, with the processes that have their sockets open."""
        found = [] if self._tracer is None else self._tracer.flows()
        return tuple(self._owners.of_flows(found)) if found else ()

    @cached_property
    def _owners(self) -> "Owners":
        from pktdrop.counters.owners import Owners  # not needed before the first packet

        return Owners(self._namespaces)

    def _events(self) -> Snapshot:
        if self._tracer is not None:
            return self._tracer.snapshot()
        return Snapshot(time=time.time(), monotonic=time.monotonic(), drops={}, uncounted=Uncounted(0, 0))

    def _wanted(self, dropped_in: Collection[Netns], is_last: bool) -> Collection[Netns]:
        """Return the namespaces to read, besides the own one."""
        self._due = {netns: looks - 1 for netns, looks in self._due.items() if looks > 1}
        self._due.update(dict.fromkeys(dropped_in, _RECENT))
        known = self._namespaces.known
        due = [netns for netns in self._due if not known.is_gone(netns)]
        if self._all or is_last:
            # of what was never read there is nothing to compare with; what was made meanwhile counts from its beginning
            unread = frozenset() if self._all else self._unread
            return dict.fromkeys((*due, *(one for one in self._namespaces.paths() if one not in unread)))
        return dict.fromkeys((*due, *self._unread))

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


def _kernel(tracer: "Tracer | None") -> Kernel:
    release = os.uname().release
    if tracer is None:
        return Kernel(release, {"kfree_skb": "none", "enqueue_to_backlog": "none"})
    return Kernel(release, tracer.rungs, tuple(tracer.reasons), tracer.tcp_input_has_events)
