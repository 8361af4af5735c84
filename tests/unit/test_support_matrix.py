# SPDX-License-Identifier: MIT
"""The README's support matrix is what runs on kernels have left, and such a run must have gone well."""

import configparser
from pathlib import Path

import pytest

from tests.vm import matrix, support
from tests.vm.__main__ import starts
from tests.vm.kernels import SUITES, Suite

RESULTS = support.stored()


def test_readme_shows_the_stored_results() -> None:
    """Between its marks the README has the table of results.json, to the letter."""
    _, shown, _ = support.split(support.README.read_text(encoding="utf-8"))
    assert shown == support.table(RESULTS)


def test_only_runs_that_went_well_are_stored() -> None:
    """Something passed, and on all six pairs of rungs as many drops were counted as were caused."""
    suites = {suite.name: suite for suite in SUITES}
    for name, result in RESULTS.items():
        for boot in result["boots"].values():
            assert boot["passed"]
            assert all(counted == boot["caused"] for counted in boot["counted"].values())
        causes = result["boots"]["causes"]
        assert len(causes["counted"]) == 6
        assert causes["caused"] > 1000
        assert bool(causes["reasons"]) == suites[name].reasons


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_stored_boots_are_those_of_the_matrix(suite: Suite) -> None:
    """Each start of each kernel went well once, and none is shown that is no longer made."""
    with_own_tools = {boot.name for boot in matrix.all_boots(suite) if not boot.userland}
    stored = set(RESULTS[suite.name]["boots"])
    assert with_own_tools <= stored <= {boot.name for boot in matrix.all_boots(suite)}


def test_a_new_result_takes_the_place_of_the_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recording a start changes its kernel's rows in file and README, and leaves the rest of both."""
    monkeypatch.setattr(support, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(support, "README", tmp_path / "README.md")
    support.README.write_text(f"before\n{support.BEGIN}{support.END}after\n")
    boot = {
        "passed": 7, "boot_seconds": 8, "test_seconds": 400, "reasons": 62, "caused": 1200,
        "counted": {"raw+none": 1200, "tp_btf+fentry": 1200}, "target_cpu": ["tp_btf+fentry"],
    }  # fmt: skip
    other = {**boot, "passed": 2, "boot_seconds": 9, "test_seconds": 103, "reasons": 0, "caused": 0, "counted": {}}
    for each in ({**boot, "caused": 5}, boot):
        support.record("new", "Debian 12", "6.1.0-50-amd64", "causes", each)
    support.record("old", "Debian 11", "5.10.0-31-amd64", "ledger", boot)  # an older kernel's, which the next replaces
    support.record("old", "Debian 11", "5.10.0-32-amd64", "causes", {**boot, "reasons": 0})
    support.record("new", "Debian 12", "6.1.0-50-amd64", "ledger", other)
    support.record("new", "Debian 12", "6.1.0-50-amd64", "backlog", other)
    assert list(support.stored()["old"]["boots"]) == ["causes"]
    assert support.seconds("new", "ledger") == 112
    assert support.README.read_text() == (
        "before\n"
        "<!-- support matrix: begin -->\n"
        "| kernel | probes | counted of caused | reason | call site | target CPU |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| 5.10.0-32-amd64 (Debian 11) | `tp_btf`, `fentry` | 1,200 of 1,200 | none | yes | yes |\n"
        "| 5.10.0-32-amd64 (Debian 11) | `raw`, `none` | 1,200 of 1,200 | none | yes | no |\n"
        "| 6.1.0-50-amd64 (Debian 12) | `tp_btf`, `fentry` | 1,200 of 1,200 | 62 names | yes | yes |\n"
        "| 6.1.0-50-amd64 (Debian 12) | `raw`, `none` | 1,200 of 1,200 | 62 names | yes | no |\n"
        "\n"
        "- 5.10.0-32-amd64: tests passed: causes 7. Booted in 8 s, all in 7 minutes.\n"
        "- 6.1.0-50-amd64: tests passed: backlog 2, causes 7, ledger 2. Booted in 8 s, all in 11 minutes.\n"
        "<!-- support matrix: end -->\n"
        "after\n"
    )


def test_all_starts_of_one_kernel_come_first() -> None:
    """So one kernel is whole before time runs out; then each start of the others has its turn."""
    first = matrix.boots(SUITES[0])
    order = matrix.in_order(SUITES, lambda _, name: float(name in ("ledger", "nics")) + float(name == "ledger"))
    rest = [boot for boot in first if boot.name not in ("ledger", "nics")]
    assert [boot.name for suite, boot in order[: len(first)] if suite is SUITES[0]][:2] == ["ledger", "nics"]
    assert [boot for _, boot in order[2 : len(first)]] == rest
    assert [suite for suite, _ in order[len(first) :]][: len(SUITES) - 1] == list(SUITES[1:])
    assert {boot.name for _, boot in order[len(first) :][: len(SUITES) - 1]} == {"causes"}
    assert sorted((suite.name, boot.name) for suite, boot in order) == sorted(
        (suite.name, boot.name) for suite in SUITES for boot in matrix.boots(suite)
    )


def test_the_first_kernel_is_whole_whatever_the_time() -> None:
    """All its starts are run, with --boot and --record as asked for; those of the others need not be."""
    jobs = starts(list(SUITES), Path("/a/cache"), record=True)
    assert [job.always for job in jobs] == [job.name.startswith(f"{SUITES[0].name}, ") for job in jobs]
    assert sum(job.always for job in jobs) == len(matrix.boots(SUITES[0]))
    for job in jobs:
        suite, _, boot = job.name.partition(", ")
        assert job.command[-6:] == ["--record", "--cache", "/a/cache", "--boot", boot, suite]


def test_every_live_test_is_in_the_matrix() -> None:
    """Each file is started whole on every kernel but for what no kernel changes; nothing is forgotten."""
    files = {str(path.relative_to(matrix.ROOT)) for path in Path(matrix.ROOT, "tests").rglob("test_*.py")}
    live, guests = ({file for file in files if file.startswith(where)} for where in ("tests/live/", "tests/vm/guest/"))
    single = {test for test in matrix.HERE_ONLY if "::" in test}
    apart = set(matrix.HERE_ONLY) - single
    assert apart < live
    for suite in SUITES:
        boots = matrix.all_boots(suite)
        assert {file for boot in boots for file in started(boot, live)} == (live | guests) - apart
        left_out = {test.removeprefix("--deselect=") for boot in boots for test in boot.tests if "--deselect=" in test}
        assert left_out == single
    for file, _, function in (test.partition("::") for test in single):
        assert f"\ndef {function}(" in Path(matrix.ROOT, file).read_text(encoding="utf-8")


def test_what_runs_here_only_does_run_here() -> None:
    """./bootstrap test takes all that pytest finds, among it the files that no guest runs."""
    settings = configparser.ConfigParser()
    settings.read(matrix.ROOT / "setup.cfg")
    directories = settings["tool:pytest"]["testpaths"].split()
    assert all(any(file.startswith(f"{directory}/") for directory in directories) for file in matrix.HERE_ONLY)
    assert "--ignore" not in settings["tool:pytest"].get("addopts", "")


def started(boot: matrix.Boot, live: set[str]) -> set[str]:
    """Return the files that a start runs all tests of."""
    ignored = {test.removeprefix("--ignore=") for test in boot.tests if test.startswith("--ignore=")}
    named = {test for test in boot.tests if test.endswith(".py")} - {f"--ignore={file}" for file in ignored}
    assert ignored <= live
    return named | (live - ignored if "tests/live" in boot.tests else set())


def test_a_readme_without_marks_is_an_error() -> None:
    """Marks that were lost are not passed over."""
    with pytest.raises(ValueError, match="support matrix: begin"):
        support.split("no marks")
