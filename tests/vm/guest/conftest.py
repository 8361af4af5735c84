# SPDX-License-Identifier: MIT
"""These tests change settings of the whole machine: they run in a guest of tests/vm only."""

from pathlib import Path

import pytest

from tests.kit.kernel import btf, kernel, kernel_names, kernel_reasons

__all__ = ["btf", "kernel", "kernel_names", "kernel_reasons"]


@pytest.fixture(autouse=True, scope="session")
def _in_a_guest() -> None:
    if not Path("/run/pktdrop-vm/command").exists():
        pytest.skip("this needs a kernel of its own: ./bootstrap test --vm")
