# SPDX-License-Identifier: MIT
"""Which counters tell of loss, and of what kind."""

from collections.abc import Iterator
from dataclasses import dataclass

from pktdrop.model.counters import Counters, Scope
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import ANY_LAYER, Identities


@dataclass(frozen=True)
class Told:
    """One counter, and what it tells: a loss, a hint, or nothing of the kind."""

    counter: str
    """"links.rx_dropped", "mib.UdpNoPorts", "ethtool.rx_missed_errors"."""
    scope: Scope
    value: int
    layer_or_class: str | None
    """Layer the packets were lost in, or stat_class; None: the counter tells nothing of loss."""
    is_loss: bool
    """Whether the counter counts lost packets, perhaps such as another counter has, too; else it is a hint."""
    is_guess: bool
    """Whether the driver is not known, so that the stat_class is guessed from the counter's name."""


class Meanings:
    """What each counter tells: loss, and of what kind, or traffic."""

    def __init__(self, identities: Identities, drivers: Drivers) -> None:
        """Take the tables."""
        self._identities = identities
        self._drivers = drivers

    def told(self, counters: Counters) -> Iterator[Told]:
        """Yield every counter, and whether it tells of loss."""
        for source, rows in counters.rows.items():
            for scope, row in rows.items():
                for name, value in zip(row.names, row.values, strict=True):
                    driver = counters.drivers.get((scope.netns, scope.interface or ""))
                    if source == "driver":
                        yield self._of_driver(driver, scope, name, value)
                    else:
                        yield self._of_kernel(driver, f"{source}.{name}", scope, value)

    def _of_kernel(self, driver: str | None, counter: str, scope: Scope, value: int) -> Told:
        fact = self._identities.counters.get(counter)
        if fact is not None:
            layer = "any" if fact.layer == ANY_LAYER else fact.layer
            is_loss = fact.tells_loss and not self._drivers.hands_on(driver, counter)
            return Told(counter, scope, value, layer, is_loss, is_guess=False)
        # what drivers alone fill, each in its own way
        rule = self._drivers.link(driver, counter) if counter.startswith("links.") else None
        if rule is None or not rule.events:
            return Told(counter, scope, value, None, is_loss=False, is_guess=False)
        is_guess = driver is None or not self._drivers.knows(driver)
        return Told(counter, scope, value, rule.stat_class, is_loss=True, is_guess=is_guess)

    def _of_driver(self, driver: str | None, scope: Scope, name: str, value: int) -> Told:
        meaning = self._drivers.classify(driver, name)
        if meaning is None:
            return Told(name, scope, value, None, is_loss=False, is_guess=False)
        in_queue = scope if scope.queue is not None else scope._replace(queue=meaning.queue)
        return Told(
            name, in_queue, value, meaning.stat_class, meaning.counts == "loss", meaning.confidence == "generic"
        )
