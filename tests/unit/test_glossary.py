# SPDX-License-Identifier: MIT
"""One word has one meaning: the glossary names what is there, and no two public classes or types have one name."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCT = CHECKOUT / "pktdrop"
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in (CHECKOUT / "docs/glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| word ")
]


def public_types(module: ast.Module) -> Iterator[str]:
    """The public classes of a module, and its other names that are written as those of classes are: type aliases."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_no_two_public_types_have_one_name() -> None:
    """Whoever reads `Loss` or `Match` somewhere finds one class of that name."""
    found = defaultdict(list)
    for path in sorted(PRODUCT.rglob("*.py")):
        for name in public_types(ast.parse(path.read_text(encoding="utf-8"))):
            found[name].append(str(path.relative_to(PRODUCT)))
    assert len(found) > 200
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_each_word_is_explained_once() -> None:
    """A word that is there twice would have two meanings."""
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(words) > 40
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", [name for row in ROWS for name in re.findall(r"`([\w.]+)`", row[2])])
def test_names_of_code_are_there(name: str) -> None:
    """What the glossary calls a class, an attribute, a function or a constant is one."""
    module, rest = PRODUCT, name.split(".")
    while rest and ((module / rest[0]).is_dir() or (module / f"{rest[0]}.py").is_file()):
        module /= rest.pop(0)
    found = import_module(".".join(module.relative_to(CHECKOUT).parts))
    for part in rest:
        if not hasattr(found, part):
            assert part in get_type_hints(found), name
            break
        found = getattr(found, part)


@pytest.mark.parametrize("row", [row for row in ROWS if len(row) > 3], ids=lambda row: str(row[0]))
def test_names_elsewhere_are_there(row: list[str]) -> None:
    """Names of C are in the C files, those of tables in the tables, those of JSON and options in the README."""
    headers = "".join(path.read_text(encoding="utf-8") for path in sorted((CHECKOUT / "bpf").glob("*.[ch]")))
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    tables = {path.name: path.read_text(encoding="utf-8") for path in sorted((PRODUCT / "data").glob("*.tsv"))}
    columns = {
        column
        for text in tables.values()
        for column in next(line for line in text.splitlines() if not line.startswith("#")).split("\t")
    }
    for part in row[3].split("; "):
        for name in re.findall(r"`([^`]+)`", part):
            if part.startswith("C "):
                assert re.search(rf"\b{name}\b", headers), name
            elif part.startswith("tables: "):
                assert name in columns, name
            else:
                assert name in tables or name in readme, name
