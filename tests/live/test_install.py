# SPDX-License-Identifier: MIT
"""The command that bootstrap installs is root's, needs nothing of the checkout, and is made of nothing that is others'.

Each test has a /usr/local of its own, in a mount namespace: that of the host is not touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path

import pytest

from tests.kit.process import DEADLINE, ROOT, need

NOBODY = 65534
MARK = "hostile code was run"
_HOSTILE = f"print({MARK!r})\nraise SystemExit(77)\n"
_OVERLAY = 'mount --bind "$1" /usr/local && shift && exec "$@"'


class Machine:
    """A checkout, and a /usr/local, both of which a test may change."""

    def __init__(self, directory: Path) -> None:
        """Copy the checkout, with a virtual environment in which nothing has to be installed."""
        self.checkout, self.local = directory / "clone", directory / "local"
        self.local.mkdir()
        self.copy_checkout()

    def copy_checkout(self) -> None:
        """Make the checkout, as root's."""
        self.checkout.mkdir(mode=0o755)
        shutil.copy(ROOT / "bootstrap", self.checkout)
        shutil.copy(ROOT / "setup.cfg", self.checkout)
        for name in ("pktdrop", "bpf"):
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (self.checkout, *self.checkout.rglob("*")):
            os.chmod(path, 0o755 if path.is_dir() or path.name == "bootstrap" else 0o644)

    def run(self, *command: str | Path, cwd: Path = Path("/"), **environment: str) -> subprocess.CompletedProcess[str]:
        """Run something that sees this /usr/local."""
        shell = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _OVERLAY, "sh", str(self.local)]
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment}
        return subprocess.run(
            [*shell, *map(str, command)],
            **{"env": variables, "cwd": cwd, "capture_output": True, "text": True, "check": False},
            timeout=3 * DEADLINE,
        )

    def bootstrap(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run bootstrap of the checkout, as root."""
        return self.run(self.checkout / "bootstrap", *(words or ("--version",)), **environment)

    def pktdrop(self, *words: str, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
        """Run the command that is on the PATH."""
        return self.run("/usr/local/bin/pktdrop", *(words or ("--version",)), cwd=cwd)

    @property
    def current(self) -> Path:
        """The copy that the command runs."""
        return self.local / "lib" / "pktdrop" / os.readlink(self.local / "lib" / "pktdrop" / "current")


@pytest.fixture(name="machine")
def _machine() -> Iterator[Machine]:
    need("unshare", "apt-get")  # a /usr/local of one's own; a distribution on which bootstrap does not give up
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Machine(Path(directory))


@pytest.fixture(name="installed")
def _installed(machine: Machine) -> Machine:
    done = machine.bootstrap()
    assert done.returncode == 0, done.stderr
    return machine


def test_the_copy_is_roots_alone(installed: Machine) -> None:
    """Everything that the command runs belongs to root, and nobody else may write it; others may read and run it."""
    for path in installed.local.rglob("*"):
        status = path.lstat()
        assert status.st_uid == status.st_gid == 0
        if not path.is_symlink():
            assert status.st_mode & 0o022 == 0, path
            assert status.st_mode & 0o004, path
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    done = installed.run(*nobody, "/usr/local/bin/pktdrop", "counters", "--format", "json")
    assert done.returncode == 0, done.stderr


def test_its_version_is_told(installed: Machine) -> None:
    """Directory and command name the version and the content; bootstrap says what it installed, and only then."""
    version = installed.pktdrop().stdout.split()[1]
    assert installed.current.name.startswith(f"{version}-")
    assert installed.current.name in (installed.local / "bin" / "pktdrop").read_text()
    assert installed.bootstrap().stderr == ""
    (installed.checkout / "pktdrop" / "__init__.py").write_text('"""Another."""\n\n__version__ = "9.9"\n')
    before = installed.current
    said = installed.bootstrap().stderr
    assert f"installing pktdrop {installed.current.name} in " in said
    assert installed.pktdrop().stdout == "pktdrop 9.9\n"
    assert before.is_dir()  # one that runs may still need it


def test_nothing_of_the_checkout_is_needed(installed: Machine) -> None:
    """With the checkout gone, and made anew by another user with hostile code, the command runs root's copy."""
    expected = installed.pktdrop().stdout
    shutil.rmtree(installed.checkout)
    assert installed.pktdrop().stdout == expected
    for name in ("pktdrop/start.py", "pktdrop/__init__.py", ".venv/bin/python", "bcc.py", "click.py", "runpy.py"):
        file = installed.checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_HOSTILE)
        file.chmod(0o755)
    for path in (installed.checkout, *installed.checkout.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    assert installed.pktdrop(cwd=installed.checkout).stdout == expected
    done = installed.pktdrop("trace", "-d", "0.2", "--no-cache", "--format", "json", cwd=installed.checkout / "pktdrop")
    assert done.returncode == 0, done.stderr
    assert MARK not in done.stdout + done.stderr


def test_the_live_view_needs_nothing_of_the_checkout(installed: Machine) -> None:
    """Where the virtual environment has textual, the copy has it, with all that it needs, and no more."""
    without = installed.current
    (target,) = (installed.checkout / ".venv" / "lib").glob("python3*/site-packages")
    found = util.find_spec("textual")
    if found is None or found.origin is None:
        pytest.skip("textual is not installed here")
    parts = "textual rich markdown_it mdit mdurl linkify uc_micro platformdirs pygments typing_extensions hypothesis"
    for path in Path(found.origin).parents[1].iterdir():
        if path.name.startswith(tuple(parts.split())):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target / path.name)
    assert installed.bootstrap().returncode == 0
    assert installed.current != without
    shutil.rmtree(installed.checkout)
    site = installed.current / "site"
    alone = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import textual.app, textual.widgets; print(textual.__file__)"
    )
    done = installed.run("/usr/bin/python3", "-I", "-S", "-c", alone)
    assert done.stdout == f"{site}/textual/__init__.py\n", done.stderr
    assert not list(site.glob("hypothesis*"))


def _owner(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def _group_writes(path: Path) -> None:
    os.chown(path, 0, 1)  # daemon is in its own group
    path.chmod(path.stat().st_mode | 0o020)


def _all_write(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


def _link_of_another(path: Path) -> None:
    target = path.with_name(f"{path.name}.real")
    path.rename(target)
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


PARTS = ("pktdrop", "pktdrop/cli/__init__.py", "pktdrop/data/layers.tsv", "bpf/include", "bpf/drops.c")
CODE = [
    *((part, spoil) for part in ("", "..", "bootstrap", *PARTS) for spoil in (_owner, _group_writes, _all_write)),
    *((part, _link_of_another) for part in PARTS),
]


@pytest.mark.parametrize(("part", "spoil"), CODE)
def test_what_others_can_write_is_not_run(machine: Machine, part: str, spoil: Callable[[Path], None]) -> None:
    """Whatever part of the way to code another user can change: two sentences, exit status 1, and nothing is run."""
    path = Path(os.path.normpath(machine.checkout / part))
    (machine.checkout / "pktdrop" / "install.py").write_text(_HOSTILE)
    spoil(path)
    done = machine.bootstrap()
    what, do = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"{re.escape(str(path))}[ ,]", what)
    assert do.startswith("Use a clone")
    assert not list(machine.local.iterdir())


@pytest.mark.parametrize("part", ["", "bin", "bin/python", "lib", "pyvenv.cfg"])
def test_a_virtual_environment_of_others_is_not_run(machine: Machine, part: str) -> None:
    """The same for .venv, and for what it is a link to."""
    venv.create(machine.checkout / ".venv", symlinks=True)
    elsewhere = machine.checkout.with_name("elsewhere")
    (machine.checkout / ".venv").rename(elsewhere)
    (machine.checkout / ".venv").symlink_to(elsewhere)
    os.chown(elsewhere / part, NOBODY, NOBODY, follow_symlinks=False)
    done = machine.bootstrap()
    assert done.returncode == 1
    assert f"{elsewhere / part} belongs to another user, who could change what is run here." in done.stderr


def test_the_clone_of_who_calls_sudo(machine: Machine) -> None:
    """A clone of one's own is run by sudo, and its copy is root's; a third user's is not."""
    for path in (machine.checkout, *machine.checkout.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    assert machine.bootstrap(SUDO_UID="1").returncode == 1
    assert machine.bootstrap().returncode == 1
    done = machine.bootstrap(SUDO_UID=str(NOBODY))
    assert done.returncode == 0, done.stderr
    assert {path.lstat().st_uid for path in machine.local.rglob("*")} == {0}


def test_a_group_of_ones_own(machine: Machine) -> None:
    """Where the umask is 002, as on Ubuntu, a clone is writable for its owner's group, in which nobody else is."""
    for path in (machine.checkout, *machine.checkout.rglob("*")):
        os.chown(path, 1, 1)
        path.chmod(path.stat().st_mode | 0o020)
    assert machine.bootstrap(SUDO_UID="1").returncode == 0
    os.chown(machine.checkout / "bpf", 1, 0)
    assert machine.bootstrap(SUDO_UID="1").returncode == 0  # root's group: root alone is in it
    os.chown(machine.checkout / "bpf", 1, 2)
    assert machine.bootstrap(SUDO_UID="1").returncode == 1


def test_a_place_of_others_gets_no_command(machine: Machine) -> None:
    """Where /usr/local is not root's alone nothing is installed, which is said; the checkout itself is run."""
    machine.local.chmod(0o777)
    done = machine.bootstrap()
    assert done.returncode == 0
    assert done.stdout.startswith("pktdrop ")
    assert "the command pktdrop is not installed: others may write /usr/local." in done.stderr
    assert not (machine.local / "bin" / "pktdrop").exists()


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a:b", "a\nb"])
def test_a_clone_that_no_include_can_name_is_refused(machine: Machine, name: str) -> None:
    """In two sentences, before anything is made: the compiler would only say that something is wrong in the sources."""
    machine.checkout = machine.checkout.rename(machine.checkout.with_name(name))
    done = machine.bootstrap()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "bootstrap: this clone cannot be used where it is" in done.stderr
    assert not (machine.checkout / ".venv").exists()
    assert not (machine.local / "bin").exists()


@pytest.mark.parametrize("name", ["a b", "$(id)", "a'b", "%s", "ü", "-v", "*", "a;b", "#a"])
def test_a_clone_may_be_called_anything_else(machine: Machine, name: str) -> None:
    """Neither the shell nor Python takes the name for something to be done."""
    machine.checkout = machine.checkout.rename(machine.checkout.with_name(name))
    done = machine.bootstrap()
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["pktdrop"]), done.stderr
    assert machine.pktdrop().returncode == 0


def test_something_else_by_that_name_stays(machine: Machine) -> None:
    """A command of that name that bootstrap did not write is left alone."""
    (machine.local / "bin").mkdir()
    (machine.local / "bin" / "pktdrop").write_text("#!/bin/sh\n")
    done = machine.bootstrap()
    assert "is something else and stays as it is" in done.stderr
    assert (machine.local / "bin" / "pktdrop").read_text() == "#!/bin/sh\n"
