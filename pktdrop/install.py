# SPDX-License-Identifier: MIT
"""The command pktdrop of a host: a copy of a checkout that only root can write, and what is on the PATH to run it.

Below /usr/local/lib/pktdrop each copy has a directory of its own, named by version and content; the link `current`
leads to one of them and is replaced by renaming. Of the checkout nothing is needed afterwards. Called by bootstrap.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pktdrop import __version__
from pktdrop.process import files

if TYPE_CHECKING:
    from importlib.metadata import Distribution

MARKER = "# Written by the bootstrap script of a pktdrop checkout."
"""Line by which a command is known to be one that pktdrop's bootstrap wrote, and may replace."""
_ROOT = (0,)
_LARGEST = 32 << 20
"""Bytes of one file; what is larger is no part of pktdrop or of what it is drawn with."""
_KEPT = 2
"""Copies that are not removed: a pktdrop that runs may still load modules of the one before."""
_DRAWN_BY = "textual"
_REQUIRED = re.compile(r"([A-Za-z0-9._-]+)[^;]*(;.*extra.*)?")


def install(checkout: Path, environment: Path, prefix: Path = Path("/usr/local")) -> None:
    """Bring copy and command up to date; say on stderr what was done, or why nothing was.

    Packages that the live view needs are copied from the virtual environment, where it has them. Raises Refused and
    OSError.
    """
    os.umask(0o022)
    home, command = prefix / "lib" / "pktdrop", prefix / "bin" / "pktdrop"
    content, drawn_by = _package(checkout), list(_drawn_by(environment))
    name = f"{__version__}-{_digest(content, drawn_by)}"
    for directory in (home, command.parent):
        directory.mkdir(parents=True, exist_ok=True)
        files.judge_way(directory, _ROOT)
    lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with files.closing_descriptor(lock):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if command.exists() and MARKER not in command.read_text(encoding="utf-8", errors="replace"):
            _say(f"{command} is something else and stays as it is: use {checkout}/bootstrap")
            return
        current = home / "current"
        text = _command(current, name)
        if _leads_to(current) == name and (home / name).is_dir() and command.exists() and command.read_text() == text:
            return
        _say(f"installing pktdrop {name} in {home}, and {command}")
        if not (home / name).is_dir():
            _write(home, name, {**content, **_site(drawn_by)})
        _replace(current, lambda new: new.symlink_to(name))
        _replace(command, lambda new: _write_command(new, text))
        _tidy(home, name)


def _package(checkout: Path) -> dict[str, bytes]:
    """Return by relative path what pktdrop consists of, as a wheel has it: the C sources inside the package."""
    found = {}
    for top, below in ((checkout / "pktdrop", "pktdrop"), (checkout / "bpf", "pktdrop/bpf")):
        for path in sorted(top.rglob("*")):
            if path.suffix in (".py", ".tsv", ".typed", ".c", ".h") and "__pycache__" not in path.parts:
                found[f"{below}/{path.relative_to(top)}"] = files.read(path, _LARGEST, trusted=False)
    return found


def _drawn_by(environment: Path) -> Iterator["Distribution"]:
    """Yield the packages that the live view needs, if they are in a virtual environment."""
    for packages in sorted(environment.glob("lib/python3*/site-packages")):
        if not (packages / _DRAWN_BY).is_dir():
            continue
        from importlib.metadata import distributions  # not needed where there is nothing to copy, nor quick

        # what pip had begun when it was ended may have no name
        found = {about["Name"]: one for one in distributions(path=[str(packages)]) if "Name" in (about := one.metadata)}
        yield from _needed(_DRAWN_BY, {_plain(name): one for name, one in found.items()})


def _site(packages: Iterable["Distribution"]) -> dict[str, bytes]:
    """Return by relative path the files of some packages; what they put elsewhere (commands) is left out."""
    found = {}
    for one in packages:
        for file in one.files or ():
            path = Path(os.fspath(file.locate()))
            if ".." not in file.parts and file.suffix != ".pyc" and path.is_file():
                found[f"site/{file}"] = files.read(path, _LARGEST, trusted=False)
    return found


def _needed(name: str, installed: Mapping[str, "Distribution"]) -> Iterator["Distribution"]:
    """Yield a package and all that it needs, as far as they are installed."""
    todo, done = [name], set()
    while todo:
        wanted = todo.pop()
        if wanted in done or wanted not in installed:
            continue
        done.add(wanted)
        yield installed[wanted]
        for line in installed[wanted].requires or ():
            required = _REQUIRED.match(line)
            if required and not required.group(2):
                todo.append(_plain(required.group(1)))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _digest(content: Mapping[str, bytes], packages: Iterable["Distribution"]) -> str:
    """Return the name of a copy: a digest of its content, that of packages told by their versions."""
    digest = hashlib.sha256("".join(sorted(f"{one.metadata['Name']}=={one.version}\0" for one in packages)).encode())
    for name, data in sorted(content.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def _write(home: Path, name: str, content: Mapping[str, bytes]) -> None:
    """Make a copy, whole or not at all."""
    new = home / f".{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    for path, data in content.items():
        file = new / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    # so that the first start of another user, who may not write there, does not compile them
    compileall = [sys.executable, "-I", "-m", "compileall", "-q", "-s", str(new), "-p", str(home / name), str(new)]
    subprocess.run(compileall, check=False, stdout=subprocess.DEVNULL)
    os.sync()  # a name that is there after a power failure must not have empty files
    new.rename(home / name)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    """Put something new in place of what has a name, at once."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    make(new)
    new.replace(path)


def _write_command(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _leads_to(link: Path) -> str:
    return os.readlink(link) if link.is_symlink() else ""


def _tidy(home: Path, name: str) -> None:
    """Remove all copies but this one and the newest of the others."""
    others = [path for path in home.iterdir() if path.is_dir() and not path.is_symlink() and path.name != name]
    for path in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def _command(current: Path, name: str) -> str:
    """Return the text of the command. -I: root must not import from the directory it happens to be in."""
    return f"""\
#!{_interpreter()}
{MARKER}
# It runs {name}, a copy that only root can write.
import os, runpy, sys

home = os.path.realpath({str(current)!r})
if not os.path.isdir(home):
    sys.exit(f"pktdrop: {{home}} is gone.\\n  Run bootstrap in a clone again, or delete {{sys.argv[0]}}.")
sys.path[:0] = [home, os.path.join(home, "site")]
runpy.run_module("pktdrop", run_name="__main__", alter_sys=True)
"""


def _interpreter() -> str:
    """Return what runs the command: Python with SIGINT blocked, where env(1) can do that (coreutils 8.31 and later).

    Ctrl-C while Python makes itself ready would show a traceback; pktdrop/start.py lets it in.
    """
    blocking = ["/usr/bin/env", "--block-signal=INT", "/usr/bin/true"]
    with suppress(OSError):
        if subprocess.run(blocking, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return "/usr/bin/env -S --block-signal=INT /usr/bin/python3 -I"
    return "/usr/bin/python3 -I"


def _say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr)


def main() -> int:
    """Install from the checkout and virtual environment that the arguments name."""
    checkout, environment = map(Path, sys.argv[1:])
    try:
        install(checkout, environment)
    except (OSError, files.Refused) as reason:
        _say(f"the command pktdrop is not installed: {reason}.")
        _say(f"Let /usr/local be root's, and writable for root only; or use {checkout}/bootstrap.")
    return 0
