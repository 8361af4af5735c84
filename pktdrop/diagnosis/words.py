# SPDX-License-Identifier: MIT
"""Places in words, as a person would say them: "in the receive buffer of dnsmasq (UDP :53)"."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pktdrop.ledger.loss import Place
from pktdrop.model.counters import Scope
from pktdrop.model.drops import HOST, Netns
from pktdrop.rules.causes import Cause
from pktdrop.text.escaping import safe
from pktdrop.text.wording import listed, number

_ANY_ADDRESS: Final = ("*", "0.0.0.0", "[::]")


class Names(Protocol):
    """Names that are looked up: those of pktdrop.diagnosis.values.Host."""

    def netns(self, netns: Netns | None) -> str | None:
        """Return the name of a network namespace."""

    def process(self, scope: Scope) -> str | None:
        """Return the name of a process that has a socket open."""


def where(cause: Cause, place: Place, names: Names) -> str:
    """Say where packets were lost for a cause. Names from outside are escaped."""
    words: dict[str, Callable[[], str]] = {
        "nic": lambda: nic(place, names),
        "netns": lambda: netns(place.netns, names),
        "socket": lambda: _sockets(place, names, "a socket"),
        "listener": lambda: _sockets(place, names, "a listening socket"),
        "qdisc": lambda: _qdiscs(place),
        "cpu": lambda: "some CPU" if place.cpu is None else f"CPU {place.cpu}",
        "queues": lambda: _queues(place),
        "sources": lambda: _sources(place, names),
    }
    return cause.place.format_map({word: words[word]() for word in cause.words})


def nic(place: Place, names: Names) -> str:
    """Name an interface, with its namespace unless that is the host's."""
    if place.interface is None:
        return f"an unknown interface of {netns(place.netns, names)}"
    named = names.netns(place.netns)
    interface = safe(place.interface)
    if place.netns is None or named == HOST:
        return interface
    return f"{interface} of netns {safe(named or str(place.netns))}"


def netns(place: Netns | None, names: Names) -> str:
    """Name a network namespace; "this host" is the kernel's first."""
    if place is None:
        return "an unknown netns"
    named = names.netns(place)
    return "this host" if named == HOST else f"netns {safe(named or str(place))}"


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


def _sockets(place: Place, names: Names, unknown: str) -> str:
    if not place.sockets:
        return f"{unknown} of {netns(place.netns, names)}"
    shown = [socket(scope, names) for scope in place.sockets]
    named = names.netns(place.netns)
    inside = "" if place.netns is None or named == HOST else f" in {netns(place.netns, names)}"
    if len(shown) == 1:
        return shown[0] + inside
    return f"some of {number(len(shown))} sockets{inside}: {listed(shown)}"


def _qdiscs(place: Place) -> str:
    if not place.qdiscs:
        return "a qdisc"
    if len(place.qdiscs) == 1:
        return f"the qdisc {safe(place.qdiscs[0])}"
    return f"some of the qdiscs {listed([safe(name) for name in place.qdiscs])}"


def _queues(place: Place) -> str:
    if not place.queues:
        return ""
    if len(place.queues) == 1:
        return f" (queue {place.queues[0][0]})"
    return f" (queues {listed([str(queue) for queue, _ in place.queues])})"


def _sources(place: Place, names: Names) -> str:
    """Say of which interface the packets were, and by which CPUs they came, if not its own."""
    parts = []
    if place.interface is not None:
        parts.append(f"packets of {nic(place, names)}{' and of others' * place.others}")
    others = [cpu for cpu in place.sources if cpu != place.cpu]
    if others:
        own = " and itself" if len(others) < len(place.sources) else ""
        parts.append(f"sent there by {cpus(others)}{own}")
    return f" ({', '.join(parts)})" if parts else ""
