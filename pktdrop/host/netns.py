# SPDX-License-Identifier: MIT
"""One network namespace: telling it from others, and being inside it.

An inode is given again within seconds; a cookie never (`Netns`). Nothing here keeps a namespace alive: no descriptor of
one stays open.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from pathlib import Path

from pktdrop.model.drops import Netns

HERE = Path("/proc/thread-self/ns/net")
"""Path of the network namespace that this thread is in."""
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, Linux 5.14 and later
_COOKIE = struct.Struct("=Q")
# include/uapi/linux/nsfs.h: the kind of a namespace (Linux 4.11), and its id (6.18), of network namespaces the cookie
_NS_GET_NSTYPE = 0xB703
_NS_GET_ID = 0x8008B70D
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, use_errno=True)
_SETNS = _PROTOTYPE(("setns", ctypes.CDLL(None, use_errno=True)))  # once: each CDLL() makes a class


def cookie_here() -> int | None:
    """Return the cookie of the network namespace this thread is in; None where the kernel does not tell it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
            answer = asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size)
    except OSError:
        return None
    return int(_COOKIE.unpack(answer)[0]) if len(answer) == _COOKIE.size else None


def identify(path: Path) -> Netns:
    """Return the network namespace that a path names; its number is left 0.

    Raises OSError where the path names none (a plain file, another kind of namespace). The cookie is None where the
    kernel tells none, or only to whom may enter the namespace, and this process may not.
    """
    with _opened(path) as (descriptor, inode):
        return Netns(inode, _cookie(descriptor))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Open what a path names, and give its descriptor and its inode. Raises OSError if it is no network namespace."""
    # looked at before it is opened: anything may stand in a directory, and some files do something when opened
    status = path.stat()
    if status.st_dev != HERE.stat().st_dev:
        raise OSError(errno.EINVAL, "it is no network namespace", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if status.st_dev != HERE.stat().st_dev or _kind(descriptor) != _CLONE_NEWNET:
            raise OSError(errno.EINVAL, "it is no network namespace", str(path))
        yield descriptor, status.st_ino
    finally:
        os.close(descriptor)


def _kind(descriptor: int) -> int:
    try:
        return ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:  # a kernel that cannot tell; setns(2) will
        return _CLONE_NEWNET


def _cookie(descriptor: int) -> int | None:
    answer = bytearray(_COOKIE.size)
    try:
        ioctl(descriptor, _NS_GET_ID, answer)
        return int(_COOKIE.unpack(answer)[0])
    except OSError:  # before Linux 6.18: from inside
        with suppress(OSError), _entered(descriptor):
            return cookie_here()
        return None


@contextmanager
def _entered(descriptor: int) -> Iterator[None]:
    with HERE.open("rb") as home:
        _setns(descriptor)
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if _SETNS(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def inside(path: Path, netns: Netns | None = None) -> Iterator[None]:
    """Move this thread into the network namespace that `path` names, and back at the end.

    Raises OSError where the namespace is gone or may not be entered (CAP_SYS_ADMIN), or where `netns`, which it must
    be, is given and the path names another one by now.
    """
    with ExitStack() as stack:
        try:
            descriptor, inode = stack.enter_context(_opened(path))
            stack.enter_context(_entered(descriptor))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if netns is not None and (inode, cookie_here() if netns.cookie is not None else None) != netns[:2]:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        yield
