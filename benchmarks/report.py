# SPDX-License-Identifier: MIT
"""The one table that all parts report to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.budgets import Budget

_HEADER = ("what", "measured", "against", "ratio", "budget", "")


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is measured / against."""

    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    budget: str = ""
    """Name of the budget that `value` is held to; empty without one."""
    value: float = 0.0
    """In the unit of the budget."""


def ratio_row(what: str, unit: str, measured: float, name: str, against: float, budget: str = "") -> Row:
    """Return a row for a figure and what it is compared with, both in `unit`; a budget is one of their ratio."""
    ratio = measured / against if against else float(measured == against)
    return Row(what, f"{_figure(measured)} {unit}", f"{name}: {_figure(against)} {unit}", ratio, budget, ratio)


def limit_row(what: str, unit: str, measured: float, budget: str, against: str = "") -> Row:
    """Return a row for a figure whose budget is in the same unit."""
    return Row(what, f"{_figure(measured)} {unit}", against, None, budget, measured)


def _figure(value: float) -> str:
    """Return three digits, and all of those before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """Return median, least and most."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


@dataclass(frozen=True)
class Verdicts:
    """What the figures are held to."""

    budgets: Mapping[str, Budget]
    short: bool
    """Hold them only to the budgets that hold on a busy machine."""

    def of(self, row: Row) -> str:
        """Return "OK" or "OVER"; nothing where there is no budget, or it is not judged."""
        if not row.budget:
            return ""
        budget = self.budgets[row.budget]
        if self.short and not budget.short:
            return ""
        return "OK" if budget.kept(row.value) else "OVER"

    def over(self, rows: Sequence[Row]) -> list[str]:
        """Return the names of the budgets that are not kept."""
        return list(dict.fromkeys(row.budget for row in rows if self.of(row) == "OVER"))

    def missing(self, rows: Sequence[Row]) -> list[str]:
        """Return the names of the budgets that should have been measured and were not."""
        measured = {row.budget for row in rows}
        return [name for name, one in self.budgets.items() if name not in measured and (one.short or not self.short)]

    def text(self, rows: Sequence[Row]) -> str:
        """Return the table, one row a line; Markdown, so that it can be pasted into README.md."""
        lines = [_HEADER, *(self._cells(row) for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
        rendered = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines
        ]
        rendered.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(rendered)

    def _cells(self, row: Row) -> tuple[str, ...]:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        budget = f"{row.budget} {self.budgets[row.budget]}" if row.budget else ""
        return (row.what, row.measured, row.against, ratio, budget, self.of(row))
