# SPDX-License-Identifier: MIT
"""What lies behind one row: call sites, CPUs, interfaces, the ledger's lines, advice."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pktdrop.model.drops import DropKey, Netns, full_reason
from pktdrop.rules.identities import NO_COUNTER
from pktdrop.samples.flows import flows
from pktdrop.text.escaping import safe
from pktdrop.text.wording import counted, number
from pktdrop.top import sums
from pktdrop.top.history import History
from pktdrop.top.lines import ScreenLine, labelled
from pktdrop.top.subjects import (
    NO_EVENT,
    CounterScope,
    Cpu,
    InterfaceQueue,
    OneNetns,
    Reason,
    SampledFlow,
    SampledProcess,
    Subject,
)
from pktdrop.top.sums import Group
from pktdrop.top.view import Context
from pktdrop.top.views import reasons_of
from pktdrop.top.whose import latest
from pktdrop.views import packets
from pktdrop.views.kinds import cpu, interface_of, netns_of, reason
from pktdrop.views.scope import scope_text

MOST_FLOWS: Final = 6
MOST_ADVICE: Final = 4
MOST: Final = 12
"""Parts of a list that are named; of more parts, only their number is told."""


def group_of(seen: History, subject: Subject) -> Group | None:
    """Return the drops that a row stands for; None for a row that stands for no drops."""
    match subject:
        case Reason():
            return seen.reasons.get(subject)
        case Cpu(number):
            return seen.cpus.get(number)
        case InterfaceQueue():
            return seen.interfaces.get(subject)
        case OneNetns(netns):
            return seen.netns.get(netns)
        case CounterScope() | SampledFlow() | SampledProcess():
            return None


def lines(seen: History, subject: Subject, context: Context, advice: Sequence[str], width: int) -> list[ScreenLine]:
    """Return what is known about a row."""
    if isinstance(subject, CounterScope):
        found = list(_of_line(seen.lines[subject], context, width)) if subject in seen.lines else []
        return found + _advice(advice, width)
    if isinstance(subject, SampledFlow | SampledProcess):
        return _sampled(seen, subject, context, width)
    group = group_of(seen, subject)
    found = labelled("what", _what(subject), width) if isinstance(subject, Reason) else []
    found += _advice(advice, width)
    if group is not None and group.keys:
        found += _drops(seen, subject, group, width)
        found += _latest(seen, group, context, width)
    if isinstance(subject, Cpu):
        found += _processor(seen, subject.number, width)
    if isinstance(subject, InterfaceQueue):
        found += _port(seen, subject, width)
    return found + _ledger(seen, subject, group, context, width)


def _what(key: Reason) -> str:
    if key.noise is not None:
        return f"{key.name}: no loss: {key.noise}"
    if key.doubt is not None:
        return f"{key.name}: not known whether lost: {key.doubt}"
    if key.name == NO_EVENT:
        return f"lost in {key.layer} without a drop event: counters alone tell, see below"
    return f"{key.name}, lost in {key.layer}"


def _sampled(seen: History, subject: SampledFlow | SampledProcess, context: Context, width: int) -> list[ScreenLine]:
    """Say of how many packets how many were looked at, and show the last ones."""
    whose = seen.whose
    found = whose.flows.get(subject) if isinstance(subject, SampledFlow) else whose.processes.get(subject)
    if found is None:
        return labelled("what", "samples that came one by one, from too many to be told apart", width)
    where = "dropped in the same looks, for the same reasons, at the same places"
    said = labelled("what", f"{number(found.seen)} seen of {counted(found.packets, 'packet')} {where}", width)
    for sample, verdict in reversed(found.newest):
        said += labelled("packet", packets.line(sample, verdict, context.protocols).rstrip(), width)
    return said


def _latest(seen: History, group: Group, context: Context, width: int) -> Iterable[ScreenLine]:
    """Show whose the packets of a row are, those seen most first."""
    groups = latest(seen.whose.recent, group.keys)
    for samples, dropped in groups[:MOST_FLOWS]:
        (flow,) = flows(samples, context.protocols.name)
        text = flow.text + (f" {flow.whose}" if flow.whose is not None else "")
        yield from labelled("whose", f"{text}, {flow.seen} of {number(dropped)} seen", width)
    if len(groups) > MOST_FLOWS:
        yield from labelled("whose", f"and {len(groups) - MOST_FLOWS} more", width)


class _Amount(NamedTuple):
    """One kind of drop: packets in all, and in the last interval."""

    key: DropKey
    packets: int
    now: int


def _drops(seen: History, subject: Subject, group: Group, width: int) -> Iterable[ScreenLine]:
    amounts = _amounts(seen, group)
    if not isinstance(subject, Reason):
        yield from labelled("reasons", _shares(seen, amounts, lambda one: reason(one, seen.verdict(one))), width)
    if any(target is not None for _, target in group.cpus):
        yield from _matrix(amounts, width)
    yield from labelled("sites", _shares(seen, amounts, lambda one: one.call_site), width)
    if not isinstance(subject, Cpu):
        yield from labelled("CPUs", _shares(seen, amounts, cpu), width)
    yield from labelled("ifaces", _shares(seen, amounts, lambda one: f"{interface_of(one)} ({netns_of(one)})"), width)


def _amounts(seen: History, group: Group) -> list[_Amount]:
    """Look up all drops of a group once: there may be ten thousand."""
    drops, now = seen.drops, seen.now
    found = []
    for key in group.keys:
        packets = drops.get(key)
        if packets is not None:
            moved = now.get(key)
            found.append(_Amount(key, packets, moved.packets if moved else 0))
    return found


def _shares(seen: History, amounts: Sequence[_Amount], name: Callable[[DropKey], str]) -> str:
    """Sum packets and rates by name, the most first."""
    packets: dict[str, int] = {}
    now: dict[str, int] = {}
    for key, count, moved in amounts:
        called = name(key)
        packets[called] = packets.get(called, 0) + count
        now[called] = now.get(called, 0) + moved
    ranked = sorted(packets, key=lambda one: (-packets[one], one))
    parts = [
        f"{safe(one)} {number(packets[one])}" + (f" ({number(seen.per_second(now[one]))}/s)" if now[one] else "")
        for one in ranked[:MOST]
    ]
    return ", ".join(parts) + (f" and {len(ranked) - MOST} more" if len(ranked) > MOST else "")


def _matrix(amounts: Sequence[_Amount], width: int) -> Iterable[ScreenLine]:
    """Draw packets by the CPU that had them and the CPU whose backlog was full; the most for each first."""
    cells: dict[tuple[int, int], int] = {}
    for key, amount, _ in amounts:
        if key.target_cpu is not None:
            cells[key.cpu, key.target_cpu] = cells.get((key.cpu, key.target_cpu), 0) + amount
    sources, targets = sorted({one for one, _ in cells}), sorted({one for _, one in cells})
    wide = max(6, *(len(number(count)) + 1 for count in cells.values()))
    targets = targets[: max(1, (width - 18) // wide)]
    yield (("from\\to ", "title"), ("".join(f"CPU {one}".rjust(wide) for one in targets), "title"))
    for source in sources[:MOST]:
        counts = "".join(number(cells.get((source, one), 0)).rjust(wide) for one in targets)
        yield ((f"CPU {source}".ljust(8), "title"), (counts, ""))


def _processor(seen: History, cpu: int, width: int) -> list[ScreenLine]:
    found = seen.processors.get(cpu)
    if found is None:
        return []
    counted = ", ".join(f"{name} {number(value)}" for name, value in found.total.items() if value)
    waiting = ", ".join(f"{name} {number(value)}" for name, value in found.backlog.items())
    return [*labelled("softnet", counted or "nothing moved", width), *labelled("waiting", waiting or "-", width)]


def _port(seen: History, subject: InterfaceQueue, width: int) -> list[ScreenLine]:
    port = seen.ports.get(subject)
    if port is None or not port.stat_classes:
        return labelled("NIC", "its counters tell of no loss", width)
    stat_classes = ", ".join(f"{stat_class} {number(packets)}" for stat_class, packets in port.stat_classes.items())
    counters = ", ".join(f"{counter} {number(packets)}" for counter, packets in port.counters.items())
    queues = ", ".join(
        f"queue {other.queue}: {number(sum(lost.stat_classes.values()))}"
        for other, lost in sorted(seen.ports.items(), key=str)
        if other.queue is not None and replace(other, queue=None) == replace(subject, queue=None)
    )
    return [
        *labelled("NIC", f"{stat_classes} (by {counters})", width, "loss"),
        *(labelled("queues", queues, width) if queues and subject.queue is None else []),
    ]


def _ledger(seen: History, subject: Subject, group: Group | None, context: Context, width: int) -> list[ScreenLine]:
    """Return the lines of counters that the drops of a row moved, or that stand for a row without drops."""
    found: list[ScreenLine] = []
    names = {full_reason(one.subsystem, one.reason) for one in (group.keys if group else ())}
    namespaces = {one.netns for one in (group.keys if group else ())}
    for line in seen.lines.values():
        if line.is_hint or not _concerns(line, subject, names, namespaces):
            continue
        found += labelled("ledger", _sentence(line, context), width, "odd" if line.unexplained else "")
    return found


def _concerns(line: sums.Line, subject: Subject, names: set[str], namespaces: set[Netns | None]) -> bool:
    scope = line.entry.scope
    match subject:
        case Cpu(number):
            return scope.cpu == number
        case Reason(layer, name) if name == NO_EVENT:
            return line.entry.layer == layer and line.status in ("no-event", "unexplained")
        case Reason():
            return (scope.netns is None or scope.netns in namespaces) and not names.isdisjoint(line.by)
        case OneNetns(netns):
            return scope.netns == netns
        case InterfaceQueue(netns, interface, queue):
            return (scope.netns, scope.interface) == (netns, interface) and queue in (None, scope.queue)
        case CounterScope(counter):
            return (line.entry.counter, scope) == (counter, subject.scope)
        case SampledFlow() | SampledProcess():
            return False


def _sentence(line: sums.Line, context: Context) -> str:
    of = scope_text(line.entry.scope, context.netns_name)
    if line.entry.counter == NO_COUNTER:
        return safe(f"no counter shows {reasons_of(line)} ({of}): {line.entry.note}".rstrip(": "))
    text = f"{line.entry.counter} of {of} rose by {number(line.delta)}, "
    if line.status == "no-event":
        text += "no event shows such packets"
    elif line.delta == line.explained:
        text += "events explain all of it"
    else:
        text += f"events explain {number(line.explained)}"
    if line.unexplained:
        text += f", unexplained: {number(line.unexplained)}"
    is_open = line.unexplained or line.delta != line.explained
    return safe(text + (f" ({line.entry.note})" if is_open and line.entry.note else ""))


def _of_line(line: sums.Line, context: Context, width: int) -> Iterable[ScreenLine]:
    yield from labelled("what", _sentence(line, context), width, "odd" if line.unexplained else "")
    yield from labelled("layer", line.entry.layer, width)
    if line.by:
        yield from labelled("events", safe(reasons_of(line)), width)


def _advice(advice: Sequence[str], width: int) -> list[ScreenLine]:
    more = [f"and {len(advice) - MOST_ADVICE} more; 'pktdrop diagnose' has all"] if len(advice) > MOST_ADVICE else []
    said = [*advice[:MOST_ADVICE], *more]
    return [line for sentence in said for line in labelled("advice", safe(sentence), width, "strong")]


__all__ = ["group_of", "lines"]
