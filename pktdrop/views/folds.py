# SPDX-License-Identifier: MIT
"""Kinds of drops that are alike in one thing, as one row: a hundred namespaces with the same loss, and how many."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pktdrop.model.drops import Count, DropKey


@dataclass(frozen=True)
class Folded:
    """Kinds of drops that are summed as one row."""

    sort: int
    """Losses, doubts and noise are never summed together."""
    name: str | None
    """What they have in common, None: each is apart."""
    keys: tuple[DropKey, ...]
    count: Count


def fold(rows: Iterable[tuple[DropKey, Count, str | None]], sort: Callable[[DropKey], int]) -> list[Folded]:
    """Return rows of one sort and one name together, by sort, the most first. Those without a name stay apart."""
    apart = [Folded(sort(key), name, (key,), count) for key, count, name in rows]
    alike: dict[object, list[Folded]] = {}
    for row in apart:
        alike.setdefault((row.sort, row.name if row.name is not None else id(row)), []).append(row)
    found = (some[0] if len(some) == 1 else _sum(some) for some in alike.values())
    return sorted(found, key=lambda row: (row.sort, -row.count.packets))


def _sum(rows: list[Folded]) -> Folded:
    count = Count(sum(row.count.packets for row in rows), sum(row.count.bytes for row in rows))
    keys = dict.fromkeys(row.keys[0] for row in rows)
    return Folded(rows[0].sort, rows[0].name, tuple(keys), count)
