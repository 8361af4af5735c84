# SPDX-License-Identifier: MIT
"""Which container, pod and unit of systemd a process is in: by its cgroup, and by what runtimes wrote of it.

No daemon is asked. Only files of root are read, by an ID that has no way out of its directory. What is found is
remembered, and nothing of it read again.
"""

import ctypes
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pktdrop.model.container import Container
from pktdrop.model.drops import Netns
from pktdrop.process import files

if TYPE_CHECKING:
    from pktdrop.rules.runtimes import NameFile, Runtimes

_MOST_TEXT, _MOST_FILE = 1 << 16, 1 << 20
"""Bytes of a file in /proc, and of one of a runtime."""
_MOST_PARENTS: Final = 64
_REMEMBERED: Final = 4096
_PODMAN: Final = "podman"
_MADE_UP: Final = re.compile(r"((cni|netns)-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Names below /run/netns that runtimes draw: containerd pkg/netns, containers/common pkg/netns, cri-o pinns."""
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_OPEN_BY_HANDLE_AT = _PROTOTYPE(("open_by_handle_at", ctypes.CDLL(None)))
_HANDLE_TYPE: Final = 0xFE  # FILEID_KERNFS, include/linux/exportfs.h

_Key = TypeVar("_Key")


class Containers:
    """Finds containers, and remembers them."""

    def __init__(self, proc: Path = Path("/proc"), root: Path = Path("/")) -> None:
        """Take where processes are, and what the paths of the runtimes' files are below."""
        self._proc = proc
        self._root = root
        self._of_path: dict[str, Container | None] = {}
        self._of_number: dict[int, Container | None] = {}
        """Containers by the number of a cgroup, which the kernel never gives again."""

    @cached_property
    def _runtimes(self) -> "Runtimes":
        from pktdrop.rules.runtimes import Runtimes  # not needed before there is a namespace without a name

        return Runtimes.load()

    def of_process(self, pid: int) -> Container | None:
        """Return the container that a process is in; None: in none, or it has ended or may not be looked at."""
        return self._of_paths(self._cgroups(pid), pid)

    def of_cgroup(self, number: int) -> Container | None:
        """Return the container of the cgroup that has this number; None: in none, or not known."""
        if number not in self._of_number:
            path = None if self._mount is None else _path_of(self._mount, number)
            self._of_number = _room(self._of_number)
            self._of_number[number] = None if path is None else self._of_paths([path], None)
        return self._of_number[number]

    def _cgroups(self, pid: int) -> list[str]:
        return self._runtimes.cgroup_paths(self._read(pid, "cgroup"))

    def _read(self, pid: int, name: str) -> bytes:
        path = f"{self._proc}/{pid}/{name}"
        with suppress(OSError), files.closing_descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            return os.read(file, _MOST_TEXT)
        return b""

    def _of_paths(self, paths: list[str], pid: int | None) -> Container | None:
        """Return the first container among them, else the first unit."""
        units: list[Container] = []
        for path in paths:
            found = self._of_path[path] if path in self._of_path else self._find(path, pid)
            if found is not None and found.is_container:
                return found
            units += [] if found is None else [found]
        return next(iter(units), None)

    def _find(self, path: str, pid: int | None) -> Container | None:
        found = self._runtimes.of_path(path)
        if found is not None and found.runtime == _PODMAN:
            if pid is None:
                return found
            found = found._replace(name=self._name_by_conmon(found.id, pid))
        elif found is not None and found.id is not None and found.user is None:
            found = next(filter(None, (self._by_file(found, found.id, file) for file in self._runtimes.files)), found)
        self._of_path = _room(self._of_path)
        self._of_path[path] = found
        return found

    def _by_file(self, container: Container, number: str, file: "NameFile") -> Container | None:
        """Return a container with the names that a file has; None if it is not that runtime's or there is no file."""
        if container.runtime not in (None, file.runtime):
            return None
        path = self._root / file.path.lstrip("/").replace("{id}", number)
        if not os.path.exists(path):  # the rule, and much faster than to walk there; Path.exists() may raise
            return None
        try:
            data: object = json.loads(files.read(path, _MOST_FILE))
        except (OSError, files.Refused, ValueError, RecursionError):  # without a name, its ID is shown
            return None
        name, pod, namespace = (_inside(data, keys) for keys in file.keys)
        named = container._replace(runtime=file.runtime, name=self._runtimes.believed((name or "").removeprefix("/")))
        if self._runtimes.believed(pod) and self._runtimes.believed(namespace):
            return named._replace(pod=pod, pod_namespace=namespace)
        return named

    def _name_by_conmon(self, number: str | None, pid: int) -> str | None:
        """Return the name that podman gave conmon(8), which all processes of a container come from.

        libpod/oci_conmon_common.go of podman, sharedConmonArgs(): "-c", ID, ... "-n", NAME.
        """
        for _ in range(_MOST_PARENTS):
            parent = re.search(rb"^PPid:\t([0-9]+)$", self._read(pid, "status"), re.MULTILINE)
            pid = int(parent[1]) if parent else 0
            if not pid:
                break
            found = map(self._runtimes.of_path, self._cgroups(pid))
            if any(one is not None and one.id == number for one in found):
                continue  # it is in the container, too, and could have called itself anything
            words = self._read(pid, "cmdline").decode(errors="backslashreplace").split("\0")
            return self._runtimes.believed(_after("-n", words)) if _after("-c", words) == number else None
        return None

    @cached_property
    def _mount(self) -> str | None:
        """Where cgroups of version 2 are: proc_pid_mountinfo(5)."""
        with suppress(OSError):
            for line in (self._proc / "self/mountinfo").read_bytes().splitlines():
                place, _, kind = line.partition(b" - ")
                if kind.startswith(b"cgroup2 ") and len(fields := place.split(b" ")) > 4 and fields[3] == b"/":
                    return os.fsdecode(fields[4])
        return None


def _room(known: dict[_Key, Container | None]) -> dict[_Key, Container | None]:
    """Return what is known, or its later half: there may be any number of cgroups, one after the other."""
    return known if len(known) < _REMEMBERED else dict([*known.items()][-_REMEMBERED // 2 :])


def _after(option: str, words: Sequence[str]) -> str | None:
    return next((value for word, value in pairwise(words) if word == option), None)


def _inside(data: object, keys: tuple[str, ...]) -> str | None:
    """Return the text that keys lead to, one inside the other."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) and keys else None


class Tenant(NamedTuple):
    """A container that a network namespace is called by."""

    called: str
    container: Container


class Tenants:
    """The containers that network namespaces without a name belong to: those of their first processes.

    A container is looked for when its namespace is asked for, as that takes some 0.2 ms, and there may be hundreds.
    """

    def __init__(self, containers: Containers) -> None:
        """Take what finds containers."""
        self._containers = containers
        self._known: dict[Netns, tuple[str, Tenant | None]] = {}
        """The first process in a namespace, "comm[pid]", and its container, if that tells more."""
        self._left: dict[Netns, tuple[int, str]] = {}
        """Processes in namespaces that were not asked for so far."""
        self._taken: set[str] = set()

    def search(self, names: Mapping[Netns, str], processes: Mapping[Netns, tuple[int, str]]) -> dict[Netns, Tenant]:
        """Take the names of all namespaces, and the first process in each; return those known by a container."""
        before, self._known, self._left = self._known, {}, {}
        for netns, (pid, process) in processes.items():
            if names[netns] != process and not _MADE_UP.fullmatch(names[netns]):
                continue
            last, tenant = before.get(netns, ("", None))
            if tenant is None and last != process:  # it is new, or another program by now
                self._left[netns] = pid, process
            else:
                self._known[netns] = last, tenant
        found = {netns: tenant for netns, (_, tenant) in self._known.items() if tenant is not None}
        self._taken = {tenant.called for tenant in found.values()}
        return found

    def settle(self, netns: Netns) -> Tenant | None:
        """Look for the container of a namespace, once; None: it has none that tells more, or has been looked for.

        Of several namespaces in a container, all but one tell their first process, too.
        """
        if netns not in self._left:
            return None
        pid, process = self._left.pop(netns)
        container, tenant = self._containers.of_process(pid), None
        if container is not None and container.tells:
            called = f"{container} ({process})" if str(container) in self._taken else str(container)
            self._taken.add(called)
            tenant = Tenant(called, container)
        self._known[netns] = process, tenant
        return tenant


class _Handle(ctypes.Structure):
    """struct file_handle with the handle of kernfs, a number of 64 bits: open_by_handle_at(2)."""

    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("number", ctypes.c_uint64))


def _path_of(mount: str, number: int) -> str | None:
    """Return the path of a cgroup by its number (Linux 5.5, CAP_DAC_READ_SEARCH), from the root of its hierarchy."""
    handle = _Handle(ctypes.sizeof(ctypes.c_uint64), _HANDLE_TYPE, number)
    with suppress(OSError), files.closing_descriptor(os.open(mount, os.O_RDONLY | os.O_CLOEXEC)) as top:
        found = _OPEN_BY_HANDLE_AT(top, ctypes.addressof(handle), os.O_PATH | os.O_CLOEXEC)
        if found < 0:  # it is gone, or this process may not
            return None
        with files.closing_descriptor(found):
            path = os.readlink(f"/proc/self/fd/{found}")
        if path == mount or path.startswith(f"{mount}/"):
            return path[len(mount) :] or "/"
    return None
