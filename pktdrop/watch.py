# SPDX-License-Identifier: MIT
"""Accounts of one Look after the other, as a run takes them: wherever the Looks are from."""

from typing import TYPE_CHECKING, Protocol

from pktdrop.account import Account, Accountant
from pktdrop.model.container import Container
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.model.look import Answer, Look, Question

if TYPE_CHECKING:
    from pktdrop.rules.rules import Rules


class Looks(Protocol):
    """Where Looks are from: observe.Observer. The first one has been made."""

    @property
    def last(self) -> Look:
        """Return the last Look so far."""

    def look(self, is_last: bool = False) -> Look:
        """Make the next Look; say whether it is the last one of the run."""

    def ask(self, question: Question) -> Answer:
        """Return what the host says of itself, as of the last one."""


class Watch:
    """Makes the Accounts of a run from its Looks."""

    def __init__(self, looks: Looks) -> None:
        """Take where Looks are from."""
        self._looks = looks
        self._accountant = Accountant(looks.last)
        self.ask = looks.ask
        self.kernel = looks.last.kernel
        self.start = looks.last.after.time
        """When the first interval began: wall clock, seconds since the epoch."""

    @property
    def look(self) -> Look:
        """The last Look."""
        return self._looks.last

    @property
    def rules(self) -> "Rules":
        """The tables that all is judged by."""
        return self._accountant.rules

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What this run cannot know, and why. More may turn up while it runs."""
        return *self.look.limits, *self._accountant.limits

    def step(self, is_last: bool = False) -> Account:
        """Look again; return the account since the look before. The last one looks into every namespace it can."""
        return self._accountant.step(self._looks.look(is_last))

    def whole(self) -> Account:
        """Return the account from the beginning to the last look."""
        return self._accountant.whole()

    def label(self, netns: Netns) -> str | None:
        """Return what a network namespace was called at the last look, if it had a name or is gone."""
        return self.look.namespaces.label(netns)

    def container(self, netns: Netns) -> Container | None:
        """Return the container that a network namespace was called by at the last look."""
        return self.look.namespaces.containers.get(netns)

    def is_gone(self, netns: Netns) -> bool:
        """Tell whether nothing led to a network namespace any more at the last look."""
        return self.look.namespaces.is_gone(netns)
