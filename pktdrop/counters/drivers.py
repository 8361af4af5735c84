# SPDX-License-Identifier: MIT
"""What the statistics of network drivers mean, and how many packets the NIC lost by them, each counted once.

The same words mean different things in different drivers, so the meanings are data: ``data/drivers.tsv`` for the
names of ``ethtool -S`` and the netdev qstats, ``data/driver_links.tsv`` for the fields of rtnl_link_stats64.  Both say
which *event* a counter counts.  Counters of one event are never added up: the driver's total stands against the sum
of its queues, and a counter that is the sum of several events ("ring+fifo") only serves to find what is missing.  So
it is with rx_errors, which most drivers make of what other counters have, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pktdrop import tables
from pktdrop.counters.model import Row, Scope

#: Where or why the NIC lost a packet, in the order a received packet passes them.
CLASSES: Final = (
    "error",  # damaged or misformed on the wire
    "pause",  # flow control: the loss, if there is one, is at the other end of the cable
    "filter",  # not wanted: address, VLAN, steering or security rule
    "limit",  # a limit that the cloud or the device sets
    "fifo",  # the NIC's own memory was full
    "host",  # PCIe or the other side of a virtual device
    "ring",  # no free descriptor in the RX ring
    "alloc",  # no memory for a buffer
    "xdp",  # by an XDP program, or a failed XDP action
    "software",  # dropped by the driver's code for another reason
    "warning",  # a bottleneck, no loss by itself
    "tx",  # anything lost while sending
)
#: single: the only counter of its event; total: the event on the whole device, and others count parts of it;
#: queue: the event on one queue; part: some other part of it (a priority, a cause); sum: several events in one counter.
ROLES: Final = ("single", "total", "queue", "part", "sum")
#: loss: packets that are gone; hint: a sign, not a number of lost packets; none: neither, in spite of its name.
COUNTS: Final = ("loss", "hint", "none")
#: Fields of rtnl_link_stats64 that driver_links.tsv may explain.
FIELDS: Final = (
    *("rx_errors", "rx_dropped", "rx_missed_errors", "rx_fifo_errors", "rx_over_errors"),
    *("tx_errors", "tx_dropped", "tx_fifo_errors"),
)
#: Fields of which nic_loss() tells what no other counter has.
ERRORS: Final = ("rx_errors", "tx_errors")
#: exact: the field is these events and nothing else; bound: at most this many, others are counted there too.
RELATIONS: Final = ("exact", "bound")

_ANY: Final = "*"
#: Between a driver and a statistic: such drivers as do not have that statistic.
_WITHOUT: Final = "!"
_COLUMNS: Final = ("driver", "name", "class", "event", "role", "counts", "bits", "note", "source")
_LINK_COLUMNS: Final = ("driver", "field", "class", "events", "relation", "meaning", "source")
_PIECE: Final = re.compile(r"(\{queue\}|\{n\}|\*)")
_PIECES: Final = {"{queue}": r"(?P<queue>[0-9]{1,9})", "{n}": r"[0-9]+", "*": r".*"}
_QUEUE: Final = re.compile(r"(?:queue|ring|rxq|rx|q|ch)[-_ #\[]*([0-9]{1,9})(?![0-9])|\[([0-9]{1,9})\]", re.IGNORECASE)


@dataclass(frozen=True)
class Rule:
    """One row of drivers.tsv; ``line`` is its number there, counted from 1."""

    drivers: tuple[str, ...]
    name: str
    kind: str
    events: tuple[str, ...]
    role: str
    counts: str
    bits: int
    note: str | None
    source: str
    line: int


@dataclass(frozen=True)
class LinkRule:
    """One row of driver_links.tsv: what a driver counts in a field of rtnl_link_stats64."""

    drivers: tuple[str, ...]
    field: str
    kind: str
    events: tuple[str, ...]
    """Empty: the driver itself never counts there."""
    relation: str
    meaning: str
    source: str
    line: int


@dataclass(frozen=True)
class Meaning:
    """What one counter of one driver says."""

    kind: str
    """One of CLASSES."""
    events: tuple[str, ...]
    """What it counts; two counters with the same events count the same packets."""
    role: str
    """One of ROLES."""
    queue: int | None
    """Number of the queue, where the name has one."""
    counts: str
    """"loss" or "hint"."""
    confidence: str
    """"driver": read in the driver's source; "generic": guessed from the name."""
    bits: int
    """Width at which the counter wraps; 64: never."""
    note: str | None
    line: int
    """Line of drivers.tsv."""


@dataclass(frozen=True)
class NicLoss:
    """Packets that the NIC lost in one way."""

    kind: str
    """One of CLASSES."""
    packets: int
    """Of the whole interface."""
    queues: Mapping[int, int]
    """What is known to have been lost on which queue; part of ``packets``."""
    counters: tuple[str, ...]
    """Where the numbers are from: "ethtool.rx_queue_0_drops", "links.rx_fifo_errors"..."""
    confidence: str
    """"driver" or "generic", as in Meaning."""


@dataclass(frozen=True)
class Hint:
    """A counter that points at a bottleneck, but does not count lost packets."""

    kind: str
    counter: str
    queue: int | None
    value: int
    note: str | None
    confidence: str


# ------------------------------------------------------------------------------------------------------ data files


def parse(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules in the text of a drivers.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _rule)


def parse_links(lines: Iterable[str]) -> tuple[LinkRule, ...]:
    """Return the rules in the text of a driver_links.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _LINK_COLUMNS, _link_rule)


def _rule(cells: list[str], number: int) -> Rule:
    drivers, name, kind, event, role, counts, bits, note, source = cells
    tables.one_of("counts", counts, COUNTS, number)
    if counts != "none":
        tables.one_of("class", kind, CLASSES, number)
        tables.one_of("role", role, ROLES, number)
        if (role == "sum") != ("+" in event):
            raise ValueError(f"line {number}: a sum, and only a sum, has several events")
    if not bits.isdecimal() and bits != "-":
        raise ValueError(f"line {number}: bits {bits!r} is neither a number nor -")
    return Rule(
        drivers=tuple(drivers.split(",")),
        name=name,
        kind=kind,
        events=tuple(kind if part == "-" else part for part in event.split("+")),
        role=role,
        counts=counts,
        bits=64 if bits == "-" else int(bits),
        note=None if note == "-" else note,
        source=source,
        line=number,
    )


def _link_rule(cells: list[str], number: int) -> LinkRule:
    drivers, name, kind, events, relation, meaning, source = cells
    if events != "0":
        tables.one_of("class", kind, CLASSES, number)
    return LinkRule(
        drivers=tuple(drivers.split(",")),
        field=tables.one_of("field", name, FIELDS, number),
        kind=kind,
        events=() if events == "0" else tuple(events.split("+")),
        relation=tables.one_of("relation", relation, RELATIONS, number),
        meaning=meaning,
        source=source,
        line=number,
    )


# ------------------------------------------------------------------------------------------------------- questions


class _Matcher:
    """One rule with its name compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule: Final = rule
        text = "".join(_PIECES.get(piece, re.escape(piece)) for piece in _PIECE.split(rule.name))
        # names that are guessed at are compared in whatever case their driver writes them
        self._name = re.compile(text, re.DOTALL | (re.IGNORECASE if _ANY in rule.drivers else 0))
        self._has_queue = "{queue}" in rule.name

    def match(self, name: str) -> tuple[Rule, int | None] | None:
        found = self._name.fullmatch(name)
        if found is None:
            return None
        return self.rule, int(found["queue"]) if self._has_queue else None


class Drivers:
    """The rules, ready to be asked; each distinct question is worked out once."""

    #: Most questions whose answers are remembered; names come from drivers and could be endless.
    _REMEMBERED: Final = 65536

    def __init__(self, rules: Iterable[Rule], links: Iterable[LinkRule]) -> None:
        self.rules: Final = tuple(rules)
        self.links: Final = tuple(links)
        self._of_driver: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for driver in rule.drivers:
                self._of_driver.setdefault(driver, []).append(rule)
        # made when a driver is first asked for: a host has a few drivers, the table has all
        self._matchers: dict[str, tuple[_Matcher, ...]] = {}
        self._links: dict[tuple[str, str], LinkRule] = {}
        for link in self.links:
            for driver in link.drivers:
                self._links[driver, link.field] = link
        self._link_of: dict[tuple[str | None, str], LinkRule | None] = {}
        """What link() answered; drivers and fields are those of the kernel."""
        self._known = frozenset(self._of_driver) | {driver for driver, _ in self._links}
        self._without: dict[str, list[str]] = {}
        for known in sorted(self._known):
            driver, found, statistic = known.partition(_WITHOUT)
            if found:
                self._without.setdefault(driver, []).append(statistic)
        self._kinds = {
            (driver, rule.events[0]): rule.kind
            for rule in self.rules
            for driver in rule.drivers
            if rule.counts == "loss" and rule.role != "sum"
        }
        # what a driver counts but hands on, or does not know to be lost
        self._unlost = {
            (driver, rule.events[0]) for rule in self.rules for driver in rule.drivers if rule.counts == "hint"
        } - frozenset(self._kinds)
        self._answers: dict[tuple[str, str], Meaning | None] = {}

    @classmethod
    def load(cls) -> Drivers:
        """Read the tables that come with pktdrop.

        Raises ValueError, naming file and line, if one is malformed; OSError if it cannot be read.
        """
        return cls(
            tables.load(tables.DATA / "drivers.tsv", parse), tables.load(tables.DATA / "driver_links.tsv", parse_links)
        )

    def knows(self, driver: str) -> bool:
        """Tell whether there are rules for this driver: else all that is said of it is a guess."""
        return driver != _ANY and driver in self._known

    def variant(self, driver: str | None, names: Iterable[str]) -> str | None:
        """Return the driver as its statistics tell it: "i40e!rx_missed_errors" is an i40e without that one.

        ``names`` are all statistics that it has. Older drivers give other meanings to names that they have already.
        """
        absent = self._without.get(driver or _ANY)
        if driver is None or not absent:
            return driver
        there = frozenset(name.removeprefix("ethtool.") for name in names if name.startswith("ethtool."))
        lacks = [statistic for statistic in absent if there and statistic not in there]
        return f"{driver}{_WITHOUT}{lacks[0]}" if lacks else driver

    def classify(self, driver: str | None, name: str) -> Meaning | None:
        """Say what a counter means, None if nothing was lost by it. The name may lack its "ethtool.".

        A counter in no rule of its driver may be guessed at by its name, but is never more than a hint: a filter's
        counter looks like that of a full FIFO. Only the qstats are defined by the kernel, for all drivers alike.
        """
        question = (driver or _ANY, name)
        if question not in self._answers:
            if len(self._answers) >= self._REMEMBERED:
                self._answers.clear()
            self._answers[question] = self._classify(*question)
        return self._answers[question]

    def _classify(self, driver: str, name: str) -> Meaning | None:
        bare = name.removeprefix("ethtool.")
        for variant in () if driver == _ANY else _variants(driver):
            for matcher in self._matchers_of(variant):
                found = matcher.match(bare)
                if found is not None:
                    return _meaning(*found, found[0].counts, "driver")
        known = self.knows(driver)
        for matcher in self._matchers_of(_ANY):
            found = matcher.match(bare)
            if found is not None:
                rule, queue = found
                defined = rule.name.startswith("qstats.")  # by the kernel, for all drivers alike
                if queue is None and not defined:
                    queue = _guessed_queue(bare)
                counts = "hint" if rule.counts == "loss" and (known or not defined) else rule.counts
                return _meaning(rule, queue, counts, "driver" if defined else "generic")
        return None

    def _matchers_of(self, driver: str) -> tuple[_Matcher, ...]:
        if driver not in self._of_driver:
            return ()
        if driver not in self._matchers:
            self._matchers[driver] = tuple(_Matcher(rule) for rule in self._of_driver[driver])
        return self._matchers[driver]

    def link(self, driver: str | None, field: str) -> LinkRule | None:
        """Return what a driver counts in a field of rtnl_link_stats64; for unknown drivers what the kernel advises."""
        question = driver, field
        if question not in self._link_of:
            known = driver is not None and self.knows(driver)
            found = (self._links.get((name, _bare(field))) for name in (_variants(driver or "") if known else (_ANY,)))
            self._link_of[question] = next((link for link in found if link is not None), None)
        return self._link_of[question]

    def hands_on(self, driver: str | None, field: str) -> bool:
        """Tell whether all that a driver counts in a field of rtnl_link_stats64 is no loss: bad checksums, timeouts."""
        link = self.link(driver, field)
        return (
            link is not None
            and bool(link.events)
            and all(self._is_unlost(driver or _ANY, event) for event in link.events)
        )

    def settles(self, driver: str | None, field: str) -> bool:
        """Tell whether nic_loss() has all that was lost of rx_errors or tx_errors: what else is there, others count."""
        link = self.link(driver, field)
        return link is not None and link.relation == "exact" and link.field in ERRORS

    # --------------------------------------------------------------------------------------------------- losses

    def nic_loss(self, driver: str | None, rows: Mapping[Scope, Row], links: Row | None = None) -> tuple[NicLoss, ...]:
        """Add up what the NIC lost, by class, each event once.

        ``driver`` may be what variant() made of it; ``rows`` are the ethtool and qstats rows of one interface (of a
        Reading, or differences of two), ``links`` its row of rtnl_link_stats64.  A field that other parts of the kernel
        add to (rx_dropped, tx_dropped: relation "bound") is not used: what it holds of the driver cannot be told from
        the rest.  What rx_errors and tx_errors count beyond the events that are known was lost as well, unless an event
        that is no loss is in there and was not read.  For an unknown driver each class is the largest of the counters
        that the kernel defines, as several may count the same packets.
        """
        if driver is not None and self.knows(driver):
            return self._known_loss(driver, rows, links)
        return self._guessed_loss(rows, links)

    def inside(self, driver: str | None, rows: Mapping[Scope, Row], field: str) -> int:
        """Return how many packets of a field of rtnl_link_stats64 the driver's statistics have: told by these, or none.

        Drivers add to rx_dropped what they could not receive, and what they did not want (a filter) as well.
        """
        link = self.link(driver, field)
        if link is None or not link.events:
            return 0
        found: dict[str, _Event] = {}
        for name, value, meaning, queue in self._meanings(driver, rows):
            if meaning.role != "sum" and meaning.events[0] in link.events:
                found.setdefault(meaning.events[0], _Event(meaning.kind)).add(name, value, meaning, queue)
        return sum(event.result()[0] for event in found.values())

    def hints(self, driver: str | None, rows: Mapping[Scope, Row]) -> tuple[Hint, ...]:
        """Return the counters other than 0 that point at a bottleneck without counting lost packets."""
        return tuple(
            Hint(meaning.kind, name, queue, value, meaning.note, meaning.confidence)
            for name, value, meaning, queue in self._meanings(driver, rows)
            if meaning.counts == "hint" and value > 0
        )

    def _meanings(
        self, driver: str | None, rows: Mapping[Scope, Row]
    ) -> Iterator[tuple[str, int, Meaning, int | None]]:
        for scope, row in rows.items():
            for name, value in zip(row.names, row.values, strict=False):
                meaning = self.classify(driver, name)
                if meaning is not None:
                    yield name, value, meaning, scope.queue if meaning.queue is None else meaning.queue

    def _known_loss(self, driver: str, rows: Mapping[Scope, Row], links: Row | None) -> tuple[NicLoss, ...]:
        events: dict[str, _Event] = {}
        beside: dict[str, _Event] = {}
        """What may be in a sum and is none of these losses: handed on, or told by a field with drops of the core."""
        sums: dict[tuple[str, ...], _Event] = {}
        for name, value, meaning, queue in self._meanings(driver, rows):
            if meaning.role == "sum":
                if meaning.counts == "loss":
                    sums.setdefault(meaning.events, _Event(meaning.kind)).add(name, value, meaning, queue)
                continue
            found = events if meaning.counts == "loss" else beside
            found.setdefault(meaning.events[0], _Event(meaning.kind)).add(name, value, meaning, queue)
        for name, value in () if links is None else zip(links.names, links.values, strict=False):
            link = self.link(driver, name)
            if link is None or not link.events:
                continue
            if link.relation == "bound":
                if len(link.events) == 1:
                    beside.setdefault(link.events[0], _Event(link.kind)).add_link(f"links.{_bare(name)}", value)
            elif len(link.events) > 1:
                sums.setdefault(link.events, _Event(link.kind)).add_link(f"links.{_bare(name)}", value)
            elif not self._is_unlost(driver, link.events[0]):
                events.setdefault(link.events[0], _Event(link.kind)).add_link(f"links.{_bare(name)}", value)
        for parts in sorted(sums, key=len):  # what is in another sum first
            self._solve(driver, events, beside, parts, sums[parts])
        by_kind: dict[str, _Total] = {}
        for event in events.values():
            by_kind.setdefault(event.kind, _Total()).add(*event.result())
        return _losses(by_kind, "driver")

    def _solve(
        self,
        driver: str,
        events: dict[str, _Event],
        beside: Mapping[str, _Event],
        parts: tuple[str, ...],
        total: _Event,
    ) -> None:
        """Give what a sum counts beyond the events that are known to the one that is not."""
        known = {part: found for part in parts if (found := events.get(part) or beside.get(part)) is not None}
        unknown = [part for part in parts if part not in known]
        if not unknown or any(self._is_unlost(driver, part) for part in unknown):
            return
        packets, _, counters = total.result()
        rest = packets - sum(event.result()[0] for event in known.values())
        kind = self._kind(driver, unknown[0], total.kind) if len(unknown) == 1 else total.kind
        events[unknown[0]] = _Event(kind)
        events[unknown[0]].add_link(counters[0], max(rest, 0))
        # the other unknown ones are inside this number now: no later sum may find them again
        for part in unknown[1:]:
            events[part] = _Event(kind)
            events[part].add_link(counters[0], 0)

    def _kind(self, driver: str, event: str, otherwise: str) -> str:
        kinds = (self._kinds.get((variant, event)) for variant in _variants(driver))
        return next((kind for kind in kinds if kind is not None), otherwise)

    def _is_unlost(self, driver: str, event: str) -> bool:
        return any((variant, event) in self._unlost for variant in _variants(driver))

    def _guessed_loss(self, rows: Mapping[Scope, Row], links: Row | None) -> tuple[NicLoss, ...]:
        # counters with the same name but for their numbers are parts of one; different names may be the same event
        groups: dict[tuple[str, str], _Total] = {}
        certain: set[str] = set()
        for name, value, meaning, queue in self._meanings(None, rows):
            if meaning.counts != "loss" or meaning.role == "sum":
                continue
            certain.add(meaning.kind)
            shape = name if queue is None else f"{name} of queues"
            groups.setdefault((meaning.kind, shape), _Total()).add(
                value, {} if queue is None else {queue: value}, (name,)
            )
        for name, value in () if links is None else zip(links.names, links.values, strict=False):
            link = self._links.get((_ANY, _bare(name)))
            if link is not None and link.relation == "exact" and link.events:
                groups.setdefault((link.kind, _bare(name)), _Total()).add(value, {}, (f"links.{_bare(name)}",))
        by_kind: dict[str, _Total] = {}
        for (kind, _), total in groups.items():
            best = by_kind.get(kind)
            if best is None or (total.packets, len(total.queues)) > (best.packets, len(best.queues)):
                by_kind[kind] = total
        return tuple(
            loss
            for kind, total in by_kind.items()
            for loss in _losses({kind: total}, "driver" if kind in certain else "generic")
        )


def _variants(driver: str) -> tuple[str, ...]:
    """Return what rules may call a driver, those of its variant first."""
    base, found, _ = driver.partition(_WITHOUT)
    return (driver, base) if found else (driver,)


def _bare(field: str) -> str:
    return field.removeprefix("links.")


def _meaning(rule: Rule, queue: int | None, counts: str, confidence: str) -> Meaning | None:
    if counts == "none":
        return None
    return Meaning(rule.kind, rule.events, rule.role, queue, counts, confidence, rule.bits, rule.note, rule.line)


def _guessed_queue(name: str) -> int | None:
    found = _QUEUE.search(name)
    return None if found is None else int(found[1] or found[2])


def _losses(totals: Mapping[str, _Total], confidence: str) -> tuple[NicLoss, ...]:
    return tuple(
        NicLoss(
            kind, totals[kind].packets, totals[kind].queues, tuple(dict.fromkeys(totals[kind].counters)), confidence
        )
        for kind in CLASSES
        if kind in totals
    )


@dataclass
class _Total:
    """Packets of one class, while they are added up."""

    packets: int = 0
    queues: dict[int, int] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)

    def add(self, packets: int, queues: Mapping[int, int], counters: Iterable[str]) -> None:
        self.packets += packets
        for queue, count in queues.items():
            self.queues[queue] = self.queues.get(queue, 0) + count
        self.counters.extend(counters)


class _Event:
    """All counters of one event."""

    def __init__(self, kind: str) -> None:
        self.kind: Final = kind
        self._whole: tuple[int, str] | None = None
        self._link: tuple[int, str] | None = None
        # by line of drivers.tsv: two rules that know the queues count the same packets
        self._queues: dict[int, _Total] = {}
        self._parts: dict[int, _Total] = {}

    def add(self, name: str, value: int, meaning: Meaning, queue: int | None) -> None:
        if meaning.role == "part":  # also where it has a queue: there may be several of them on one queue
            self._parts.setdefault(meaning.line, _Total()).add(value, {}, (name,))
        elif queue is not None:
            self._queues.setdefault(meaning.line, _Total()).add(value, {queue: value}, (name,))
        elif self._whole is None or value > self._whole[0]:
            self._whole = value, name

    def add_link(self, name: str, value: int) -> None:
        if self._link is None:
            self._link = value, name

    def result(self) -> tuple[int, dict[int, int], list[str]]:
        """Return packets, what is known by queue, and the counters both are from.

        The total of the driver, but never less than its queues show: some totals are renewed less often.
        """
        queues = max(self._queues.values(), key=lambda total: total.packets, default=None)
        parts = max(self._parts.values(), key=lambda total: total.packets, default=None)
        packets, counters = 0, list[str]()
        for found in (self._whole, self._link):
            if found is not None and not counters:
                packets, counters = found[0], [found[1]]
        if queues is not None:
            packets, counters = max(packets, queues.packets), counters + queues.counters
        elif parts is not None and not counters:
            packets, counters = parts.packets, parts.counters
        return packets, {} if queues is None else queues.queues, counters
