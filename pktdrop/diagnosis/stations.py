# SPDX-License-Identifier: MIT
"""The stations of a packet in the order it passes them: where packets were lost, and where they soon may be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from pktdrop.account import Account
from pktdrop.diagnosis import words
from pktdrop.diagnosis.words import Names
from pktdrop.ledger.loss import Loss, Whereabouts
from pktdrop.model.counters import Counters, Row, Scope
from pktdrop.model.drops import Netns, netns_order
from pktdrop.rules.drivers import Drivers, Hint
from pktdrop.rules.layers import LAYERS
from pktdrop.rules.match import Value
from pktdrop.text.wording import number

StationStatus = Literal["ok", "unseen", "warning", "loss"]

#: Of what a queue may hold, in percent: from here on it is nearly full.
NEARLY_FULL: Final = 80
#: Facts that are listed for one station.
_FACTS: Final = 4
#: At which station a driver's hint warns, by its stat_class; others are no sign of a bottleneck here.
_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pause": "nic-fifo",
        "fifo": "nic-fifo",
        "host": "nic-fifo",
        "limit": "nic-fifo",
        "ring": "nic-ring",
        "warning": "nic-ring",
        "alloc": "driver",
    }
)
_PAUSE: Final = "flow control: if packets are lost, then at the other end of the cable"
_BACKLOG: Final = "input_qlen"
_SOCKET_QUEUES: Final = (
    ("receive buffer", "rmem_alloc", "rcvbuf"),
    ("accept queue", "accept_queue", "accept_limit"),
)

ValueOf = Callable[[str, Whereabouts], Value | None]


@dataclass(frozen=True)
class Station:
    """What was seen at one layer: lost packets, and signs that some soon may be lost."""

    layer: str
    status: StationStatus
    packets: int
    """Packets that were lost here."""
    facts: tuple[str, ...]


class Peaks:
    """How long queues were at most, over all looks: what was full for a second is empty at the end."""

    def __init__(self) -> None:
        """Begin without a look."""
        self.rows: dict[str, dict[Scope, Row]] = {}

    def look(self, counters: Counters) -> None:
        """Remember queues that are longer than before; of gauges that say how long a queue may be, the last value."""
        for source, rows in counters.gauges.items():
            known = self.rows.setdefault(source, {})
            for scope, row in rows.items():
                before = known.get(scope)
                if before is None or before.names != row.names or row.values[:1] >= before.values[:1]:
                    known[scope] = row


def stations(
    account: Account,
    found: Sequence[Loss],
    peaks: Peaks,
    drivers: Drivers,
    names: Names,
    value: ValueOf,
    blind: Mapping[str, str],
) -> tuple[Station, ...]:
    """Return one station for each layer; `blind` says why a layer could not be seen whole."""
    warnings: dict[str, list[str]] = {layer: [] for layer in LAYERS}
    for layer, text in (
        *_hints(account, drivers, names),
        *_softnet(account, peaks, value),
        *_full(account, peaks, {scope for one in found for scope in one.whereabouts.sockets}, names, value),
    ):
        warnings[layer].append(text)
    return tuple(
        _station(layer, [one for one in found if one.layer == layer], warnings[layer], names, blind.get(layer))
        for layer in LAYERS
    )


def _station(layer: str, lost: Sequence[Loss], warnings: Sequence[str], names: Names, blind: str | None) -> Station:
    ranked = sorted(lost, key=lambda loss: -loss.packets)
    facts = [f"{number(loss.packets)} {words.where(loss.cause, loss.whereabouts, names)}" for loss in ranked]
    shown = [*_first(facts), *_first(warnings)]
    if blind is not None and not shown:
        return Station(layer, "unseen", 0, (blind,))
    status: StationStatus = "loss" if lost else "warning" if warnings else "ok"
    return Station(layer, status, sum(loss.packets for loss in lost), tuple(shown))


def _first(texts: Sequence[str]) -> list[str]:
    if len(texts) <= _FACTS + 1:
        return [*texts]
    return [*texts[:_FACTS], f"and {number(len(texts) - _FACTS)} more"]


def _hints(account: Account, drivers: Drivers, names: Names) -> Iterator[tuple[str, str]]:
    """Counters of drivers that point at a bottleneck but count no lost packet."""
    rows: dict[tuple[Netns | None, str], dict[Scope, Row]] = {}
    for scope, risen in account.increments.get("driver", {}).items():
        of_nic = rows.setdefault((scope.netns, scope.interface or ""), {})
        of_nic[scope] = Row(tuple(risen), tuple(risen.values()))
    for (netns, interface), of_nic in rows.items():
        where = words.nic(Whereabouts(netns=netns, interface=interface), names)
        for hint in drivers.hints(account.counters.drivers.get((netns, interface)), of_nic):
            if hint.stat_class in _HINTS:
                yield _HINTS[hint.stat_class], _hint(hint, where)


def _hint(hint: Hint, where: str) -> str:
    queue = "" if hint.queue is None else f" queue {hint.queue}"
    note = _PAUSE if hint.stat_class == "pause" else hint.note
    guess = ", guessed from the name" if hint.confidence == "generic" else ""
    return f"{where}{queue}: {hint.counter} +{number(hint.value)}{guess}{f' ({note})' if note else ''}"


def _softnet(account: Account, peaks: Peaks, value: ValueOf) -> Iterator[tuple[str, str]]:
    most = value("netdev_max_backlog", Whereabouts())
    for scope, risen in account.increments.get("softnet", {}).items():
        if risen.get("time_squeeze"):
            times = number(risen["time_squeeze"])
            yield "backlog", f"CPU {scope.cpu} used up its budget {times} times (time_squeeze): it is short of time"
        if risen.get("flow_limit_count"):
            yield "backlog", f"CPU {scope.cpu} held back {number(risen['flow_limit_count'])} by the flow limit"
    for scope, row in peaks.rows.get("softnet", {}).items():
        waiting = _named(row).get(_BACKLOG)
        if waiting is not None and isinstance(most, int) and _is_nearly_full(waiting, most):
            yield "backlog", f"the backlog of CPU {scope.cpu} held {number(waiting)} of at most {number(most)}"


def _full(
    account: Account, peaks: Peaks, losing: Collection[Scope], names: Names, value: ValueOf
) -> Iterator[tuple[str, str]]:
    """Queues of sockets and interfaces, and tables, that were nearly full; not of sockets that lost something."""
    for scope, row in peaks.rows.get("socket", {}).items():
        for text in () if scope in losing else _full_socket(scope, _named(row), names):
            yield "socket", text
    for scope, row in peaks.rows.get("qdisc", {}).items():
        if scope.qdisc is None or not scope.qdisc.startswith("pfifo_fast "):
            continue  # only of this one the limit is known
        whereabouts = Whereabouts(netns=scope.netns, interface=scope.interface)
        length, waiting = value("txqueuelen", whereabouts), _named(row).get("qlen", 0)
        if isinstance(length, int) and _is_nearly_full(waiting, length):
            yield "qdisc", f"the queue of {words.nic(whereabouts, names)} held {number(waiting)} of {number(length)}"
    for netns in sorted(account.counters.netns, key=netns_order):
        whereabouts = Whereabouts(netns=netns)
        tracked, room = value("conntrack_count", whereabouts), value("conntrack_max", whereabouts)
        if isinstance(tracked, int) and isinstance(room, int) and _is_nearly_full(tracked, room):
            held = f"{number(tracked)} connections of at most {number(room)}"
            yield "stack", f"{words.netns(netns, names)} tracks {held}"


def _full_socket(scope: Scope, gauges: Mapping[str, int], names: Names) -> Iterator[str]:
    for what, waiting, most in _SOCKET_QUEUES:
        if _is_nearly_full(gauges.get(waiting, 0), gauges.get(most, 0)):
            held = f"{number(gauges[waiting])} of at most {number(gauges[most])}"
            yield f"the {what} of {words.socket(scope, names)} held {held}"


def _is_nearly_full(waiting: int, most: int) -> bool:
    return most > 0 and 100 * waiting >= NEARLY_FULL * most


def _named(row: Row) -> dict[str, int]:
    return dict(zip(row.names, row.values, strict=True))


def received(account: Account) -> int:
    """Count packets that interfaces received in the interval; each interface that one passes counts it."""
    return _risen(account.increments.get("links", {}).values(), "rx_packets")


def squeezed(account: Account) -> int:
    """Count how often CPUs used up the budget of a softirq with packets left."""
    return _risen(account.increments.get("softnet", {}).values(), "time_squeeze")


def flow_limited(account: Account) -> int:
    """Count packets that the flow limit dropped."""
    return _risen(account.increments.get("softnet", {}).values(), "flow_limit_count")


def _risen(rows: Iterable[Mapping[str, int]], name: str) -> int:
    return sum(risen.get(name, 0) for risen in rows)
