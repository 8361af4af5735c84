# SPDX-License-Identifier: MIT
"""All reading, in one thread of its own: the screen never waits, and only that thread enters namespaces."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from pktdrop.model import Netns
from pktdrop.namespaces import Namespaces
from pktdrop.top.advice import Adviser
from pktdrop.watch import Account, Watch

if TYPE_CHECKING:
    from pktdrop.advice.diagnosis import Advised


class Look(NamedTuple):
    """What a look gives."""

    account: Account
    limits: tuple[str, ...] = ()
    names: Mapping[Netns, str] = MappingProxyType({})
    """Names of namespaces, as far as there are any."""
    losses: "tuple[Advised, ...] | None" = None
    """All that was lost so far, with advice; None: not asked for."""


class Reader:
    """Starts a Watch at once, without waiting for it. To be closed."""

    def __init__(self, start: Callable[[ExitStack], Watch], namespaces: Namespaces) -> None:
        """Take what makes the Watch, and leaves on the stack what is to be closed; and the names it uses."""
        self._namespaces = namespaces
        self._adviser = Adviser(namespaces)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pktdrop-reader")
        self._stack = ExitStack()
        self.is_closing = False
        """What is being read is to be cut short."""
        self._starting = self._thread.submit(start, self._stack)

    def started(self) -> Watch:
        """Wait for the Watch. Raises what its start raised."""
        return self._starting.result()

    def look(self, is_advice_wanted: bool = False) -> "Future[Look]":
        """Look for the next time."""
        return self._thread.submit(self._look, is_advice_wanted)

    def close(self) -> None:
        """Detach the probes and end the thread."""
        self.is_closing = True
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()

    def _look(self, is_advice_wanted: bool) -> Look:
        watch = self._starting.result()
        account = watch.step()
        netns = {key.netns for key in account.interval.drops if key.netns is not None} | account.counters.netns
        names = {one: name for one in netns if (name := self._namespaces.label(one)) is not None}
        losses = self._adviser.losses(watch) if is_advice_wanted else None
        return Look(account, watch.limits, names, losses)
