# SPDX-License-Identifier: MIT
"""Statistics and settings that network drivers report themselves.

The ``ethtool`` ioctls (``include/uapi/linux/ethtool.h``), which any user may call, with names that each driver chooses;
`qstats` are joined to them.  Everything is read in the network namespace of the calling thread, and nothing stays open
between two readings.
"""

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pktdrop.counters import qstats
from pktdrop.model.counters import NOT_REPORTED, Reading, Row, Scope
from pktdrop.model.drops import Netns

#: Longest name of a statistic, in bytes: ETH_GSTRING_LEN.
NAME_BYTES: Final = 32

_SIOCETHTOOL: Final = 0x8946  # include/uapi/linux/sockios.h
# include/uapi/linux/ethtool.h
_GDRVINFO: Final = 0x03
_GRINGPARAM: Final = 0x10
_GPAUSEPARAM: Final = 0x12
_GSTRINGS: Final = 0x1B
_GSTATS: Final = 0x1D
_GSSET_INFO: Final = 0x37
_GCHANNELS: Final = 0x3C
_SS_STATS: Final = 1
_IFNAMSIZ: Final = 16
_IFREQ: Final = struct.Struct("@16sP16x")  # struct ifreq: ifr_name, ifr_data, rest of its union
_DRVINFO_BYTES: Final = 196
_DRIVER_NAME: Final = slice(4, 36)
# How often a statistics set that changes size between two questions is asked for again.
_ATTEMPTS: Final = 3
# vmxnet3 repeats its names for each queue, below a line that has the number of the queue as its value
# (drivers/net/vmxnet3/vmxnet3_ethtool.c, vmxnet3_tq_dev_stats and vmxnet3_rq_dev_stats).
_QUEUE_MARKER: Final = re.compile(r"(?:Rx|Tx) Queue#")


@dataclass(frozen=True)
class Pair:
    """A setting as it is and the most it can be; None: not reported."""

    now: int | None = None
    max: int | None = None


@dataclass(frozen=True)
class NicSettings:
    """How an interface is set up. None: the driver does not report it."""

    driver: str | None = None
    """Name of the driver, as `ethtool -i` shows it."""
    rx_ring: Pair = Pair()
    """Descriptors in each RX ring."""
    rx_mini_ring: Pair = Pair()
    rx_jumbo_ring: Pair = Pair()
    tx_ring: Pair = Pair()
    rx_channels: Pair = Pair()
    tx_channels: Pair = Pair()
    other_channels: Pair = Pair()
    combined_channels: Pair = Pair()
    pause_autoneg: bool | None = None
    rx_pause: bool | None = None
    """The NIC stops sending when the other side asks for it."""
    tx_pause: bool | None = None
    """The NIC asks the other side to stop when its own memory fills up."""


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


def rows_of(
    names: Iterable[str], values: Iterable[int], netns: Netns | None, interface: str
) -> tuple[dict[Scope, Row], str | None]:
    """Statistics of one interface by scope: the device, and each queue that a marker line announces.

    A name that is there twice in one scope is told apart by its number: "drops", "drops#2". The second result is a
    sentence about what could not be used, None if all could.
    """
    names, values = tuple(names), tuple(values)
    limit = None
    if len(names) != len(values):
        limit = f"ethtool statistics of {interface}: {len(names)} names but {len(values)} values, the rest is ignored"
    queue: int | None = None
    found: dict[int | None, dict[str, int]] = {}
    for name, value in zip(names, values, strict=False):
        if _QUEUE_MARKER.fullmatch(name):
            queue = value
        elif name:  # an empty name is a hole that some drivers leave in their table
            of_scope = found.setdefault(queue, {})
            of_scope[_unused(f"ethtool.{name}", of_scope)] = value
    rows = {
        Scope(netns=netns, interface=interface, queue=number): Row(tuple(counters), tuple(counters.values()))
        for number, counters in found.items()
    }
    return rows, limit


def _unused(name: str, taken: Mapping[str, int]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def merge(rows: dict[Scope, Row], more: Mapping[Scope, Row]) -> None:
    """Add rows to rows; where both have a scope its names and values are put one behind the other."""
    for scope, row in more.items():
        there = rows.get(scope)
        rows[scope] = row if there is None else Row(there.names + row.names, there.values + row.values)


# ---------------------------------------------------------------------------------------------------- thin readers


class _Ioctl:
    """The ethtool ioctl on interfaces of the namespace the thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._buffer = array.array("Q", bytes(1 << 16))

    def close(self) -> None:
        self._socket.close()

    def ask(self, interface: str, request: bytes, size: int) -> memoryview:
        """Return the ``size`` bytes that answer the request; valid until the next question. Raises OSError.

        The buffer is twice as large as asked for, and never below 64 KiB: kernels before the one that compares the
        sizes (net/ethtool/ioctl.c, ethtool_get_stats) write as many statistics as there are by then.
        """
        if len(self._buffer) * 8 < 2 * size:
            self._buffer = array.array("Q", bytes(2 * size + -2 * size % 8))
        name = os.fsencode(interface)
        if len(name) >= _IFNAMSIZ:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        answer = memoryview(self._buffer).cast("B")
        answer[: len(request)] = request
        address = self._buffer.buffer_info()[0]
        fcntl.ioctl(self._socket.fileno(), _SIOCETHTOOL, _IFREQ.pack(name, address))
        return answer[:size]

    def driver(self, interface: str) -> str:
        info = bytes(self.ask(interface, struct.pack("=I", _GDRVINFO).ljust(_DRVINFO_BYTES, b"\0"), _DRVINFO_BYTES))
        return info[_DRIVER_NAME].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")

    def numbers(self, interface: str, command: int, count: int) -> tuple[int, ...]:
        """Return the ``count`` u32 that follow the command in the answer."""
        size = 4 * (count + 1)
        answer = self.ask(interface, struct.pack("=I", command).ljust(size, b"\0"), size)
        return struct.unpack_from(f"={count}I", answer, 4)

    def statistics(self, interface: str) -> tuple[bytes, tuple[int, ...]] | None:
        """Strings and values of the statistics; None if their number kept changing."""
        for _ in range(_ATTEMPTS):
            answer = self.ask(interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_STATS, 0), 20)
            mask, count = struct.unpack_from("=QI", answer, 8)
            if not mask or not count:
                return b"", ()
            size = NAME_BYTES * count
            answer = self.ask(interface, struct.pack("=III", _GSTRINGS, _SS_STATS, count), 12 + size)
            (named,) = struct.unpack_from("=I", answer, 8)
            strings = bytes(answer[12:])
            answer = self.ask(interface, struct.pack("=II", _GSTATS, count), 8 + 8 * count)
            (valued,) = struct.unpack_from("=I", answer, 4)
            if named == valued == count:
                return strings, struct.unpack_from(f"={count}Q", answer, 8)
        return None


def _read_statistics(netns: Netns | None, interfaces: Iterable[str], limits: list[str]) -> dict[Scope, Row]:
    rows: dict[Scope, Row] = {}
    # interfaces of one driver mostly have the same names: they are worked out once
    seen: dict[bytes, tuple[str, ...]] = {}
    plain: dict[bytes, tuple[str, ...]] = {}
    ioctl = _Ioctl()
    try:
        for interface in interfaces:
            try:
                answer = ioctl.statistics(interface)
            except OSError as error:
                if error.errno not in NOT_REPORTED:
                    limits.append(f"ethtool statistics of {interface}: {error.strerror}")
                continue
            if answer is None:
                limits.append(f"ethtool statistics of {interface}: their number changed while they were read")
                continue
            strings, values = answer
            if strings in plain:
                rows[Scope(netns=netns, interface=interface)] = Row(plain[strings], values)
                continue
            if strings not in seen:
                seen[strings] = names_of(strings)
            found, limit = rows_of(seen[strings], values, netns, interface)
            if limit is not None:
                limits.append(limit)
            rows.update(found)
            for scope, row in found.items():
                if scope.queue is None and len(row.values) == len(values):
                    plain[strings] = row.names
    finally:
        ioctl.close()
    return rows


class Reader:
    """Reads the statistics of any number of namespaces; remembers what does not change while it runs."""

    def __init__(self) -> None:
        self._drivers: dict[Netns | None, dict[tuple[int, str], str]] = {}

    @cached_property
    def _netdev(self) -> int | None:
        return qstats.family()  # families of generic netlink have the same number in every namespace

    def read(self, netns: Netns | None, interfaces: Collection[str]) -> Reading:
        """Statistics of these interfaces of the namespace the thread is in, named "ethtool.*" and "qstats.*".

        An interface that is gone or has no statistics is not in the result; what failed otherwise is told in `limits`.
        """
        limits: list[str] = []
        rows: dict[Scope, Row] = {}
        try:
            rows.update(_read_statistics(netns, interfaces, limits))
        except OSError as error:
            limits.append(f"ethtool statistics: {error}")
        try:
            if self._netdev is not None:
                of_queues = qstats.read(self._netdev, netns, interfaces)
                merge(rows, of_queues.rows)
                limits += of_queues.limits
        except OSError as error:
            limits.append(f"netdev qstats: {error}")
        return Reading(rows, tuple(limits))

    def drivers(self, netns: Netns | None, interfaces: Mapping[int, str]) -> Mapping[str, str]:
        """Drivers of these interfaces, by name, of the namespace the thread is in.

        Asked for once as long as one is there, and again when it is renamed.
        """
        known = self._drivers.get(netns, {})
        if known.keys() != interfaces.items():
            ioctl = _Ioctl()
            try:
                known = {one: known[one] if one in known else _driver(ioctl, one[1]) for one in interfaces.items()}
            finally:
                ioctl.close()
            self._drivers[netns] = known
        return {name: driver for (_, name), driver in known.items()}

    def forget(self, netns: Netns) -> None:
        """Drop what is remembered of a namespace that is gone."""
        self._drivers.pop(netns, None)


def _driver(ioctl: _Ioctl, interface: str) -> str:
    try:
        return ioctl.driver(interface)
    except OSError:  # it is gone, or has none, as the loopback device
        return ""


def settings(interfaces: Iterable[str]) -> tuple[dict[str, NicSettings], tuple[str, ...]]:
    """How these interfaces of the namespace the thread is in are set up, and sentences about what failed."""
    found: dict[str, NicSettings] = {}
    limits: list[str] = []
    try:
        ioctl = _Ioctl()
    except OSError as error:
        return found, (f"ethtool settings: {error}",)
    try:
        for interface in interfaces:
            found[interface] = _settings(ioctl, interface, limits)
    finally:
        ioctl.close()
    return found, tuple(limits)


def _settings(ioctl: _Ioctl, interface: str, limits: list[str]) -> NicSettings:
    def numbers(what: str, command: int, count: int) -> tuple[int | None, ...]:
        try:
            return ioctl.numbers(interface, command, count)
        except OSError as error:
            if error.errno not in NOT_REPORTED:
                limits.append(f"ethtool {what} of {interface}: {error.strerror}")
            return (None,) * count

    try:
        driver = ioctl.driver(interface)
    except OSError as error:
        driver = ""
        if error.errno not in NOT_REPORTED:
            limits.append(f"ethtool driver of {interface}: {error.strerror}")
    ring = _pairs(numbers("ring sizes", _GRINGPARAM, 8))
    channel = _pairs(numbers("channels", _GCHANNELS, 8))
    pause = [None if flag is None else bool(flag) for flag in numbers("pause", _GPAUSEPARAM, 3)]
    return NicSettings(driver or None, *ring, *channel, *pause)


def _pairs(numbers: tuple[int | None, ...]) -> tuple[Pair, Pair, Pair, Pair]:
    """Four maximums, then the four values: a maximum of 0 says that the driver does not report the setting.

    That is also how net/ethtool/rings.c and channels.c decide what to leave out of an answer over netlink.
    """
    first, second, third, fourth = (Pair(numbers[at + 4], numbers[at]) if numbers[at] else Pair() for at in range(4))
    return first, second, third, fourth
