# SPDX-License-Identifier: MIT
"""Which namespaces are read in a look, however slow the machine is."""

import errno
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from pktdrop.counters.increments import Increments
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.drops import THE_GONE, Count, Known, Netns
from pktdrop.model.flow import CountedFlow
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Sample
from pktdrop.model.snapshots import Snapshot
from pktdrop.observe.observer import AT_START, Observer
from pktdrop.views.limits import sentence, sentences
from pktdrop.watch import Watch
from tests.unit.make import make_drop, make_snapshot


class Crowd(Namespaces):
    """As many namespaces as a test wants beside the own one; all that is read of one is what the own one has."""

    def __init__(self, many: int) -> None:
        """Take how many."""
        super().__init__()
        self.there = [Netns(number, number) for number in range(1, many + 1)]

    def paths(self) -> dict[Netns, Path]:
        """Find them."""
        return dict.fromkeys(self.there, Path("/proc/self/ns/net"))

    def look(self) -> None:
        """Begin the next look, which searches."""
        super().look()
        self.searches += 1

    def present(self, netns: Netns) -> bool:
        """Tell whether it is there."""
        return netns in self.there or netns == self.own()

    @property
    def known(self) -> Known:
        """What a search finds."""
        return Known(present=frozenset((*self.there, self.own())), searches=self.searches)

    @contextmanager
    def entered(self, netns: Netns) -> Iterator[None]:
        """Stay where it is."""
        yield


class Gone(Crowd):
    """A host where no namespace can be entered, as each is gone."""

    def __init__(self) -> None:
        """Have none."""
        super().__init__(0)

    @contextmanager
    def entered(self, netns: Netns) -> Iterator[None]:
        """Raise as open(2) does."""
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        yield


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so slow that a minute is over before the first namespace was read."""
    minutes = count(0, 60)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(minutes)))


@pytest.mark.usefixtures("_slow")
@pytest.mark.parametrize("at_start", [AT_START, None])
def test_few_namespaces_are_read_whatever_the_time(at_start: int | None) -> None:
    """A dozen namespaces are read at the start and at the end on any machine: what counts in one has a beginning."""
    crowd = Crowd(12)
    watch = Watch(Observer(crowd, at_start=at_start))
    assert watch.limits == ()
    assert watch.step(is_last=True).counters.netns == {*crowd.there, crowd.own()}


@pytest.mark.usefixtures("_slow")
def test_many_namespaces_are_not_waited_for() -> None:
    """Of hundreds those are read that there is time for, and some where there is none; the rest is named."""
    crowd = Crowd(500)
    watch = Watch(Observer(crowd, at_start=None))
    (unread,) = watch.limits
    assert sentence(unread).startswith("484 of 500 network namespaces were not read at the start")
    # and four that are read again: all have an interface with the same address, as if it had come from the other
    assert 16 < len(watch.step().counters.netns) <= 1 + 16 + 4
    last = watch.step(is_last=True).counters
    assert (len(last.netns), last.late) == (1 + 16, 16 + 16 - 16)


def test_a_look_is_left_for_the_last_one() -> None:
    """Where the run is over, a look reads nothing but the own namespace, so that the last one begins in time."""
    crowd = Crowd(12)
    watch = Watch(Observer(crowd, is_over=lambda: True))
    assert watch.step().counters.netns == {crowd.own()}


def test_namespaces_that_were_are_one_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces come and go: the summary has the last of them, and the sums of all."""
    monkeypatch.setattr("pktdrop.account._GONE", 16)  # so that it takes no hundreds
    crowd = Crowd(0)
    watch = Watch(Observer(crowd, all_netns=True))
    sums: Counter[tuple[str, str]] = Counter()
    for number in range(12):
        crowd.there = [Netns(8 * number + one, 8 * number + one) for one in range(1, 9)]
        sums.update(_sums(watch.step().increments))
    whole = watch.whole()
    assert _sums(whole.increments) == sums
    scopes = {scope.netns for rows in whole.increments.values() for scope in rows}
    assert THE_GONE in scopes
    assert len(scopes) < 16 + 8 + 3 * 8
    assert len([limit for limit in sentences(watch.limits) if "called gone" in limit]) == 1


def _sums(increments: Increments) -> Counter[tuple[str, str]]:
    sums: Counter[tuple[str, str]] = Counter()
    for source, rows in increments.items():
        for risen in rows.values():
            sums.update({(source, name): by for name, by in risen.items()})
    return sums


class Events:
    """Drops in one namespace, by how many looks there were: what a tracer tells an observer."""

    rungs: ClassVar = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "none"}
    reasons: ClassVar = ()
    tcp_input_has_events = True
    limits: ClassVar = ()

    def __init__(self, netns: Netns, looks: int) -> None:
        """Drop a packet there in each of the first looks."""
        self._key, self._left = make_drop(netns=netns), looks
        self.start = make_snapshot()
        self._dropped = 0

    def give_up(self) -> None:
        """A look begins: drop."""
        self._dropped += self._left > 0
        self._left -= 1

    def snapshot(self) -> Snapshot:
        """Return the drops so far."""
        return make_snapshot({self._key: Count(self._dropped, 0)} if self._dropped else {})

    def samples(self) -> list[Sample]:
        """Sample nothing."""
        return []

    def read_flows(self) -> None:
        """Count no flows."""

    def flows(self) -> list[CountedFlow]:
        """Count no flows."""
        return []


def test_a_namespace_with_drops_is_read_for_a_while() -> None:
    """In the interval of its last drop and in two more: its counters may be late."""
    crowd = Crowd(1)
    watch = Watch(Observer(crowd, Events(crowd.there[0], 2)))
    assert [crowd.there[0] in watch.step().counters.netns for _ in range(6)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("is_over", [False, True])
def test_a_namespace_that_is_gone_before_it_is_read_is_said(is_over: bool) -> None:
    """With what only its counters would have shown; not where it was left out, as the run was over."""
    gone = Netns(7, 7)
    over: list[bool] = []
    watch = Watch(Observer(Gone(), Events(gone, 1), is_over=lambda: bool(over)))
    over += [True] * is_over
    watch.step()
    assert (Limit("unread-and-gone") in watch.limits) == (not is_over)
