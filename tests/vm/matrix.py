# SPDX-License-Identifier: MIT
"""What is run on which kernel, and what came of it."""

import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from tests.vm import kernels, userland
from tests.vm.kernels import Kernel, Suite
from tests.vm.machine import Machine, MachineError

ROOT = Path(__file__).resolve().parents[2]
_RESULTS = "/run/pktdrop-vm/results"
_ENVIRONMENT = ("CI=true", "PKTDROP_NO_SKIPS=1")


@dataclass(frozen=True)
class Boot:
    """One start of a guest: with what, and which tests run in it."""

    name: str
    tests: tuple[str, ...]
    minutes: float
    """After which it hangs; a single test does after half of that."""
    options: str = ""
    headers: bool = False
    userland: str = ""
    """The Debian suite whose Python and bcc are used, if not this machine's."""
    nics: tuple[str, ...] = ()
    """Models of QEMU's NICs, see nic.py."""
    patience: int = 10
    """How many times as long as usual a test waits."""


_KERNEL, _BACKLOG, _BOND, _RIGHTS, _NIC = (
    f"tests/vm/guest/test_{name}.py" for name in ("kernel", "backlog", "bond", "rights", "nic")
)
_CAUSES, _TCP_INPUT, _LEDGER, _SPECIAL, _CACHE = (
    f"tests/live/test_{name}.py" for name in ("causes", "tcp_input", "ledger", "ledger_special", "cache")
)
_HARDSHIP = "tests/live/test_hardship.py"
_OF_FILES = (
    "no_cache_leaves_the_directory_alone",
    "damage_is_compiled_again",
    "what_is_not_ones_own_is_not_read",
    "nothing_is_complained_of_otherwise",
    "a_read_only_cache",
    "a_full_file_system",
    "killed_while_writing",
)
HERE_ONLY = (
    _HARDSHIP,
    *(f"tests/live/test_{name}.py" for name in ("install", "compiler")),
    *(f"{_CACHE}::test_{name}" for name in _OF_FILES),
)
"""What bootstrap installs, how a start or its end fails, what a compilation may read, how files of kept programs are
treated: that is the same on every kernel, and takes hundreds of starts. `./bootstrap test` runs it, no guest does."""
_OF_THE_KERNEL = tuple(
    f"{_HARDSHIP}::test_hardship[{name}-trace json]" for name in ("no locked memory", "no capabilities")
)
"""Of these what the kernel decides: before Linux 5.11 it charges maps to the limit of locked memory."""
_EACH_PROBE = (_KERNEL, _RIGHTS, f"{_BACKLOG}::test_full_backlog_of_another_cpu", _TCP_INPUT)
"""What loads, attaches and counts by every program there is."""

CAUSES = Boot("causes", (_CAUSES, _TCP_INPUT, _KERNEL, _BACKLOG, _BOND, _RIGHTS, *_OF_THE_KERNEL), minutes=60)
NICS = Boot("nics", (_NIC,), minutes=30, nics=("vmxnet3", "pcnet", "rtl8139"))
LOCKDOWN = tuple(
    Boot(f"lockdown={level}", (f"{_RIGHTS}::test_lockdown",), minutes=15, options=f"lockdown={level}")
    for level in ("integrity", "confidentiality")
)
HEADERS = Boot("headers without BTF", (f"{_RIGHTS}::test_without_btf",), minutes=20, headers=True)
THREADED = Boot("threaded backlog", (_BACKLOG,), minutes=30, options="thread_backlog_napi")
LEDGER = Boot("ledger", (_LEDGER, _SPECIAL), minutes=60)
CACHE = Boot("kept programs", (_CACHE, *(f"--deselect={test}" for test in HERE_ONLY if "::" in test)), minutes=90)
_ELSEWHERE = (_CAUSES, _TCP_INPUT, _LEDGER, _SPECIAL, _CACHE, *(file for file in HERE_ONLY if "::" not in file))
COMMANDS = Boot("commands and counters", ("tests/live", *(f"--ignore={file}" for file in _ELSEWHERE)), minutes=60)


def boots(suite: Suite) -> tuple[Boot, ...]:
    """Return how often a kernel is started, and what for: first what differs most from kernel to kernel."""
    return tuple(boot for boot in all_boots(suite) if not userland.is_of_this_machine(boot.userland))


def all_boots(suite: Suite) -> tuple[Boot, ...]:
    """Return the same, and what is left out on a machine whose own Python and bcc the others have anyway."""
    return (
        CAUSES,
        NICS,
        *LOCKDOWN,
        HEADERS,
        *((THREADED,) if suite.threaded_backlog else ()),
        *((_with_userland(suite.userland),) if suite.userland else ()),
        LEDGER,
        COMMANDS,
        CACHE,
    )


def in_order(suites: Sequence[Suite], seconds: Callable[[str, str], float]) -> list[tuple[Suite, Boot]]:
    """Return all starts of the first kernel, then of the others the first of each, the second, and so on.

    Those of the first kernel that take longest (seconds of suite and start) come first: so it is whole soonest.
    """
    first, *others = suites
    longest_first = sorted(boots(first), key=lambda boot: seconds(first.name, boot.name), reverse=True)
    by_rank = chain.from_iterable(zip_longest(*([(suite, boot) for boot in boots(suite)] for suite in others)))
    return [*((first, boot) for boot in longest_first), *(pair for pair in by_rank if pair is not None)]


def fetch(suite: Suite, cache: Path) -> None:
    """Have all there that the starts of a kernel take. Raises FetchError."""
    kernels.fetch(suite.name, cache)
    for boot in boots(suite):
        if boot.userland:
            userland.fetch(boot.userland, cache)


def _with_userland(name: str) -> Boot:
    """Return the start with Python and bcc of a suite."""
    (suite,) = (suite for suite in kernels.SUITES if suite.name == name)
    # clang 19 takes minutes for the kernel's headers where it is emulated
    return Boot(f"bcc of {suite.distribution}", _EACH_PROBE, 60, headers=True, userland=name, patience=20)


@dataclass(frozen=True)
class Outcome:
    """What came of one start."""

    boot: str
    boot_seconds: float
    seconds: float
    passed: int
    failed: tuple[str, ...]
    """Tests, or what the guest or its kernel complained of."""
    unsteady: tuple[str, ...]
    """Tests that went well at a second try only."""
    properties: Mapping[str, tuple[str, ...]]
    """What tests recorded, by name."""


def run(kernel: Kernel, boot: Boot, cache: Path, hardware: bool) -> Outcome:
    """Start a guest and run the tests in it, their output on ours. Raises FetchError."""
    if hardware:
        return _run_once(kernel, boot, cache, hardware)
    return with_second_try(boot, lambda each: _run_once(kernel, each, cache, hardware))


def with_second_try(boot: Boot, run_once: Callable[[Boot], Outcome]) -> Outcome:
    """Run tests, and those that failed once more, in another guest. That is told.

    An emulated guest may get no CPU for seconds, at any point of a test. What the guest or its kernel complained of
    is final.
    """
    first = run_once(boot)
    if not first.failed or not all(map(_is_test, first.failed)):
        return first
    second = run_once(replace(boot, tests=first.failed))
    return replace(
        first,
        seconds=first.seconds + second.seconds,
        passed=first.passed + second.passed,
        failed=second.failed,
        unsteady=tuple(name for name in first.failed if name not in second.failed) if second.passed else (),
    )


def _is_test(failed: str) -> bool:
    return failed.startswith("tests/") and "::" in failed


def _run_once(kernel: Kernel, boot: Boot, cache: Path, hardware: bool) -> Outcome:
    root, python = Path("/"), sys.executable
    if boot.userland:
        root, python = userland.fetch(boot.userland, cache), userland.PYTHON
    with tempfile.TemporaryDirectory(prefix="pktdrop-vm-") as directory:
        shares = {_RESULTS: Path(directory)}
        machine = Machine(kernel, cache, hardware, boot.headers, boot.options, root=root, shares=shares, nics=boot.nics)
        pytest = [
            *(python, "-I", "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1"),
            *("--durations=5", f"--timeout={boot.minutes * 30}", f"--junitxml={_RESULTS}/junit.xml", *boot.tests),
        ]
        environment = ["env", f"--chdir={ROOT}", *_ENVIRONMENT, f"PKTDROP_PATIENCE={boot.patience}"]
        try:
            result = machine.run([*environment, *pytest], boot.minutes * 60, echo=True)
        except MachineError as reason:
            return Outcome(boot.name, 0, 0, 0, (str(reason),), (), {})
        failed = list(result.complaints)
        cases = list(_cases(Path(directory, "junit.xml")))
        failed += [name for name, bad, _ in cases if bad]
        if result.status != 0 and not failed:
            failed.append(f"pytest ended with {result.status}: {result.stderr}")
        properties: dict[str, tuple[str, ...]] = {}
        for _, _, recorded in cases:
            for name, value in recorded:
                properties[name] = (*properties.get(name, ()), value)
        passed = sum(not bad for _, bad, _ in cases)
        return Outcome(boot.name, result.boot_seconds, result.seconds, passed, tuple(failed), (), properties)


def _cases(report: Path) -> Iterator[tuple[str, bool, list[tuple[str, str]]]]:
    """Yield from a JUnit report each test, as pytest takes it, whether it went wrong, and what it recorded."""
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            recorded = [(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")]
            bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
            yield f"{case.attrib.get('file', '?')}::{case.attrib['name']}", bad, recorded


def of_record(outcome: Outcome) -> dict[str, Any]:
    """Return what is kept of a start: see results.json."""
    counted = {
        name.removeprefix("counted by "): values
        for name, values in outcome.properties.items()
        if name.startswith("counted by ")
    }
    return {
        "passed": outcome.passed,
        "boot_seconds": round(outcome.boot_seconds),
        "test_seconds": round(outcome.seconds),
        "reasons": max(map(int, outcome.properties.get("reasons", ("0",)))),
        "caused": sum(map(int, outcome.properties.get("caused", ()))),
        "counted": {rungs: sum(map(int, values)) for rungs, values in counted.items()},
        "target_cpu": [
            rungs for rungs in counted if set(outcome.properties.get(f"target CPU by {rungs}", ())) == {"1"}
        ],
    }
