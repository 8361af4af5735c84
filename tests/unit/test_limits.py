# SPDX-License-Identifier: MIT
"""What a run cannot know: each kind has its sentence, and there is no sentence for nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused
from pktdrop.views.limits import SENTENCES, SOURCES, sentence, sentences

PACKAGE = Path(__file__).parents[2] / "pktdrop"
MAKERS = {"Limit": ("kind", 0), "refused": ("kind", 1), "of_source": ("source", 0), "_replace": ("source", None)}
"""Functions that make limits: what they are given as a text, and as which argument."""


def _texts(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _used() -> dict[str, set[str]]:
    """All texts that product code gives as kind and as source."""
    used: dict[str, set[str]] = {"kind": set(), "source": set()}
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if name not in MAKERS:
                continue
            what, at = MAKERS[name]
            if at is not None and len(call.args) > at:
                used[what].update(_texts(call.args[at]))
            for keyword in call.keywords:
                if keyword.arg == "source":
                    used["source"].update(_texts(keyword.value))
    return used


def test_each_kind_has_a_sentence_and_each_sentence_a_kind() -> None:
    """Whatever is made can be said, and whatever can be said is made somewhere."""
    used = _used()
    assert used["kind"] | {"refused"} == SENTENCES.keys()
    assert used["source"] == SOURCES.keys()


@pytest.mark.parametrize("kind", SENTENCES)
def test_each_sentence_can_be_said(kind: str) -> None:
    """With what is known of it, to its end; a brace in a name is a brace."""
    names = ("br{0}",)
    said = sentence(Limit(kind, names, "Operation not permitted", "Use sudo.", 3, 40, "mib", Netns(4026531840)))
    assert said.startswith("SNMP counters of network namespace 4026531840: ")
    assert said.endswith(".") or kind in ("left-out", "stopped")
    assert "{" not in said.replace("br{0}", "")


def test_what_the_kernel_refuses_is_told_with_where() -> None:
    """By source, namespace, interface and protocol."""
    denied = refused(PermissionError(1, "Operation not permitted"))
    of_tcp = denied._replace(names=("tcp",))
    of_nic = denied._replace(names=("eth0",), source="driver")
    assert sentences([*of_source("socket", Netns(5), [denied, of_tcp]), of_nic]) == [
        "Sockets of network namespace 5: Operation not permitted.",
        "Sockets of network namespace 5: tcp: Operation not permitted.",
        "ethtool statistics of eth0: Operation not permitted.",
    ]


def test_an_error_without_words_is_told_by_what_it_is() -> None:
    """Neither None nor nothing."""
    assert refused(OSError("no such thing")).why == "no such thing"
    assert refused(ValueError("it is cut off"), "unreadable", "snmp") == Limit("unreadable", ("snmp",), "it is cut off")


def test_many_namespaces_are_one_sentence() -> None:
    """Of hundreds the first names are said, and how many more."""
    names = tuple(f"n{number}" for number in range(1, 7))
    assert sentence(Limit("several-not-entered", names, "Permission denied", number=6)) == (
        "6 network namespaces cannot be entered (n1, n2, n3 and 3 more): Permission denied."
    )
