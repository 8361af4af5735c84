# SPDX-License-Identifier: MIT
"""The root of another Debian, for guests that are to run with its Python and its bcc instead of this machine's."""

import platform
import shutil
import tempfile
from pathlib import Path

from tests.vm.packages import apt, unpack

PYTHON = "/usr/bin/python3"
_PACKAGES = (
    "base-files base-passwd bash bpftool coreutils dash ethtool grep iproute2 kmod libc-bin mount nftables procps "
    "python3-bpfcc python3-click python3-pytest python3-pytest-timeout python3-tabulate sed util-linux"
)


def is_of_this_machine(suite: str) -> bool:
    """Tell whether this machine runs that Debian itself."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME") == suite


def fetch(suite: str, cache: Path) -> Path:
    """Return a tree with what the tests in guests use, from the cache or the mirror. Raises FetchError.

    No package's own scripts have run: what they would set up, nothing here needs, but for the names of the users.
    """
    target = cache / f"userland-{suite}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".userland-{suite}-", dir=cache) as directory, apt(suite) as packages:
            made = Path(directory, suite)
            for package in packages.download_with_dependencies(*_PACKAGES.split()):
                unpack(package, made)
            for name in ("passwd", "group"):
                shutil.copy(made / f"usr/share/base-passwd/{name}.master", made / "etc" / name)
            made.rename(target)
    return target
