# SPDX-License-Identifier: MIT
"""Causes at work: each in its own namespaces, sending at a steady pace, and counted by its witness."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from pktdrop.demo.causes.cause import DemoCause, Traffic
from pktdrop.demo.net import Net, RoleNames
from pktdrop.demo.tools import wait_until
from pktdrop.errors import PktdropError
from pktdrop.model.limits import Limit

_CHUNK = 64
"""Packets of one cause before it is the turn of the next."""
_LONGEST_TURN = 0.2
"""Seconds of sending before the clock, and so Ctrl-C, is looked at again."""
_SETTLING = 5.0
"""Seconds for the kernel to be done with the last packets."""


@dataclass(frozen=True)
class Performance:
    """What a cause has done so far."""

    cause: DemoCause
    netns: int
    netns_name: str
    sent: int
    lost: int | None = None
    """How many packets were lost, by a witness that is not pktdrop, and with what was lost to fill what is full; None
    where it was not asked, or does not answer."""


class Actor:
    """A demo cause that is set up in its namespaces, and what it has sent."""

    def __init__(self, cause: DemoCause, net: Net) -> None:
        """Set up its traffic in its namespaces. Raises PktdropError or OSError where that fails."""
        self.cause = cause
        self._traffic: Traffic = cause.build(net)
        self._before = self._traffic.lost()
        self._netns, self._netns_name = net[cause.role].inode, net[cause.role].name
        self._sent = 0
        self.broken: str | None = None
        """Why this cause sends no more, or why its witness says nothing; None: it works."""

    def send(self, count: int) -> None:
        """Lose `count` packets; stop for good where sending fails."""
        try:
            for _ in range(count):
                self._traffic.lose()
                self._sent += 1
        except (OSError, PktdropError) as error:
            self.broken = sentence(error)

    def performance(self) -> Performance:
        """Return how many packets this cause has sent."""
        return Performance(self.cause, self._netns, self._netns_name, self._sent)

    def settled(self) -> Performance:
        """Return how many packets were sent and how many of these were lost, after waiting for the last ones."""

        def lost() -> int:
            return self._traffic.lost() - self._before

        seen: int | None = None
        try:
            with suppress(TimeoutError):  # fewer are lost than sent: that is what the account then tells
                wait_until(lambda: lost() >= self._sent, f"{self._sent} packets to be lost", _SETTLING)
            seen = lost() + self._traffic.filled
        except (OSError, PktdropError) as error:
            self.broken = sentence(error)
        return Performance(self.cause, self._netns, self._netns_name, self._sent, seen)


def sentence(error: OSError | PktdropError) -> str:
    """Return what went wrong, and what to do where that is known."""
    if isinstance(error, PktdropError):
        return f"{error.what} {error.do}"
    return f"{error.strerror or error}."


class Stage:
    """All demo causes that could be set up, sending at the same pace."""

    def __init__(self, actors: Sequence[Actor], failures: Mapping[str, str]) -> None:
        """Take what was set up, and why what was not, by name of the cause."""
        self._actors = tuple(actors)
        self._failures = dict(failures)
        self._due = 0
        self._late = False

    @property
    def able(self) -> tuple[Actor, ...]:
        """The causes that still send."""
        return tuple(actor for actor in self._actors if actor.broken is None)

    @property
    def limits(self) -> list[Limit]:
        """What does not work."""
        broken = {actor.cause.name: actor.broken for actor in self._actors if actor.broken is not None}
        return [
            *(Limit("left-out", (name,), why) for name, why in self._failures.items()),
            *(Limit("stopped", (name,), why) for name, why in broken.items()),
            *([Limit("slow-sender")] if self._late else []),
        ]

    def send(self, due: int) -> None:
        """Let each send what is due of it since the start; what there is no time for now is given up."""
        left, self._due = due - self._due, due
        deadline = time.monotonic() + _LONGEST_TURN
        while left > 0 and time.monotonic() < deadline:
            for actor in self.able:
                actor.send(min(_CHUNK, left))
            left -= _CHUNK
        self._late |= left > 0

    def performances(self) -> tuple[Performance, ...]:
        """Return how many packets each cause has sent."""
        return tuple(actor.performance() for actor in self._actors)

    def settled(self) -> tuple[Performance, ...]:
        """Return what each has sent, and what was lost of it."""
        return tuple(actor.settled() for actor in self._actors)


@contextmanager
def set_up(
    causes: Sequence[DemoCause], names: Callable[[DemoCause], RoleNames], ended: Callable[[], bool]
) -> Iterator[Stage]:
    """Set up causes, as many as can be before `ended`, and take all down at the end, whatever happens."""
    with ExitStack() as stack:
        actors, failures = [], {}
        for cause in causes:
            if ended():
                break
            with ExitStack() as own:
                try:
                    actors.append(Actor(cause, own.enter_context(cause.net(names(cause)))))
                except (OSError, PktdropError) as error:
                    failures[cause.name] = sentence(error)
                else:
                    stack.enter_context(own.pop_all())
        yield Stage(actors, failures)
