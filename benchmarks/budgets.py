# SPDX-License-Identifier: MIT
"""The limits that figures are held to: one table, budgets.tsv."""

import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pktdrop.rules.tables import Cells, Table

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


def _budget(cells: Cells) -> Budget:
    rule, is_short = cells.one_of("rule", _RULES), cells.one_of("short", ("yes", "no")) == "yes"
    return Budget(cells["name"], rule, float(cells["limit"]), cells["unit"], is_short, cells["source"])


_TABLE = Table("budgets.tsv", "name rule limit unit short source", _budget)


def parse(lines: Iterable[str]) -> tuple[Budget, ...]:
    """Read the table. Raises ValueError that names the line at fault."""
    found = _TABLE.parse(lines)
    if len({budget.name for budget in found}) < len(found):
        raise ValueError("two budgets have one name")
    return found


def load() -> dict[str, Budget]:
    """Return the budgets by name."""
    return {
        budget.name: budget for budget in parse(Path(__file__).with_name(_TABLE.file).read_text("utf-8").splitlines())
    }
