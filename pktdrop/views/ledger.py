# SPDX-License-Identifier: MIT
"""The ledger as text: what was lost where, and each counter that moved beside the events that explain it."""

from collections.abc import Iterator, Sequence

from pktdrop.counters.model import Scope
from pktdrop.ledger.books import Ledger
from pktdrop.ledger.entry import CLASS_LAYERS, NO_COUNTER, Entry
from pktdrop.views.scope import Name, where
from pktdrop.views.text import Column, cut, number, safe, table

_COLUMNS = (
    Column("rose", "right"),
    Column("explained", "right"),
    Column("status"),
    Column("counter", least=16),
    Column("of", least=13),
    Column("by", least=15),
)
_APART = "exact: to the packet; counters were read a moment away from the last drops."
_WORST_FIRST: Sequence[str] = ("unexplained", "no-event", "bound", "exact", "silent", "doubt")


def totals_line(ledger: Ledger) -> str:
    """Say how much was lost in which layer, and how much of what counters rose by nothing explains."""
    lost = sum(ledger.lost.values())
    layers = ", ".join(f"{layer} {number(packets)}" for layer, packets in ledger.lost.items())
    doubt = ", ".join(f"{layer} {number(packets)}" for layer, packets in ledger.doubt.items())
    return (
        f"Lost in all: {_packets(lost)}{f' ({layers})' if layers else ''}. Unexplained: {number(ledger.unexplained)}."
        + (f"\nNot known whether lost: {number(sum(ledger.doubt.values()))} ({doubt})." if doubt else "")
    )


def entries_table(entries: Sequence[Entry], limit: int, width: int, name: Name) -> str:
    """Return a table of counters that rose and of drops that no counter shows, the worst first."""
    ranked = sorted(entries, key=lambda entry: (_WORST_FIRST.index(entry.status), -entry.delta, -_events(entry)))
    text = table(_COLUMNS, [_cells(entry, name) for entry in ranked[:limit]], width)
    more = len(ranked) - limit
    if more > 0:
        text += f"\nand {number(more)} more row{'s' * (more > 1)}"
    if any(entry.status == "exact" and entry.note for entry in ranked[:limit]):
        text += f"\n{_APART}"
    return text


def without_event_lines(ledger: Ledger, width: int, name: Name) -> list[str]:
    """Return a line for each loss of an interval that raised no event, and for what is unexplained."""
    return [cut(safe(line), width) for line in (*_of_nics(ledger, name), *_of_counters(ledger, name))]


def _of_nics(ledger: Ledger, name: Name) -> Iterator[str]:
    for (netns, interface), losses in ledger.nics.items():
        for loss in losses:
            layer = CLASS_LAYERS.get(loss.kind)
            if layer is None:
                continue
            place = where(Scope(netns=netns, interface=interface), name)
            queues = ", ".join(
                f"queue {queue}: {number(count)}" for queue, count in sorted(loss.queues.items()) if count
            )
            yield (
                f"! {_packets(loss.packets)} lost in {layer} of {place}{f' ({queues})' if queues else ''},"
                f" without an event: {', '.join(loss.counters)}"
            )


def _of_counters(ledger: Ledger, name: Name) -> Iterator[str]:
    for entry, packets in ledger.without_event:
        place = where(entry.scope, name)
        if entry.status == "unexplained":
            yield f"? {_packets(packets)} unexplained: {entry.counter} of {place}: {entry.note}"
        else:
            yield f"! {_packets(packets)} lost in {entry.layer}, without an event: {entry.counter} of {place}"


def _cells(entry: Entry, name: Name) -> tuple[str, ...]:
    has_counter = entry.counter != NO_COUNTER
    return (
        number(entry.delta) if has_counter else "-",
        number(entry.explained) if has_counter and entry.status != "no-event" else "-",
        entry.status,
        entry.counter if has_counter else "-",
        where(entry.scope, name),
        "; ".join(part for part in (_reasons(entry), entry.note if entry.status != "exact" else "") if part),
    )


def _reasons(entry: Entry) -> str:
    """Name the events; with their number where the column "explained" does not say it."""
    if len(entry.by) == 1 and entry.by[0][1] == entry.explained:
        return entry.by[0][0]
    return ", ".join(f"{number(count)} {reason}" for reason, count in entry.by)


def _events(entry: Entry) -> int:
    return sum(count for _, count in entry.by)


def _packets(count: int) -> str:
    return f"{number(count)} packet{'s' * (count != 1)}"
