# SPDX-License-Identifier: MIT
"""The README's support matrix is what runs on kernels have left, and such a run must have gone well."""

from pathlib import Path

import pytest

from tests.vm import support
from tests.vm.kernels import SUITES

RESULTS = support.stored()


def test_readme_shows_the_stored_results() -> None:
    """Between its marks the README has the table of results.json, to the letter."""
    _, shown, _ = support.split(support.README.read_text(encoding="utf-8"))
    assert shown == support.table(RESULTS)


def test_only_runs_that_went_well_are_stored() -> None:
    """Nothing failed, and on all six pairs of rungs as many drops were counted as were caused."""
    suites = {suite.name: suite for suite in SUITES}
    for name, result in RESULTS.items():
        assert [boot for boot, counts in result["boots"].items() if counts["failed"] or not counts["passed"]] == []
        assert [counts["counted"] for counts in result["rungs"].values()] == [result["caused"]] * 6
        assert result["caused"] > 1000
        assert bool(result["reasons"]) == suites[name].reasons


def test_a_new_result_takes_the_place_of_the_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recording a kernel's run changes its rows in file and README, and leaves the rest of both."""
    monkeypatch.setattr(support, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(support, "README", tmp_path / "README.md")
    support.README.write_text(f"before\n{support.BEGIN}{support.END}after\n")
    rungs = {"tp_btf+none": {"counted": 1200, "target_cpu": False}}
    result = {
        "distribution": "Debian 12", "release": "6.1.0-50-amd64", "reasons": 62, "caused": 1200, "rungs": rungs,
        "boots": {"all tests": {"passed": 7, "failed": 0, "boot_seconds": 8, "test_seconds": 400}},
    }  # fmt: skip
    older = {**result, "release": "5.10.0-32-amd64", "reasons": 0}
    for name, each in (("new", {**result, "caused": 5}), ("old", older), ("new", result)):
        support.record(name, each)
    assert support.stored() == {"new": result, "old": older}
    assert support.README.read_text() == (
        "before\n"
        "<!-- support matrix: begin -->\n"
        "| kernel | probes | counted of caused | reason | call site | target CPU |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| 5.10.0-32-amd64 (Debian 12) | `tp_btf`, `none` | 1,200 of 1,200 | none | yes | no |\n"
        "| 6.1.0-50-amd64 (Debian 12) | `tp_btf`, `none` | 1,200 of 1,200 | 62 names | yes | no |\n"
        "\n"
        "- 5.10.0-32-amd64: tests passed: all tests 7; 7 minutes.\n"
        "- 6.1.0-50-amd64: tests passed: all tests 7; 7 minutes.\n"
        "<!-- support matrix: end -->\n"
        "after\n"
    )


def test_a_readme_without_marks_is_an_error() -> None:
    """Marks that were lost are not passed over."""
    with pytest.raises(ValueError, match="support matrix: begin"):
        support.split("no marks")
