# SPDX-License-Identifier: MIT
"""Network namespaces: which there are, and their names.

Nothing here keeps a namespace alive, and what leads to one is checked each time that it is followed.
"""

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from pktdrop.host.containers import Containers, Tenants
from pktdrop.host.netns import HERE, identify, inside
from pktdrop.model.container import Container
from pktdrop.model.drops import HOST, Known, Netns
from pktdrop.model.limits import Limit

_KTHREADD = 2
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_NET_ROOT = re.compile(rb"net:\[([0-9]{1,20})\]")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_REMEMBERED = 4096
"""Namespaces that are gone and still have their names, and those that are known to be gone: the last ones of each."""
_Known = TypeVar("_Known")
_LIKE_OTHERS = re.compile(
    r"host|gone(:.*)?|[0-9]+|.*\[[0-9]+\]|(pod|docker|containerd|cri-o|podman|lxc|nspawn|machine|container|unit) .*",
    re.DOTALL,
)
"""Names that files of namespaces may have, and that would be read as the host, an inode, a process, or a container."""


class Namespaces:
    """Names of network namespaces and of the interfaces in them, looked up when first asked for.

    A name stays known after its namespace or interface is gone. All there is is searched for once at most between two
    calls of `look`.
    """

    def __init__(
        self,
        run: Path = Path("/run/netns"),
        proc: Path = Path("/proc"),
        identify: Callable[[Path], Netns] = identify,
    ) -> None:
        """Take the directory of named namespaces (ip-netns(8)), that of processes, and what tells namespaces apart."""
        self._run = run
        self._proc = proc
        self._identify_path = identify
        self._names: dict[Netns, str] = {}
        self._paths: dict[Netns, Path] = {}
        self._interfaces: dict[Netns, dict[int, str]] = {}
        self.renames = 0
        """How often an interface was seen to have another name than before."""
        self.renames_before = 0
        """Of these, up to the beginning of this look: within a look drops and counters go by the same names."""
        self.containers = Containers(proc)
        self._tenants = Tenants(self.containers)
        self._container_of: dict[Netns, Container] = {}
        self._host: Netns | None = None
        self._own: Netns | None = None
        self._refused: str | None = None
        """Why the last search could not read the directory of named namespaces."""
        self._searched = False
        self._listed: set[Netns] = set()
        self._pending: dict[Netns, None] = {}
        """Namespaces that were asked for and not found so far: the next search settles whether they are there."""
        self._gone: dict[Netns, None] = {}
        """Namespaces that a search did not find which began after they were asked for."""
        self._present: frozenset[Netns] = frozenset()
        """Namespaces that the last search found."""
        self._before: frozenset[Netns] = frozenset()
        """Namespaces that the search before the last one found."""
        self.searches = 0
        """How many searches there were so far."""
        self._numbers: dict[int, int] = {}
        """Where there are no cookies: how many namespaces had each inode before."""

    def look(self) -> None:
        """Begin the next look: what was not found so far may be searched for again."""
        self._searched = False
        self.renames_before = self.renames
        self._listed.clear()

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the last search could not see or read."""
        names = (Limit("unnamed", (str(self._run),), self._refused),) if self._refused else ()
        return (*names, *self._unseen())

    def _unseen(self) -> tuple[Limit, ...]:
        if not self.searches or self.sees_host or _is_kernel_thread(self._proc / str(_KTHREADD)):
            return ()
        return (Limit("hidden-by-proc" if self._hides_processes() else "hidden-by-pid-namespace"),)

    def _hides_processes(self) -> bool:
        with suppress(OSError):
            for line in (self._proc / "self/mountinfo").read_bytes().splitlines():
                fields = line.split(b" ")
                if len(fields) > 4 and fields[4] == os.fsencode(self._proc) and b"hidepid=" in fields[-1]:
                    return True
        return False

    @property
    def sees_host(self) -> bool:
        """Whether the last search saw the processes of the host: threads of the kernel are among them."""
        return self._host is not None

    def own(self) -> Netns:
        """Return the namespace this thread is in. Raises OSError without /proc."""
        if self._own is None or self._own.inode != HERE.stat().st_ino:  # none has its inode while this thread is in it
            self._own = self._numbered(self._identify_path(HERE))
        return self._own

    def of_drop(self, inode: int, cookie: int | None) -> Netns:
        """Return the namespace of a drop, as the kernel tells of it."""
        return self._numbered(Netns(inode, cookie))

    def name(self, netns: Netns) -> str | None:
        """Return "host", its name below /run/netns, its container, or "comm[pid]" of its first process, or None."""
        self._look_for(netns)
        self.settle(netns)
        return self._names.get(netns)

    def settle(self, netns: Netns) -> None:
        """Call a namespace by its container, if it has no name: what is `known` from now on has it."""
        tenant = self._tenants.settle(netns)
        if tenant is not None:  # what was known before stays as it was
            self._names = {**self._names, netns: tenant.called}
            self._container_of = {**self._container_of, netns: tenant.container}

    def expect(self, netns: Netns) -> None:
        """Let the next search settle whether a namespace is there: those of many drops take one search, not many."""
        if netns not in self._names and netns not in self._gone:
            self._pending[netns] = None

    def is_settled(self, netns: Netns) -> bool:
        """Tell whether a search has looked for a namespace: a name that it did not find is not to be expected."""
        return netns in self._gone

    def present(self, netns: Netns) -> bool:
        """Tell whether one of the last two searches found a namespace: processes may hand it on during one."""
        return netns in self._present or netns in self._before

    @property
    def known(self) -> Known:
        """What is known by now. Nothing is searched for."""
        gone = frozenset(self._gone)
        return Known(
            self._names, self._present, self._before, gone, self._host, self._own, self.searches, self._container_of
        )

    def container(self, netns: Netns) -> Container | None:
        """Return the container that a namespace is called by, as far as it is known."""
        return self._container_of.get(netns)

    def learn_interface(self, netns: Netns, ifindex: int, name: str) -> None:
        """Remember the name of an interface that the kernel gave with a drop: it may be an old one."""
        self._interfaces.setdefault(netns, {}).setdefault(ifindex, name)

    def learn_interfaces(self, netns: Netns, names: Mapping[int, str]) -> None:
        """Remember the names that the interfaces of a namespace have now, all of them."""
        before = self._interfaces.get(netns, {})
        self.renames += any(name != names.get(ifindex, name) for ifindex, name in before.items())
        self._interfaces[netns] = dict(names)

    def interface(self, netns: Netns, ifindex: int) -> str | None:
        """Return the name of an interface, or None if the interface or its namespace cannot be found."""
        if self.known_interface(netns, ifindex) is None and netns not in self._listed and netns not in self._gone:
            self._listed.add(netns)
            self.name(netns)
            self._list_interfaces(netns)
        return self.known_interface(netns, ifindex)

    def known_interface(self, netns: Netns, ifindex: int) -> str | None:
        """Return the name of an interface as far as it is known: nothing is searched for."""
        return self._interfaces.get(netns, {}).get(ifindex)

    def paths(self) -> dict[Netns, Path]:
        """Return a path to each namespace that has a name, a mount or a process."""
        self._search()
        return dict(self._paths)

    @contextmanager
    def entered(self, netns: Netns) -> Iterator[None]:
        """Move this thread into a namespace, and back at the end. Raises OSError as `inside` does.

        The path that led there before may have ended with its process: then another one is searched for.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(inside(self._path(netns), netns))
            except OSError:
                self._paths.pop(netns, None)
                self._present -= {netns}
                stack.enter_context(inside(self._path(netns), netns))
            yield

    @contextmanager
    def entered_host(self) -> Iterator[None]:
        """Move this thread into the kernel's first namespace, and back. Raises OSError where it cannot be seen."""
        if self._host is None:
            self._search()
        if self._host is None:
            raise OSError(errno.ENOENT, "the host's network namespace cannot be seen from here")
        with self.entered(self._host):
            yield

    def _path(self, netns: Netns) -> Path:
        if netns not in self._paths:
            self._look_for(netns)
        if netns not in self._paths:
            raise OSError(errno.ENOENT, "it is gone, or nothing that can be seen is in it")
        return self._paths[netns]

    def interfaces(self) -> set[str]:
        """Return the names of the interfaces of all namespaces that can be entered."""
        for netns in self.paths():
            self._list_interfaces(netns)
        found = {name for names in self._interfaces.values() for name in names.values()}
        return {*(name for _, name in socket.if_nameindex()), *found}

    def _list_interfaces(self, netns: Netns) -> None:
        path = self._paths.get(netns)
        if path is None:
            return
        try:
            with inside(path, netns):
                self.learn_interfaces(netns, dict(socket.if_nameindex()))
        except OSError:  # gone or not to be entered: the drop shows the number of its interface
            self._paths.pop(netns, None)

    # ------------------------------------------------------------------------------------------------------ searching

    def _look_for(self, netns: Netns) -> None:
        if netns not in self._present and netns not in self._gone:
            self._pending[netns] = None
            self._search()

    def _search(self) -> None:
        """Find all namespaces there are, unless that was done in this look."""
        if self._searched:
            return
        self._searched = True
        self.searches += 1
        self._paths.clear()
        found: dict[Netns, str] = {}
        processes = [*self._processes()]
        for netns, path, name in (*self._mounts(), *processes, *self._named()):
            self._paths[netns] = path
            if found.get(netns) != HOST:
                found[netns] = name
        first = {netns: (_pid(path), name) for netns, path, name in processes if name != HOST}
        self._container_of = _last({one: known for one, known in self._container_of.items() if one not in found})
        for netns, tenant in self._tenants.search(found, first).items():
            found[netns], self._container_of[netns] = tenant.called, tenant.container
        self._interfaces = {
            netns: names
            for netns, names in self._interfaces.items()
            if netns in found or netns in self._present or netns in self._pending
        }
        self._host = next((netns for netns, name in found.items() if name == HOST), None)
        self._count_again(frozenset(found))
        self._gone = _last({netns: None for netns in (*self._gone, *self._pending) if netns not in found})
        self._pending.clear()
        self._names = {**_last({netns: name for netns, name in self._names.items() if netns not in found}), **found}

    def _count_again(self, found: frozenset[Netns]) -> None:
        """Where there are no cookies: what has the inode of a namespace that is not there any more is another one."""
        for netns in self._present - found:
            if netns.cookie is None:
                self._numbers[netns.inode] = netns.number + 1
        self._before, self._present = self._present, found

    def _processes(self) -> Iterator[tuple[Netns, Path, str]]:
        """Yield the namespaces that processes are in, each by its first process."""
        seen: set[int] = set()
        for pid in sorted(int(entry.name) for entry in self._proc.iterdir() if entry.name.isdigit()):
            process = self._proc / str(pid)
            with suppress(OSError):  # it ended, or belongs to somebody else: another one may tell
                inode = (process / "ns/net").stat().st_ino
                is_host = pid == _KTHREADD and _is_kernel_thread(process)
                if inode in seen and not is_host:
                    continue
                comm = (process / "comm").read_bytes().rstrip(b"\n").decode(errors="backslashreplace")
                netns = self._numbered(self._identify_path(process / "ns/net"))
                seen.add(inode)
                yield netns, process / "ns/net", HOST if is_host else f"{comm}[{pid}]"

    def _named(self) -> Iterator[tuple[Netns, Path, str]]:
        """Yield the namespaces below /run/netns."""
        self._refused = None
        entries: list[Path] = []
        try:
            entries = sorted(self._run.iterdir())
        except (FileNotFoundError, NotADirectoryError):  # nobody has named one
            pass
        except OSError as refused:
            self._refused = refused.strerror
        for entry in entries:
            with suppress(OSError):  # deleted meanwhile, or no namespace
                yield self._numbered(self._identify_path(entry)), entry, _called(entry)

    def _mounts(self) -> Iterator[tuple[Netns, Path, str]]:
        """Yield namespaces that a mount keeps, with or without a process: container runtimes have directories for them.

        The fourth field is the root of the mount, "net:[4026532281]", the fifth where it is: proc_pid_mountinfo(5).
        """
        with suppress(OSError):  # no /proc: there is nothing to find
            for line in (self._proc / "self/mountinfo").read_bytes().splitlines():
                fields = line.split(b" ")
                if len(fields) > 4 and _NET_ROOT.fullmatch(fields[3]):
                    octal = _OCTAL.sub(lambda escape: bytes((int(escape[1], 8) & 0xFF,)), fields[4])
                    path = Path(os.fsdecode(octal))
                    with suppress(OSError):  # unmounted meanwhile, or something else is mounted there, too
                        yield self._numbered(self._identify_path(path)), path, _called(path)

    def _numbered(self, netns: Netns) -> Netns:
        if netns.cookie is not None or netns.inode not in self._numbers:
            return netns
        return netns._replace(number=self._numbers[netns.inode])


def _called(path: Path) -> str:
    """Return what a file calls a namespace: its name, or its path where the name would be read as something else."""
    return str(path) if _LIKE_OTHERS.fullmatch(path.name) else path.name


def _pid(path: Path) -> int:
    """Return the process of /proc/PID/ns/net."""
    return int(path.parent.parent.name)


def _is_kernel_thread(process: Path) -> bool:
    """Tell whether the kernel says so: without a command line is also a process that has ended or cleared it."""
    try:
        # proc_pid_stat(5): the name in parentheses, which may have more of them, then state... and flags
        return bool(int((process / "stat").read_bytes().rpartition(b")")[2].split()[6]) & _PF_KTHREAD)
    except (OSError, ValueError, IndexError):  # there is no such process, or it is hidden
        return False


def _last(what: dict[Netns, _Known]) -> dict[Netns, _Known]:
    """Return what is known of the last ones, so that memory does not grow with those that were."""
    return what if len(what) <= _REMEMBERED else dict(list(what.items())[-_REMEMBERED:])
