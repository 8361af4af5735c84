# SPDX-License-Identifier: MIT
"""Tell what stays unexplained from what is only seen at another moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pktdrop.ledger.entry import Entry, entry_order
from pktdrop.model.counters import Scope
from pktdrop.rules.identities import NO_COUNTER

#: An event or an increment is missing.
_OUT_OF_BALANCE: Final = ("unexplained", "silent")
_JITTER: Final = "counter and events are read one after the other; reported if it stays"
_STAYED: Final = "out of balance for more than one interval"

_Key = tuple[str, Scope]


@dataclass
class _Balance:
    """Increments beyond the events of one counter in one scope, since the beginning; negative: events beyond it."""

    now: int = 0
    told: int = 0
    """How much of `now` was reported as unexplained, with its sign."""
    quiet: int = 0
    """Intervals without a change."""
    last: Entry | None = None
    reason: str = ""
    """Reason of the last events beyond the increments."""


class Steady:
    """Tells an unexplained increment that stays unexplained from one that the next interval explains.

    Counters and events are read one after the other, so an increment may be seen an interval before its event, or
    after it.  What is out of balance at the end of two intervals in a row is no such thing, and is reported.
    """

    #: Intervals without a change after which a balance is forgotten.
    KEPT: Final = 60

    def __init__(self) -> None:
        self._balances: dict[_Key, _Balance] = {}

    def settle(self, entries: Iterable[Entry], is_last: bool = False) -> tuple[Entry, ...]:
        """Take the entries of the next interval; return them, with status "unexplained" only where that is certain.

        What is out of balance is left open first ("bound", `is_open`). What became certain in this interval was counted
        in the one before: it has an entry of its own, with delta 0. In the last interval all is certain.
        """
        settled: list[Entry] = []
        weighed: dict[_Key, list[Entry]] = {}
        for entry in entries:
            is_even = entry.status not in _OUT_OF_BALANCE
            if entry.counter == NO_COUNTER or (is_even and not self._balances):
                settled.append(entry)
                continue
            key = entry.counter, entry.scope._replace(qdisc=None, socket=None)  # events know neither
            if is_even and key not in self._balances:
                settled.append(entry)
            else:
                weighed.setdefault(key, []).append(entry)
        for key, of_one in weighed.items():
            settled.extend(self._weigh(key, of_one, is_last))
        return tuple(sorted((*settled, *self._carried(weighed.keys(), is_last)), key=entry_order))

    def _weigh(self, key: _Key, entries: Sequence[Entry], is_last: bool) -> Iterator[Entry]:
        """Judge the entries of one counter: several, if it stands still and its events have different reasons."""
        balance = self._balances.setdefault(key, _Balance())
        balance.last = entries[-1]
        balance.reason = next((entry.by[0][0] for entry in entries if entry.surplus), balance.reason)
        before = balance.now
        changes = []
        for entry in entries:
            changes.append(_change(entry, before))
            before += changes[-1]
        certain = self._advance(balance, sum(changes), is_last)
        for entry, change in zip(entries, changes, strict=True):
            if entry.status not in _OUT_OF_BALANCE:
                yield _made_good(entry, max(0, change))  # by events that came before it was read
            elif not is_last:
                yield entry._replace(status="bound", note=_JITTER, is_open=True)
            elif entry.status == "silent":
                yield entry
            else:
                own = min(max(0, certain), entry.unexplained)
                certain -= own
                found = _made_good(entry, entry.unexplained - own)
                yield found if own else found._replace(status="bound", note=_JITTER)
        if certain and not (is_last and certain < 0):
            yield _stayed(balance.last, certain, balance.reason)

    def _carried(self, seen: Collection[_Key], is_last: bool) -> Iterator[Entry]:
        for key, balance in list(self._balances.items()):
            if key in seen:
                continue
            certain = self._advance(balance, 0, is_last)
            balance.quiet += 1
            if balance.quiet > self.KEPT:
                del self._balances[key]
            if certain and balance.last is not None:
                yield _stayed(balance.last, certain, balance.reason)

    def _advance(self, balance: _Balance, change: int, is_last: bool) -> int:
        """Add to a balance; return what became certain: what was out of balance before, and still is."""
        before = balance.now
        balance.now += change
        balance.quiet = 0 if change else balance.quiet
        stayed = min(before, balance.now) if balance.now > 0 else max(before, balance.now)
        if is_last:
            stayed = balance.now
        if stayed * balance.now <= 0:  # made good, or turned into its opposite
            return 0
        if balance.told * stayed > 0 and abs(balance.told) >= abs(stayed):
            return 0
        certain = stayed - balance.told if balance.told * stayed > 0 else stayed
        balance.told = stayed
        return certain


def _change(entry: Entry, balance: int) -> int:
    """Return by how much an entry changes a balance: what is within its bounds can only make good."""
    change = entry.unexplained - entry.surplus
    if entry.status in _OUT_OF_BALANCE:
        return change
    return max(min(change, -balance), 0) if balance < 0 else min(max(change, -balance), 0)


def _made_good(entry: Entry, packets: int) -> Entry:
    """Return an entry of which events of an earlier interval explain some more."""
    return entry._replace(explained=entry.explained + packets, unexplained=entry.unexplained - packets)


def _stayed(entry: Entry, certain: int, reason: str) -> Entry:
    """Return the entry of what a counter has beyond its events, or has too little, for more than one interval."""
    still = entry._replace(delta=0, explained=0, unexplained=max(0, certain), note=_STAYED, revealed=0)
    if certain > 0:
        return still._replace(status="unexplained", by=())
    return still._replace(status="silent", by=((reason, -certain),))
