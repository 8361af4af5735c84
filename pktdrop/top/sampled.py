# SPDX-License-Identifier: MIT
"""The tables of flows and of processes: whose packets were dropped, by those that were looked at."""

from collections.abc import Iterator
from typing import Final

from pktdrop.model.drops import Netns
from pktdrop.model.sample import Owner
from pktdrop.samples.words import content, peers
from pktdrop.text.table import DOUBT, MARK, Column
from pktdrop.text.wording import number
from pktdrop.top.grid import GridRow, names, numbers
from pktdrop.top.history import History
from pktdrop.top.subjects import SampledFlow, SampledProcess
from pktdrop.top.view import Context, View, listed, seen
from pktdrop.top.whose import Sampled
from pktdrop.views.kinds import netns_of

_NONE: Final = "no dropped packet was looked at so far"
_NOT_KNOWN: Final = "not known"
"""Shown in place of a process: nobody has the packet's socket open, or the packet has none."""
_OTHERS: Final = "others"
"""Shown in place of a flow or process: those of few samples, where there were too many to be told apart."""


def seen_of(sampled: tuple[int, int | None]) -> str:
    """Write how many packets were looked at, of how many that may be alike."""
    some, packets = sampled
    return number(some) if packets is None else f"{number(some)} of {number(packets)}"


def _sampled() -> Column:
    return Column("sampled", "right", show=seen_of, order=lambda sampled: sampled[0])


def _mark(mark: str, sampled: Sampled, history: History) -> str:
    if mark in (DOUBT, MARK):
        return mark
    return "!" if sampled.last == history.elapsed else " "


def _netns(netns: Netns | None, sampled: Sampled, context: Context) -> str:
    name = context.netns_name(netns) if netns is not None else None
    return name or netns_of(sampled.newest[-1][0].key)


def _words(*parts: str) -> str:
    return " ".join(parts).lower()


# --- flows


def _flow_columns(history: History, _context: Context) -> tuple[Column, ...]:
    return (
        _sampled(),
        Column("flow", least=28),
        Column("protocol", least=8, rank=3),
        Column("process", least=8, rank=4),
        names("reason", 10, rank=5),
        Column("netns", least=6, rank=6),
        seen(history),
    )


def _flow_rows(history: History, context: Context) -> Iterator[GridRow]:
    for subject, sampled in history.whose.flows.items():
        if (subject.mark == MARK and not context.noise) or sampled.packet is None:
            continue
        flow, kind = peers(sampled.packet) or "-", content(sampled.packet, context.protocols.name) or "-"
        owner = _in_container(process_name(sampled.owner), sampled) if sampled.owner else "-"
        netns = _netns(subject.netns, sampled, context)
        yield GridRow(
            subject,
            ((sampled.seen, sampled.packets), flow, kind, owner, listed(sampled.reasons), netns, sampled.last),
            _mark(subject.mark, sampled, history),
            _words(flow, kind, owner, netns, *sampled.reasons),
        )
    if forgotten := history.whose.forgotten["flows"]:
        values = ((forgotten, None), _OTHERS, "-", "-", ["-"], "-", -1.0)
        yield GridRow(SampledFlow(None, (), _OTHERS), values, words=_OTHERS)


# --- processes


def process_name(owner: Owner | None) -> str:
    """Name a process, whether the packets were for it or from it."""
    return _NOT_KNOWN if owner is None else str(owner).partition(" ")[2]


def _in_container(process: str, sampled: Sampled) -> str:
    """Add to a process what it runs in, if that is known: "statsd[812] (pod shop/cart-7f9)"."""
    container = sampled.newest[-1][0].container if sampled.owner is not None else None
    return process if container is None or not container.tells else f"{process} ({container})"


def _process_columns(history: History, _context: Context) -> tuple[Column, ...]:
    return (
        _sampled(),
        numbers("for it", rank=4),
        numbers("from it", rank=4),
        Column("process", least=12),
        names("reason", 10, rank=5),
        Column("netns", least=6, rank=6),
        seen(history),
    )


def _process_rows(history: History, context: Context) -> Iterator[GridRow]:
    for subject, sampled in history.whose.processes.items():
        if subject.mark == MARK and not context.noise:
            continue
        name, netns = _in_container(process_name(subject.owner), sampled), _netns(None, sampled, context)
        sent = 0 if subject.owner is None else sampled.seen - sampled.received
        yield GridRow(
            subject,
            (
                (sampled.seen, sampled.packets), sampled.received, sent, name, listed(sampled.reasons), netns,
                sampled.last,
            ),
            _mark(subject.mark, sampled, history),
            _words(name, netns, *sampled.reasons),
        )  # fmt: skip
    if forgotten := history.whose.forgotten["processes"]:
        values = ((forgotten, None), None, None, _OTHERS, ["-"], "-", -1.0)
        yield GridRow(SampledProcess(None, _OTHERS), values, words=_OTHERS)


FLOWS: Final = View("flows", "sampled", _flow_columns, _flow_rows, _NONE)
PROCESSES: Final = View("processes", "sampled", _process_columns, _process_rows, _NONE)
