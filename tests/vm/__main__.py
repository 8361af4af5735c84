# SPDX-License-Identifier: MIT
"""Run the tests, or a command, on distribution kernels in virtual machines.

Called as "./bootstrap test --vm [KERNEL...] [-- COMMAND...]". A KERNEL is a Debian suite. Without any, all are run.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.vm import jobs, matrix, support
from tests.vm.jobs import Ended, Job
from tests.vm.kernels import SUITES, Suite, cache_directory, fetch
from tests.vm.machine import Machine, MachineError, hardware_works
from tests.vm.packages import FetchError

_COMMAND_SECONDS = 3600.0


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit status."""
    own, command = _split(arguments)
    parser = _parser()
    options = parser.parse_args(own)
    for unknown in set(options.kernels) - set(_names()):
        parser.error(f"no kernel {unknown}; there are {', '.join(_names())}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # guests end with the blocks around them
    wanted = [suite for name in options.kernels or _names() for suite in SUITES if suite.name == name]
    if command:
        return _run_command(wanted, command, options.cache)
    if options.boot is not None:
        if options.boot not in (known := [boot.name for boot in matrix.boots(wanted[0])]):
            parser.error(f"{wanted[0].name} has no start {options.boot}; there are {', '.join(known)}")
        return int(not _run_boot(wanted[0], options.boot, options.cache, options.record))
    for suite in wanted:
        matrix.fetch(suite, options.cache)
    well = _test_runner(wanted[0], options.cache)
    ended = jobs.run(starts(wanted, options.cache, options.record), options.jobs, options.minutes)
    return int(not summarize(ended, options.minutes) or not well)


def starts(wanted: list[Suite], cache: Path, record: bool) -> list[Job]:
    """Return what is run of the matrix, in order: the first kernel whole, the others as far as time allows."""
    each = [sys.executable, "-I", "-m", "tests.vm", *(["--record"] if record else []), "--cache", str(cache)]
    return [
        Job(
            f"{suite.name}, {boot.name}",
            [*each, "--boot", boot.name, suite.name],
            support.seconds(suite.name, boot.name),
            always=suite == wanted[0],
        )
        for suite, boot in matrix.in_order(wanted, support.seconds)
    ]


def summarize(ended: Mapping[str, Ended | None], minutes: float | None) -> bool:
    """Say what was left out, and once more, where it is found, what failed; return whether nothing did."""
    for name in (name for name, end in ended.items() if end is None):
        _say(f"{name}: left out, {minutes:g} minutes are too short")
    failed = {name: end.last_lines for name, end in ended.items() if end is not None and not end.well}
    for name, last_lines in failed.items():
        _say(f"{name} failed; the last {len(last_lines)} lines of it:")
        print("\n".join(last_lines), file=sys.stderr, flush=True)
    _say(f"failed: {'; '.join(failed)}" if failed else "nothing failed")
    return not failed


def _names() -> list[str]:
    return [suite.name for suite in SUITES]


def _boots() -> list[str]:
    return list(dict.fromkeys(boot.name for suite in SUITES for boot in matrix.boots(suite)))


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments, and the command behind "--", if any."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./bootstrap test --vm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(_names()))
    parser.add_argument("--record", action="store_true", help="keep what went well for the README's table")
    parser.add_argument("--jobs", type=_count, default=os.cpu_count(), help="guests at the same time (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, help="begin nothing but the first kernel's that would likely end later"
    )
    parser.add_argument("--boot", choices=_boots(), help="only this start of one kernel: %(choices)s", metavar="NAME")
    parser.add_argument("--cache", type=Path, default=cache_directory(), help="where kernels are kept (%(default)s)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of guests")
    return int(text)


def _say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def _run_command(suites: list[Suite], command: list[str], cache: Path) -> int:
    status = 0
    for suite in suites:
        kernel = fetch(suite.name, cache)
        result = Machine(kernel, cache, hardware_works(kernel, cache)).run(command, _COMMAND_SECONDS, echo=True)
        sys.stderr.write(result.stderr)
        _say(f"{suite.name} {kernel.release}: exit status {result.status}, booted in {result.boot_seconds:.1f} s")
        status = status or result.status
    return status


def _test_runner(suite: Suite, cache: Path) -> bool:
    """Test what the other tests rely on; return whether all went well."""
    tests = [
        sys.executable,
        "-I",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--timeout=900",
        "tests/vm/test_machine.py",
    ]
    environment = {**os.environ, "PKTDROP_VM_KERNEL": suite.name, "PKTDROP_VM_CACHE": str(cache)}
    return subprocess.run(tests, cwd=matrix.ROOT, env=environment).returncode == 0


def _run_boot(suite: Suite, name: str, cache: Path, record: bool) -> bool:
    """Start a kernel for some tests; return whether all went well."""
    kernel = fetch(suite.name, cache)
    hardware = hardware_works(kernel, cache)
    (boot,) = (boot for boot in matrix.boots(suite) if boot.name == name)
    _say(f"{suite.name} {kernel.release} ({'KVM' if hardware else 'emulated'}): {name}")
    outcome = matrix.run(kernel, boot, cache, hardware)
    _say(
        f"{suite.name}: {name}: {outcome.passed} passed, {len(outcome.failed)} failed; "
        f"boot {outcome.boot_seconds:.1f} s, tests {outcome.seconds:.0f} s"
    )
    for failure in outcome.failed:
        _say(f"  failed: {failure}")
    for test in outcome.unsteady:
        _say(f"  went well at the second try only: {test}")
    if record and not outcome.failed and not outcome.unsteady:
        support.record(suite.name, suite.distribution, kernel.release, name, matrix.of_record(outcome))
    return not outcome.failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (FetchError, MachineError) as error:
        _say(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
