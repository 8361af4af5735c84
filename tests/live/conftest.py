# SPDX-License-Identifier: MIT
"""What live tests need: root, some tools, and a kernel that has what a case is about."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def kernel_names() -> frozenset[str]:
    """The names of this kernel's types, their members and constants, by bpftool's reading of its BTF."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF to tell what it has")
    dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"]
    listed = subprocess.run(dump, capture_output=True, text=True, check=True, timeout=120).stdout
    return frozenset(re.findall(r"'(\w+)'", listed))


@pytest.fixture(scope="session")
def kernel_reasons(kernel_names: frozenset[str]) -> frozenset[str]:
    """The drop reasons that this kernel has; none where it gives no reasons."""
    prefix = "SKB_DROP_REASON_"
    return frozenset(name.removeprefix(prefix) for name in kernel_names if name.startswith(prefix))
