# SPDX-License-Identifier: MIT
"""The checks of `pktdrop doctor` as a table or as JSON."""

import textwrap
from dataclasses import asdict

from pktdrop.doctor import Checks
from pktdrop.text.escaping import json_line, safe
from pktdrop.text.table import Column, table

_COLUMNS = (Column("check"), Column("status"), Column("found", least=20, wrap=True))


def as_table(checked: Checks, width: int) -> str:
    """Return the checks as a table, and below it what those that are not ok mean and ask for, once."""
    rows = [(check.name, check.status, check.found) for check in checked.checks]
    parts = [table(_COLUMNS, rows, width)]
    alike: dict[tuple[str, str, str], list[str]] = {}
    for check in checked.checks:
        if check.means or check.do:
            alike.setdefault((check.status, check.means, check.do), []).append(check.name)
    for (status, means, do), names in alike.items():
        lines = [f"{', '.join(names)}: {status}", f"Means: {means}"]
        lines += [f"Do: {do}"] if do else []
        parts.append("\n".join(_wrapped(line, width, "  " * (index > 0)) for index, line in enumerate(lines)))
    parts.append("pktdrop trace can run." if checked.can_trace else "pktdrop trace cannot run here.")
    return "\n\n".join(parts) + "\n"


def _wrapped(line: str, width: int, indent: str) -> str:
    return textwrap.fill(safe(line), width, initial_indent=indent, subsequent_indent=indent + "  ")


def as_json(checked: Checks, version: str) -> str:
    """Return the checks as one JSON object on a line."""
    return json_line(
        {
            "type": "doctor",
            "version": version,
            "can_trace": checked.can_trace,
            "checks": [asdict(check) for check in checked.checks],
        }
    )
