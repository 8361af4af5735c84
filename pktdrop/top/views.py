# SPDX-License-Identifier: MIT
"""The tables of the live view: which columns each has, and its rows from a History."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from pktdrop.ledger.entry import STAT_CLASS_LAYERS
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import NO_COUNTER
from pktdrop.text.table import DOUBT, Column
from pktdrop.text.wording import share
from pktdrop.top.grid import GridRow, names, numbers, ranges, trend
from pktdrop.top.history import History
from pktdrop.top.sampled import FLOWS, PROCESSES
from pktdrop.top.subjects import Cpu, OneNetns, Reason
from pktdrop.top.sums import Group, Line, Tally
from pktdrop.top.view import Context, View, listed, seen
from pktdrop.views.scope import scope_text

_NOT_NOISE: Final = "*"
_WORST_FIRST: Final = ("unexplained", "no-event", "bound", "exact", "silent")


def _share(history: History) -> Column:
    whole = history.loss.packets
    return Column("share", "right", show=lambda packets: share(packets, whole) if packets else "-", rank=4)


def _mark(key: Reason | None, tally: Tally, now: float) -> str:
    if key is not None and key.noise is not None:
        return _NOT_NOISE
    if key is not None and key.doubt is not None:
        return DOUBT
    return "!" if tally.rate(now) else " "


def _apart(history: History, context: Context, rank: int) -> tuple[Column, ...]:
    """Return the columns of what is no loss, and of what may be none, as far as they are shown."""
    noise = (numbers("noise", rank=rank),) if context.noise else ()
    return (*((numbers("doubt", rank=rank),) if history.doubt else ()), *noise)


def _values_apart(history: History, context: Context, group: Group) -> tuple[int, ...]:
    return (*((group.doubt,) if history.doubt else ()), *((group.noise,) if context.noise else ()))


# --- reasons


def _reason_columns(history: History, context: Context) -> tuple[Column, ...]:
    return (
        numbers("/s"),
        numbers("total"),
        _share(history),
        Column("layer", rank=5),
        Column("reason", least=13),
        Column("CPU", least=4, rank=6),
        names("iface", 6, rank=7),
        names("netns", 6, rank=8),
        seen(history),
        trend(history.since, history.elapsed, context.marks),
    )


def _reason_rows(history: History, context: Context) -> Iterator[GridRow]:
    for key, group in history.reasons.items():
        if key.noise is not None and not context.noise:
            continue
        yield GridRow(key, _reason_values(key, group, history.elapsed),
                  _mark(key, group.tally, history.elapsed), _words(group))  # fmt: skip


def _reason_values(key: Reason, group: Group, now: float) -> tuple[Any, ...]:
    tally = group.tally
    return (
        tally.rate(now), tally.packets, 0 if key.noise or key.doubt else tally.packets, key.layer, key.name,
        cpus(group), listed(group.interfaces), listed(group.netns), tally.seen, tally.series,
    )  # fmt: skip


def cpus(group: Group) -> str:
    """Write the CPUs of a group: "0-3", and "0>3" where the backlog of CPU 3 was full."""
    plain = ranges([cpu for cpu, target in group.cpus if target is None])
    steered = [f"{cpu}>{target}" for cpu, target in sorted(group.cpus, key=str) if target is not None]
    return ",".join(part for part in (plain, *steered) if part) or "-"


def _words(group: Group, *more: str) -> str:
    return " ".join(sorted((*group.words, *more))).lower()


# --- CPUs


def _cpu_columns(history: History, context: Context) -> tuple[Column, ...]:
    return (
        Column("CPU", align="right", order=lambda cpu: -cpu),
        numbers("/s"),
        numbers("total"),
        _share(history),
        numbers("full"),
        numbers("backlog", rank=3),
        numbers("dropped", rank=5),
        numbers("squeezed", rank=6),
        numbers("processed/s", rank=7),
        numbers("rps", rank=9),
        numbers("flow limit", rank=10),
        *_apart(history, context, 11),
        Column("most", least=12, rank=2),
        trend(history.since, history.elapsed, context.marks),
    )


def _cpu_rows(history: History, context: Context) -> Iterator[GridRow]:
    nothing = Group(Tally(1.0))
    for cpu in sorted({*history.cpus, *history.processors, *history.targets}):
        group, target = history.cpus.get(cpu, nothing), history.targets.get(cpu)
        processor = history.processors.get(cpu)
        total = processor.total if processor else {}
        yield GridRow(
            Cpu(cpu),
            (
                cpu, group.tally.rate(history.elapsed), group.tally.packets, group.tally.packets,
                target.packets if target else 0,
                processor.backlog.get("backlog_len", 0) if processor else 0,
                total.get("dropped", 0), total.get("time_squeeze", 0),
                processor.rates.get("processed", 0.0) if processor else 0.0,
                total.get("received_rps", 0), total.get("flow_limit_count", 0),
                *_values_apart(history, context, group), most(history, group), group.tally.series,
            ),
            "!" if group.tally.rate(history.elapsed) or (target and target.rate(history.elapsed)) else " ",
            _words(group, f"cpu{cpu}"),
        )  # fmt: skip


def most(history: History, group: Group) -> str:
    """Name the reason of most losses in a group, "-" without one."""
    sums: dict[str, int] = {}
    for key in group.keys:
        if history.verdict(key).is_loss:
            sums[key.reason] = sums.get(key.reason, 0) + history.drops.get(key, 0)
    return max(sums, key=lambda name: (sums[name], name)) if sums else "-"


# --- interfaces and queues


def _stat_classes(history: History) -> list[str]:
    """Return the stat_classes that packets were lost in, in the order of the packet's way."""
    there = {
        stat_class for port in history.ports.values() for stat_class, packets in port.stat_classes.items() if packets
    }
    return [
        *(stat_class for stat_class in STAT_CLASS_LAYERS if stat_class in there),
        *sorted(there.difference(STAT_CLASS_LAYERS)),
    ]


def _interface_columns(history: History, context: Context) -> tuple[Column, ...]:
    return (
        Column("iface", least=6),
        Column("queue", align="right", show=lambda queue: "all" if queue < 0 else str(queue), rank=6,
               order=lambda queue: -queue),
        Column("netns", least=8, rank=5),
        Column("driver", least=6, rank=9),
        numbers("/s"),
        numbers("total"),
        *(numbers(stat_class, rank=3) for stat_class in _stat_classes(history)),
        *_apart(history, context, 11),
        numbers("rx/s", rank=7),
        numbers("tx/s", rank=8),
        Column("most", least=12, rank=4),
        trend(history.since, history.elapsed, context.marks),
    )  # fmt: skip


def _interface_rows(history: History, context: Context) -> Iterator[GridRow]:
    stat_classes = _stat_classes(history)
    nothing = Group(Tally(1.0))
    for subject in dict.fromkeys((*history.interfaces, *history.ports)):
        name, queue, port = subject.interface, subject.queue, history.ports.get(subject)
        group = history.interfaces.get(subject, nothing)
        whole = group if queue is None else history.interfaces.get(replace(subject, queue=None), nothing)
        namespace = _netns_name(subject.netns, whole, context)
        is_moving = port is not None and port.moved == history.elapsed
        yield GridRow(
            subject,
            (
                name, -1 if queue is None else queue, namespace, (port.driver if port else "") or "-",
                group.tally.rate(history.elapsed), group.tally.packets,
                *((port.stat_classes.get(stat_class, 0) if port else 0) for stat_class in stat_classes),
                *_values_apart(history, context, group),
                port.received if port and is_moving else 0.0, port.sent if port and is_moving else 0.0,
                most(history, group), group.tally.series,
            ),
            "!" if group.tally.rate(history.elapsed) or (port and port.lost == history.elapsed) else " ",
            _words(group, name, namespace, port.driver if port else ""),
        )  # fmt: skip


# --- namespaces


def _netns_columns(history: History, context: Context) -> tuple[Column, ...]:
    return (
        numbers("/s"),
        numbers("total"),
        _share(history),
        Column("netns", least=10),
        Column("inode", show=lambda netns: "-" if netns is None else str(netns), align="right", rank=6),
        *_apart(history, context, 4),
        names("iface", 6, rank=7),
        Column("most", least=12, rank=3),
        seen(history),
        trend(history.since, history.elapsed, context.marks),
    )


def _netns_rows(history: History, context: Context) -> Iterator[GridRow]:
    for netns, group in history.netns.items():
        name = _netns_name(netns, group, context)
        yield GridRow(
            OneNetns(netns),
            (
                group.tally.rate(history.elapsed), group.tally.packets, group.tally.packets, name, netns,
                *_values_apart(history, context, group),
                listed(group.interfaces), most(history, group), group.tally.seen, group.tally.series,
            ),
            _mark(None, group.tally, history.elapsed),
            _words(group, name, str(netns)),
        )  # fmt: skip


def _netns_name(netns: Netns | None, group: Group, context: Context) -> str:
    """Return the name that a namespace has now, else one it had at a drop, else its inode."""
    if netns is None:
        return "-"
    return context.netns_name(netns) or listed(group.netns or [str(netns)])[0]


# --- ledger


def _ledger_columns(_history: History, context: Context) -> tuple[Column, ...]:
    def of(scope: Scope) -> str:
        return scope_text(scope, context.netns_name)

    return (
        Column("rose", show=lambda rose: "-" if rose is None else f"{rose:,}", align="right"),
        Column("explained", show=lambda events: "-" if events is None else f"{events:,}", align="right", rank=3),
        Column("rest", show=lambda rest: "-" if rest is None else f"{rest:,}", align="right"),
        Column("status", order=_WORST_FIRST.index),
        Column("layer", rank=4),
        Column("counter", least=16),
        Column("of", show=of, least=9, rank=1, order=of),
        Column("by", least=12, rank=2),
    )


def _ledger_rows(history: History, context: Context) -> Iterator[GridRow]:
    for subject, line in history.lines.items():
        if line.is_hint:
            continue
        counter, scope = subject.counter, subject.scope
        has_counter = counter != NO_COUNTER
        by = reasons_of(line)
        yield GridRow(
            subject,
            (
                line.delta if has_counter else None,
                line.explained if has_counter and line.status != "no-event" else None,
                line.unexplained if line.status == "unexplained" else line.delta - line.explained,
                line.status, line.entry.layer, counter if has_counter else "-", scope, by,
            ),
            "?" if line.status == "unexplained" else "!" if line.status == "no-event" else " ",
            " ".join((counter, line.status, line.entry.layer, scope_text(scope, context.netns_name), by)).lower(),
        )  # fmt: skip


def reasons_of(line: Line) -> str:
    """Name the events of a line, the most first."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(line.by.items(), key=lambda item: -item[1]))


VIEWS: Final[Sequence[View]] = (
    View("reasons", "/s", _reason_columns, _reason_rows),
    View("CPUs", "/s", _cpu_columns, _cpu_rows),
    View("interfaces", "/s", _interface_columns, _interface_rows),
    View("namespaces", "/s", _netns_columns, _netns_rows),
    View("ledger", "status", _ledger_columns, _ledger_rows),
    FLOWS,
    PROCESSES,
)
