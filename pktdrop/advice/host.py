# SPDX-License-Identifier: MIT
"""Values of this host that advice speaks of: sysctls, rings, queues, buffers. Each is read when first asked for.

What cannot be read is not known: None. Nothing is ever written.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from fcntl import ioctl
from functools import cached_property
from math import isqrt
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from pktdrop.advice import settings
from pktdrop.advice.remedies import Value
from pktdrop.counters import ethtool, sockets
from pktdrop.counters.collect import Counters
from pktdrop.counters.model import Scope
from pktdrop.ledger.loss import Place
from pktdrop.model import Netns
from pktdrop.namespaces import HOST, Namespaces

_SIOCGIFTXQLEN = 0x8942  # include/uapi/linux/sockios.h
_IFREQ = struct.Struct("=16si20x")  # struct ifreq: name, ifr_qlen, the rest of its union
_PROCESS = re.compile(r"/proc/([0-9]+)/ns/net")
"""A path to the namespace of a process."""
_PAGE_COUNT = re.compile(r"^(TCP|UDP): .*\bmem ([0-9]+)", re.MULTILINE)
_CPUS_IN_A_WORD = 32

#: Parts of whole, in percent.
_FILLS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "conntrack_fill": ("conntrack_count", "conntrack_max"),
        "tcp_mem_fill": ("tcp_mem_used", "tcp_mem_max"),
        "udp_mem_fill": ("udp_mem_used", "udp_mem_max"),
    }
)


class _Pages(NamedTuple):
    tcp: int | None = None
    udp: int | None = None


_Read = TypeVar("_Read")


class Host:
    """Reads values, and remembers them; sockets are those of the counters it is given."""

    def __init__(self, namespaces: Namespaces, counters: Counters) -> None:
        """Take what finds namespaces, and the last reading of counters."""
        self._namespaces = namespaces
        self._counters = counters
        self._own = namespaces.own()
        self._settings = settings.load()
        self._remembered: dict[tuple[object, ...], object] = {}
        self._readers: Mapping[str, Callable[[Place], Value | None]] = {
            "cpus": lambda place: os.sysconf("SC_NPROCESSORS_ONLN"),
            "interface": lambda place: place.interface,
            "in_netns": lambda place: self._in_netns(place.netns),
            "in_first_netns": lambda place: self._in_first_netns,
            "process": lambda place: self.process(place.sockets[0]) if len(place.sockets) == 1 else None,
            "min_free_kbytes": lambda place: _number(_text(Path("/proc/sys/vm/min_free_kbytes")), 0),
            "min_free_more": lambda place: _twice(self.value("min_free_kbytes", place), _min_free_default()),
            "udp_mem_more": lambda place: _more_udp_mem(
                [self._setting_of_host("ipv4/udp_mem", word) for word in range(3)]
            ),
            "rcvbuf": lambda place: self._gauge(place, "rcvbuf"),
            "rcvbuf_max": self._rcvbuf_max,
            "accept_limit": lambda place: self._gauge(place, "accept_limit"),
            "rx_ring": lambda place: self._nic(place).rx_ring.now,
            "rx_ring_max": lambda place: self._nic(place).rx_ring.max,
            "combined": lambda place: self._nic(place).combined_channels.now,
            "combined_max": lambda place: self._nic(place).combined_channels.max,
            "combined_more": lambda place: _more(self._nic(place).combined_channels),
            "rx_channels": lambda place: self._nic(place).rx_channels.now,
            "rx_channels_max": lambda place: self._nic(place).rx_channels.max,
            "rx_channels_more": lambda place: _more(self._nic(place).rx_channels),
            "tx_pause": lambda place: _on(self._nic(place).tx_pause),
            "threaded": lambda place: _on(_flag(self._sysfs(place, "threaded"))),
            "rps": self._rps,
            "rps_mask": self._rps_mask,
            "rps_all": lambda place: _mask(os.sysconf("SC_NPROCESSORS_CONF")),
            "txqueuelen": self._txqueuelen,
            "rp_filter": self._rp_filter,
            "tcp_mem_used": lambda place: self._pages(place.netns).tcp,
            "udp_mem_used": lambda place: self._pages(place.netns).udp,
        }

    def value(self, name: str, place: Place) -> Value | None:
        """Return a value (names: remedies.HOST_VALUES) for a place; None if it is not known there."""
        setting = self._settings.get(name)
        if setting is not None and setting.file is not None:
            if setting.set_in == "netns" or name == "conntrack_max":  # which others see, and cannot change
                return self._setting(place, setting.file, setting.word)
            return self._setting_of_host(setting.file, setting.word)
        if name in _FILLS:
            part, whole = (self.value(one, place) for one in _FILLS[name])
            return 100 * part // whole if isinstance(part, int) and isinstance(whole, int) and whole else None
        reader = self._readers.get(name)
        return None if reader is None else reader(place)

    def netns(self, netns: Netns | None) -> str | None:
        """Return the name of a network namespace; HOST for the own one where the first one cannot be seen."""
        if netns == self._own and self._own_is_host:
            return HOST
        return None if netns is None else self._namespaces.known.label(netns)

    @cached_property
    def _own_is_host(self) -> bool:
        if self._namespaces.name(self._own) == HOST:
            return True
        path = self._namespaces.paths().get(self._own)
        return self._first_netns is None and (path is None or _PROCESS.fullmatch(str(path)) is not None)

    def process(self, scope: Scope) -> str | None:
        """Return the name of a process that has a socket open."""
        inode = self._counters.inodes.get(scope)
        owner = self._owners.get(inode) if inode is not None else None
        return None if owner is None else owner.comm

    @cached_property
    def _owners(self) -> dict[int, sockets.Owner]:
        return sockets.owners(frozenset(self._counters.inodes.values()))

    # ---------------------------------------------------------------------------------------------- where it is read

    def _once(self, key: tuple[object, ...], read: Callable[[], _Read]) -> _Read:
        if key not in self._remembered:
            self._remembered[key] = read()
        return self._remembered[key]  # type: ignore[return-value]  # it is what `read` returned

    def _inside(self, netns: Netns | None) -> AbstractContextManager[None]:
        return nullcontext() if netns is None or netns == self._own else self._namespaces.entered(netns)

    def _in_netns(self, netns: Netns | None) -> str | None:
        """Return what makes a command run in a namespace: nothing for the own one."""
        if netns is None:
            return None
        if netns == self._own:
            return ""
        name = self._namespaces.name(netns)
        if name is None:
            return None
        if name == HOST:
            return "nsenter -t 1 -n "
        path = self._namespaces.paths().get(netns)
        if path is None:
            return None
        if path.parent == Path("/run/netns"):
            return f"ip netns exec {shlex.quote(path.name)} "
        process = _PROCESS.fullmatch(str(path))
        return f"nsenter -t {process[1]} -n " if process else f"nsenter --net={shlex.quote(str(path))} "

    @cached_property
    def _in_first_netns(self) -> str | None:
        """Return what makes a command run in the kernel's first namespace, where settings of the whole host are."""
        if self._namespaces.name(self._own) == HOST:
            return ""
        if self._first_netns is not None:
            return "nsenter -t 1 -n "
        return "" if Path("/proc/sys/net/core/netdev_max_backlog").exists() else None

    def _sysctl(self, netns: Netns | None, path: str) -> str | None:
        def read() -> str | None:
            try:
                with self._inside(netns):
                    return _text(Path("/proc/sys/net", path))
            except OSError:  # it is gone, or may not be entered
                return None

        return self._once(("sysctl", netns, path), read)

    def _setting(self, place: Place, path: str, word: int) -> int | None:
        if "{interface}" in path:
            if place.interface is None or "/" in place.interface:
                return None
            path = path.replace("{interface}", place.interface)
        return None if place.netns is None else _number(self._sysctl(place.netns, path), word)

    def _setting_of_host(self, path: str, word: int) -> int | None:
        here = _number(self._sysctl(None, path), word)
        return here if here is not None else _number(self._sysctl(self._first_netns, path), word)

    @cached_property
    def _first_netns(self) -> Netns | None:
        return next((netns for netns in self._namespaces.paths() if self._namespaces.name(netns) == HOST), None)

    def _rp_filter(self, place: Place) -> int | None:
        """Return the larger one of the settings of the interface and of all: fib_validate_source() uses that."""
        of_all = self._setting(place, "ipv4/conf/all/rp_filter", 0)
        own = self._setting(place, "ipv4/conf/{interface}/rp_filter", 0)
        return None if of_all is None or own is None else max(of_all, own)

    # ------------------------------------------------------------------------------------------ interfaces, sockets

    def _nic(self, place: Place) -> ethtool.NicSettings:
        def read() -> ethtool.NicSettings:
            if place.interface is None or place.netns is None:
                return ethtool.NicSettings()
            try:
                with self._inside(place.netns):
                    return ethtool.settings([place.interface])[0].get(place.interface, ethtool.NicSettings())
            except OSError:
                return ethtool.NicSettings()

        return self._once(("nic", place.netns, place.interface), read)

    def _txqueuelen(self, place: Place) -> int | None:
        if place.interface is None or place.netns is None:
            return None
        with (
            suppress(OSError, struct.error),
            self._inside(place.netns),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control,
        ):
            answer = ioctl(control.fileno(), _SIOCGIFTXQLEN, _IFREQ.pack(os.fsencode(place.interface), 0))
            return int(_IFREQ.unpack(answer)[1])
        return None

    def _sysfs(self, place: Place, file: str) -> str | None:
        """Read a file of an interface; only of the own namespace, and if /sys shows that one."""
        if place.interface is None or place.netns != self._own or not self._sysfs_is_own:
            return None
        return _text(Path("/sys/class/net", place.interface, file))

    @cached_property
    def _sysfs_is_own(self) -> bool:
        """Tell whether the interfaces in /sys are those here: it shows the namespace it was mounted in."""
        try:
            here = {name: str(index) for index, name in socket.if_nameindex()}
        except OSError:
            return False
        return bool(here) and all(
            _text(Path("/sys/class/net", name, "ifindex")) == index for name, index in here.items()
        )

    def _rps_masks(self, place: Place) -> tuple[str, ...]:
        if self._sysfs(place, "ifindex") is None:
            return ()
        queues = sorted(Path("/sys/class/net", place.interface or "", "queues").glob("rx-*"))
        return tuple(mask for queue in queues if (mask := _text(queue / "rps_cpus")) is not None)

    def _rps(self, place: Place) -> str | None:
        masks = self._rps_masks(place)
        return _on(any(mask.strip("0,") for mask in masks)) if masks else None

    def _rps_mask(self, place: Place) -> str | None:
        masks = dict.fromkeys(mask.lstrip("0,") or "0" for mask in self._rps_masks(place))
        return " or ".join(masks) or None

    def _gauge(self, place: Place, name: str) -> int | None:
        if len(place.sockets) != 1:
            return None
        row = self._counters.gauges.get("socket", {}).get(place.sockets[0])
        return dict(zip(row.names, row.values, strict=True)).get(name) if row is not None else None

    def _rcvbuf_max(self, place: Place) -> int | None:
        """Return the largest receive buffer there can be: twice what may be asked for (__sock_set_rcvbuf)."""
        most = self.value("rmem_max", place)
        return 2 * most if isinstance(most, int) else None

    def _pages(self, netns: Netns | None) -> _Pages:
        """Return the pages that sockets of the whole host hold; sockstat shows them in each namespace."""
        text = self._once(("sockstat",), lambda: _text(Path("/proc/thread-self/net/sockstat")))
        found = {protocol: int(pages) for protocol, pages in _PAGE_COUNT.findall(text or "")}
        return _Pages(found.get("TCP"), found.get("UDP"))


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="backslashreplace").strip()
    except OSError:
        return None


def _number(text: str | None, word: int) -> int | None:
    words = (text or "").split()
    return int(words[word]) if word < len(words) and words[word].isdecimal() else None


def _twice(now: Value | None, default: int) -> int | None:
    return max(2 * now, default) if isinstance(now, int) else None


def _min_free_default() -> int:
    """Return at least the default of vm.min_free_kbytes: mm/page_alloc.c calculate_min_free_kbytes, v6.12."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    return min(isqrt(16 * memory), 262_144)


def _more_udp_mem(now: Sequence[int | None]) -> str | None:
    """Return net.ipv4.udp_mem with twice as much at most, nothing below its default: net/ipv4/udp.c udp_init, v6.12."""
    words = [word for word in now if word is not None]
    limit = max(os.sysconf("SC_PHYS_PAGES") // 8, 128)
    least = (limit // 4 * 3, limit, limit // 4 * 3 * 2)
    if len(words) < len(now):
        return None
    return " ".join(str(max(word * times, low)) for word, times, low in zip(words, (1, 1, 2), least, strict=True))


def _flag(text: str | None) -> bool | None:
    return None if text is None else text != "0"


def _on(flag: bool | None) -> str | None:
    return None if flag is None else ("on" if flag else "off")


def _more(channels: ethtool.Pair) -> int | None:
    """Return as many queues as there are CPUs to serve them, if that is more than there are."""
    if channels.now is None or channels.max is None:
        return None
    more = min(channels.max, os.sysconf("SC_NPROCESSORS_ONLN"))
    return more if more > channels.now else None


def _mask(cpus: int) -> str:
    """Write the mask of that many CPUs as the kernel reads it: words of 32 bits, the highest first."""
    whole, rest = divmod(cpus, _CPUS_IN_A_WORD)
    return ",".join(([f"{(1 << rest) - 1:x}"] if rest else []) + ["ffffffff"] * whole)
