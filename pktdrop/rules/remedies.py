# SPDX-License-Identifier: MIT
"""What to change where packets are lost: rows of ``data/remedies.tsv``, filled with values of this host."""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from types import MappingProxyType
from typing import Final

from pktdrop.rules import settings, tables

#: Values of the host: of an interface, a network namespace, a socket or the whole of it (pktdrop.diagnosis.values).
HOST_VALUES: Final = frozenset(
    (
        *("cpus", "in_netns", "in_first_netns", "interface", "min_free_kbytes", "min_free_more", "netdev_budget"),
        *("netdev_budget_usecs", "netdev_max_backlog", "process", "rmem_default", "rmem_max", "rcvbuf", "rcvbuf_max"),
        *("rx_ring", "rx_ring_max", "combined", "combined_max", "combined_more", "rx_channels", "rx_channels_max"),
        *("rx_channels_more", "tx_pause", "threaded", "rps", "rps_all", "rps_mask", "txqueuelen"),
        *("conntrack_count", "conntrack_max", "conntrack_fill", "rp_filter", "somaxconn", "tcp_max_syn_backlog"),
        *("tcp_syncookies", "tcp_rmem_min", "tcp_rmem_default", "tcp_rmem_max", "tcp_mem_max", "tcp_mem_used"),
        *("tcp_mem_fill", "udp_mem_max", "udp_mem_more", "udp_mem_used", "udp_mem_fill"),
        *("accept_limit", "ipfrag_high_thresh", "ipfrag_time", "unres_qlen_bytes", "gc_thresh3"),
    )
)
#: Values that the drops and counters themselves tell.
SEEN_VALUES: Final = frozenset(("squeezed", "flow_limited", "qdisc_kind"))
#: Longest texts, in characters.
SAY_WIDTH: Final = 200
COST_WIDTH: Final = 120

Value = int | str
Values = Callable[[str], Value | None]
"""Gives a value by its name; None: it is not known."""

_COLUMNS: Final = ("cause", "when", "say", "command", "cost", "source")
_CONDITION: Final = re.compile(r"(\w+)(<=|>=|!=|<|>|=)(\w+)")
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
_UNKNOWN: Final = "unknown"
_FORM: Final = re.compile(r"|,|q|x[1-9][0-9]*")


@dataclass(frozen=True)
class Advice:
    """One thing to do about a loss."""

    say: str
    command: str | None
    cost: str | None


@dataclass(frozen=True)
class Remedy:
    """One row of remedies.tsv; ``line`` is its number there, counted from 1."""

    cause: str
    when: tuple[tuple[str, str, str], ...]
    """Left side, comparison, right side."""
    say: str
    command: str | None
    cost: str | None
    source: str
    line: int
    least: Mapping[str, int] = field(default_factory=dict)
    """Defaults of the kernel: nothing that is to be raised is set below its own."""

    @property
    def names(self) -> frozenset[str]:
        """Values it asks for."""
        sides = {side for left, _, right in self.when for side in (left, right) if side in HOST_VALUES | SEEN_VALUES}
        return frozenset({*_names(self.say), *_names(self.command or ""), *sides})

    def advice(self, values: Values) -> Advice | None:
        """Fill in values; None where its conditions do not hold, or a value that it speaks of is not known."""
        if not all(_holds(condition, values) for condition in self.when):
            return None
        say = _fill(self.say, values, self.least)
        command = self.command and _fill(self.command, values, self.least)
        return None if say is None else Advice(say, command, self.cost)


def parse(lines: Iterable[str]) -> tuple[Remedy, ...]:
    """Return the rows in the text of a remedies.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _remedy)


def load(path: Path | None = None) -> tuple[Remedy, ...]:
    """Read a table, by default the one that comes with pktdrop.

    Raises ValueError, naming file and line, if it is malformed; OSError if it cannot be read.
    """
    least = {name: one.default for name, one in settings.load().items() if one.default is not None}
    return tuple(replace(row, least=least) for row in tables.load(path or tables.DATA / "remedies.tsv", parse))


def _remedy(cells: list[str], number: int) -> Remedy:
    cause, when, say, command, cost, source = cells
    for text, width in ((say, SAY_WIDTH), (cost, COST_WIDTH)):
        if len(text) > width:
            raise ValueError(f"line {number}: {text!r} is longer than {width} characters")
    for text in (say, command):
        for name in _names(text, number):
            tables.one_of("value", name, HOST_VALUES | SEEN_VALUES, number)
    return Remedy(
        cause=cause,
        when=() if when == "-" else tuple(_condition(text, number) for text in when.split("&")),
        say=say,
        command=None if command == "-" else command,
        cost=None if cost == "-" else cost,
        source=source,
        line=number,
    )


def _condition(text: str, number: int) -> tuple[str, str, str]:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ValueError(f"line {number}: {text!r} is no condition")
    left, comparison, right = found.groups()
    tables.one_of("value", left, HOST_VALUES | SEEN_VALUES, number)
    return left, comparison, right


def _names(text: str, number: int | None = None) -> list[str]:
    """Return the names of values in a text. Raises ValueError for a form that there is not."""
    names = []
    for _, name, form, _ in Formatter().parse(text):
        if name is None:
            continue
        if _FORM.fullmatch(form or "") is None:
            raise ValueError(f"line {number}: {{{name}:{form}}} is no way to write a value")
        names.append(name)
    return names


def _holds(condition: tuple[str, str, str], values: Values) -> bool:
    left, comparison, right = condition
    value = values(left)
    if right == _UNKNOWN:
        return (value is None) == (comparison == "=")
    other = values(right) if right in HOST_VALUES | SEEN_VALUES else right
    if value is None or other is None:
        return False
    if comparison in ("=", "!="):
        return (str(value) == str(other)) == (comparison == "=")
    try:
        return _OPERATORS[comparison](int(value), int(other))
    except ValueError:
        return False


def _fill(text: str, values: Values, least: Mapping[str, int]) -> str | None:
    """Write values into a text; None if one is not known."""
    parts = []
    for literal, name, form, _ in Formatter().parse(text):
        parts.append(literal)
        if name is None:
            continue
        value = values(name)
        if value is None:
            return None
        parts.append(_written(value, form or "", least.get(name, 0)))
    return "".join(parts)


def _written(value: Value, form: str, least: int) -> str:
    if form == "q":
        return shlex.quote(str(value))
    if isinstance(value, int):
        if form == ",":
            return f"{value:,}"
        return str(max(least, value * int(form[1:]))) if form.startswith("x") else str(value)
    return value
