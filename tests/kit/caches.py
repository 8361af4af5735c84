# SPDX-License-Identifier: MIT
"""This host with another /var/cache, so that its own is not touched."""

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.process import command, need, run

_OVERLAY = 'mount --bind "$1" /var/cache && echo ready && exec cat'


class Host:
    """This host with another /var/cache: what is started while it is there sees that one."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        """Take a process that is in that mount namespace."""
        self.pktdrop = command()
        self.enter = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
        self.cache = Path(f"/proc/{holder.pid}/root/var/cache/pktdrop")

    def run(self, *arguments: str) -> None:
        """Run a command there."""
        run(*self.enter, *arguments)

    @property
    def kept(self) -> Path:
        """The one file that is in the cache."""
        (path,) = self.cache.iterdir()
        return path

    def state(self) -> dict[Path, tuple[int, int, int, bytes]]:
        """All that a write would change: the directory and its files."""
        found = [self.cache, *self.cache.iterdir()] if self.cache.exists() else []
        return {
            path: (
                path.stat().st_ino,
                path.stat().st_mtime_ns,
                path.stat().st_mode,
                b"" if path.is_dir() else path.read_bytes(),
            )
            for path in found
        }


@contextmanager
def another_cache(over: Path) -> Iterator[Host]:
    """Lay a directory over /var/cache, for all that is started meanwhile by $PKTDROP."""
    need("unshare", "nsenter")  # they give a process another /var/cache
    shell = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _OVERLAY, "sh", str(over)]
    with (
        subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        pytest.MonkeyPatch.context() as environment,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        host = Host(holder)
        environment.setenv("PKTDROP", shlex.join([*host.enter, *host.pktdrop]))
        yield host
