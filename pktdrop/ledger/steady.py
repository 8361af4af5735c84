# SPDX-License-Identifier: MIT
"""Tell what stays unexplained from what is only seen at another moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pktdrop.counters.model import Scope
from pktdrop.ledger.entry import NO_COUNTER, Entry, place_in_order

#: An event or an increment is missing.
_OUT_OF_BALANCE: Final = ("unexplained", "silent")
_JITTER: Final = "counter and events are read one after the other; reported if it stays"
_STAYED: Final = "unexplained for more than one interval"

_Key = tuple[str, Scope]


@dataclass
class _Balance:
    """Increments beyond the events of one counter in one scope, since the beginning; negative: events beyond it."""

    now: int = 0
    told: int = 0
    """How much of it was reported, with its sign."""
    quiet: int = 0
    """Intervals without a change."""
    last: Entry | None = None


class Steady:
    """Tells an unexplained rest that stays from one that the next interval makes good.

    Counters and events are read one after the other, so an increment may be seen an interval before its event, or
    after it.  What is out of balance at the end of two intervals in a row is no such thing, and is reported.
    """

    #: Intervals without a change after which a balance is forgotten.
    KEPT: Final = 60

    def __init__(self) -> None:
        self._balances: dict[_Key, _Balance] = {}

    def settle(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """Take the entries of the next interval; return them with "unexplained" only where it is certain.

        The number unexplained is then what became certain in this interval: some of it may have been counted in the
        one before. An entry with delta 0 is added for a rest of a counter that has not moved since.
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
            settled.extend(self._weigh(key, of_one))
        return tuple(sorted((*settled, *self._carried(weighed.keys())), key=place_in_order))

    def _weigh(self, key: _Key, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Judge the entries of one counter: several, if it stands still and its events have different reasons."""
        balance = self._balances.setdefault(key, _Balance())
        balance.last = entries[-1]
        certain = self._advance(balance, sum(_change(entry, balance.now) for entry in entries))
        for entry in entries:
            is_out = entry.status in _OUT_OF_BALANCE
            if certain:
                note = entry.note if is_out and entry.note else _STAYED
                yield replace(entry, status="unexplained", unexplained=max(0, certain), note=note)
            else:
                yield replace(entry, status="bound", note=_JITTER) if is_out else entry

    def _carried(self, seen: Collection[_Key]) -> Iterator[Entry]:
        for key, balance in list(self._balances.items()):
            if key in seen:
                continue
            certain = self._advance(balance, 0)
            balance.quiet += 1
            if balance.quiet > self.KEPT:
                del self._balances[key]
            if certain and balance.last is not None:
                by = () if certain > 0 else balance.last.by
                yield replace(
                    balance.last,
                    delta=0,
                    explained=0,
                    unexplained=max(0, certain),
                    status="unexplained",
                    by=by,
                    note=_STAYED,
                )

    def _advance(self, balance: _Balance, change: int) -> int:
        """Add to a balance; return what became certain: what was out of balance before, and still is."""
        before = balance.now
        balance.now += change
        balance.quiet = 0 if change else balance.quiet
        stayed = min(before, balance.now) if balance.now > 0 else max(before, balance.now)
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
