# SPDX-License-Identifier: MIT
"""Values of a host that advice speaks of: sysctls, rings, queues, buffers. They follow from its answers in a Look.

What was not answered is not known: None.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from functools import cached_property
from math import isqrt
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import Scope
from pktdrop.model.drops import HOST, Netns
from pktdrop.model.look import Ask, Look, NicSettings, Question
from pktdrop.rules import settings
from pktdrop.rules.match import Value

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


class HostValues:
    """What is known of a host at a Look."""

    def __init__(self, look: Look, ask: Ask | None = None) -> None:
        """Take the Look, and what answers questions: the Look itself, where nobody else does."""
        self._look = look
        self._ask = ask or look.answers.get
        self._known = look.namespaces
        self._own = self._known.own
        self._settings = settings.load()
        self._readers: Mapping[str, Callable[[Whereabouts], Value | None]] = {
            "cpus": lambda whereabouts: self._sysconf("SC_NPROCESSORS_ONLN"),
            "interface": lambda whereabouts: whereabouts.interface,
            "in_netns": lambda whereabouts: self._in_netns(whereabouts.netns),
            "in_first_netns": lambda whereabouts: self._in_first_netns,
            "process": lambda whereabouts: self.process(whereabouts.sockets[0])
            if len(whereabouts.sockets) == 1
            else None,
            "min_free_kbytes": lambda whereabouts: _number(self._text("file", "/proc/sys/vm/min_free_kbytes"), 0),
            "min_free_more": lambda whereabouts: _twice(
                self.value("min_free_kbytes", whereabouts), self._min_free_default()
            ),
            "udp_mem_more": lambda whereabouts: self._more_udp_mem(),
            "rcvbuf": lambda whereabouts: self._gauge(whereabouts, "rcvbuf"),
            "rcvbuf_max": self._rcvbuf_max,
            "accept_limit": lambda whereabouts: self._gauge(whereabouts, "accept_limit"),
            "combined_more": lambda whereabouts: self._more(whereabouts, "combined"),
            "rx_channels_more": lambda whereabouts: self._more(whereabouts, "rx_channels"),
            "tx_pause": lambda whereabouts: _on(self._nic(whereabouts).tx_pause),
            "threaded": lambda whereabouts: _on(_flag(self._sysfs(whereabouts, "threaded"))),
            "rps": self._rps,
            "rps_mask": self._rps_mask,
            "rps_all": lambda whereabouts: _mask(self._sysconf("SC_NPROCESSORS_CONF") or 1),
            "txqueuelen": self._txqueuelen,
            "rp_filter": self._rp_filter,
            "tcp_mem_used": lambda whereabouts: self._pages("TCP"),
            "udp_mem_used": lambda whereabouts: self._pages("UDP"),
        }

    def value(self, name: str, whereabouts: Whereabouts) -> Value | None:
        """Return a value (names: remedies.HOST_VALUES) as it is where packets were lost; None if it is not known."""
        setting = self._settings.get(name)
        if setting is not None and setting.file is not None:
            if setting.set_in == "netns" or name == "conntrack_max":  # which others see, and cannot change
                return self._setting(whereabouts, setting.file, setting.word)
            return self._setting_of_host(setting.file, setting.word)
        if name in _FILLS:
            part, whole = (self.value(one, whereabouts) for one in _FILLS[name])
            return 100 * part // whole if isinstance(part, int) and isinstance(whole, int) and whole else None
        if name in self._readers:
            return self._readers[name](whereabouts)
        number: int | None = getattr(self._nic(whereabouts), name) if name in NicSettings._fields else None
        return number

    def netns(self, netns: Netns | None) -> str | None:
        """Return the name of a network namespace; HOST for the own one where the first one cannot be seen."""
        if netns is not None and netns == self._own and self._own_is_host:
            return HOST
        return None if netns is None else self._known.label(netns)

    @cached_property
    def _own_is_host(self) -> bool:
        if self._own == self._known.host:
            return True
        path = self._path(self._own)
        return self._known.host is None and (path is None or _PROCESS.fullmatch(path) is not None)

    def process(self, scope: Scope) -> str | None:
        """Return the name of a process that has a socket open."""
        inode = self._look.counters.inodes.get(scope)
        return None if inode is None else self._text("owner", str(inode))

    # -------------------------------------------------------------------------------------------- what was answered

    def _text(self, what: str, name: str, netns: Netns | None = None) -> str | None:
        answer = self._ask(Question(what, netns, name))
        return answer if isinstance(answer, str) else None

    def _sysconf(self, name: str) -> int | None:
        answer = self._ask(Question("sysconf", None, name))
        return answer if isinstance(answer, int) else None

    def _path(self, netns: Netns | None) -> str | None:
        return self._text("path", "", netns)

    def _in_netns(self, netns: Netns | None) -> str | None:
        """Return what makes a command run in a namespace: nothing for the own one."""
        if netns is None:
            return None
        if netns == self._own:
            return ""
        if netns == self._known.host:
            return "nsenter -t 1 -n "
        leading = self._path(netns)
        if leading is None:
            return None
        path = Path(leading)
        if path.parent == Path("/run/netns"):
            return f"ip netns exec {shlex.quote(path.name)} "
        process = _PROCESS.fullmatch(str(path))
        return f"nsenter -t {process[1]} -n " if process else f"nsenter --net={shlex.quote(str(path))} "

    @cached_property
    def _in_first_netns(self) -> str | None:
        """Return what makes a command run in the kernel's first namespace, where settings of the whole host are."""
        if self._own == self._known.host:
            return ""
        if self._known.host is not None:
            return "nsenter -t 1 -n "
        return "" if self._sysctl(None, "core/netdev_max_backlog") is not None else None

    def _sysctl(self, netns: Netns | None, path: str) -> str | None:
        return self._text("sysctl", path, netns)

    def _setting(self, whereabouts: Whereabouts, path: str, word: int) -> int | None:
        if "{interface}" in path:
            if whereabouts.interface is None or "/" in whereabouts.interface:
                return None
            path = path.replace("{interface}", whereabouts.interface)
        return None if whereabouts.netns is None else _number(self._sysctl(whereabouts.netns, path), word)

    def _setting_of_host(self, path: str, word: int) -> int | None:
        here = _number(self._sysctl(None, path), word)
        return here if here is not None else _number(self._sysctl(self._known.host, path), word)

    def _rp_filter(self, whereabouts: Whereabouts) -> int | None:
        """Return the larger one of the settings of the interface and of all: fib_validate_source() uses that."""
        of_all = self._setting(whereabouts, "ipv4/conf/all/rp_filter", 0)
        own = self._setting(whereabouts, "ipv4/conf/{interface}/rp_filter", 0)
        return None if of_all is None or own is None else max(of_all, own)

    # ------------------------------------------------------------------------------------------ interfaces, sockets

    def _nic(self, whereabouts: Whereabouts) -> NicSettings:
        if whereabouts.interface is None or whereabouts.netns is None:
            return NicSettings()
        answer = self._ask(Question("nic", whereabouts.netns, whereabouts.interface))
        if not isinstance(answer, tuple) or len(answer) != len(NicSettings()):
            return NicSettings()
        return NicSettings(*(one if isinstance(one, int) else None for one in answer))

    def _txqueuelen(self, whereabouts: Whereabouts) -> int | None:
        if whereabouts.interface is None or whereabouts.netns is None:
            return None
        answer = self._ask(Question("txqueuelen", whereabouts.netns, whereabouts.interface))
        return answer if isinstance(answer, int) else None

    def _sysfs(self, whereabouts: Whereabouts, file: str) -> str | None:
        """Return what a file of an interface has; only of the own namespace, and if /sys shows that one."""
        is_own = whereabouts.interface is not None and whereabouts.netns == self._own
        return self._text("sysfs", f"{whereabouts.interface}/{file}") if is_own else None

    def _rps_masks(self, whereabouts: Whereabouts) -> tuple[str, ...]:
        if self._sysfs(whereabouts, "ifindex") is None:
            return ()
        answer = self._ask(Question("rps", None, whereabouts.interface or ""))
        return tuple(mask for mask in answer if isinstance(mask, str)) if isinstance(answer, tuple) else ()

    def _rps(self, whereabouts: Whereabouts) -> str | None:
        masks = self._rps_masks(whereabouts)
        return _on(any(mask.strip("0,") for mask in masks)) if masks else None

    def _rps_mask(self, whereabouts: Whereabouts) -> str | None:
        masks = dict.fromkeys(mask.lstrip("0,") or "0" for mask in self._rps_masks(whereabouts))
        return " or ".join(masks) or None

    def _gauge(self, whereabouts: Whereabouts, name: str) -> int | None:
        if len(whereabouts.sockets) != 1:
            return None
        row = self._look.counters.gauges.get("socket", {}).get(whereabouts.sockets[0])
        return dict(zip(row.names, row.values, strict=True)).get(name) if row is not None else None

    def _rcvbuf_max(self, whereabouts: Whereabouts) -> int | None:
        """Return the largest receive buffer there can be: twice what may be asked for (__sock_set_rcvbuf)."""
        most = self.value("rmem_max", whereabouts)
        return 2 * most if isinstance(most, int) else None

    def _pages(self, protocol: str) -> int | None:
        """Return the pages that sockets of the whole host hold; sockstat shows them in each namespace."""
        text = self._text("file", "/proc/thread-self/net/sockstat")
        found = {name: int(pages) for name, pages in _PAGE_COUNT.findall(text or "")}
        return found.get(protocol)

    def _min_free_default(self) -> int:
        """Return at least the default of vm.min_free_kbytes: mm/page_alloc.c calculate_min_free_kbytes, v6.12."""
        memory = (self._sysconf("SC_PHYS_PAGES") or 0) * (self._sysconf("SC_PAGE_SIZE") or 0) // 1024
        return min(isqrt(16 * memory), 262_144)

    def _more_udp_mem(self) -> str | None:
        """Return net.ipv4.udp_mem twice as large, nothing below its default: net/ipv4/udp.c udp_init, v6.12."""
        now = [self._setting_of_host("ipv4/udp_mem", word) for word in range(3)]
        words = [word for word in now if word is not None]
        limit = max((self._sysconf("SC_PHYS_PAGES") or 0) // 8, 128)
        least = (limit // 4 * 3, limit, limit // 4 * 3 * 2)
        if len(words) < len(now):
            return None
        return " ".join(str(max(word * times, low)) for word, times, low in zip(words, (1, 1, 2), least, strict=True))

    def _more(self, whereabouts: Whereabouts, queues: str) -> int | None:
        """Return as many queues as there are CPUs to serve them, if that is more than there are."""
        now, most = self.value(queues, whereabouts), self.value(f"{queues}_max", whereabouts)
        if not isinstance(now, int) or not isinstance(most, int):
            return None
        more = min(most, self._sysconf("SC_NPROCESSORS_ONLN") or 0)
        return more if more > now else None


def _number(text: str | None, word: int) -> int | None:
    words = (text or "").split()
    return int(words[word]) if word < len(words) and words[word].isdecimal() else None


def _twice(now: Value | None, default: int) -> int | None:
    return max(2 * now, default) if isinstance(now, int) else None


def _flag(text: str | None) -> bool | None:
    return None if text is None else text != "0"


def _on(flag: int | None) -> str | None:
    return None if flag is None else ("on" if flag else "off")


def _mask(cpus: int) -> str:
    """Write the mask of that many CPUs as the kernel reads it: words of 32 bits, the highest first."""
    whole, rest = divmod(cpus, _CPUS_IN_A_WORD)
    return ",".join(([f"{(1 << rest) - 1:x}"] if rest else []) + ["ffffffff"] * whole)
