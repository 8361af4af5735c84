# SPDX-License-Identifier: MIT
"""Whose packets a loss was: what most of the packets that were looked at have in common."""

from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

from pktdrop.account import Account
from pktdrop.ledger.loss import Loss
from pktdrop.model.drops import Netns, full_reason
from pktdrop.model.sample import Sample
from pktdrop.samples.flows import Outstanding, Tallies, outstanding

_MOST: Final = 1024
"""Scopes whose samples are summed up: containers may make any number of them."""


class Who(NamedTuple):
    """Who stood out among the packets of a loss that were looked at."""

    samples: int
    source: Outstanding | None
    destination: Outstanding | None
    owner: Outstanding | None
    """ "for statsd[812]"."""
    address: Outstanding | None = None
    """IP address that most packets went to."""
    port: Outstanding | None = None
    """Port that most went to: "UDP 53"."""

    def values(self) -> dict[str, str | int]:
        """Return what remedies may speak of: what at least three quarters of the samples have in common."""
        common = {
            "sender": self.source if self.source is not None and _is_address(self.source.name) else None,
            "receiver": self.address,
            "port": self.port,
        }
        found: dict[str, str | int] = {
            name: one.name for name, one in common.items() if one is not None and 4 * one.seen >= 3 * self.samples
        }
        if "port" in found:
            found["port"] = int(str(found["port"]).rpartition(" ")[2])
        return found

    def __str__(self) -> str:
        """Return "from 10.0.0.5 (4 of 4 samples), to 10.0.0.9:8125 UDP (3), for statsd[812] (4)"."""
        of = f" of {self.samples} sample{'s' * (self.samples != 1)}"
        parts: list[str] = []
        for word, one in (("from ", self.source), ("to ", self.destination), ("", self.owner)):
            if one is not None:
                parts.append(f"{word}{one.name} ({one.seen}{'' if parts else of})")
        return ", ".join(parts)


class _SampleScope(NamedTuple):
    reason: str
    netns: Netns | None
    interface: str | None
    target_cpu: int | None
    socket: str | None
    """As in the name of a socket: "ino:812"."""


class Seen:
    """All samples so far, summed up by what tells losses apart."""

    def __init__(self) -> None:
        """Start with none."""
        self._tallies: dict[_SampleScope, Tallies] = {}

    def add(self, account: Account) -> None:
        """Add the samples of an account, but for noise."""
        for key, samples in account.samples.items():
            if account.judge(key).noise is not None:
                continue
            reason = full_reason(key.subsystem, key.reason)
            for sample in samples:
                scope = _SampleScope(reason, key.netns, key.interface, key.target_cpu, _socket(sample))
                if scope in self._tallies or len(self._tallies) < _MOST:
                    self._tallies.setdefault(scope, Tallies()).add(sample)

    def of(self, loss: Loss) -> Who | None:
        """Return who stood out among the samples of a loss; None if it has none."""
        found = _sum(tallies for scope, tallies in self._tallies.items() if _is_of(scope, loss))
        if not found.samples:
            return None
        names = found.sources, found.destinations, found.owners, found.addresses, found.ports
        return Who(found.samples, *map(outstanding, names))


def matches(account: Account, losses: Sequence[Loss]) -> list[int]:
    """Return how many packets of each loss the filter of packets matched, by the drops that the kernel counted.

    Where several sockets or queues of a namespace lost packets for one reason, it is not known whose they were: each
    may have all of them.
    """
    scopes: Counter[_SampleScope] = Counter()
    for key, count in account.interval.drops.items():
        if key.matches and account.judge(key).noise is None:
            reason = full_reason(key.subsystem, key.reason)
            scopes[_SampleScope(reason, key.netns, key.interface, key.target_cpu, None)] += count.packets
    found = (sum(packets for scope, packets in scopes.items() if _is_of(scope, loss)) for loss in losses)
    return [min(loss.packets, packets) for loss, packets in zip(losses, found, strict=True)]


def _socket(sample: Sample) -> str | None:
    if sample.socket is None or sample.socket.inode is None or not sample.is_for_socket:
        return None
    return f"ino:{sample.socket.inode}"


def _is_of(scope: _SampleScope, loss: Loss) -> bool:
    """Tell whether packets are of a loss, by what is known of both."""
    whereabouts = loss.whereabouts
    if scope.reason not in loss.reasons:
        return False
    pairs: tuple[tuple[object, object], ...] = (
        (scope.netns, whereabouts.netns), (scope.interface, whereabouts.interface), (scope.target_cpu, whereabouts.cpu),
    )  # fmt: skip
    if any(None not in (one, other) and one != other for one, other in pairs):
        return False
    sockets = [one.socket or "" for one in whereabouts.sockets]
    return scope.socket is None or not sockets or any(scope.socket in socket.split(" ") for socket in sockets)


def _is_address(text: str) -> bool:
    """Tell an IP address from that of a link, which some packets have instead."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _sum(parts: Iterable[Tallies]) -> Tallies:
    whole = Tallies()
    for part in parts:
        whole.samples += part.samples
        for name in ("sources", "destinations", "owners", "addresses", "ports"):
            getattr(whole, name).update(getattr(part, name))
    return whole
