# SPDX-License-Identifier: MIT
"""What this host says of itself when it is asked: settings, rings, queues, owners of sockets. Nothing is written."""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from fcntl import ioctl
from functools import cached_property
from pathlib import Path
from typing import Final

from pktdrop.counters import ethtool
from pktdrop.host import processes
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.counters import Counters
from pktdrop.model.drops import Netns
from pktdrop.model.look import Answer, Question

_SIOCGIFTXQLEN: Final = 0x8942  # include/uapi/linux/sockios.h
_IFREQ: Final = struct.Struct("=16si20x")  # struct ifreq: name, ifr_qlen, the rest of its union


class Asker:
    """Answers questions, each once. What cannot be read is not known: None."""

    def __init__(self, namespaces: Namespaces, counters: Counters) -> None:
        """Take what finds namespaces, and the last reading of counters."""
        self.answers: dict[Question, Answer] = {}
        self._namespaces = namespaces
        self._counters = counters
        self._own = namespaces.known.own
        self._readers: Mapping[str, Callable[[Netns | None, str], Answer]] = {
            "sysctl": lambda netns, name: self._inside(netns, lambda: _text(Path("/proc/sys/net", name))),
            "file": lambda _, name: _text(Path(name)),
            "sysconf": lambda _, name: os.sysconf(name),
            "path": self._path,
            "nic": self._nic,
            "txqueuelen": lambda netns, name: self._inside(netns, lambda: _queue_length(name)),
            "sysfs": lambda _, name: _text(Path("/sys/class/net", name)) if self._sysfs_is_own else None,
            "rps": lambda _, name: _masks(name) if self._sysfs_is_own else None,
            "owner": lambda _, name: self._owners.get(int(name)),
        }

    def __call__(self, question: Question) -> Answer:
        """Return the answer, as of the moment it was first asked for."""
        if question not in self.answers:
            self.answers[question] = self._readers[question.what](question.netns, question.name)
        return self.answers[question]

    def _entered(self, netns: Netns | None) -> AbstractContextManager[None]:
        return nullcontext() if netns is None or netns == self._own else self._namespaces.entered(netns)

    def _inside(self, netns: Netns | None, read: Callable[[], Answer]) -> Answer:
        try:
            with self._entered(netns):
                return read()
        except (OSError, struct.error):  # it is gone, or may not be entered
            return None

    def _path(self, netns: Netns | None, _: str) -> str | None:
        path = self._namespaces.paths().get(netns) if netns is not None else None
        return None if path is None else str(path)

    def _nic(self, netns: Netns | None, name: str) -> Answer:
        def read() -> Answer:
            return tuple(ethtool.settings(name))

        return self._inside(netns, read)

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

    @cached_property
    def _owners(self) -> Mapping[int, str]:
        owners = processes.of_sockets(frozenset(self._counters.inodes.values()))
        return {inode: owner.comm for inode, owner in owners.items()}


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="backslashreplace").strip()
    except OSError:
        return None


def _queue_length(interface: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        answer = ioctl(control.fileno(), _SIOCGIFTXQLEN, _IFREQ.pack(os.fsencode(interface), 0))
    return int(_IFREQ.unpack(answer)[1])


def _masks(interface: str) -> tuple[str, ...]:
    """Return the CPUs that each RX queue hands packets to."""
    queues = sorted(Path("/sys/class/net", interface, "queues").glob("rx-*"))
    return tuple(mask for queue in queues if (mask := _text(queue / "rps_cpus")) is not None)
