# SPDX-License-Identifier: MIT
"""The limits that figures are held to: one table, budgets.tsv."""

import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pktdrop.rules import tables

_COLUMNS = ("name", "rule", "limit", "unit", "short", "source")
_RULES: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "=": operator.eq}


class Budget(NamedTuple):
    """One limit."""

    name: str
    rule: str
    limit: float
    unit: str
    short: bool
    """Whether it holds on a busy machine as well."""
    source: str

    def kept(self, value: float) -> bool:
        """Return whether a figure, in the budget's unit, is within it."""
        return _RULES[self.rule](value, self.limit)

    def __str__(self) -> str:
        """Return the limit as the report shows it."""
        return f"{self.rule} {self.limit:g} {self.unit}"


def parse(lines: Iterable[str]) -> tuple[Budget, ...]:
    """Read the table. Raises ValueError that names the line at fault."""

    def make(cells: list[str], number: int) -> Budget:
        name, rule, limit, unit, short, source = cells
        tables.one_of("rule", rule, _RULES, number)
        tables.one_of("answer", short, ("yes", "no"), number)
        return Budget(name, rule, float(limit), unit, short == "yes", source)

    found = tables.rows(lines, _COLUMNS, make)
    if len({budget.name for budget in found}) < len(found):
        raise ValueError("two budgets have one name")
    return found


def load() -> dict[str, Budget]:
    """Return the budgets by name."""
    return {budget.name: budget for budget in tables.load(Path(__file__).with_name("budgets.tsv"), parse)}
