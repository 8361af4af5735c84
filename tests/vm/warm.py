# SPDX-License-Identifier: MIT
"""Files that every test opens again and again, to be in the guest's memory from the start.

Opening a file over 9p takes three exchanges with QEMU, and starting Python opens hundreds: on a busy machine with an
emulated guest that is 30 s instead of 2.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TOOLS = (
    *("bpftool", "cat", "env", "ethtool", "ip", "nft", "nstat", "pgrep", "setpriv", "sh", "ss", "sysctl", "tc"),
    *("tmux", "unshare"),
)
_MODULES = ("bcc", "click", "tabulate")
_NOT_FOR_TESTS = ("ast_serialize", "clang_format", "mypy", "mypyc", "pip", "ruff", "setuptools")
"""Large packages of the test environment that only checks of the source use."""
_EXCLUDED = ("config-3*", "ensurepip", "idlelib", "lib2to3", "test", "*__mypyc*")


def archive(target: Path, root: Path) -> None:
    """Write a tar archive of them, by their places below the root: of another root than ours, the checkout only."""
    paths = {*_checkout(), *(_system() if root == Path("/") else ())}
    names = "".join(f"{path.relative_to('/')}\0" for path in sorted(paths))
    excluded = (f"--exclude={pattern}" for pattern in _EXCLUDED)
    command = ["tar", "-C", "/", *excluded, "--null", "-T", "-", "-cf", str(target)]
    subprocess.run(command, input=names.encode(), check=True, timeout=120)


def _checkout() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.name in ("bpf", "pktdrop", "tests", "setup.cfg"))


def _system() -> Iterator[Path]:
    packages = Path(sysconfig.get_path("purelib"))
    yield from (path for path in packages.iterdir() if not path.name.startswith(_NOT_FOR_TESTS))
    yield Path(sysconfig.get_path("stdlib"))
    for module in _MODULES:
        spec = find_spec(module)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            yield origin.parent if origin.name == "__init__.py" else origin
    yield from _programs()


def _programs() -> Iterator[Path]:
    """Yield Python and the tools, and the libraries that they are linked with."""
    for name in (sys.executable, *_TOOLS):
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if found is None:
            continue
        program = Path(found).resolve()
        yield program
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=30).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            # a link and what it points to
            yield Path(library).parent.resolve() / Path(library).name
            yield Path(library).resolve()
