# SPDX-License-Identifier: MIT
"""What the rows of the live view sum up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pktdrop.ledger.entry import Entry
from pktdrop.model.drops import DropKey, Verdict
from pktdrop.top.series import Series
from pktdrop.views.kinds import interface_of, netns_of, reason


class Tally:
    """Packets of one row: all, and in the last interval."""

    __slots__ = ("_rate", "packets", "seen", "series")

    def __init__(self, stretch: float) -> None:
        """Start at zero."""
        self.packets = 0
        self.seen = -1.0
        """When the last ones were counted, in seconds of the history; below zero: never."""
        self.series = Series(stretch)
        self._rate = 0.0

    def add(self, packets: int, start: float, end: float) -> None:
        """Count packets of an interval; none of an empty interval have a rate."""
        self.packets += packets
        self.seen = end
        if end > start:
            self._rate = packets / (end - start)
            self.series.add(start, end, self._rate)

    def rate(self, now: float) -> float:
        """Return packets per second of the interval that ended now."""
        return self._rate if self.seen == now else 0.0

    def take(self, other: "Tally") -> None:
        """Add the packets of another tally; when these came is not kept."""
        self.packets += other.packets
        self.seen = max(self.seen, other.seen)

    def copy(self) -> "Tally":
        """Return a tally that does not change with this one."""
        other = Tally.__new__(Tally)
        other.packets, other.seen, other.series, other._rate = self.packets, self.seen, self.series.copy(), self._rate
        return other


@dataclass
class Group:
    """The drops that one row of top sums up."""

    tally: Tally
    """Losses; in a row of noise or doubt, that."""
    position: int = -1
    """Index among all groups of a history."""
    noise: int = 0
    """Packets of drops that are no loss, in a row that also has losses."""
    doubt: int = 0
    """Packets of which it is not known whether they were lost, in a row that also has losses."""
    keys: list[DropKey] = field(default_factory=list)
    interfaces: set[str] = field(default_factory=set)
    netns: set[str] = field(default_factory=set)
    cpus: set[tuple[int, int | None]] = field(default_factory=set)
    """CPU that dropped, and CPU whose backlog was full."""
    words: set[str] = field(default_factory=set)
    """What a filter may look for."""

    def forget(self) -> None:
        """Forget the kinds of drops, to learn them anew."""
        for what in (self.keys, self.interfaces, self.netns, self.cpus, self.words):
            what.clear()

    def learn(self, key: DropKey, verdict: Verdict) -> None:
        """Add a kind of drop to those that the row sums up."""
        self.keys.append(key)
        self.interfaces.add(interface_of(key))
        self.netns.add(netns_of(key))
        self.cpus.add((key.cpu, key.target_cpu))
        self.words.update((reason(key, verdict), verdict.layer, interface_of(key), netns_of(key), key.call_site))

    def take(self, other: "Group") -> None:
        """Add the drops of another group."""
        self.tally.take(other.tally)
        self.noise += other.noise
        self.doubt += other.doubt

    def copy(self) -> "Group":
        """Return a group that does not change with this one."""
        return replace(
            self,
            tally=self.tally.copy(),
            keys=self.keys.copy(),
            interfaces=self.interfaces.copy(),
            netns=self.netns.copy(),
            cpus=self.cpus.copy(),
            words=self.words.copy(),
        )


@dataclass(frozen=True)
class Line:
    """The entries of one counter in one scope over all intervals, added up."""

    entry: Entry
    """The last entry of the counter."""
    delta: int
    explained: int
    """Events that came an interval late or early count as well."""
    unexplained: int
    """Increments that stayed unexplained."""
    by: Mapping[str, int]
    is_hint: bool

    @property
    def status(self) -> str:
        """Return the status of all together."""
        if self.unexplained:
            return "unexplained"
        if self.entry.status in ("silent", "no-event"):
            return self.entry.status
        return "exact" if self.delta == self.explained == sum(self.by.values()) else "bound"

    def plus(self, other: "Line") -> "Line":
        """Return the sum of two lines."""
        by = Counter(self.by) + Counter(other.by)
        delta, explained = self.delta + other.delta, self.explained + other.explained
        return replace(self, delta=delta, explained=explained, unexplained=self.unexplained + other.unexplained, by=by)


@dataclass(frozen=True)
class Port:
    """What an interface, or one of its queues, has lost, received and sent."""

    driver: str = ""
    stat_classes: Mapping[str, int] = field(default_factory=dict)
    """Packets lost by the NIC, by stat_class."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Whence that is known, with the packets each time."""
    received: float = 0.0
    """Packets per second in the last interval in which the counters moved."""
    sent: float = 0.0
    moved: float = -1.0
    """When the counters moved last."""
    lost: float = -1.0
    """When the NIC lost last."""

    def plus(self, other: "Port") -> "Port":
        """Return the losses of two interfaces or queues together."""
        more = Counter(self.stat_classes) + Counter(other.stat_classes)
        counters = Counter(self.counters) + Counter(other.counters)
        return replace(self, stat_classes=more, counters=counters, lost=max(self.lost, other.lost))


class Processor(NamedTuple):
    """The softnet counters of a CPU: since the start of the history, per second, and queue lengths of now."""

    total: Mapping[str, int]
    rates: Mapping[str, float]
    backlog: Mapping[str, int]
