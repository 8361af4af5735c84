# SPDX-License-Identifier: MIT
"""What to change where packets are lost: rows of ``data/remedies.tsv``, filled with values of this host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Final

from pktdrop.rules import settings
from pktdrop.rules.match import Condition, Value, Values
from pktdrop.rules.tables import NOTHING, Cells, Table

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
#: Values that drops, counters and the packets that were looked at tell.
SEEN_VALUES: Final = frozenset(("squeezed", "flow_limited", "qdisc_kind", "sender", "receiver", "port"))
#: Longest texts, in characters.
SAY_WIDTH: Final = 200
COST_WIDTH: Final = 120

_NAMES: Final = HOST_VALUES | SEEN_VALUES
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
    when: tuple[Condition, ...]
    say: str
    command: str | None
    cost: str | None
    source: str
    line: int
    least: Mapping[str, int] = field(default_factory=dict)
    """Defaults of the kernel: nothing that is to be raised is set below its own."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the values that the remedy needs."""
        sides = frozenset(side for left, _, right in self.when for side in (left, right) if side in _NAMES)
        return sides.union(name for name, _ in _fields(self.say + (self.command or "")))

    def advice(self, values: Values) -> Advice | None:
        """Fill in values; None where its conditions do not hold, or a value that it speaks of is not known."""
        if not all(condition.holds(values, _NAMES) for condition in self.when):
            return None
        say = _fill(self.say, values, self.least)
        command = self.command and _fill(self.command, values, self.least)
        return None if say is None else Advice(say, command, self.cost)


def _remedy(cells: Cells) -> Remedy:
    for column in ("say", "command"):
        for name, form in _fields(cells[column]):
            cells.one_of("value", _NAMES, name)
            if _FORM.fullmatch(form) is None:
                raise cells.wrong(f"{{{name}:{form}}} is no way to write a value")
    conditions = [] if cells["when"] == NOTHING else cells["when"].split("&")
    return Remedy(
        cause=cells["cause"],
        when=tuple(Condition.parse(text, cells, _NAMES) for text in conditions),
        say=cells.short("say", SAY_WIDTH),
        command=cells.given("command"),
        cost=None if cells.short("cost", COST_WIDTH) == NOTHING else cells["cost"],
        source=cells["source"],
        line=cells.line,
    )


TABLE: Final = Table("remedies.tsv", "cause when say command cost source", _remedy)


def load(path: Path | None = None) -> tuple[Remedy, ...]:
    """Read a table, as Table.load() does."""
    least = {name: one.default for name, one in settings.load().items() if one.default is not None}
    return tuple(replace(row, least=least) for row in TABLE.load(path))


def _fields(text: str) -> list[tuple[str, str]]:
    """Return the names of values in a text, each with how it is to be written."""
    return [(name, form or "") for _, name, form, _ in Formatter().parse(text) if name is not None]


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
