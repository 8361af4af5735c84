# SPDX-License-Identifier: MIT
"""The tables of what drivers' statistics mean; they say which *event* a counter counts.

``data/drivers.tsv`` has the names of ``ethtool -S`` and the netdev qstats, ``data/driver_links.tsv`` the fields of
rtnl_link_stats64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pktdrop.rules import tables

#: Where or why the NIC lost a packet, in the order a received packet passes them.
STAT_CLASSES: Final = (
    "error",  # damaged or misformed on the wire
    "pause",  # flow control: the loss, if there is one, is at the other end of the cable
    "filter",  # not wanted: address, VLAN, steering or security rule
    "limit",  # a limit that the cloud or the device sets
    "fifo",  # the NIC's own memory was full
    "host",  # PCIe or the other side of a virtual device
    "ring",  # no free descriptor in the RX ring
    "alloc",  # no memory for a buffer
    "xdp",  # by an XDP program, or a failed XDP action
    "software",  # dropped by the driver's code for another reason
    "warning",  # a bottleneck, no loss by itself
    "tx",  # anything lost while sending
)
#: single: the only counter of its event; total: the event on the whole device, and others count parts of it;
#: queue: the event on one queue; part: some other part of it (a priority, a cause); sum: several events in one counter.
ROLES: Final = ("single", "total", "queue", "part", "sum")
#: loss: packets that are gone; hint: a sign, not a number of lost packets; none: neither, in spite of its name.
COUNTS: Final = ("loss", "hint", "none")
#: Fields of rtnl_link_stats64 that driver_links.tsv may explain.
FIELDS: Final = (
    *("rx_errors", "rx_dropped", "rx_missed_errors", "rx_fifo_errors", "rx_over_errors"),
    *("tx_errors", "tx_dropped", "tx_fifo_errors"),
)
#: Fields of which nic_loss() tells what no other counter has.
ERRORS: Final = ("rx_errors", "tx_errors")
#: exact: the field is these events and nothing else; bound: at most this many, others are counted there too.
RELATIONS: Final = ("exact", "bound")


_COLUMNS: Final = ("driver", "name", "stat_class", "event", "role", "counts", "bits", "note", "source")
_LINK_COLUMNS: Final = ("driver", "field", "stat_class", "events", "relation", "meaning", "source")


@dataclass(frozen=True)
class Rule:
    """One row of drivers.tsv; ``line`` is its number there, counted from 1."""

    drivers: tuple[str, ...]
    name: str
    stat_class: str
    events: tuple[str, ...]
    role: str
    counts: str
    bits: int
    note: str | None
    source: str
    line: int


@dataclass(frozen=True)
class LinkRule:
    """One row of driver_links.tsv: what a driver counts in a field of rtnl_link_stats64."""

    drivers: tuple[str, ...]
    field: str
    stat_class: str
    events: tuple[str, ...]
    """Empty: the driver itself never counts there."""
    relation: str
    meaning: str
    source: str
    line: int


def parse(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules in the text of a drivers.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _rule)


def parse_links(lines: Iterable[str]) -> tuple[LinkRule, ...]:
    """Return the rules in the text of a driver_links.tsv. Raises ValueError that names the line at fault."""
    return tables.rows(lines, _LINK_COLUMNS, _link_rule)


def _rule(cells: list[str], number: int) -> Rule:
    drivers, name, stat_class, event, role, counts, bits, note, source = cells
    tables.one_of("counts", counts, COUNTS, number)
    if counts != "none":
        tables.one_of("stat_class", stat_class, STAT_CLASSES, number)
        tables.one_of("role", role, ROLES, number)
        if (role == "sum") != ("+" in event):
            raise ValueError(f"line {number}: a sum, and only a sum, has several events")
    if not bits.isdecimal() and bits != "-":
        raise ValueError(f"line {number}: bits {bits!r} is neither a number nor -")
    return Rule(
        drivers=tuple(drivers.split(",")),
        name=name,
        stat_class=stat_class,
        events=tuple(stat_class if part == "-" else part for part in event.split("+")),
        role=role,
        counts=counts,
        bits=64 if bits == "-" else int(bits),
        note=None if note == "-" else note,
        source=source,
        line=number,
    )


def _link_rule(cells: list[str], number: int) -> LinkRule:
    drivers, name, stat_class, events, relation, meaning, source = cells
    if events != "0":
        tables.one_of("stat_class", stat_class, STAT_CLASSES, number)
    return LinkRule(
        drivers=tuple(drivers.split(",")),
        field=tables.one_of("field", name, FIELDS, number),
        stat_class=stat_class,
        events=() if events == "0" else tuple(events.split("+")),
        relation=tables.one_of("relation", relation, RELATIONS, number),
        meaning=meaning,
        source=source,
        line=number,
    )
