# SPDX-License-Identifier: MIT
"""What is shipped, how it is set up on a machine, and what the test set-up itself promises."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pktdrop
from tests.kit.patience import PATIENCE

CHECKOUT = Path(__file__).resolve().parents[2]
BOOTSTRAP = CHECKOUT / "bootstrap"

BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2])
"""


def _build(kind: str, tree: Path, target: Path) -> Path:
    command = [sys.executable, "-I", "-c", BUILD, kind, target]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("pktdrop-*"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built from a copy because building leaves files behind."""
    tree = tmp_path_factory.mktemp("checkout") / "pktdrop"
    shutil.copytree(CHECKOUT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info"))
    return _build("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked source archive as pip does it."""
    parent = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", sdist, "-C", parent], check=True, timeout=60 * PATIENCE)
    return _build("wheel", next(parent.iterdir()), tmp_path_factory.mktemp("wheel"))


def _shipped(directory: str, *patterns: str) -> set[str]:
    """Return the paths under a directory of the checkout that match, relative to the directory's parent."""
    found = (path for pattern in patterns for path in (CHECKOUT / directory).rglob(pattern))
    return {str(path.relative_to(CHECKOUT)) for path in found}


def test_wheel_carries_every_c_file(wheel: Path) -> None:
    """The wheel holds all of bpf/ as the package pktdrop.bpf: no file of the checkout stays behind."""
    expected = {f"pktdrop/{path}" for path in _shipped("bpf", "*.c", "*.h")}
    assert "pktdrop/bpf/include/linux/kconfig.h" in expected
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_carries_every_module_and_data_file(wheel: Path) -> None:
    """The wheel holds every module, data file and the typing marker of pktdrop/, so no package is forgotten."""
    expected = _shipped("pktdrop", "*.py", "*.tsv", "py.typed")
    assert {"pktdrop/py.typed", "pktdrop/data/layers.tsv"} <= expected
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_is_nothing_but_pktdrop(wheel: Path) -> None:
    """The wheel puts nothing beside the package: no tests, no second copy of bpf/."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"pktdrop", f"pktdrop-{pktdrop.__version__}.dist-info"}


def test_wheel_never_asks_for_bcc(wheel: Path) -> None:
    """The wheel depends on click and tabulate alone: the bcc on PyPI is another project."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"pktdrop-{pktdrop.__version__}.dist-info/METADATA").decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert sorted(required) == ["click", "tabulate"]


def test_version_is_written_once(wheel: Path) -> None:
    """The version of package and wheel is the one in pktdrop/__init__.py; setup.cfg points there."""
    settings = configparser.ConfigParser()
    settings.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    assert settings["metadata"]["version"] == "attr: pktdrop.__version__"
    assert wheel.name == f"pktdrop-{pktdrop.__version__}-py3-none-any.whl"


def _run(*command: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=60 * PATIENCE, check=False
    )


@pytest.mark.parametrize("script", ["bootstrap", ".ci/run"])
def test_script_parses(script: str) -> None:
    """The shell scripts are executable and have no syntax error."""
    assert os.access(CHECKOUT / script, os.X_OK)
    done = _run("bash", "-n", CHECKOUT / script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_bootstrap_usage(option: str) -> None:
    """The usage text names all uses, and asking for it installs nothing."""
    done = _run(BOOTSTRAP, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert "./bootstrap COMMAND [ARGS...]" in done.stdout
    assert "./bootstrap test [PYTEST ARGS...]" in done.stdout
    assert "./bootstrap test --vm [KERNEL...]" in done.stdout
    assert "./bootstrap test --vagrant [NAME]" in done.stdout


def test_bootstrap_without_a_word() -> None:
    """A call without a command is a usage error that shows the usage text."""
    done = _run(BOOTSTRAP)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == _run(BOOTSTRAP, "--help").stdout


def _tools_of_tests() -> set[str]:
    """Return the commands that live tests, guests' tests and the demo name: need("ip"), which("ss"), run("tc", ...)."""
    directories = ("tests/live", "tests/kit", "tests/vm/guest", "pktdrop/demo")
    sources = (path.read_text(encoding="utf-8") for place in directories for path in (CHECKOUT / place).rglob("*.py"))
    call = re.compile(r"""\b(need|which|run|read|Popen)\(\[?\s*((?:"[a-z-]+"(?:,\s*|(?=[)\]])))+)""")
    found = [(name, re.findall(r"[a-z-]+", words)) for source in sources for name, words in call.findall(source)]
    return {word for name, words in found for word in (words if name == "need" else words[:1])}


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="only Debian and Ubuntu tell which package a command is of")
def test_bootstrap_installs_what_tests_use() -> None:
    """Each command that tests use is one that bootstrap looks for, or of a package it installs, or on every system."""
    tables = re.findall(
        r"^\w+_tools\(\) \{\n    cat <<'END'\n(.*?)^END$", BOOTSTRAP.read_text(), re.MULTILINE | re.DOTALL
    )
    rows = [line.split() for table in tables for line in table.splitlines()]
    used = _tools_of_tests()
    assert {"ip", "conntrack", "ifconfig", "ethtool"} <= used
    for tool in used - {command for command, _, _ in rows}:
        found = shutil.which(tool)
        assert found, f"{tool} is not here, and bootstrap does not look for it"
        file = f"bin/{Path(found).resolve().name}"  # awk is mawk, and where it is, /bin may be a link
        owners = _run("dpkg", "-S", f"*{file}").stdout.splitlines()
        packages = {owner.partition(":")[0] for owner in owners if owner.endswith(file)}
        listed = _run("dpkg-query", "-W", "-f", "${Package} ${Essential} ${Priority}\n", *packages).stdout.splitlines()
        always = {words[0] for words in map(str.split, listed) if "yes" in words or "required" in words}
        assert packages & (always | {package for _, package, _ in rows}), tool


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bootstrap in a checkout of its own, in a directory with a blank in its name."""
    directory = tmp_path / "a checkout"
    (directory / "pktdrop").mkdir(parents=True)
    (directory / "pktdrop" / "__init__.py").touch()
    return Path(shutil.copy(BOOTSTRAP, directory))


@pytest.fixture
def other_distribution(tmp_path: Path) -> str:
    """A PATH as on another distribution: basic tools, neither apt-get nor what the tests call."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for tool in ("bash", "cat", "flock", "readlink"):
        found = shutil.which(tool)
        assert found is not None
        (directory / tool).symlink_to(found)
    return str(directory)


def test_bootstrap_on_another_distribution(copy: Path, other_distribution: str) -> None:
    """Without apt-get it says in two lines what to install by hand and how to go on, and changes nothing."""
    done = _run(copy, "test", path=other_distribution)
    what, go_on = done.stderr.splitlines()
    assert done.returncode == 1
    assert re.search(r"on Debian or Ubuntu: apt-get install .*\bshellcheck\b", what)
    assert re.search(r"on Fedora: dnf install .*\bShellCheck\b", what)
    assert go_on.endswith("./bootstrap test")
    assert not (copy.parent / ".venv").exists()


def test_bootstrap_waits_for_another(copy: Path, other_distribution: str) -> None:
    """While one bootstrap works on a checkout, a second one waits and says so."""
    with subprocess.Popen(["flock", copy.parent, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"locked\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"locked\n"
        command = [copy, "test"]
        environment = {"PATH": other_distribution}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr is not None
            assert "waiting for another bootstrap" in second.stderr.readline()
            holder.stdin.close()
            assert second.wait(timeout=60 * PATIENCE) == 1


SKIPS = """
import pytest

def test_in_test():
    pytest.skip("no nft here")

@pytest.fixture
def kernel():
    pytest.skip("no BTF here")

def test_in_fixture(kernel):
    pass

@pytest.mark.skipif(True, reason="no root here")
def test_by_mark():
    pass

@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""

SKIPPED_MODULE = """
import pytest
pytest.skip("no bcc here", allow_module_level=True)
"""

REASONS = ("no nft here", "no BTF here", "no root here", "no bcc here")


@pytest.fixture
def skipping(pytester: pytest.Pytester) -> pytest.Pytester:
    """Tests that skip in each way there is, under this project's conftest."""
    pytester.makeconftest((CHECKOUT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(test_skips=SKIPS, test_module=SKIPPED_MODULE)
    return pytester


def test_skips_can_be_forbidden(skipping: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PKTDROP_NO_SKIPS=1 each skip fails with its reason, and an expected failure stays one."""
    monkeypatch.setenv("PKTDROP_NO_SKIPS", "1")
    result = skipping.runpytest_inprocess("--continue-on-collection-errors")
    result.assert_outcomes(failed=1, errors=3, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for reason in REASONS:
        result.stdout.fnmatch_lines([f"*PKTDROP_NO_SKIPS=1 forbids this: *{reason}"])


def test_skips_are_allowed_otherwise(skipping: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PKTDROP_NO_SKIPS a skip is a skip: an ordinary user's run of the tests is not red."""
    monkeypatch.delenv("PKTDROP_NO_SKIPS", raising=False)
    result = skipping.runpytest_inprocess()
    result.assert_outcomes(skipped=4, xfailed=1)
    assert result.ret == pytest.ExitCode.OK
