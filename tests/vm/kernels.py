# SPDX-License-Identifier: MIT
"""Distribution kernels, out of the distribution's own packages: fetched once, unpacked, never installed."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm.packages import FetchError, apt, run, unpack

_PACKAGE = re.compile(r"linux-(image|binary|modules|base|headers|kbuild)-[0-9].*")


@dataclass(frozen=True)
class Suite:
    """Where a kernel comes from, and what is special about it."""

    name: str
    distribution: str
    reasons: bool = True
    """Whether skb:kfree_skb gives a reason: upstream since Linux 5.17."""
    threaded_backlog: bool = True
    """Whether the kernel knows thread_backlog_napi: upstream since Linux 6.10."""
    userland: str = ""
    """The suite whose bcc and Python belong to this kernel, with which the tests run, too."""


SUITES = (
    Suite("bullseye", "Debian 11", reasons=False, threaded_backlog=False),
    Suite("bookworm", "Debian 12", threaded_backlog=False, userland="bookworm"),
    Suite("trixie", "Debian 13", userland="trixie"),
    Suite("trixie-backports", "Debian 13 backports", userland="trixie"),
)


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel."""

    image: Path
    """A tree with the kernel and its modules, laid out as on a machine where it is installed."""
    headers: Path
    """A tree with its headers and nothing else."""
    release: str

    @property
    def modules(self) -> Path:
        """The directory of its modules."""
        return self.image / "usr/lib/modules" / self.release

    @property
    def bzimage(self) -> Path:
        """The file that a boot loader starts; newer packages keep it beside the modules."""
        beside = self.modules / "vmlinuz"
        return beside if beside.exists() else self.image / f"boot/vmlinuz-{self.release}"


def cache_directory() -> Path:
    """Return where kernels are kept: pktdrop-vm in the user's cache (XDG Base Directory). Delete it to fetch anew."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "pktdrop-vm"


def fetch(suite: str, cache: Path) -> Kernel:
    """Return the kernel of a Debian suite, from the cache or the mirror. Raises FetchError."""
    target = cache / suite
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{suite}-", dir=cache) as directory, apt(suite) as packages:
            made = Path(directory, suite)
            needed = packages.dependencies("linux-image-amd64", "linux-headers-amd64")
            wanted = sorted({name for name in needed if _PACKAGE.fullmatch(name)})
            if not wanted:
                raise FetchError(f"{suite} has no kernel packages")
            for package in packages.download(*wanted):
                kind = "headers" if re.match("linux-(headers|kbuild)-", package.name) else "image"
                unpack(package, made / kind)
            run("depmod", "-b", str(made / "image"), _release(made))
            made.rename(target)
    return Kernel(target / "image", target / "headers", _release(target))


def _release(tree: Path) -> str:
    (release,) = os.listdir(tree / "image/usr/lib/modules")
    return release
