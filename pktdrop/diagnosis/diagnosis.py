# SPDX-License-Identifier: MIT
"""An account of drops and counters, judged: where packets were lost, why, and what to change. Reads only its tables."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from pktdrop.account import Account
from pktdrop.diagnosis import words
from pktdrop.diagnosis.stations import Peaks, Station, flow_limited, received, squeezed, stations
from pktdrop.diagnosis.who import Seen, Who, matches
from pktdrop.filters import reason_filter
from pktdrop.ledger.loss import Loss, Whereabouts
from pktdrop.model.drops import Netns, full_reason
from pktdrop.model.limits import Limit
from pktdrop.rules.layers import NATURES
from pktdrop.rules.match import Value
from pktdrop.rules.remedies import Advice
from pktdrop.rules.rules import Rules
from pktdrop.text.wording import counted, number, share

#: What each nature is called in a sentence.
NATURE_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "capacity": "for lack of room",
        "policy": "refused on purpose",
        "routing": "with nowhere to go",
        "malformed": "damaged or malformed",
        "protocol": "against the rules of a protocol",
        "teardown": "in queues that ended",
        "unspecified": "for an unknown reason",
    }
)
CONDITIONS: Final = ("loss", "capacity", "unexplained")
"""What --fail-on knows besides drop reasons."""
#: A loss is small where it has fewer packets than this, whatever its share...
STRAY: Final = 3
#: ...or fewer than this, and less than one percent of all that was lost.
FEW: Final = 100
_NAMED: Final = 3
"""Losses that the verdict names; of more, it names their sum."""
_NOT_TRACED: Final = "none"
_AT_INTERFACES: Final = ("nic-fifo", "nic-ring", "driver")
_TOLD_BY_EVENTS: Final = ("driver", "stack", "socket", "qdisc", "tx")


class Host(words.Names, Protocol):
    """Names and values of this host, as HostValues gives them."""

    def value(self, name: str, whereabouts: Whereabouts) -> Value | None:
        """Return a value (names: remedies.HOST_VALUES) as it is where packets were lost; None if it is not known."""


@dataclass(frozen=True)
class Advised:
    """A loss, with where it was in words, and what to do about it."""

    loss: Loss
    where: str
    """ "in the RX ring of eth0 (queue 3)"."""
    advice: tuple[Advice, ...]
    """Nothing is advised about a small loss."""
    is_small: bool = False
    """Whether the loss has too few packets to change anything for: small losses are summed up."""
    who: Who | None = None
    """Who sent the samples of this loss, and to whom; None: there is no sample."""
    matches: int | None = None
    """How many of its packets match the filter of packets, at most; None: there is none."""


@dataclass(frozen=True)
class Noise:
    """Drops for one reason that are no loss, or of which that is not known, and why."""

    reason: str
    why: str
    packets: int


@dataclass(frozen=True)
class Watched:
    """What the diagnosis is based on."""

    interfaces: int
    cpus: int
    namespaces: int
    """Network namespaces whose counters were read at the end."""
    unread: int
    """Network namespaces that are there, but whose counters could not be read."""
    sees_all: bool
    """Whether all network namespaces of the host were found: without rights, those of other users cannot be."""
    received: int
    """Packets that interfaces received while the host was watched."""
    rungs: Mapping[str, str]
    """Rung of each probe; "none": it was not attached."""

    @property
    def traced(self) -> bool:
        """Whether drops were seen, or only counters."""
        return self.rungs.get("kfree_skb", _NOT_TRACED) != _NOT_TRACED


@dataclass(frozen=True)
class Diagnosis:
    """What `pktdrop diagnose` answers: where packets were lost, why, and what to change."""

    start: float
    end: float
    seconds: float
    lost: int
    """Packets; the sum of the losses, and of the stations."""
    unexplained: int | None
    """Packets that counters show as lost and no event explains, part of `lost`; None: not known without tracing."""
    uncounted: int
    """Drops that were not counted at all: Uncounted.missed."""
    natures: Mapping[str, int]
    """Lost packets by nature, in the order of layers.NATURES."""
    stations: tuple[Station, ...]
    losses: tuple[Advised, ...]
    """Losses with advice: those for lack of room first, then by size; small losses are last."""
    noise: tuple[Noise, ...]
    doubt: tuple[Noise, ...]
    """Drops of which it is not known whether packets were lost; they are neither in `lost` nor in `noise`."""
    watched: Watched
    limits: tuple[Limit, ...]
    """What could not be seen."""

    @property
    def verdict(self) -> str:
        """Where packets were lost, in one or two sentences."""
        return _verdict(self)


@dataclass(frozen=True)
class Circumstances:
    """How an account came about."""

    rungs: Mapping[str, str]
    """Rung of each probe; "none": it was not attached."""
    limits: tuple[Limit, ...] = ()
    """What could not be seen, a sentence each."""
    present: frozenset[Netns] = frozenset()
    """Network namespaces that are there at the end."""
    sees_all: bool = True
    """Whether the host can have no other network namespaces than `present`."""
    peaks: Peaks = field(default_factory=Peaks)
    """Longest queues that were seen meanwhile."""
    seen: Seen = field(default_factory=Seen)
    """Samples, summed up by what tells losses apart."""
    is_filtered: bool = False
    """Whether the kernel told packets that match a filter from others."""


def diagnosis_of(account: Account, how: Circumstances, host: Host, rules: Rules) -> Diagnosis:
    """Return the diagnosis of an account. `how` says how the account came about."""
    found = account.ledger.losses
    seen = {"squeezed": squeezed(account), "flow_limited": flow_limited(account)}
    lost = sum(one.packets for one in found)
    losses = []
    for one, matching in zip(found, matches(account, found) if how.is_filtered else [None] * len(found), strict=True):
        small = is_small(one.packets, lost) and not matching
        who = how.seen.of(one)
        of_loss = {**seen, **(who.values() if who is not None else {})}
        advice = () if small else _advice(one, host, rules, of_loss)
        losses.append(Advised(one, _where(one, host), advice, small, who, matching))
    natures = Tally(dict.fromkeys(NATURES, 0))
    for one in found:
        natures[one.nature] += one.packets
    watched = Watched(
        interfaces=len(account.counters.rows.get("links", {})),
        cpus=len(account.counters.rows.get("softnet", {})),
        namespaces=len(account.counters.netns),
        unread=len(how.present - account.counters.netns),
        sees_all=how.sees_all,
        received=received(account),
        rungs=dict(how.rungs),
    )
    return Diagnosis(
        start=account.interval.start,
        end=account.interval.end,
        seconds=account.interval.seconds,
        lost=lost,
        unexplained=sum(one.packets for one in found if one.note) if watched.traced else None,
        uncounted=account.interval.uncounted.missed,
        natures={nature: packets for nature, packets in natures.items() if packets},
        stations=stations(account, found, how.peaks, rules.drivers, host, host.value, _blind(watched)),
        losses=tuple(sorted(losses, key=_turn)),
        noise=_noise(account),
        doubt=_doubt(account),
        watched=watched,
        limits=how.limits,
    )


def is_small(packets: int, lost: int) -> bool:
    """Tell whether a loss is too small to change anything for, of so many packets that were lost in all."""
    return packets < STRAY or (packets < FEW and 100 * packets < lost)


def _turn(one: Advised) -> tuple[bool, bool, int]:
    """Return what losses are ranked by."""
    return one.is_small, one.loss.nature != "capacity", -one.loss.packets


def _blind(watched: Watched) -> dict[str, str]:
    """Return why nothing seen at a station does not mean that nothing was lost there, by layer.

    What CPUs count of their backlogs is seen from everywhere; of other layers some losses have no counter, and those
    of interfaces are in each namespace.
    """
    blind: dict[str, str] = {}
    if watched.unread or not watched.sees_all:
        blind |= dict.fromkeys(_AT_INTERFACES, "interfaces of other network namespaces were not seen")
    if not watched.traced:
        blind |= dict.fromkeys(_TOLD_BY_EVENTS, "drops were not traced, and counters show only some")
    return blind


def _where(one: Loss, names: words.Names) -> str:
    """Say where, and how far that can be relied on."""
    text = words.where(one.cause, one.whereabouts, names)
    doubts = (("unexplained", one.note), ("guessed: its driver is not known", one.is_guess))
    return text + "".join(f" ({doubt})" for doubt, holds in doubts if holds)


def _advice(one: Loss, host: Host, rules: Rules, seen: Mapping[str, Value]) -> tuple[Advice, ...]:
    of_loss: dict[str, Value] = dict(seen)
    if len(one.whereabouts.qdiscs) == 1:
        of_loss["qdisc_kind"] = one.whereabouts.qdiscs[0].partition(" ")[0]

    def value(name: str) -> Value | None:
        return of_loss[name] if name in of_loss else host.value(name, one.whereabouts)

    filled = (remedy.advice(value) for remedy in rules.remedies if remedy.cause == one.cause.name)
    return tuple(advice for advice in filled if advice is not None)


def _noise(account: Account) -> tuple[Noise, ...]:
    sums: Tally[tuple[str, str]] = Tally()
    copies = sum(risen.get("drops", 0) for risen in account.increments.get("packet_socket", {}).values())
    for key, count in account.interval.drops.items():
        verdict = account.judge(key)
        if verdict.noise is not None:
            sums[full_reason(key.subsystem, key.reason), verdict.noise] += count.packets
            if verdict.nature == "capacity":  # a capture's copy: for want of room anything else is a loss
                copies -= count.packets
    if copies > 0:
        sums["packet_socket.drops", "copies a capture had no room for, packets went on"] += copies
    return tuple(Noise(reason, why, packets) for (reason, why), packets in sums.most_common())


def _doubt(account: Account) -> tuple[Noise, ...]:
    """Sum up events of which neither call site nor counter tells whether packets were lost."""
    sums: Tally[tuple[str, str]] = Tally()
    for entry in account.ledger.entries:
        if entry.status == "doubt":
            for reason, packets in entry.by:
                sums[reason, entry.note] += packets
    return tuple(Noise(reason, why, packets) for (reason, why), packets in sums.most_common())


def _verdict(diagnosis: Diagnosis) -> str:
    seconds = f"{diagnosis.seconds:.1f} s"
    traced = diagnosis.watched.traced
    uncounted = f" {number(diagnosis.uncounted)} more drops could not be counted." if diagnosis.uncounted else ""
    if not diagnosis.lost:
        if diagnosis.uncounted:
            return f"{number(diagnosis.uncounted)} drops in {seconds} on this host could not be counted; no other loss."
        if not traced:
            return f"No counter of lost packets rose {_seen_of(diagnosis)} in {seconds}; drops could not be traced."
        return f"Nothing was lost on this host in {seconds}."
    parts = ", ".join(_parts(diagnosis))
    unexplained = (
        "Drops were not traced: there may be more, and what is unexplained is not known."
        if diagnosis.unexplained is None
        else f"Unexplained: {number(diagnosis.unexplained)}."
    )
    return f"{_opening(diagnosis, seconds)}: {parts}. {unexplained}{uncounted}"


def _opening(diagnosis: Diagnosis, seconds: str) -> str:
    """Say how much was lost; what was refused on purpose is told apart."""
    packets = counted(diagnosis.lost, "packet")
    policy = diagnosis.natures.get("policy", 0)
    if not diagnosis.watched.traced:
        text = f"In {seconds} counters {_seen_of(diagnosis, 'of')} show {packets} lost"
    elif policy == diagnosis.lost:
        return f"In {seconds} this host lost nothing but {packets} refused on purpose (policy)"
    else:
        text = f"In {seconds} this host lost {packets}"
    return f"{text}, {number(policy)} of them refused on purpose (policy)" if policy else text


def _seen_of(diagnosis: Diagnosis, preposition: str = "on") -> str:
    """Say how much of the host counters speak for."""
    watched = diagnosis.watched
    namespaces = f"network namespace{'s' * (watched.namespaces + watched.unread != 1)}"
    if watched.unread:
        whole = number(watched.namespaces + watched.unread)
        return f"in {number(watched.namespaces)} of {whole} {namespaces} of this host"
    if not watched.sees_all:
        return f"in {number(watched.namespaces)} {namespaces} that could be seen"
    return f"{preposition} this host"


def _parts(diagnosis: Diagnosis) -> list[str]:
    """Say where, the largest share first; the shares that are too many to name are one sum."""
    ranked = sorted(diagnosis.losses, key=lambda one: -one.loss.packets)
    named = ranked if len(ranked) <= _NAMED + 1 else ranked[:_NAMED]
    parts = [f"{share(one.loss.packets, diagnosis.lost)} {one.where}" for one in named]
    rest = ranked[len(named) :]
    if rest:
        packets = sum(one.loss.packets for one in rest)
        parts.append(f"{share(packets, diagnosis.lost)} in {number(len(rest))} other places")
    return parts


def failures(diagnosis: Diagnosis, account: Account, conditions: Sequence[str]) -> tuple[str, ...]:
    """Return which conditions of --fail-on hold: CONDITIONS, or patterns of drop reasons, noise or not."""
    amounts = {
        "loss": diagnosis.lost + diagnosis.uncounted,
        "capacity": diagnosis.natures.get("capacity", 0),
        "unexplained": diagnosis.unexplained or 0,
    }
    return tuple(
        one for one in conditions if (amounts[one.lower()] if one.lower() in amounts else _drops(account, one)) > 0
    )


def _drops(account: Account, pattern: str) -> int:
    """Count drops of a reason, whatever the case of its letters: "NO_SOCKET", "TCP_*", "openvswitch/*"."""
    chosen = reason_filter((pattern,))
    return sum(count.packets for key, count in account.interval.drops.items() if chosen.passes(key))
