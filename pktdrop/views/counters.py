# SPDX-License-Identifier: MIT
"""Counters as a table, in the columns of other tools, or as JSON."""

from collections.abc import Callable, Mapping, Sequence

from pktdrop.counters import like
from pktdrop.ledger.told import Told
from pktdrop.model.counters import Counters, Row, Scope
from pktdrop.model.limits import Limit
from pktdrop.text.escaping import json_line
from pktdrop.text.table import Column, table
from pktdrop.text.wording import number
from pktdrop.views.limits import sentences
from pktdrop.views.scope import Name, as_object, scope_text

_COLUMNS = (
    Column("count", "right"),
    Column("/s", "right"),
    Column("tells of"),
    Column("of", least=12),
    Column("counter", least=20),
)


def as_table(told: Sequence[Told], seconds: Callable[[Scope], float] | None, width: int, name: Name) -> str:
    """Return counters, those of loss first; `seconds` tells in which time those of a scope rose, None: since boot."""
    ranked = sorted(told, key=lambda one: (not one.is_loss, -one.value, one.counter))
    rows = [
        (
            number(one.value),
            number(one.value / seconds(one.scope)) if seconds else "-",
            _kind(one),
            scope_text(one.scope, name),
            one.counter,
        )
        for one in ranked
    ]
    columns = _COLUMNS if seconds else tuple(column for column in _COLUMNS if column.title != "/s")
    cells = rows if seconds else [(row[0], *row[2:]) for row in rows]
    return table(columns, cells, width) + "\n"


def nothing(differences: bool, all_netns: bool) -> str:
    """Say that no counter of loss rose, or stands, above 0, and where nobody looked."""
    others = "" if all_netns else " Other network namespaces were not read (--all-netns)."
    return f"no counter of lost packets {'moved' if differences else 'is above 0'}.{others}"


def _kind(told: Told) -> str:
    if told.layer_or_class is None:
        return "-"
    return ("" if told.is_loss else "hint: ") + told.layer_or_class + "?" * told.is_guess


def as_json(
    told: Sequence[Told], start: float | None, end: float, limits: Sequence[Limit], backlogs: Mapping[int, Row]
) -> str:
    """Return one line: counters since boot (`start` is null), or how much they rose between two times."""
    return json_line(
        {
            "type": "counters",
            "start": start,
            "end": end,
            "counters": [
                {
                    "counter": one.counter,
                    "scope": as_object(one.scope),
                    "value": one.value,
                    "kind": one.layer_or_class,
                    "loss": one.is_loss,
                    "guess": one.is_guess,
                }
                for one in told
            ],
            "backlog": {str(cpu): dict(zip(row.names, row.values, strict=True)) for cpu, row in backlogs.items()},
            "limits": sentences(limits),
        }
    )


def as_other(tool: str, counters: Counters, seconds: float | None, name: Name) -> str:
    """Return the columns of another tool, digit for digit; sar's are rates, by the seconds the counters rose in."""
    several = len({scope.netns for scope in counters.rows["links"]}) > 1
    links = {
        scope_text(scope, name) if several else str(scope.interface): row
        for scope, row in counters.rows["links"].items()
    }
    cpus = {scope.cpu: row for scope, row in counters.rows["softnet"].items() if scope.cpu is not None}
    if tool == "netstat":
        tables = [like.netstat(links)]
    elif tool == "ifconfig":
        tables = [*like.ifconfig(links)]
    elif tool == "sar":
        tables = [like.sar_edev(links, seconds or 1), like.sar_soft(cpus, counters.backlogs, seconds or 1)]
    elif tool == "ip":
        tables = [*like.ip(links)]
    else:
        tables = [like.softnet_stat(cpus, counters.backlogs)]
    return "\n\n".join(_plain(one) for one in tables) + "\n"


def _plain(one: like.LikeTable) -> str:
    columns = [Column(title, "left" if index == 0 else "right") for index, title in enumerate(one.titles)]
    return table(columns, one.rows, 10_000)
