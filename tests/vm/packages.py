# SPDX-License-Identifier: MIT
"""Debian's packages: fetched with apt in a state of its own, unpacked, never installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Package debian-archive-keyring, on Debian and Ubuntu."""
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
"""The second has what is too old for the first."""
_PATIENCE = 600.0
"""Seconds for a download of some 100 MB."""
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories that are links into /usr on every system that a tree may lie above."""


class FetchError(Exception):
    """Packages that could not be had, and why."""


@dataclass(frozen=True)
class Apt:
    """apt for one suite, with a state of its own: signatures, checksums and what depends on what are its business."""

    suite: str
    _work: Path
    _environment: dict[str, str] = field(repr=False)

    def dependencies(self, *packages: str) -> list[str]:
        """Return what packages need, each and all of what that needs."""
        listed = run("apt-cache", "depends", "--recurse", "--important", *packages, environment=self._environment)
        return listed.splitlines()

    def download(self, *packages: str) -> list[Path]:
        """Fetch just these."""
        target = self._work / "packages"
        target.mkdir()
        run("apt-get", "download", "-q", *packages, environment=self._environment, directory=target)
        return sorted(target.iterdir())

    def download_with_dependencies(self, *packages: str) -> list[Path]:
        """Fetch these and all that they cannot do without."""
        command = ("apt-get", "install", "-q", "-y", "--download-only", "--no-install-recommends")
        run(*command, *packages, environment=self._environment)
        return sorted((self._work / "cache/archives").glob("*.deb"))


@contextmanager
def apt(suite: str) -> Iterator[Apt]:
    """Give a block apt for a suite; what it fetched is gone at the end. Raises FetchError."""
    if shutil.which("apt-get") is None or not KEYRING.exists():
        raise FetchError(f"fetching {suite} takes apt-get and {KEYRING} (package debian-archive-keyring)")
    with TemporaryDirectory(prefix="pktdrop-vm-") as directory:
        work = Path(directory)
        for place in ("lists/partial", "cache/archives/partial", "none"):
            (work / place).mkdir(parents=True)
        (work / "status").touch()
        settings = {
            "Dir::State": work, "Dir::State::Lists": work / "lists", "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache", "Dir::Etc::SourceList": work / "sources.list",
            "Dir::Etc::SourceParts": work / "none", "Dir::Etc::PreferencesParts": work / "none",
            "APT::Architecture": "amd64", "APT::Sandbox::User": "root",
        }  # fmt: skip
        configuration = work / "apt.conf"
        configuration.write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
        environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"}
        _update(suite, work / "sources.list", environment)
        yield Apt(suite, work, environment)


def _update(suite: str, sources: Path, environment: dict[str, str]) -> None:
    refused = []
    for mirror in MIRRORS:
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
        try:
            # without Error-Mode apt-get update succeeds where nothing could be fetched
            run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any", environment=environment)
        except FetchError as reason:
            refused.append(str(reason))
        else:
            return
    raise FetchError("; ".join(refused))


def unpack(package: Path, tree: Path) -> None:
    """Unpack a package into a tree whose /bin, /lib and /sbin are links into /usr, as of the root it will lie above."""
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(f"usr/{name}")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as files:
        extract = ["tar", "-x", "--keep-directory-symlink", "-C", str(tree)]
        done = subprocess.run(extract, stdin=files.stdout, capture_output=True, text=True, timeout=_PATIENCE)
    if files.returncode != 0 or done.returncode != 0:
        raise FetchError(f"{package.name} cannot be unpacked: {' '.join(done.stderr.split())}")


def run(*command: str, environment: dict[str, str] | None = None, directory: Path = Path("/")) -> str:
    """Run a command to its end; return its output. Raises FetchError."""
    try:
        done = subprocess.run(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_PATIENCE, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise FetchError(f"the command {command[0]} is missing") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"'{' '.join(command)}' does not end") from None
    if done.returncode != 0:
        raise FetchError(f"'{' '.join(command)}' failed: {' '.join(done.stderr.split())}")
    return done.stdout
