# SPDX-License-Identifier: MIT
"""Statistics and settings that network drivers report themselves.

The ``ethtool`` ioctls (``include/uapi/linux/ethtool.h``), which any user may call, with names that each driver chooses;
`qstats` are joined to them.  Everything is read in the network namespace of the calling thread, and nothing stays open
between two readings.

Names are remembered, as most statistics of most interfaces stand still. They are asked for again as soon as one value
is not what it was, or their number is not: a driver may change its names and keep their number, and where values are
the same nothing rose that could be called by a wrong one. Now and then they are asked for in any case.
"""

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from pktdrop.counters import qstats
from pktdrop.counters.ethtool_ioctl import GCHANNELS, GPAUSEPARAM, GRINGPARAM, NAME_BYTES, Ioctl
from pktdrop.model.counters import NOT_REPORTED, Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused
from pktdrop.model.look import NicSettings

# In how many readings the names of each interface are asked for once, whatever its values are.
_ANEW: Final = 64
# Different lists of names that are remembered; interfaces of one driver mostly have the same.
_KEPT: Final = 256
# vmxnet3 repeats its names for each queue, below a line that has the number of the queue as its value
# (drivers/net/vmxnet3/vmxnet3_ethtool.c, vmxnet3_tq_dev_stats and vmxnet3_rq_dev_stats).
_QUEUE_MARKER: Final = re.compile(r"(?:Rx|Tx) Queue#")


# ---------------------------------------------------------------------------------------------------- pure parsers


def names_of(strings: bytes) -> tuple[str, ...]:
    """Return the names in the data of struct ethtool_gstrings, without the blanks around them.

    A name that fills its 32 bytes has no NUL at the end; bytes that are no UTF-8 are shown as escapes. A trailing
    piece shorter than 32 bytes is no name.
    """
    whole = len(strings) - len(strings) % NAME_BYTES
    return tuple(
        strings[at : at + NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "backslashreplace").strip()
        for at in range(0, whole, NAME_BYTES)
    )


def rows_of(names: Iterable[str], values: Iterable[int], netns: Netns | None, interface: str) -> dict[Scope, Row]:
    """Statistics of one interface by scope: the device, and each queue that a marker line announces.

    A name that is there twice in one scope is told apart by its number: "drops", "drops#2". There are as many values as
    names.
    """
    queue: int | None = None
    found: dict[int | None, dict[str, int]] = {}
    for name, value in zip(names, values, strict=True):
        if _QUEUE_MARKER.fullmatch(name):
            queue = value
        elif name:  # an empty name is a hole that some drivers leave in their table
            of_scope = found.setdefault(queue, {})
            of_scope[_unused(f"ethtool.{name}", of_scope)] = value
    return {
        Scope(netns=netns, interface=interface, queue=number): Row(tuple(counters), tuple(counters.values()))
        for number, counters in found.items()
    }


def _unused(name: str, taken: Mapping[str, int]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def merge(rows: dict[Scope, Row], more: Mapping[Scope, Row]) -> None:
    """Add rows to rows; where both have a scope, names and values of one are put behind those of the other."""
    for scope, row in more.items():
        there = rows.get(scope)
        rows[scope] = row if there is None else Row(there.names + row.names, there.values + row.values)


# ---------------------------------------------------------------------------------------------------- thin readers


class _Names(NamedTuple):
    """The names of the statistics of some interfaces."""

    names: tuple[str, ...]
    of_one_row: tuple[str, ...] | None
    """What they are called where all are in one row, as most are."""

    @classmethod
    def of(cls, strings: bytes) -> "_Names":
        """Take the data of struct ethtool_gstrings."""
        names = names_of(strings)
        rows = rows_of(names, range(len(names)), None, "")
        row = rows.get(Scope(interface=""))
        return cls(names, row.names if row is not None and len(row.names) == len(names) else None)


class _Statistics(NamedTuple):
    """The statistics of one interface as they were last read."""

    values: bytes
    rows: Mapping[Scope, Row]


@dataclass
class _Here:
    """What is remembered of a namespace, by index and name of its interfaces."""

    drivers: dict[tuple[int, str], str] = field(default_factory=dict)
    statistics: dict[tuple[int, str], _Statistics] = field(default_factory=dict)
    readings: int = 0


class StatisticsReader:
    """Reads the statistics of any number of namespaces; remembers what does not change while it runs."""

    def __init__(self, ask: Callable[[], Ioctl] = Ioctl) -> None:
        """Take what asks drivers, in the namespace the thread is in when it is made."""
        self._ask = ask
        self._of: dict[Netns | None, _Here] = {}
        self._names: dict[bytes, _Names] = {}

    @cached_property
    def _netdev(self) -> int | None:
        return qstats.family()  # families of generic netlink have the same number in every namespace

    def read(self, netns: Netns | None, interfaces: Mapping[int, str]) -> Reading:
        """Statistics of these interfaces of the namespace the thread is in, named "ethtool.*" and "qstats.*".

        Interfaces are given by index. One that is gone or has no statistics is not in the result; what failed otherwise
        is told in `limits`.
        """
        limits: list[Limit] = []
        rows: dict[Scope, Row] = {}
        try:
            rows.update(self._read_statistics(netns, interfaces, limits))
        except OSError as error:
            limits.append(refused(error)._replace(source="driver"))
        try:
            if self._netdev is not None:
                of_queues = qstats.read(self._netdev, netns, interfaces.values())
                merge(rows, of_queues.rows)
                limits += of_queues.limits
        except qstats.Incomplete as answer:
            limits += of_source("qstats", None, answer.limits)
        except OSError as error:
            limits.append(refused(error)._replace(source="qstats"))
        return Reading(rows, tuple(limits))

    def _read_statistics(
        self, netns: Netns | None, interfaces: Mapping[int, str], limits: list[Limit]
    ) -> dict[Scope, Row]:
        here = self._of.setdefault(netns, _Here())
        here.readings += 1
        known, here.statistics = here.statistics, {}
        rows: dict[Scope, Row] = {}
        ioctl = self._ask()
        try:
            for ifindex, name in interfaces.items():
                is_due = (here.readings + ifindex) % _ANEW == 0  # not all of them in the same reading
                before = None if is_due else known.get((ifindex, name))
                try:
                    found = self._statistics(ioctl, netns, name, before)
                except OSError as error:
                    if error.errno not in NOT_REPORTED:
                        limits.append(refused(error, "refused", name)._replace(source="driver"))
                    continue
                if found is None:
                    limits.append(Limit("statistics-changed", (name,), source="driver"))
                elif found.values:
                    here.statistics[ifindex, name] = found
                    rows.update(found.rows)
        finally:
            ioctl.close()
        return rows

    def _statistics(
        self, ioctl: Ioctl, netns: Netns | None, interface: str, before: _Statistics | None
    ) -> _Statistics | None:
        """Return what was read before, where no value differs. None: the number of statistics kept changing."""
        found: tuple[bytes, bytes] | None = None
        if before is not None:
            count = len(before.values) // 8
            octets = ioctl.values(interface, count)
            if octets == before.values:
                return before
            strings = None if octets is None else ioctl.strings(interface, count)
            found = None if octets is None or strings is None else (strings, octets)
        found = found or ioctl.statistics(interface)
        if found is None:
            return None
        names, values = self._named(found[0]), struct.unpack(f"={len(found[1]) // 8}Q", found[1])
        if names.of_one_row is not None:
            rows = {Scope(netns=netns, interface=interface): Row(names.of_one_row, values)}
        else:
            rows = rows_of(names.names, values, netns, interface)
        return _Statistics(found[1], rows)

    def _named(self, strings: bytes) -> _Names:
        if strings not in self._names:
            if len(self._names) >= _KEPT:
                self._names.clear()
            self._names[strings] = _Names.of(strings)
        return self._names[strings]

    def drivers(self, netns: Netns | None, interfaces: Mapping[int, str]) -> Mapping[str, str]:
        """Drivers of these interfaces, by name, of the namespace the thread is in.

        Asked for once as long as one is there, and again when it is renamed.
        """
        here = self._of.setdefault(netns, _Here())
        known = here.drivers
        if known.keys() != interfaces.items():
            ioctl = Ioctl()
            try:
                known = {one: known[one] if one in known else _driver(ioctl, one[1]) for one in interfaces.items()}
            finally:
                ioctl.close()
            here.drivers = known
        return {name: driver for (_, name), driver in known.items()}

    def forget(self, netns: Netns) -> None:
        """Drop what is remembered of a namespace that is gone."""
        self._of.pop(netns, None)


def _driver(ioctl: Ioctl, interface: str) -> str:
    try:
        return ioctl.driver(interface)
    except OSError:  # it is gone, or has none, as the loopback device
        return ""


def settings(interface: str) -> NicSettings:
    """Return how an interface of the namespace the thread is in is set up; what a driver does not tell is not known."""
    try:
        ioctl = Ioctl()
    except OSError:
        return NicSettings()
    with closing(ioctl):
        rings, channels = _numbers(ioctl, interface, GRINGPARAM, 8), _numbers(ioctl, interface, GCHANNELS, 8)
        pause = _numbers(ioctl, interface, GPAUSEPARAM, 3)
    # maximums of received, of others..., then the values in the same order
    return NicSettings(
        *_reported(rings, 0), *_reported(channels, 3), *_reported(channels, 0), pause[2] if pause else None
    )


def _numbers(ioctl: Ioctl, interface: str, command: int, count: int) -> tuple[int, ...] | None:
    try:
        return ioctl.numbers(interface, command, count)
    except OSError:
        return None


def _reported(numbers: tuple[int, ...] | None, at: int) -> tuple[int | None, int | None]:
    """Return a value and its maximum: a maximum of 0 says that the driver does not report the setting.

    That is also how net/ethtool/rings.c and channels.c decide what to leave out of an answer over netlink.
    """
    return (numbers[at + 4], numbers[at]) if numbers is not None and numbers[at] else (None, None)
