# SPDX-License-Identifier: MIT
"""Places in words, as a person would say them: "in the receive buffer of dnsmasq (UDP :53)"."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import Scope
from pktdrop.model.drops import HOST, Netns
from pktdrop.rules.causes import Cause
from pktdrop.text.escaping import safe
from pktdrop.text.wording import listed, number

_ANY_ADDRESS: Final = ("*", "0.0.0.0", "[::]")


class Names(Protocol):
    """Names of namespaces and processes, looked up in what the host has told."""

    def netns(self, netns: Netns | None) -> str | None:
        """Return the name of a network namespace."""

    def process(self, scope: Scope) -> str | None:
        """Return the name of a process that has a socket open."""


def where(cause: Cause, whereabouts: Whereabouts, names: Names) -> str:
    """Say where packets were lost for a cause. Names from outside are escaped."""
    words: dict[str, Callable[[], str]] = {
        "nic": lambda: nic(whereabouts, names),
        "netns": lambda: netns(whereabouts.netns, names),
        "socket": lambda: _sockets(whereabouts, names, "a socket"),
        "listener": lambda: _sockets(whereabouts, names, "a listening socket"),
        "qdisc": lambda: _qdiscs(whereabouts),
        "cpu": lambda: "some CPU" if whereabouts.cpu is None else f"CPU {whereabouts.cpu}",
        "queues": lambda: _queues(whereabouts),
        "sources": lambda: _sources(whereabouts, names),
    }
    return cause.where.format_map({word: words[word]() for word in cause.words})


def nic(whereabouts: Whereabouts, names: Names) -> str:
    """Name an interface, with its namespace unless that is the host's."""
    if whereabouts.interface is None:
        return f"an unknown interface of {netns(whereabouts.netns, names)}"
    named = names.netns(whereabouts.netns)
    interface = safe(whereabouts.interface)
    if whereabouts.netns is None or named == HOST:
        return interface
    return f"{interface} of netns {safe(named or str(whereabouts.netns))}"


def netns(of: Netns | None, names: Names) -> str:
    """Name a network namespace; "this host" is the kernel's first."""
    if of is None:
        return "an unknown netns"
    named = names.netns(of)
    return "this host" if named == HOST else f"netns {safe(named or str(of))}"


def socket(scope: Scope, names: Names) -> str:
    """Name a socket and its process: "dnsmasq (UDP :53)", "UDP 10.0.0.1:53" where the process is not known."""
    protocol, _, rest = (scope.socket or "").partition(" ")
    ends = [word for word in rest.split(" ") if not word.startswith(("ino:", "sk:"))]
    local = ends[0] if ends else ""
    address, _, port = local.rpartition(":")
    shown = " ".join(
        [protocol.upper(), f":{port}" if address in _ANY_ADDRESS else local, *(f"to {e}" for e in ends[1:])]
    )
    process = names.process(scope)
    return f"{safe(process)} ({safe(shown)})" if process else safe(shown)


def cpus(numbers: Sequence[int]) -> str:
    """Write "CPU 0", "CPUs 0 and 2", "CPUs 0, 2, 3 and 4 more"."""
    return f"CPU{'s' * (len(numbers) > 1)} {listed([str(cpu) for cpu in numbers])}"


def _sockets(whereabouts: Whereabouts, names: Names, unknown: str) -> str:
    if not whereabouts.sockets:
        return f"{unknown} of {netns(whereabouts.netns, names)}"
    shown = [socket(scope, names) for scope in whereabouts.sockets]
    named = names.netns(whereabouts.netns)
    inside = "" if whereabouts.netns is None or named == HOST else f" in {netns(whereabouts.netns, names)}"
    if len(shown) == 1:
        return shown[0] + inside
    return f"some of {number(len(shown))} sockets{inside}: {listed(shown)}"


def _qdiscs(whereabouts: Whereabouts) -> str:
    if not whereabouts.qdiscs:
        return "a qdisc"
    if len(whereabouts.qdiscs) == 1:
        return f"the qdisc {safe(whereabouts.qdiscs[0])}"
    return f"some of the qdiscs {listed([safe(name) for name in whereabouts.qdiscs])}"


def _queues(whereabouts: Whereabouts) -> str:
    if not whereabouts.queues:
        return ""
    if len(whereabouts.queues) == 1:
        return f" (queue {whereabouts.queues[0][0]})"
    return f" (queues {listed([str(queue) for queue, _ in whereabouts.queues])})"


def _sources(whereabouts: Whereabouts, names: Names) -> str:
    """Say of which interface the packets were, and by which CPUs they came, if not its own."""
    parts = []
    if whereabouts.interface is not None:
        parts.append(f"packets of {nic(whereabouts, names)}{' and of others' * whereabouts.others}")
    others = [cpu for cpu in whereabouts.sources if cpu != whereabouts.cpu]
    if others:
        own = " and itself" if len(others) < len(whereabouts.sources) else ""
        parts.append(f"sent there by {cpus(others)}{own}")
    return f" ({', '.join(parts)})" if parts else ""
