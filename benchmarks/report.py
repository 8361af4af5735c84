# SPDX-License-Identifier: MIT
"""The one table that all parts report to."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

_HEADER = ("what", "measured", "against", "ratio", "budget", "")


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is measured / against; `budget` is the most that `held` may be."""

    what: str
    measured: str
    against: str = ""
    ratio: float | None = None
    budget: str = ""
    within: bool | None = None
    """Whether the budget is kept; None without one."""

    def cells(self) -> tuple[str, ...]:
        """Return what is printed."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "ok", False: "OVER", None: ""}[self.within]
        return (self.what, self.measured, self.against, ratio, self.budget, verdict)


def ratio_row(what: str, unit: str, measured: float, name: str, against: float, budget: float | None = None) -> Row:
    """Return a row for a figure and what it is compared with, both in `unit`."""
    ratio = measured / against
    text, within = ("", None) if budget is None else (f"<= {budget:g} x", ratio <= budget)
    return Row(what, f"{_figure(measured)} {unit}", f"{name}: {_figure(against)} {unit}", ratio, text, within)


def _figure(value: float) -> str:
    """Return three digits, and all of those before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def limit_row(what: str, unit: str, measured: float, budget: float) -> Row:
    """Return a row for a figure with an absolute budget in the same unit; the ratio is to that budget."""
    return Row(what, f"{measured:.3g} {unit}", "", measured / budget, f"<= {budget:g} {unit}", measured <= budget)


def spread(values: Sequence[float]) -> str:
    """Return median, least and most."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def text(rows: Sequence[Row]) -> str:
    """Return the table, one row a line; Markdown, so that it can be pasted into README.md."""
    lines = [_HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    rendered = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
    rendered.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rendered)
