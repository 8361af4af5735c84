# SPDX-License-Identifier: MIT
"""What benchmarks are judged by: their budgets, and who lost what in a churn of namespaces."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import budgets, churn
from benchmarks.__main__ import _BEGIN, _END, PARTS, SHORT
from benchmarks.churning import Life
from benchmarks.report import Verdicts, limit_row, ratio_row

BENCHMARKS = Path(budgets.__file__).parent
HEADER = "name\trule\tlimit\tunit\tshort\tsource"


def table(*rows: str) -> dict[str, budgets.Budget]:
    """Make a table of budgets."""
    return {budget.name: budget for budget in budgets.parse([HEADER, *(row.replace(" ", "\t", 5) for row in rows)])}


@pytest.mark.parametrize(
    ("rule", "kept", "over"), [("<=", [0.3, 0.35], [0.36]), (">=", [0.35, 9.0], [0.34]), ("=", [0.35], [0.34, 0.36])]
)
def test_a_budget_is_kept_up_to_its_limit(rule: str, kept: list[float], over: list[float]) -> None:
    """The limit itself is within."""
    (budget,) = table(f"a {rule} 0.35 x no here").values()
    assert all(budget.kept(value) for value in kept)
    assert not any(budget.kept(value) for value in over)


def test_what_is_over_is_named_and_what_was_not_measured() -> None:
    """Neither can go unnoticed."""
    verdicts = Verdicts(table("a <= 2 MB no x", "b <= 2 x no x", "c <= 2 s no x"), short=False)
    rows = [limit_row("one", "MB", 2.1, "a"), ratio_row("two", "ms", 4.0, "other", 2.0, "b")]
    assert [verdicts.of(row) for row in rows] == ["OVER", "OK"]
    assert verdicts.over(rows) == ["a"]
    assert verdicts.missing(rows) == ["c"]
    assert re.search(r"\| one +\| 2\.1 MB +\|.*\| a <= 2 MB +\| OVER \|", verdicts.text(rows))


def test_the_short_form_judges_only_what_a_busy_machine_can_tell() -> None:
    """Seconds of another limit are shown, not judged, and need not be measured."""
    verdicts = Verdicts(table("a <= 2 s no x", "b <= 2 x yes x", "c <= 2 x yes x"), short=True)
    rows = [limit_row("one", "s", 9.0, "a"), ratio_row("two", "ms", 5.0, "other", 2.0, "b")]
    assert [verdicts.of(row) for row in rows] == ["", "OVER"]
    assert verdicts.missing(rows) == ["c"]


def test_the_short_form_judges_no_seconds() -> None:
    """CI's machines are slow, and busy."""
    assert {one.unit for one in budgets.load().values() if one.short}.isdisjoint({"s", "ms", "%"})


def test_every_budget_is_measured_by_some_part() -> None:
    """A limit that nothing is held to is none."""
    source = "".join((BENCHMARKS / f"{module}.py").read_text(encoding="utf-8") for module in PARTS.values())
    named = set(re.findall(r'"([a-z]+(?:\.[a-z]+)?)"', source)) | {f"ledger.{n}" for n in (100, 1000, 10000)}
    assert set(budgets.load()) <= named
    short = "".join((BENCHMARKS / f"{PARTS[part]}.py").read_text(encoding="utf-8") for part in SHORT)
    assert all(f'"{name}"' in short for name, one in budgets.load().items() if one.short)


def test_the_readme_has_a_place_for_what_was_measured() -> None:
    """`benchmarks/run --record` writes there."""
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [text.count(mark) for mark in (_BEGIN, _END)] == [1, 1]


@pytest.mark.parametrize("row", ["a < 1 x no here", "a <= 1 x maybe here", "a <= many x no here"])
def test_a_faulty_table_is_refused(row: str) -> None:
    """Rule, answer and limit are checked."""
    with pytest.raises(ValueError, match=r"line 2|many"):
        table(row)


def life(name: str | None, inode: int, cookie: int, born: float, died: float, closed: int) -> Life:
    """Make a namespace that lost packets at closed ports, half of them at its birth."""
    lost = {"closed": closed, "firewall": 0, "listen": closed}
    return Life(name, inode, cookie, born, died, lost, dict(lost))


def interval(start: float, *drops: tuple[int, str | None, int], cookie: int | None = None) -> dict[str, Any]:
    """Show drops (inode, name, count) of a second."""
    more = {} if cookie is None else {"netns_cookie": cookie}
    return {
        "type": "interval",
        "start": start,
        "end": start + 1,
        "drops": [
            {"netns": inode, "netns_name": name, "count": count, "location": "__udp4_lib_rcv+0x4bc", **more}
            for inode, name, count in drops
        ],
    }


LIVES = [life("one", 7, 101, 10.0, 11.0, 4), life("two", 7, 102, 12.0, 13.5, 6), life(None, 7, 103, 20.0, 21.0, 2)]


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ([interval(10.0, (7, "one", 4)), interval(12.5, (7, "two", 6))], 0),
        ([interval(10.0, (7, "one", 4)), interval(12.5, (7, "one", 6))], 6),  # the name of the dead
        ([interval(10.0, (7, "one", 5))], 1),  # more than it lost: the others were another's
        ([interval(20.0, (7, "two", 2))], 2),  # the name of the dead for one without a name
        ([interval(20.0, (7, None, 2)), interval(10.0, (7, "7 (gone)", 4))], 0),  # no name is no wrong name
        ([interval(20.0, (7, "bash[12]", 2))], 2),  # nor has it a process
        ([interval(12.5, (7, "one", 6), cookie=102)], 6),
        ([interval(12.5, (7, "two", 6), cookie=102)], 0),
        ([interval(12.5, (7, "two", 7), cookie=102)], 1),
        ([interval(10.0, (8, "other", 5))], 0),  # none of ours
    ],
)
def test_a_name_is_wrong_where_it_was_not_that_namespaces(shown: list[dict[str, Any]], wrong: int) -> None:
    """By name and moment, and by how many that namespace lost."""
    assert churn.judge_names(LIVES, shown).wrong == wrong


def test_totals_lie_between_what_was_readable_and_what_was_counted() -> None:
    """Half of what a namespace loses is lost at its birth: a look while it lives has that."""
    rows = [{"counter": "mib.UdpNoPorts", "scope": {"netns": 7}, "delta": 5, "unexplained": 1, "status": "exact"}]
    looks = [interval(9.5), interval(11.8)]
    total = churn.judge_total("closed", LIVES, looks, {"ledger": rows})
    assert total == churn.Total(counted=12, readable=5, ledger=5, unexplained=1)
