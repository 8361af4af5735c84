# SPDX-License-Identifier: MIT
"""The tables of what drivers' statistics mean; they say which *event* a counter counts.

``data/drivers.tsv`` has the names of ``ethtool -S`` and the netdev qstats, ``data/driver_links.tsv`` the fields of
rtnl_link_stats64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pktdrop.rules.tables import NOTHING, Cells, Table

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


@dataclass(frozen=True)
class StatRule:
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
    """The events that the field counts; empty: the driver itself never counts there."""
    relation: str
    meaning: str
    source: str
    line: int


def _rule(cells: Cells) -> StatRule:
    if cells.one_of("counts", COUNTS) != "none":
        cells.one_of("stat_class", STAT_CLASSES)
        cells.one_of("role", ROLES)
        if (cells["role"] == "sum") != ("+" in cells["event"]):
            raise cells.wrong("a sum, and only a sum, has several events")
    bits, stat_class = cells.number("bits"), cells["stat_class"]
    return StatRule(
        drivers=tuple(cells["driver"].split(",")),
        name=cells["name"],
        stat_class=stat_class,
        events=tuple(stat_class if part == NOTHING else part for part in cells["event"].split("+")),
        role=cells["role"],
        counts=cells["counts"],
        bits=64 if bits is None else bits,
        note=cells.given("note"),
        source=cells["source"],
        line=cells.line,
    )


def _link_rule(cells: Cells) -> LinkRule:
    events = () if cells["events"] == "0" else tuple(cells["events"].split("+"))
    return LinkRule(
        drivers=tuple(cells["driver"].split(",")),
        field=cells.one_of("field", FIELDS),
        stat_class=cells.one_of("stat_class", STAT_CLASSES) if events else cells["stat_class"],
        events=events,
        relation=cells.one_of("relation", RELATIONS),
        meaning=cells["meaning"],
        source=cells["source"],
        line=cells.line,
    )


TABLE: Final = Table("drivers.tsv", "driver name stat_class event role counts bits note source", _rule)
LINKS: Final = Table("driver_links.tsv", "driver field stat_class events relation meaning source", _link_rule)
