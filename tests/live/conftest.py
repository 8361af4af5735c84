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
def kernel_reasons() -> frozenset[str]:
    """The drop reasons that this kernel has, by bpftool's reading of its BTF; none where it gives no reasons."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF to tell which drop reasons it has")
    dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"]
    listed = subprocess.run(dump, capture_output=True, text=True, check=True, timeout=60).stdout
    return frozenset(re.findall(r"'SKB_DROP_REASON_(\w+)'", listed))
