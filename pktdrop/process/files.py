# SPDX-License-Identifier: MIT
"""Files opened so that no other user decides what is read or written.

A path is walked name by name (openat(2) without following links), each directory and link judged by what was opened:
nothing is checked first and looked up again later. A link leads on only if a trusted user made it.
Needs nothing but the standard library.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

UNFINISHED = ".tmp"
"""Ends the name of a file that is being written: NAME.PROCESS.RANDOM.tmp."""
_MOST_LINKS = 40
"""On the way to one file, as in the kernel: MAXSYMLINKS, include/linux/namei.h."""
_LINK_OR_DIRECTORY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """A file or directory that must not be trusted, and why."""


def own() -> frozenset[int]:
    """Return the users whose directories and links are trusted: root and the running one."""
    return frozenset((0, os.geteuid()))


def judge(status: os.stat_result, path: str | Path, owners: Collection[int]) -> None:
    """Raise Refused where others than the owners may change what was opened: a file, a directory, a link."""
    if status.st_uid not in owners:
        raise Refused(f"{path} belongs to another user")
    if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(f"others may write {path}")


class _Name(NamedTuple):
    """A part of a path that is still to be walked."""

    name: str
    by_link: bool
    """Whether the name stands in a link, not in the path that was asked for."""


def open_directory(path: Path, owners: Collection[int] | None, make: bool = False) -> tuple[int, str]:
    """Open a directory (O_PATH) and return it with its path without links; the caller closes it.

    `owners` are the users who may decide where the path leads: every directory on it must be theirs alone, but for the
    last one, of which that is the caller's to judge; sticky ones may be shared. None trusts all directories, and
    follows links of root and the running user only. Missing directories are made with `make`, for the running user
    alone. Raises Refused and OSError.
    """
    todo = deque(_Name(name, False) for name in Path(os.path.join(os.getcwd(), path)).parts[1:])
    here, where, links = os.open("/", _LINK_OR_DIRECTORY), "/", 0
    try:
        while todo:
            if owners is not None:
                _judge_step(os.fstat(here), where, owners)
            name, by_link = todo.popleft()
            if make and not by_link:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
            child = os.open(name, _LINK_OR_DIRECTORY, dir_fd=here)
            there = os.path.normpath(os.path.join(where, name))
            status = os.fstat(child)
            if stat.S_ISLNK(status.st_mode):
                with closing_descriptor(child):
                    judge(status, there, own() if owners is None else owners)
                    target = Path(os.readlink("", dir_fd=child))
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                todo.extendleft(_Name(part, True) for part in reversed(target.parts) if part != "/")
                if not target.is_absolute():
                    continue
                child, there = os.open("/", _LINK_OR_DIRECTORY), "/"
            os.close(here)
            here, where = child, there
            if not stat.S_ISDIR(os.fstat(here).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except BaseException:
        os.close(here)
        raise
    return here, where


def judge_way(path: Path, owners: Collection[int]) -> Path:
    """See that only the owners decide what is found at a path: all directories and links to it, and what it leads to.

    Return the path without links. Raises Refused and OSError.
    """
    for _ in range(_MOST_LINKS):
        directory, where = open_directory(path.parent, owners)
        with closing_descriptor(directory):
            _judge_step(os.fstat(directory), where, owners)
            found = os.open(path.name or ".", _LINK_OR_DIRECTORY, dir_fd=directory)
            with closing_descriptor(found):
                status = os.fstat(found)
                path = Path(where, path.name)
                judge(status, path, owners)
                if not stat.S_ISLNK(status.st_mode):
                    return path
                path = Path(where, os.readlink("", dir_fd=found))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _judge_step(status: os.stat_result, path: str, owners: Collection[int]) -> None:
    """Judge a directory that only leads on: in a sticky one, only the owner of a name may put another in its place."""
    if status.st_mode & stat.S_ISVTX and status.st_uid in owners:
        return
    judge(status, path, owners)


@contextmanager
def closing_descriptor(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of a block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path, limit: int, trusted: bool = True) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Trusted content is the running user's alone, with the directory it is in, and has one name only. Other content may
    be anybody's, but no link of others leads to it. Raises Refused and OSError; never blocks, never reads more.
    """
    directory, _ = open_directory(path.parent, own() if trusted else None)
    with closing_descriptor(directory):
        if trusted:
            judge(os.fstat(directory), path.parent, (os.geteuid(),))
        descriptor = os.open(path.name, _READ, dir_fd=directory)
    with closing_descriptor(descriptor):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(f"{path} is not a regular file")
        if trusted:
            judge(status, path, (os.geteuid(),))
            if status.st_nlink > 1:  # 0 where another has just been put in its place
                raise Refused(f"{path} has a second name")
        if status.st_size > limit:
            raise Refused(f"{path} is larger than {limit:,} bytes")
        return _all_of(descriptor, limit, path)


def _all_of(descriptor: int, limit: int, path: Path) -> bytes:
    parts, size = [], 0
    while part := os.read(descriptor, min(limit + 1 - size, 1 << 20)):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise Refused(f"{path} is larger than {limit:,} bytes")
    return b"".join(parts)


def create(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Make a new file, whole or not at all. `mode` is cut by the umask. Raises Refused and OSError.

    Nothing is written over, and no link of other users is followed; the directory may be anybody's.
    """
    directory, _ = open_directory(path.parent, None)
    with closing_descriptor(directory):
        _write_new(directory, path.name, data, mode)


def create_stream(path: Path, mode: int = 0o600) -> BinaryIO:
    """Make a new file, to be written piece by piece, for its owner alone; see create(). Raises Refused and OSError."""
    directory, _ = open_directory(path.parent, None)
    with closing_descriptor(directory):
        return open(os.open(path.name, _CREATE, mode, dir_fd=directory), "wb")


def store(path: Path, data: bytes) -> None:
    """Put a file of the running user alone in place, whole or not at all, however the writer ends.

    Its directory is made where it is missing, and must be the running user's alone. Raises Refused and OSError.
    """
    directory, _ = open_directory(path.parent, own(), make=True)
    with closing_descriptor(directory):
        judge(os.fstat(directory), path.parent, (os.geteuid(),))
        temporary = f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}{UNFINISHED}"
        _write_new(directory, temporary, data, 0o600)
        try:
            os.replace(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(temporary, dir_fd=directory)
            raise


def _write_new(directory: int, name: str, data: bytes, mode: int) -> None:
    descriptor = os.open(name, _CREATE, mode, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
