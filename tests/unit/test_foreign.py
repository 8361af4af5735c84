# SPDX-License-Identifier: MIT
"""Every foreign function has its types: without them ctypes cuts a pointer to an int, wherever pointers are larger."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pktdrop"
LOADERS = ("CDLL", "PyDLL", "LibraryLoader", "cdll", "pydll", "pythonapi", "OleDLL", "WinDLL")
PROTOTYPES = ("CFUNCTYPE", "PYFUNCTYPE")


def _is_library(node: ast.AST, names: frozenset[str]) -> bool:
    """Whether an expression is a library: a call of a loader, or a name that one was given."""
    if isinstance(node, ast.Call):
        return _last(node.func) in LOADERS
    return _last(node) in (*LOADERS, *names) and isinstance(node, ast.Name | ast.Attribute)


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _libraries(tree: ast.AST) -> frozenset[str]:
    """The names that a library has in a module: assigned, or imported from bcc."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _is_library(node.value, frozenset()):
                found |= {_last(target) for target in targets}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bcc"):
            found |= {alias.asname or alias.name for alias in node.names}
    return frozenset(found)


def untyped(text: str) -> list[str]:
    """The uses of a library other than as what a prototype with all its types is called with."""
    tree = ast.parse(text)
    libraries = _libraries(tree)
    prototypes = {
        _last(target): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _last(node.value.func) in PROTOTYPES
        for target in node.targets
    }
    typed = set(_arguments_of_prototypes(tree, {*prototypes, "prototype"}))
    found = []
    for node in ast.walk(tree):
        if not _is_library(node, libraries):
            continue
        if isinstance(node, ast.Call) and id(node) in typed:
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            continue
        if id(node) not in typed and not _only_loads(node, tree):
            found.append(ast.unparse(node))
    return found


def _only_loads(node: ast.AST, tree: ast.AST) -> bool:
    """Whether a node is the loader in a call of it, or that call as the value of a name."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.Call) and parent.func is node:
            return True
        if isinstance(parent, ast.Assign | ast.AnnAssign | ast.NamedExpr) and parent.value is node:
            return isinstance(node, ast.Call)
    return False


def _arguments_of_prototypes(tree: ast.AST, prototypes: set[str]) -> Iterator[int]:
    """The libraries in calls such as NAME(("function", library))."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last(node.func) in prototypes and len(node.args) == 1:
            (pair,) = node.args
            if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
                yield id(pair.elts[1])


def _modules_with_foreign_functions() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "ctypes" in path.read_text(encoding="utf-8")]


def test_there_are_foreign_functions() -> None:
    """The modules that this is about are found: system calls, compiler, doctor."""
    names = {path.name for path in _modules_with_foreign_functions()}
    assert {"sysbpf.py", "compile_worker.py", "doctor.py"} <= names


@pytest.mark.parametrize("path", _modules_with_foreign_functions(), ids=lambda path: path.name)
def test_each_has_its_types(path: Path) -> None:
    """A library is used for nothing but functions by a prototype, which declares result and arguments."""
    assert untyped(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.syscall(1)",
        "import ctypes\nctypes.CDLL('libbpf.so.1').version()",
        "import ctypes\nctypes.cdll.LoadLibrary('libc.so.6').getpid()",
        "import ctypes\nctypes.pythonapi.PyList_New(1)",
        "from ctypes import CDLL\nf = CDLL(None).getpid",
        "from bcc.libbcc import lib\nlib.bpf_num_tables(handle)",
        "from bcc.libbcc import lib\ngetattr(lib, 'bpf_num_tables')(handle)",
        "from bcc.libbcc import lib as other\nfor f in (other.a, other.b):\n    f.restype = None",
    ],
)
def test_one_without_types_is_found(text: str) -> None:
    """Each way to call a function of which nothing is declared is noticed."""
    assert untyped(text)
