# SPDX-License-Identifier: MIT
"""Kinds of drops that are alike in one thing, as one row: a hundred namespaces with the same loss, and how many."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pktdrop.model.drops import Count, DropKey


@dataclass(frozen=True)
class Folded:
    """Kinds of drops that are summed as one row."""

    sort: int
    """Losses, doubts and noise are never summed together."""
    keys: tuple[DropKey, ...]
    count: Count


def fold(
    drops: Mapping[DropKey, Count], sort: Callable[[DropKey], int], name: Callable[[DropKey], str] | None
) -> list[Folded]:
    """Return kinds of one sort and one name together, by sort, the most first. Without names each is apart."""
    rows: Iterable[Folded] = (Folded(sort(key), (key,), count) for key, count in drops.items())
    if name is not None:
        alike: dict[tuple[int, str], list[Folded]] = {}
        for row in rows:
            alike.setdefault((row.sort, name(row.keys[0])), []).append(row)
        rows = map(_sum, alike.values())
    return sorted(rows, key=lambda row: (row.sort, -row.count.packets))


def _sum(rows: list[Folded]) -> Folded:
    count = Count(sum(row.count.packets for row in rows), sum(row.count.bytes for row in rows))
    return Folded(rows[0].sort, tuple(row.keys[0] for row in rows), count)
