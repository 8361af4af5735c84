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
    found: list[Folded] = []
    alike: dict[tuple[int, str], list[Folded]] = {}
    for key, count, name in rows:
        row = Folded(sort(key), name, (key,), count)
        if name is None:
            found.append(row)
        else:
            alike.setdefault((row.sort, name), []).append(row)
    found += map(_sum, alike.values())
    return sorted(found, key=lambda row: (row.sort, -row.count.packets))


def _sum(rows: list[Folded]) -> Folded:
    count = Count(sum(row.count.packets for row in rows), sum(row.count.bytes for row in rows))
    keys = dict.fromkeys(row.keys[0] for row in rows)
    return Folded(rows[0].sort, rows[0].name, tuple(keys), count)
