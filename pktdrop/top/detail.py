# SPDX-License-Identifier: MIT
"""What lies behind one row: call sites, CPUs, interfaces, the ledger's lines, advice."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, NamedTuple

from pktdrop.ledger.entry import NO_COUNTER
from pktdrop.model.drops import DropKey, Netns, full_reason
from pktdrop.text.escaping import safe
from pktdrop.text.wording import number
from pktdrop.top import history
from pktdrop.top.history import NO_EVENT, Group, History, Reason
from pktdrop.top.lines import Line, labelled
from pktdrop.top.views import Context, reasons_of
from pktdrop.views.scope import scope_text
from pktdrop.views.table import cpu, interface_of, netns_of, reason

MOST: Final = 12
"""Parts of a list that are named; of the rest there is the number."""


def subject(seen: History, key: Hashable) -> Group | None:
    """Return the drops that a row stands for; None for a row that stands for none."""
    if isinstance(key, Reason):
        return seen.reasons.get(key)
    if isinstance(key, int):
        return seen.cpus.get(key)
    if isinstance(key, tuple) and len(key) == 2:
        return seen.netns.get(key[1])
    if isinstance(key, tuple) and key[0] != "ledger" and key[2] is None:
        return seen.interfaces.get((key[0], key[1]))
    return None


def lines(seen: History, key: Hashable, context: Context, advice: Sequence[str], width: int) -> list[Line]:
    """Return what is known about a row."""
    if isinstance(key, tuple) and key[0] == "ledger":
        found = list(_of_line(seen.lines[key[1], key[2]], context, width)) if (key[1], key[2]) in seen.lines else []
        return found + _advice(advice, width)
    group = subject(seen, key)
    found = []
    if isinstance(key, Reason):
        found += labelled("what", _what(key), width)
    found += _advice(advice, width)
    if group is not None and group.keys:
        found += _drops(seen, key, group, width)
    if isinstance(key, int):
        found += _processor(seen, key, width)
    if isinstance(key, tuple) and not isinstance(key, Reason) and len(key) == 3:
        found += _port(seen, key, width)
    return found + _ledger(seen, key, group, context, width)


def _what(key: Reason) -> str:
    if key.noise is not None:
        return f"{key.name}: no loss: {key.noise}"
    if key.doubt is not None:
        return f"{key.name}: not known whether lost: {key.doubt}"
    if key.name == NO_EVENT:
        return f"lost in {key.layer} without a drop event: counters alone tell, see below"
    return f"{key.name}, lost in {key.layer}"


class _Amount(NamedTuple):
    """One kind of drop: packets in all, and in the last interval."""

    key: DropKey
    packets: int
    now: int


def _drops(seen: History, key: Hashable, group: Group, width: int) -> Iterable[Line]:
    amounts = _amounts(seen, group)
    if not isinstance(key, Reason):
        yield from labelled("reasons", _shares(seen, amounts, lambda one: reason(one, seen.verdict(one))), width)
    if any(target is not None for _, target in group.cpus):
        yield from _matrix(amounts, width)
    yield from labelled("sites", _shares(seen, amounts, lambda one: one.call_site), width)
    if not isinstance(key, int):
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


def _matrix(amounts: Sequence[_Amount], width: int) -> Iterable[Line]:
    """Draw packets by the CPU that had them and the CPU whose backlog was full; the most for each first."""
    cells: dict[tuple[int, int], int] = {}
    for key, packets, _ in amounts:
        if key.target_cpu is not None:
            cells[key.cpu, key.target_cpu] = cells.get((key.cpu, key.target_cpu), 0) + packets
    sources, targets = sorted({one for one, _ in cells}), sorted({one for _, one in cells})
    wide = max(6, *(len(number(count)) + 1 for count in cells.values()))
    targets = targets[: max(1, (width - 18) // wide)]
    yield (("from\\to ", "title"), ("".join(f"CPU {one}".rjust(wide) for one in targets), "title"))
    for source in sources[:MOST]:
        counts = "".join(number(cells.get((source, one), 0)).rjust(wide) for one in targets)
        yield ((f"CPU {source}".ljust(8), "title"), (counts, ""))


def _processor(seen: History, cpu: int, width: int) -> list[Line]:
    found = seen.processors.get(cpu)
    if found is None:
        return []
    counted = ", ".join(f"{name} {number(value)}" for name, value in found.total.items() if value)
    waiting = ", ".join(f"{name} {number(value)}" for name, value in found.backlog.items())
    return [*labelled("softnet", counted or "nothing moved", width), *labelled("waiting", waiting or "-", width)]


def _port(seen: History, key: tuple[Netns | None, str, int | None], width: int) -> list[Line]:
    port = seen.ports.get(key)
    if port is None or not port.stat_classes:
        return labelled("NIC", "its counters tell of no loss", width)
    stat_classes = ", ".join(f"{stat_class} {number(packets)}" for stat_class, packets in port.stat_classes.items())
    counters = ", ".join(f"{counter} {number(packets)}" for counter, packets in port.counters.items())
    queues = ", ".join(
        f"queue {queue}: {number(sum(other.stat_classes.values()))}"
        for (netns, name, queue), other in sorted(seen.ports.items(), key=str)
        if (netns, name) == key[:2] and queue is not None
    )
    return [
        *labelled("NIC", f"{stat_classes} (by {counters})", width, "loss"),
        *(labelled("queues", queues, width) if queues and key[2] is None else []),
    ]


def _ledger(seen: History, key: Hashable, group: Group | None, context: Context, width: int) -> list[Line]:
    """Return the lines of counters that the drops of a row moved, or that stand for a row without drops."""
    found: list[Line] = []
    names = {full_reason(one.subsystem, one.reason) for one in (group.keys if group else ())}
    namespaces = {one.netns for one in (group.keys if group else ())}
    for line in seen.lines.values():
        if line.is_hint or not _concerns(line, key, names, namespaces):
            continue
        found += labelled("ledger", _sentence(line, context), width, "odd" if line.unexplained else "")
    return found


def _concerns(line: history.Line, key: Hashable, names: set[str], namespaces: set[Netns | None]) -> bool:
    scope = line.entry.scope
    if isinstance(key, int):
        return scope.cpu == key
    if isinstance(key, Reason):
        if key.name == NO_EVENT:
            return line.entry.layer == key.layer and line.status in ("no-event", "unexplained")
        is_here = scope.netns is None or scope.netns in namespaces
        return is_here and not names.isdisjoint(line.by)
    if isinstance(key, tuple) and len(key) == 2:
        return bool(scope.netns == key[1])
    if isinstance(key, tuple):
        return bool((scope.netns, scope.interface) == key[:2] and key[2] in (None, scope.queue))
    return False


def _sentence(line: history.Line, context: Context) -> str:
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


def _of_line(line: history.Line, context: Context, width: int) -> Iterable[Line]:
    yield from labelled("what", _sentence(line, context), width, "odd" if line.unexplained else "")
    yield from labelled("layer", line.entry.layer, width)
    if line.by:
        yield from labelled("events", safe(reasons_of(line)), width)


def _advice(advice: Sequence[str], width: int) -> list[Line]:
    return [line for sentence in advice for line in labelled("advice", safe(sentence), width, "strong")]


__all__ = ["lines", "subject"]
