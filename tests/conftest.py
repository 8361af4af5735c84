# SPDX-License-Identifier: MIT
"""What holds for all tests: no skips with PKTDROP_NO_SKIPS=1, and time enough on a busy machine.

Where everything can run, nothing passes by being left out: there a skip is a failure.
"""

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest

from tests.kit.patience import PATIENCE

_TIMEOUT = 120.0
"""Seconds for one test, on an idle machine: pytest-timeout's setting in setup.cfg."""
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _without_skip(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("PKTDROP_NO_SKIPS") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"PKTDROP_NO_SKIPS=1 forbids this: {reason}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give each test more time on a busy machine, unless --timeout says how much; let no signal be ignored."""
    if getattr(config.option, "timeout", 0) is None:
        config.option.timeout = _TIMEOUT * PATIENCE
    # nohup(1) and jobs in the background hand on that these are ignored: tests send them, to processes that inherit it
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test, in it or in a fixture, into a failure."""
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    return _without_skip((yield))
