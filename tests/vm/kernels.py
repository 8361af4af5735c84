# SPDX-License-Identifier: MIT
"""Distribution kernels, out of the distribution's own packages: fetched once, unpacked, never installed."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Package debian-archive-keyring, on Debian and Ubuntu."""
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
"""The second has what is too old for the first."""
_PACKAGE = re.compile(r"linux-(image|binary|modules|base|headers|kbuild)-[0-9].*")
_PATIENCE = 600.0
"""Seconds for a download of some 100 MB."""


class FetchError(Exception):
    """A kernel that could not be had, and why."""


@dataclass(frozen=True)
class Suite:
    """Where a kernel comes from, and what is special about it."""

    name: str
    distribution: str
    reasons: bool = True
    """Whether skb:kfree_skb gives a reason: upstream since Linux 5.17."""
    threaded_backlog: bool = True
    """Whether the kernel knows thread_backlog_napi: upstream since Linux 6.10."""
    headers_compile: bool = False
    """Whether clang 14, with which Debian 12's bcc is built, compiles its headers."""


SUITES = (
    Suite("bullseye", "Debian 11", reasons=False, threaded_backlog=False, headers_compile=True),
    Suite("bookworm", "Debian 12", threaded_backlog=False, headers_compile=True),
    Suite("trixie", "Debian 13"),
    Suite("trixie-backports", "Debian 13 backports"),
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
        with tempfile.TemporaryDirectory(prefix=f".{suite}-", dir=cache) as directory:
            work = Path(directory)
            _download(suite, work)
            made = work / suite
            for package in sorted((work / "packages").iterdir()):
                kind = "headers" if re.match("linux-(headers|kbuild)-", package.name) else "image"
                _unpack(package, made / kind)
            _run("depmod", "-b", str(made / "image"), _release(made))
            made.rename(target)
    return Kernel(target / "image", target / "headers", _release(target))


def _release(tree: Path) -> str:
    (release,) = os.listdir(tree / "image/usr/lib/modules")
    return release


def _download(suite: str, work: Path) -> None:
    """Fetch the packages with apt, in a state of its own: signatures and checksums are apt's business."""
    if shutil.which("apt-get") is None or not KEYRING.exists():
        raise FetchError(f"fetching {suite} takes apt-get and {KEYRING} (package debian-archive-keyring)")
    (work / "packages").mkdir()
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
    wanted = ("linux-image-amd64", "linux-headers-amd64")
    listed = _run("apt-cache", "depends", "--recurse", "--important", *wanted, environment=environment)
    packages = sorted({line for line in listed.splitlines() if _PACKAGE.fullmatch(line)})
    if not packages:
        raise FetchError(f"{suite} has no kernel packages")
    _run("apt-get", "download", "-q", *packages, environment=environment, directory=work / "packages")


def _update(suite: str, sources: Path, environment: dict[str, str]) -> None:
    refused = []
    for mirror in MIRRORS:
        sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
        try:
            # without Error-Mode apt-get update succeeds where nothing could be fetched
            _run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any", environment=environment)
        except FetchError as reason:
            refused.append(str(reason))
        else:
            return
    raise FetchError("; ".join(refused))


def _unpack(package: Path, tree: Path) -> None:
    """Unpack a package into a tree whose /lib is /usr/lib, as the root it will lie above."""
    tree.mkdir(parents=True, exist_ok=True)
    _run("dpkg-deb", "-x", str(package), str(tree))
    for modules in tree.glob("lib/modules/*"):
        if not (tree / "lib").is_symlink():
            modules.rename(_made(tree / "usr/lib/modules") / modules.name)
    if (tree / "lib").exists() and not (tree / "lib").is_symlink():
        shutil.rmtree(tree / "lib")
    if not (tree / "lib").is_symlink():
        _made(tree / "usr/lib")
        (tree / "lib").symlink_to("usr/lib")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _run(*command: str, environment: dict[str, str] | None = None, directory: Path = Path("/")) -> str:
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
