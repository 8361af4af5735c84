# SPDX-License-Identifier: MIT
"""What is run on which kernel, and what came of it."""

import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm import userland
from tests.vm.kernels import Kernel, Suite
from tests.vm.machine import Machine, MachineError

ROOT = Path(__file__).resolve().parents[2]
_RESULTS = "/run/pktdrop-vm/results"
_ENVIRONMENT = ("CI=true", "PKTDROP_NO_SKIPS=1", "PKTDROP_PATIENCE=10")
_ONE_TEST_SECONDS = 900


@dataclass(frozen=True)
class Boot:
    """One start of a guest: with what, and which tests run in it."""

    name: str
    tests: tuple[str, ...]
    minutes: float
    options: str = ""
    headers: bool = False
    userland: str = ""
    """The Debian suite whose Python and bcc are used, if not this machine's."""


_RIGHTS = "tests/vm/guest/test_rights.py"
_BACKLOG = "tests/vm/guest/test_backlog.py"

_KERNEL = "tests/vm/guest/test_kernel.py"
_CAUSES = ("tests/live/test_causes.py", "tests/live/test_tcp_input.py")
_EACH_PROBE = (_KERNEL, _RIGHTS, f"{_BACKLOG}::test_full_backlog_of_another_cpu", "tests/live/test_tcp_input.py")
"""What loads, attaches and counts by every program there is."""

PLAIN = Boot("causes, backlog, rights", (*_CAUSES, "tests/vm/guest"), minutes=45)
HEADERS = Boot("headers without BTF", (f"{_RIGHTS}::test_without_btf",), minutes=10, headers=True)
THREADED = Boot("threaded backlog", (_BACKLOG,), minutes=10, options="thread_backlog_napi")
LOCKDOWN = tuple(
    Boot(f"lockdown={level}", (f"{_RIGHTS}::test_lockdown",), minutes=5, options=f"lockdown={level}")
    for level in ("integrity", "confidentiality")
)


def boots(suite: Suite) -> tuple[Boot, ...]:
    """Return how often a kernel is started, and what for."""
    return (
        PLAIN,
        *LOCKDOWN,
        *((HEADERS,) if suite.headers_compile else ()),
        *((THREADED,) if suite.threaded_backlog else ()),
        *((_with_userland(suite),) if suite.userland and not userland.is_of_this_machine(suite.userland) else ()),
    )


def _with_userland(suite: Suite) -> Boot:
    """Return the start with Python and bcc of the kernel's own distribution."""
    return Boot(f"bcc of {suite.distribution}", _EACH_PROBE, minutes=30, headers=True, userland=suite.userland)


@dataclass(frozen=True)
class Outcome:
    """What came of one start."""

    boot: str
    boot_seconds: float
    seconds: float
    passed: int
    failed: tuple[str, ...]
    """Names of tests, or what the guest or its kernel complained of."""
    properties: Mapping[str, tuple[str, ...]]
    """What tests recorded, by name."""


def run(kernel: Kernel, boot: Boot, cache: Path, hardware: bool) -> Outcome:
    """Start a guest and run the tests in it, their output on ours. Raises FetchError."""
    root, python = Path("/"), sys.executable
    if boot.userland:
        root, python = userland.fetch(boot.userland, cache), userland.PYTHON
    with tempfile.TemporaryDirectory(prefix="pktdrop-vm-") as directory:
        shares = {_RESULTS: Path(directory)}
        machine = Machine(kernel, cache, hardware, boot.headers, boot.options, root=root, shares=shares)
        pytest = [
            *(python, "-I", "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1"),
            *(f"--timeout={_ONE_TEST_SECONDS}", f"--junitxml={_RESULTS}/junit.xml", *boot.tests),
        ]
        try:
            result = machine.run(["env", f"--chdir={ROOT}", *_ENVIRONMENT, *pytest], boot.minutes * 60, echo=True)
        except MachineError as reason:
            return Outcome(boot.name, 0, 0, 0, (str(reason),), {})
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
        return Outcome(boot.name, result.boot_seconds, result.seconds, passed, tuple(failed), properties)


def _cases(report: Path) -> Iterator[tuple[str, bool, list[tuple[str, str]]]]:
    """Yield from a JUnit report each test's name, whether it went wrong, and what it recorded."""
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            recorded = [(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")]
            bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
            yield f"{case.attrib['classname']}::{case.attrib['name']}", bad, recorded


def summary(suite: Suite, kernel: Kernel, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what is kept of a kernel's run: see results.json."""
    properties = Counter[str]()
    recorded: dict[str, tuple[str, ...]] = {}
    for outcome in outcomes:
        for name, values in outcome.properties.items():
            recorded[name] = (*recorded.get(name, ()), *values)
            if name == "caused" or name.startswith("counted by "):
                properties[name] += sum(map(int, values))
    rungs = [name.removeprefix("counted by ") for name in recorded if name.startswith("counted by ")]
    return {
        "distribution": suite.distribution,
        "release": kernel.release,
        "reasons": int(recorded.get("reasons", ("0",))[0]),
        "caused": properties["caused"],
        "rungs": {
            name: {
                "counted": properties[f"counted by {name}"],
                "target_cpu": set(recorded.get(f"target CPU by {name}", ())) == {"1"},
            }
            for name in rungs
        },
        "boots": {outcome.boot: _of_boot(outcome) for outcome in outcomes},
    }


def _of_boot(outcome: Outcome) -> dict[str, int]:
    return {
        "passed": outcome.passed,
        "failed": len(outcome.failed),
        "boot_seconds": round(outcome.boot_seconds),
        "test_seconds": round(outcome.seconds),
    }
