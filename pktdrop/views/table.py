# SPDX-License-Identifier: MIT
"""Drops as tables, for people."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from pktdrop.filters import Selection
from pktdrop.model import flow
from pktdrop.model.drops import Amounts, Count, DropKey, Judge
from pktdrop.model.snapshots import Interval
from pktdrop.rules.protocols import Protocols
from pktdrop.text.escaping import safe
from pktdrop.text.table import DOUBT, MARK, Column, cut, table
from pktdrop.text.wording import counted, number, share
from pktdrop.views.folds import Folded, fold
from pktdrop.views.kinds import common, cpu, interface_of, netns_of, reason, reason_of, sort_of, why
from pktdrop.views.scope import Name

if TYPE_CHECKING:
    from pktdrop.ledger.books import Ledger
    from pktdrop.model.flow import CountedFlow
    from pktdrop.samples.flows import Outstanding, Standouts
    from pktdrop.samples.gather import ByKind

_LEAST_SECONDS = 0.1
"""The last interval may be shorter: a rate over less says nothing."""

_ROW_COLUMNS = (
    Column("packets", "right"),
    Column("/s", "right"),
    Column("reason", least=14),
    Column("CPU"),
    Column("iface", least=6),
    Column("netns", least=6),
    Column("proto"),
    Column("where", least=14, keep_end=True),
)
_REASON_COLUMNS = (
    Column("packets", "right"),
    Column("share", "right"),
    Column("layer"),
    Column("reason", least=14),
    Column("where most", least=16, keep_end=True),
)
_CPU_COLUMNS = (Column("packets", "right"), Column("share", "right"), Column("CPU"))
_NOISE_COLUMNS = (
    Column("packets", "right"),
    Column("reason", least=14),
    Column("why it is no loss", least=20),
    Column("where", least=14, keep_end=True),
)
_DOUBT_COLUMNS = (
    Column("packets", "right"),
    Column("reason", least=14),
    Column("why it may be no loss", least=20),
    Column("where", least=14, keep_end=True),
)

_WHO_COLUMNS = (
    Column("sampled", "right"),
    Column("reason", least=14),
    Column("most from", least=12),
    Column("most to", least=12),
    Column("whose most", least=8),
)
_INDENT = "    "
_TITLES = {"layer": "layer", "interface": "iface", "netns": "netns"}
"""What kinds can be summed by that a summary has no table of otherwise, with the title of the column."""

_Drops = Mapping[DropKey, Count]


class TableView:
    """Renders intervals and the summary as text."""

    def __init__(
        self, protocols: Protocols, limit: int, netns_name: Name, packets: int = 1, by: str | None = None
    ) -> None:
        """Take how many rows a table may have before the rest is one line, and how many lines of packets each row.

        A row is a kind of drop; or all that are alike in what they are summed by, one of model.flow.BY or FOLDED.
        """
        self._protocols = protocols
        self._by = by
        self._limit = limit
        self._packets = packets
        self._netns_name = netns_name

    def interval(
        self,
        interval: Interval,
        selection: Selection,
        ledger: "Ledger",
        width: int,
        samples: "ByKind | None" = None,
        flows: "Sequence[CountedFlow]" = (),
    ) -> str:
        """Return the block of one interval; nothing for one in which nothing was lost."""
        from pktdrop.views.ledger import without_event_lines  # nothing that comes before the first interval needs it

        without_event = without_event_lines(ledger, width, self._netns_name)
        rows = self._folded(selection, flows)
        if not (rows or selection.drops or without_event):  # without flows, drops still have their line
            return ""
        amounts = _amounts(Amounts.of(selection.drops, selection.judge))
        title = f"{_clock(interval.end)}  {amounts} in {interval.seconds:.1f} s"
        kinds = self._kinds(rows, interval.seconds, selection.judge, samples or {}, width) if rows else []
        return "\n".join([title, *kinds, *without_event]) + "\n\n"

    def _folded(self, selection: Selection, flows: "Sequence[CountedFlow]") -> list[Folded]:
        """Return the rows of a table: kinds, or what they are summed by."""
        judge, by = selection.judge, self._by
        rows: Iterable[tuple[DropKey, Count, str | None]]
        if by in flow.BY:
            from pktdrop.views.flows import name

            shown = (one for one in flows if selection.shows(one.key))
            rows = ((one.key, Count(one.packets, one.bytes), name(one, by)) for one in shown)
        else:
            named = selection.drops.items()
            rows = ((key, count, None if by is None else self._named(by, key, judge)) for key, count in named)
        return fold(rows, lambda key: sort_of(judge(key)))

    def _kinds(
        self, ranked: Sequence[Folded], seconds: float, judge: Judge, samples: "ByKind", width: int
    ) -> list[str]:
        """Return the table of an interval, and what it is summed by."""
        rows = [(self._cells(one, seconds, judge), one.count.packets) for one in ranked[: self._limit]]
        rest = [((), one.count.packets) for one in ranked[self._limit :]]
        below = [] if self._by in flow.BY else [self._packets_of(one, samples, width) for one in ranked[: self._limit]]
        note = [f"Each row is a sum by {self._by}; (3): three different ones."] if self._by else []
        return [self._table(self._columns, [*rows, *rest], width, below), *note]

    @property
    def _columns(self) -> Sequence[Column]:
        if self._by in flow.BY:
            hidden = ("CPU", "proto", *(("iface", "where") if self._by == "flow" else ()))
            own = Column(self._by or "", least=42 if self._by == "flow" else 15)
            return (*_ROW_COLUMNS[:2], own, *(one for one in _ROW_COLUMNS[2:] if one.title not in hidden))
        return (*_ROW_COLUMNS[:2], *([Column("layer")] if self._by == "layer" else []), *_ROW_COLUMNS[2:])

    def _cells(self, row: Folded, seconds: float, judge: Judge) -> tuple[str, ...]:
        """Return amount and rate, and what its kinds have in common, else how many there are."""
        return (
            number(row.count.packets),
            number(row.count.packets / seconds) if seconds >= _LEAST_SECONDS else "-",
            *(self._cell(column.title, row, judge) for column in self._columns[2:]),
        )

    def _cell(self, title: str, row: Folded, judge: Judge) -> str:
        if title in ("layer", *flow.BY):
            return row.name or "-"
        if title == "proto":
            return common([self._protocols.name(key.protocol) if key.protocol else "-" for key in row.keys])
        if title == "where":
            return common([key.call_site for key in row.keys])
        what = {"CPU": "cpu", "iface": "interface"}.get(title, title)
        return common([self._named(what, key, judge) for key in row.keys])

    def _named(self, what: str, key: DropKey, judge: Judge) -> str:
        """Return what a kind is summed by, as its cell has it."""
        if what == "netns":
            return (self._netns_name(key.netns) if key.netns and not key.netns_name else None) or netns_of(key)
        if what == "layer":
            return judge(key).layer
        return cpu(key) if what == "cpu" else interface_of(key) if what == "interface" else reason(key, judge(key))

    def _packets_of(self, row: Folded, samples: "ByKind", width: int) -> list[str]:
        """Return lines that tell whose packets a row is, those seen most first."""
        some = [one for key in row.keys for one in samples.get(key, ())] if self._packets else []
        if not some:
            return []
        from pktdrop.samples.flows import flows  # nothing that comes before the first packet needs it

        lines = []
        for one in flows(some, self._protocols.name)[: self._packets]:
            seen = f", {one.seen} of {number(row.count.packets)} seen"
            text = safe(one.text + (f" {one.whose}" if one.whose is not None else ""))
            lines.append(_INDENT + cut(text, width - len(_INDENT + seen)) + seen)
        return lines

    def status(self, elapsed: float, so_far: Amounts, quiet: float, width: int) -> str:
        """Return the line that a terminal shows while nothing is dropped, for how many seconds now."""
        text = f"{_duration(elapsed)} elapsed, {_amounts(so_far)}"
        return (text + (f", no drops for {quiet:.0f} s" if so_far.loss else ""))[: width - 1]

    def summary(
        self,
        whole: Interval,
        selection: Selection,
        ledger: "Ledger",
        width: int,
        who: "Standouts | None" = None,
        flows: "Sequence[CountedFlow]" = (),
    ) -> str:
        """Return the totals of the whole run."""
        from pktdrop.views.ledger import entries_table, totals_line

        judge = selection.judge
        loss, doubt, noise = (
            {key: count for key, count in selection.drops.items() if sort_of(judge(key)) == kind} for kind in range(3)
        )
        title = f"{_clock(whole.start)} to {_clock(whole.end)}, {whole.seconds:.1f} s"
        size = number(sum(count.bytes for count in loss.values()))
        parts = [f"{title}: {_amounts(Amounts.of(selection.drops, judge), size)}."]
        if loss:
            parts.append(self._shares(_REASON_COLUMNS, _by_reason(loss, judge), width))
            parts.append(self._shares(_CPU_COLUMNS, _grouped(loss, lambda key: (cpu(key),)), width))
            if self._by in _TITLES:
                by, title_of = self._by, Column(_TITLES[self._by])
                parts.append(
                    self._shares(
                        (*_CPU_COLUMNS[:2], title_of), _grouped(loss, lambda key: (self._named(by, key, judge),)), width
                    )
                )
        if self._by in flow.BY:
            groups: dict[tuple[str, ...], int] = {
                (one.name or "-",): one.count.packets for one in self._folded(selection, flows) if one.sort == 0
            }
            if groups:
                parts.append(self._shares((*_CPU_COLUMNS[:2], Column(self._by or "", least=15)), groups, width))
        if who is not None and who.of_reason:
            parts.append(self._who(who, width))
        for columns, drops in ((_DOUBT_COLUMNS, doubt), (_NOISE_COLUMNS, noise)):
            if drops:
                groups = _grouped(drops, lambda key: (reason(key, judge(key)), why(judge(key)), key.call_site))
                rows = [((number(packets), *name), packets) for name, packets in groups.items()]
                parts.append(self._table(columns, rows, width))
        if ledger.of_loss:
            parts.append(entries_table(ledger.of_loss, self._limit, width, self._netns_name))
        parts.append("\n".join([totals_line(ledger), *_copies(ledger), *_accounts(whole, selection.filtered)]))
        return "\n\n".join(parts) + "\n"

    def _who(self, who: "Standouts", width: int) -> str:
        """Name who stood out, by reason."""
        from pktdrop.samples.flows import outstanding

        ranked = sorted(who.of_reason.items(), key=lambda item: (-item[1].samples, item[0]))
        rows = []
        for (subsystem, name), tallies in ranked:
            most = (outstanding(names) for names in (tallies.sources, tallies.destinations, tallies.owners))
            cells = (_most(one, tallies.samples) for one in most)
            reason_name = reason_of(subsystem, name)
            rows.append(((number(tallies.samples), reason_name, *cells), tallies.samples))
        return self._table(_WHO_COLUMNS, rows, width)

    def _shares(self, columns: Sequence[Column], groups: Mapping[tuple[str, ...], int], width: int) -> str:
        total = sum(groups.values())
        return self._table(
            columns,
            [((number(packets), share(packets, total), *name), packets) for name, packets in groups.items()],
            width,
        )

    def _table(
        self,
        columns: Sequence[Column],
        rows: Sequence[tuple[tuple[str, ...], int]],
        width: int,
        below: Sequence[Sequence[str]] = (),
    ) -> str:
        """Lay out rows, no more than there may be, and below each its lines."""
        text = table(columns, [cells for cells, _ in rows[: self._limit]], width)
        if any(below):
            titles, *lines = text.splitlines()
            text = "\n".join([titles, *chain(*([line, *more] for line, more in zip(lines, below, strict=True)))])
        more = [packets for _, packets in rows[self._limit :]]
        if more:
            text += f"\nand {counted(len(more), 'more row')}: {counted(sum(more), 'packet')}"
        return text


def _most(one: "Outstanding | None", samples: int) -> str:
    """Name who stood out, with how many samples unless all are."""
    if one is None:
        return "-"
    return one.name if one.seen == samples else f"{one.name} ({number(one.seen)})"


def _grouped(drops: _Drops, name: Callable[[DropKey], tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Sum packets by name, the most first."""
    groups: dict[tuple[str, ...], int] = {}
    for key, count in drops.items():
        groups[name(key)] = groups.get(name(key), 0) + count.packets
    return dict(sorted(groups.items(), key=lambda item: (-item[1], item[0])))


def _by_reason(drops: _Drops, judge: Judge) -> dict[tuple[str, ...], int]:
    """Sum packets by layer and reason; name the call site with the most, and how many others there are."""

    def called(key: DropKey) -> tuple[str, str]:
        verdict = judge(key)
        return verdict.layer, reason(key, verdict)

    call_sites: dict[tuple[str, ...], list[str]] = {}
    for layer, name, call_site in _grouped(drops, lambda key: (*called(key), key.call_site)):
        call_sites.setdefault((layer, name), []).append(call_site)
    groups = _grouped(drops, called)
    return {
        (
            *name,
            call_sites[name][0] + (f", {len(call_sites[name]) - 1} more" if len(call_sites[name]) > 1 else ""),
        ): packets
        for name, packets in groups.items()
    }


def _amounts(amounts: Amounts, size: str = "") -> str:
    text = f"{counted(amounts.loss, 'packet')} dropped" if amounts.loss else "nothing dropped"
    if amounts.loss and size:
        text += f" ({size} bytes)"
    if amounts.doubt:
        text += f", {number(amounts.doubt)} not known whether lost ({DOUBT})"
    return text + (f", {number(amounts.noise)} noise ({MARK})" if amounts.noise else "")


def _copies(ledger: "Ledger") -> list[str]:
    """Say what captures had no room for: no packet was lost by it."""
    copies = sum(entry.delta for entry in ledger.entries if entry.counter == "packet_socket.drops")
    return [f"Copies that captures had no room for, while the packets went on: {number(copies)}."] if copies else []


def _accounts(whole: Interval, filtered: int) -> list[str]:
    lines = [f"Drops not counted: {number(whole.uncounted.missed)}."]
    others = sum(count.packets for key, count in whole.drops.items() if key.other_places)
    if others:
        lines.append(f"At other places, too many to be kept apart: {counted(others, 'packet')}.")
    if filtered:
        lines.append(f"filtered: {counted(filtered, 'packet')} counted, not shown.")
    return lines


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
