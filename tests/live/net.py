# SPDX-License-Identifier: MIT
"""The network namespaces of `pktdrop demo`, and what only tests need with them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pktdrop.demo import tools
from pktdrop.demo.namespace import RUN, Namespace
from pktdrop.demo.net import Net, ipv4, ipv6, mac, one_ns, three_ns, two_ns
from tests.live.tracing import DEADLINE

__all__ = [
    "RUN",
    "Namespace",
    "Net",
    "ipv4",
    "ipv6",
    "mac",
    "on_cpu",
    "one_ns",
    "run",
    "three_ns",
    "two_ns",
    "wait_until",
]


def run(*command: str, stdin: str = "", seconds: float = DEADLINE) -> str:
    """Run a command and return what it printed. Raises PktdropError that says what went wrong, or that it hangs."""
    return tools.run(*command, stdin=stdin, seconds=seconds)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Poll until the condition holds. Raises TimeoutError that names `what` was awaited."""
    tools.wait_until(condition, what, seconds)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
