# SPDX-License-Identifier: MIT
"""What live tests need: root, some tools, and a kernel that has what a case is about."""

import os
import shutil
import sys

import pytest

from tests.kit.kernel import btf, kernel, kernel_names, kernel_reasons

__all__ = ["btf", "kernel", "kernel_names", "kernel_reasons"]

TOOLS = ("bpftool", "ip", "nft", "nstat", "tc")


@pytest.fixture(autouse=True, scope="session")
def _able() -> None:
    if sys.platform != "linux":
        pytest.skip("live tests need Linux")
    if os.geteuid() != 0:
        pytest.skip("live tests need root: they make network namespaces and load BPF programs")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"live tests need {', '.join(missing)}")
