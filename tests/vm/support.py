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
_UNKNOWN = 1800.0
_RUNGS = ("tp_btf", "raw", "fentry", "kprobe", "none")
_TITLES = ("kernel", "probes", "counted of caused", "reason", "call site", "target CPU")


def record(suite: str, distribution: str, release: str, boot: str, result: Mapping[str, Any]) -> None:
    """Keep what came of a start of a kernel, and bring the README's table up to it."""
    with open(README, "rb") as lock:  # they run side by side, and end when they like
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = stored()
        kernel = results.get(suite, {})
        if kernel.get("release") != release:
            kernel = {"distribution": distribution, "release": release, "boots": {}}
        results[suite] = {**kernel, "boots": {**kernel["boots"], boot: result}}
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_readme(stored())


def seconds(suite: str, boot: str) -> float:
    """Return how long a start took when it was recorded; half an hour if it never was."""
    found: Mapping[str, Any] = stored().get(suite, {}).get("boots", {}).get(boot, {})
    return float(found.get("boot_seconds", 0) + found.get("test_seconds", 0) or _UNKNOWN)


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
    lines += [_row(result, rungs) for result in by_age for rungs in _rungs(result)]
    lines.append("\n")
    for result in by_age:
        boots = ", ".join(f"{name} {boot['passed']}" for name, boot in result["boots"].items())
        seconds = sum(boot["boot_seconds"] + boot["test_seconds"] for boot in result["boots"].values())
        booted = min(boot["boot_seconds"] for boot in result["boots"].values())
        lines.append(
            f"- {result['release']}: tests passed: {boots}. Booted in {booted} s, all in {seconds / 60:.0f} minutes.\n"
        )
    return "".join(lines)


def _rungs(result: Mapping[str, Any]) -> list[str]:
    """Return the pairs of rungs, in the order in which they are preferred."""
    pairs = {rungs for boot in result["boots"].values() for rungs in boot["counted"]}
    return sorted(pairs, key=lambda pair: [_RUNGS.index(rung) for rung in pair.split("+")])


def _row(result: Mapping[str, Any], rungs: str) -> str:
    boots = [boot for boot in result["boots"].values() if rungs in boot["counted"]]
    counted, caused = sum(boot["counted"][rungs] for boot in boots), sum(boot["caused"] for boot in boots)
    reasons = max(boot["reasons"] for boot in boots)
    return _line(
        (
            f"{result['release']} ({result['distribution']})",
            f"`{rungs.replace('+', '`, `')}`",
            f"{counted:,} of {caused:,}",
            f"{reasons} names" if reasons else "none",
            "yes",  # the tests assert it of each drop, and only a start without a failure is recorded
            "yes" if any(rungs in boot["target_cpu"] for boot in boots) else "no",
        )
    )


def _version(release: str) -> list[int]:
    return [int(number) for number in release.partition("+")[0].partition("-")[0].split(".")]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
