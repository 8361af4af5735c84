# SPDX-License-Identifier: MIT
"""The support matrix in the README, made of the results that runs on kernels have left."""

import fcntl
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- support matrix: begin -->\n", "<!-- support matrix: end -->\n"
_TITLES = ("kernel", "probes", "counted of caused", "reason", "call site", "target CPU")


def record(suite: str, result: Mapping[str, Any]) -> None:
    """Keep the result of a kernel's run, and bring the README's table up to it."""
    with open(README, "rb") as lock:  # kernels that run side by side end when they like
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = {**stored(), suite: result}
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_readme(results)


def write_readme(results: Mapping[str, Any]) -> None:
    """Bring the README's table up to some results."""
    before, _, after = split(README.read_text(encoding="utf-8"))
    README.write_text(f"{before}{BEGIN}{table(results)}{END}{after}", encoding="utf-8")


def stored() -> dict[str, Any]:
    """Return the results by suite."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return results


def split(readme: str) -> tuple[str, str, str]:
    """Return what is before, between and behind the marks in the README."""
    before, _, rest = readme.partition(BEGIN)
    between, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{README} has no {BEGIN.strip()} and {END.strip()}")
    return before, between, after


def table(results: Mapping[str, Any]) -> str:
    """Return the matrix: a row for each pair of rungs that a kernel offers, and below it how each was booted."""
    by_age = sorted(results.values(), key=lambda result: _version(result["release"]))
    lines = [_line(_TITLES), _line("---" for _ in _TITLES)]
    lines += [_row(result, rungs) for result in by_age for rungs in result["rungs"]]
    lines.append("\n")
    for result in by_age:
        boots = ", ".join(f"{name} {counts['passed']}" for name, counts in result["boots"].items())
        seconds = sum(counts["boot_seconds"] + counts["test_seconds"] for counts in result["boots"].values())
        lines.append(f"- {result['release']}: tests passed: {boots}; {seconds / 60:.0f} minutes.\n")
    return "".join(lines)


def _row(result: Mapping[str, Any], rungs: str) -> str:
    counts = result["rungs"][rungs]
    return _line(
        (
            f"{result['release']} ({result['distribution']})",
            f"`{rungs.replace('+', '`, `')}`",
            f"{counts['counted']:,} of {result['caused']:,}",
            f"{result['reasons']} names" if result["reasons"] else "none",
            "yes",
            "yes" if counts["target_cpu"] else "no",
        )
    )


def _version(release: str) -> list[int]:
    return [int(number) for number in release.partition("+")[0].partition("-")[0].split(".")]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
