# SPDX-License-Identifier: MIT
"""Network namespaces: their names, and being inside one."""

import ctypes
import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_KTHREADD = 2
_NET_ROOT = re.compile(rb"net:\[([0-9]{1,20})\]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
HOST = "host"
"""How the kernel's first namespace is called: init_net, the one of its own threads."""


@contextmanager
def inside(path: Path, netns: int | None = None) -> Iterator[None]:
    """Move this thread into the namespace that `path` names, and back at the end.

    Raises OSError where the namespace is gone or may not be entered (CAP_SYS_ADMIN), or where `netns`, the inode it
    must have, is given and the path names another one by now.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    with open("/proc/thread-self/ns/net", "rb") as home, open(path, "rb") as target:
        if netns not in (None, os.fstat(target.fileno()).st_ino):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        enter(target.fileno())
        try:
            yield
        finally:
            enter(home.fileno())


class Namespaces:
    """Names of network namespaces and of the interfaces in them, looked up when first asked for.

    A name stays known after its namespace or interface is gone. What was not found is searched again after `forget`.
    """

    def __init__(self, run: Path = Path("/run/netns"), proc: Path = Path("/proc")) -> None:
        """Take the directory of named namespaces (ip-netns(8)) and that of processes."""
        self._run = run
        self._proc = proc
        self._names: dict[int, str] = {}
        self._paths: dict[int, Path] = {}
        self._interfaces: dict[tuple[int, int], str] = {}
        self._searched = False
        self._listed: set[int] = set()

    def forget(self) -> None:
        """Search again for what was not found so far: call it once per Snapshot."""
        self._searched = False
        self._listed.clear()

    def name(self, netns: int) -> str | None:
        """Return "host", or the name under /run/netns, or "comm[pid]" of the first process in it, or None."""
        if netns not in self._names and not self._searched:
            self._search()
        return self._names.get(netns)

    def learn_interface(self, netns: int, ifindex: int, name: str) -> None:
        """Remember a name that the kernel gave with a drop."""
        self._interfaces[netns, ifindex] = name

    def interface(self, netns: int, ifindex: int) -> str | None:
        """Return the name of an interface, or None if it or its namespace cannot be found."""
        if (netns, ifindex) not in self._interfaces and netns not in self._listed:
            self._listed.add(netns)
            self.name(netns)
            self._list_interfaces(netns)
        return self._interfaces.get((netns, ifindex))

    def paths(self) -> dict[int, Path]:
        """Return by inode a path to each namespace that has a name, a mount or a process; searches anew."""
        self._paths.clear()
        self._search()
        return dict(self._paths)

    @contextmanager
    def entered(self, netns: int) -> Iterator[None]:
        """Move this thread into a namespace, and back at the end. Raises OSError as `inside` does.

        The path that led there before may have ended with its process: then another one is searched for.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(inside(self._path(netns), netns))
            except OSError:
                self._paths.pop(netns, None)
                self._search()
                stack.enter_context(inside(self._path(netns), netns))
            yield

    @contextmanager
    def entered_host(self) -> Iterator[None]:
        """Move this thread into the kernel's first namespace, and back. Raises OSError where it cannot be seen."""
        if HOST not in self._names.values() and not self._searched:
            self._search()
        hosts = [netns for netns, name in self._names.items() if name == HOST]
        if not hosts:
            raise OSError(errno.ENOENT, "the host's network namespace cannot be seen from here")
        with self.entered(hosts[0]):
            yield

    def _path(self, netns: int) -> Path:
        if netns not in self._paths and not self._searched:
            self._search()
        if netns not in self._paths:
            raise OSError(errno.ENOENT, "it is gone, or nothing that can be seen is in it")
        return self._paths[netns]

    def interfaces(self) -> set[str]:
        """Return the names of the interfaces of all namespaces that can be entered."""
        self._search()
        for netns in list(self._paths):
            self._list_interfaces(netns)
        return {*(name for _, name in socket.if_nameindex()), *self._interfaces.values()}

    def _list_interfaces(self, netns: int) -> None:
        path = self._paths.get(netns)
        if path is None:
            return
        try:
            with inside(path, netns):
                for ifindex, name in socket.if_nameindex():
                    self._interfaces.setdefault((netns, ifindex), name)
        except OSError:  # gone or not to be entered: the drop shows the number of its interface
            self._paths.pop(netns, None)

    def _search(self) -> None:
        self._searched = True
        processes = sorted(int(entry.name) for entry in self._proc.iterdir() if entry.name.isdigit())
        for pid in processes:
            process = self._proc / str(pid)
            with suppress(OSError):  # it ended, or belongs to somebody else: another one may tell
                netns = (process / "ns/net").stat().st_ino
                self._paths.setdefault(netns, process / "ns/net")
                if netns not in self._names:
                    comm = (process / "comm").read_bytes().rstrip(b"\n").decode(errors="backslashreplace")
                    self._names[netns] = f"{comm}[{pid}]"
                if pid == _KTHREADD and not (process / "cmdline").read_bytes():  # a thread of the kernel has none
                    self._names[netns] = HOST
        for netns, path in self._mounts():
            self._paths[netns] = path
            self._names.setdefault(netns, path.name)
        for entry in sorted(self._run.iterdir()) if self._run.is_dir() else ():
            with suppress(OSError):  # deleted meanwhile
                netns = entry.stat().st_ino
                self._paths[netns] = entry
                if self._names.get(netns) != HOST:
                    self._names[netns] = entry.name

    def _mounts(self) -> Iterator[tuple[int, Path]]:
        """Yield namespaces that a mount keeps, with or without a process: container runtimes have directories for them.

        The fourth field is the root of the mount, "net:[4026532281]", the fifth where it is: proc_pid_mountinfo(5).
        """
        with suppress(OSError):  # no /proc: there is nothing to find
            for line in (self._proc / "self/mountinfo").read_bytes().splitlines():
                fields = line.split(b" ")
                if len(fields) > 4 and (found := _NET_ROOT.fullmatch(fields[3])):
                    octal = _OCTAL.sub(lambda escape: bytes((int(escape[1], 8) & 0xFF,)), fields[4])
                    yield int(found[1]), Path(os.fsdecode(octal))
