# SPDX-License-Identifier: MIT
"""The ledger as text: what was lost where, and each counter that rose beside the events that explain it."""

from collections.abc import Sequence

from pktdrop.ledger.books import Ledger
from pktdrop.ledger.entry import Entry
from pktdrop.ledger.loss import Loss
from pktdrop.model.counters import Scope
from pktdrop.rules.identities import NO_COUNTER
from pktdrop.text.escaping import safe
from pktdrop.text.table import Column, cut, table
from pktdrop.text.wording import counted, number
from pktdrop.views.scope import Name, scope_text

_COLUMNS = (
    Column("rose", "right"),
    Column("explained", "right"),
    Column("status"),
    Column("counter", least=16),
    Column("of", least=13),
    Column("by", least=15),
)
_WORST_FIRST: Sequence[str] = ("unexplained", "no-event", "bound", "exact", "silent", "doubt")
_SKEW = 0.01
"""A riddle of less than this part of the largest row stands by its size: mostly it is one reading's skew."""


def totals_line(ledger: Ledger) -> str:
    """Say how much was lost in which layer, and how much of what counters rose by nothing explains."""
    lost = sum(ledger.lost.values())
    layers = ", ".join(f"{layer} {number(packets)}" for layer, packets in ledger.lost.items())
    doubt = ", ".join(f"{layer} {number(packets)}" for layer, packets in ledger.doubt.items())
    packets = f"{counted(lost, 'packet')}{f' ({layers})' if layers else ''}"
    return f"Lost in all: {packets}. Unexplained: {number(ledger.unexplained)}." + (
        f"\nNot known whether lost: {number(sum(ledger.doubt.values()))} ({doubt})." if doubt else ""
    )


def entries_table(entries: Sequence[Entry], limit: int, width: int, name: Name) -> str:
    """Return a table of counters that rose and of drops that no counter shows, the worst first."""
    ranked = ranked_entries(entries)
    text = table(_COLUMNS, [_cells(entry, name) for entry in ranked[:limit]], width)
    more = len(ranked) - limit
    if more > 0:
        text += f"\nand {counted(more, 'more row')}"
    return text


def ranked_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Sort entries, the worst status first and the largest of each; a riddle beside which others are huge by size."""
    most = max((max(entry.delta, _events(entry)) for entry in entries), default=0)

    def turn(entry: Entry) -> tuple[int, int, int]:
        is_skew = entry.status == "unexplained" and entry.unexplained < _SKEW * most
        status = "silent" if is_skew else entry.status
        return _WORST_FIRST.index(status), -(entry.unexplained if is_skew else entry.delta), -_events(entry)

    return sorted(entries, key=turn)


def without_event_lines(ledger: Ledger, width: int, name: Name) -> list[str]:
    """Return a line for each loss of an interval without an event, and for what is unexplained, the largest first."""
    ranked = sorted((loss for loss in ledger.losses if loss.without_event), key=lambda loss: -loss.without_event)
    return [cut(safe(_without_event(loss, name)), width) for loss in ranked]


def _without_event(loss: Loss, name: Name) -> str:
    whereabouts, counters = loss.whereabouts, ", ".join(loss.counters)
    scope = Scope(whereabouts.netns, whereabouts.interface, cpu=whereabouts.cpu)
    if len(whereabouts.sockets) == 1:
        (scope,) = whereabouts.sockets
    elif len(whereabouts.qdiscs) == 1:
        scope = scope._replace(qdisc=whereabouts.qdiscs[0])
    of = scope_text(scope, name)
    if loss.note:
        return f"? {counted(loss.without_event, 'packet')} unexplained: {counters} of {of}: {loss.note}"
    queues = ", ".join(f"queue {queue}: {number(count)}" for queue, count in sorted(whereabouts.queues))
    return (
        f"! {counted(loss.without_event, 'packet')} lost in {loss.layer} of {of}{f' ({queues})' if queues else ''},"
        f" without an event: {counters}"
    )


def _cells(entry: Entry, name: Name) -> tuple[str, ...]:
    has_counter = entry.counter != NO_COUNTER
    return (
        number(entry.delta) if has_counter else "-",
        number(entry.explained) if has_counter and entry.status != "no-event" else "-",
        entry.status,
        entry.counter if has_counter else "-",
        scope_text(entry.scope, name),
        _by(entry),
    )


def _by(entry: Entry) -> str:
    """Name the events and why they differ; with their number where the column "explained" does not say it.

    Beside that of a counter it comes last, so that a table that is cut does not seem to contradict itself.
    """
    parts = [", ".join(f"{number(count)} {reason}" for reason, count in entry.by), entry.note]
    if len(entry.by) == 1 and entry.counter != NO_COUNTER:
        ((reason, count),) = entry.by
        parts = [reason, entry.note, f"{number(count)} events" if count != entry.explained else ""]
    return "; ".join(part for part in parts if part)


def _events(entry: Entry) -> int:
    return sum(count for _, count in entry.by)
