# SPDX-License-Identifier: MIT
"""Files that spare a start its slow parts; what is in them can always be made again.

A file is read only if it and its directory belong to the running user and nobody else may write them: its content
is loaded into the kernel. It starts with its own checksum. Nothing here is an error: what cannot be read is a miss,
what cannot be written is made again next time; `state` says why, for `pktdrop doctor`.
"""

import hashlib
import os
from pathlib import Path

_KEPT = 8
"""Files that stay, by age: kernels and versions come and go."""
_OTHERS_MAY_WRITE = 0o022


class Refused(Exception):
    """A file or directory that must not be trusted, and why."""


def default_directory() -> Path:
    """Return /var/cache/pktdrop for root, else a directory in the user's own cache (XDG Base Directory)."""
    if os.geteuid() == 0:
        return Path("/var/cache/pktdrop")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "pktdrop"


class Cache:
    """A directory of checksummed files by key."""

    def __init__(self, directory: Path | None) -> None:
        """Take the directory; None keeps and finds nothing."""
        self._directory = directory
        self.state = "not used" if directory is None else "not asked yet"
        """What became of the last load or store, in a few words."""

    def load(self, key: str) -> bytes | None:
        """Return what was stored under a key, or None."""
        if self._directory is None:
            return None
        try:
            data = self._read(self._directory / key)
        except FileNotFoundError:
            self.state = "miss: nothing is stored for this kernel and version"
            return None
        except Refused as reason:
            self.state = f"miss: {reason}"
            return None
        except OSError as failed:
            self.state = f"miss: {failed.strerror}"
            return None
        digest, _, content = data.partition(b"\n")
        if digest != _digest(content):
            self.state = "miss: the file is damaged"
            return None
        self.state = f"hit: {self._directory / key}"
        return content

    def store(self, key: str, content: bytes) -> None:
        """Keep something under a key: whole, or not at all."""
        if self._directory is None:
            return
        target = self._directory / key
        temporary = self._directory / f"{key}.{os.getpid()}.tmp"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(os.stat(self._directory), self._directory)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.write(_digest(content) + b"\n" + content)
            os.replace(temporary, target)
            self._prune(target)
        except Refused as reason:
            self.state += f"; not stored: {reason}"
        except OSError as failed:
            temporary.unlink(missing_ok=True)
            self.state += f"; not stored: {failed.strerror}"

    def _read(self, path: Path) -> bytes:
        _check(os.stat(path.parent), path.parent)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _check(os.fstat(descriptor), path)
            return file.read()

    def _prune(self, newest: Path) -> None:
        """Remove the oldest files, left-overs of killed writers among them."""
        files = sorted(newest.parent.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
        for path in files[_KEPT:]:
            if path != newest:
                path.unlink(missing_ok=True)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _check(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise Refused(f"{path} belongs to another user")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise Refused(f"others may write {path}")
