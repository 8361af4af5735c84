# SPDX-License-Identifier: MIT
"""What a statistic of a driver means. The same words mean different things in different drivers: see the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pktdrop.rules.driver_tables import ERRORS, LINKS, TABLE, LinkRule, StatRule
from pktdrop.rules.match import ANY, statistic

if TYPE_CHECKING:
    from typing_extensions import Self

#: Between a driver and a statistic: such drivers as do not have that statistic.
_WITHOUT: Final = "!"
_QUEUE: Final = re.compile(r"(?:queue|ring|rxq|rx|q|ch)[-_ #\[]*([0-9]{1,9})(?![0-9])|\[([0-9]{1,9})\]", re.IGNORECASE)


@dataclass(frozen=True)
class Meaning:
    """What one statistic of one driver says."""

    stat_class: str
    """One of STAT_CLASSES."""
    events: tuple[str, ...]
    """The events that the counter counts; two counters with the same events count the same packets."""
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
    """Line of the row in drivers.tsv."""


class DriverMeanings:
    """The rules, ready to be asked; each distinct question is worked out once."""

    #: Most questions whose answers are remembered; names come from drivers and could be endless.
    _REMEMBERED: Final = 65536

    def __init__(self, rules: Iterable[StatRule], links: Iterable[LinkRule]) -> None:
        self.rules: Final = tuple(rules)
        self.links: Final = tuple(links)
        self._of_driver: dict[str, list[StatRule]] = {}
        for rule in self.rules:
            for driver in rule.drivers:
                self._of_driver.setdefault(driver, []).append(rule)
        # made when a driver is first asked for: a host has a few drivers, the table has all
        self._patterns: dict[str, tuple[tuple[re.Pattern[str], StatRule], ...]] = {}
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
        self._stat_classes = {
            (driver, rule.events[0]): rule.stat_class
            for rule in self.rules
            for driver in rule.drivers
            if rule.counts == "loss" and rule.role != "sum"
        }
        # what a driver counts but hands on, or does not know to be lost
        self._unlost = {
            (driver, rule.events[0]) for rule in self.rules for driver in rule.drivers if rule.counts == "hint"
        } - frozenset(self._stat_classes)
        self._answers: dict[tuple[str, str], Meaning | None] = {}

    @classmethod
    def load(cls) -> Self:
        """Read the tables that come with pktdrop, as Table.load() does."""
        return cls(TABLE.load(), LINKS.load())

    def knows(self, driver: str) -> bool:
        """Tell whether there are rules for this driver: without rules all that is said of its statistics is a guess."""
        return driver != ANY and driver in self._known

    def variant(self, driver: str | None, names: Iterable[str]) -> str | None:
        """Return the driver as its statistics tell it apart: "i40e!rx_missed_errors" is an i40e without that statistic.

        ``names`` are all statistics that it has. Older drivers give other meanings to names that they have already.
        """
        absent = self._without.get(driver or ANY)
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
        question = (driver or ANY, name)
        if question not in self._answers:
            if len(self._answers) >= self._REMEMBERED:
                self._answers.clear()
            self._answers[question] = self._classify(*question)
        return self._answers[question]

    def _classify(self, driver: str, name: str) -> Meaning | None:
        bare = name.removeprefix("ethtool.")
        for variant in () if driver == ANY else _variants(driver):
            found = self.find(variant, bare)
            if found is not None:
                return _meaning(*found, found[0].counts, "driver")
        found = self.find(ANY, bare)
        if found is None:
            return None
        rule, queue = found
        defined = rule.name.startswith("qstats.")  # by the kernel, for all drivers alike
        if queue is None and not defined:
            queue = _guessed_queue(bare)
        counts = "hint" if rule.counts == "loss" and (not defined or self.knows(driver)) else rule.counts
        return _meaning(rule, queue, counts, "driver" if defined else "generic")

    def find(self, driver: str, name: str) -> tuple[StatRule, int | None] | None:
        """Return the first row of a driver that matches a statistic, and the number of the queue in its name."""
        if driver not in self._patterns and driver in self._of_driver:
            # names that are guessed at are compared in whatever case their driver writes them
            self._patterns[driver] = tuple(
                (statistic(rule.name, ignore_case=ANY in rule.drivers), rule) for rule in self._of_driver[driver]
            )
        for expression, rule in self._patterns.get(driver, ()):
            found = expression.fullmatch(name)
            if found is not None:
                queue = found.groupdict().get("queue")
                return rule, None if queue is None else int(queue)
        return None

    def link(self, driver: str | None, field: str) -> LinkRule | None:
        """Return what a driver counts in a field of rtnl_link_stats64; for unknown drivers what the kernel advises."""
        question = driver, field
        if question not in self._link_of:
            known = driver is not None and self.knows(driver)
            found = (self._links.get((name, bare(field))) for name in (_variants(driver or "") if known else (ANY,)))
            self._link_of[question] = next((link for link in found if link is not None), None)
        return self._link_of[question]

    def hands_on(self, driver: str | None, field: str) -> bool:
        """Tell whether all that a driver counts in a field of rtnl_link_stats64 is no loss: bad checksums, timeouts."""
        link = self.link(driver, field)
        return (
            link is not None
            and bool(link.events)
            and all(self._is_unlost(driver or ANY, event) for event in link.events)
        )

    def settles(self, driver: str | None, field: str) -> bool:
        """Tell whether nic_loss() has all that was lost of rx_errors or tx_errors: what else is there, others count."""
        link = self.link(driver, field)
        return link is not None and link.relation == "exact" and link.field in ERRORS

    def _stat_class(self, driver: str, event: str, otherwise: str) -> str:
        stat_classes = (self._stat_classes.get((variant, event)) for variant in _variants(driver))
        return next((stat_class for stat_class in stat_classes if stat_class is not None), otherwise)

    def _is_unlost(self, driver: str, event: str) -> bool:
        return any((variant, event) in self._unlost for variant in _variants(driver))


def _variants(driver: str) -> tuple[str, ...]:
    """Return what rules may call a driver, those of its variant first."""
    base, found, _ = driver.partition(_WITHOUT)
    return (driver, base) if found else (driver,)


def bare(field: str) -> str:
    """Return the name of a field of rtnl_link_stats64 without "links." in front."""
    return field.removeprefix("links.")


def _meaning(rule: StatRule, queue: int | None, counts: str, confidence: str) -> Meaning | None:
    if counts == "none":
        return None
    return Meaning(rule.stat_class, rule.events, rule.role, queue, counts, confidence, rule.bits, rule.note, rule.line)


def _guessed_queue(name: str) -> int | None:
    found = _QUEUE.search(name)
    return None if found is None else int(found[1] or found[2])
