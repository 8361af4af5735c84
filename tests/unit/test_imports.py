# SPDX-License-Identifier: MIT
"""What a start does not wait for, how long a module may be, and that no test imports a test."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel.digest import digest
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def _imported(module: str) -> set[str]:
    """What is imported once a module is."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    command = [sys.executable, "-I", "-c", code]
    return set(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60 * PATIENCE).stdout.split()
    )


@pytest.mark.parametrize("module", ["pktdrop.kernel.tracer", "pktdrop.watch", "pktdrop.filters", "pktdrop.errors"])
def test_only_the_command_line_knows_click(module: str) -> None:
    """The parts that attach, count and choose raise exceptions of their own, and come without click."""
    assert "click" not in _imported(module)


def test_the_command_line_imports_nothing_that_attaching_does_not_need() -> None:
    """Filters, views, counters and OpenSSL are for later, or never."""
    loaded = _imported("pktdrop.cli.trace")
    later = {"filters", "rules.protocols", "model.packet", "samples", "reports", "run", "views.table", "watch"}
    assert loaded.isdisjoint({"_hashlib", "bz2", *(f"pktdrop.{name}" for name in later)})


@given(st.binary(), st.binary())
def test_a_digest_is_that_of_hashlib(one: bytes, two: bytes) -> None:
    """BLAKE2b with 256 bits, in one piece or two."""
    assert digest(one, two) == digest(one + two) == hashlib.blake2b(one + two, digest_size=32).hexdigest()


LONGEST = 350
LONGER: dict[str, str] = {}
"""Product modules of more lines, and why they are one."""


def test_no_module_is_longer_without_a_reason() -> None:
    """Each module fits a head; of those that do not it is said why, and of no others."""
    package = ROOT / "pktdrop"
    lines = {str(path.relative_to(package)): path.read_text().count("\n") for path in package.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > LONGEST}.keys() == LONGER.keys()


def test_each_room_has_its_place_in_the_order() -> None:
    """Every module and package of pktdrop is in the list of layers that import-linter holds, and nothing else is."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = re.findall(r"\w+", settings["importlinter:contract:layers"]["layers"])
    there = [
        path.stem for path in (ROOT / "pktdrop").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert sorted(listed) == sorted(name for name in there if name != "__init__")


def _modules_imported(source: Path) -> Iterator[str]:
    """Each module that a file may import, wherever in it: `from a import b` may mean a.b."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_test_imports_a_test() -> None:
    """What several need is in tests/kit, or beside them in a module that is no test; the kit needs none of them."""
    sources = [path for top in ("tests", "benchmarks") for path in (ROOT / top).rglob("*.py")]
    imported = {str(path.relative_to(ROOT)): set(_modules_imported(path)) for path in sources}
    assert "tests.kit.patience.PATIENCE" in imported["tests/unit/test_imports.py"]
    of_tests = re.compile(r"tests\..*\btest_\w+\..*|test_\w+\..*")
    assert [(file, name) for file, names in imported.items() for name in names if of_tests.fullmatch(name)] == []
    elsewhere = re.compile(r"tests\.(?!kit\b).*")
    kit = {file: names for file, names in imported.items() if file.startswith("tests/kit/")}
    assert len(kit) > 10
    assert [(file, name) for file, names in kit.items() for name in names if elsewhere.fullmatch(name)] == []
