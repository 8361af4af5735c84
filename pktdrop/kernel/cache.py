# SPDX-License-Identifier: MIT
"""Files that spare a start its slow parts; the contents of each can always be made again.

A file is read only if it and its directory belong to the running user and nobody else may write them: its content
is loaded into the kernel. It starts with its format and checksum. Nothing here is an error: what cannot be read is a
miss, what cannot be written is made again next time; `state` says why, for `pktdrop doctor`.
"""

import os
from contextlib import suppress
from pathlib import Path

from pktdrop.kernel.digest import digest
from pktdrop.process import files

FORMAT = b"pktdrop-2 "
"""Files of the first format, without it, may hold what another user had a hand in."""
_KEPT = 8
"""Files that stay, by age: kernels and versions come and go."""
_LARGEST = 16 << 20
"""Bytes; the programs of one kernel take less than a hundredth."""


def default_directory() -> Path:
    """Return /var/cache/pktdrop for root, else a directory in the user's own cache (XDG Base Directory)."""
    if os.geteuid() == 0:
        return Path("/var/cache/pktdrop")
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # to be ignored, says the specification
        home = os.path.expanduser("~/.cache")
    return Path(home) / "pktdrop"


class Cache:
    """A directory of checksummed files by key."""

    def __init__(self, directory: Path | None) -> None:
        """Take the directory; None keeps and finds nothing."""
        self._directory = directory
        self.state = "not used" if directory is None else "not asked yet"
        """What became of the last load or store, in a few words."""
        self.kept = False
        """Whether a next start finds what this one loaded or stored."""
        self.mistrusted = ""
        """Why a file of the cache that is there was not read, as another user may have written it; empty: no such
        file."""

    def load(self, key: str) -> bytes | None:
        """Return what was stored under a key, or None."""
        if self._directory is None:
            return None
        try:
            data = files.read(self._directory / key, _LARGEST)
        except FileNotFoundError:
            self.state = "miss: nothing is stored for this kernel and version"
            return None
        except files.Refused as reason:
            self.mistrusted = str(reason)
            self.state = f"miss: {reason}"
            return None
        except OSError as failed:
            self.state = f"miss: {failed.strerror}"
            return None
        head, _, content = data.partition(b"\n")
        if head != _head(content):
            self.state = "miss: the file is damaged"
            return None
        self.kept = True
        self.state = f"hit: {self._directory / key}"
        return content

    def store(self, key: str, content: bytes) -> None:
        """Keep something under a key: whole, or not at all."""
        self.kept = False
        if self._directory is None:
            return
        try:
            files.store(self._directory / key, _head(content) + b"\n" + content)
        except files.Refused as reason:
            self.state += f"; not stored: {reason}"
        except OSError as failed:
            self.state += f"; not stored: {failed.strerror}"
        else:
            self.kept = True
            _tidy(self._directory, key)


def _tidy(directory: Path, newest: str) -> None:
    """Remove what killed writers left, and all but the newest files. What cannot be removed only takes room."""
    others = []
    with suppress(OSError):
        for entry in os.scandir(directory):
            with suppress(FileNotFoundError):  # removed by another process that tidies up
                if entry.name.endswith(files.UNFINISHED):
                    if not _is_being_written(entry.name):
                        os.unlink(entry)
                elif entry.name != newest and not entry.is_dir(follow_symlinks=False):
                    others.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
    for _, path in sorted(others, reverse=True)[_KEPT - 1 :]:
        with suppress(OSError):
            os.unlink(path)


def _is_being_written(name: str) -> bool:
    """Whether the process in the name of an unfinished file still runs. This process writes one file at a time.

    A writer in another PID namespace may be taken for dead: it then finds that its file cannot be stored.
    """
    process = name.split(".")[-3:][0]
    return process != str(os.getpid()) and os.path.exists(f"/proc/{process}")


def _head(content: bytes) -> bytes:
    return FORMAT + digest(content).encode()
