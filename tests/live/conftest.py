# SPDX-License-Identifier: MIT
"""What live tests need: root, some tools, and a kernel that has what a case is about."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.kernel import Kernel
from tests.live.tracing import DEADLINE

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
def btf() -> str:
    """The types of this kernel, as bpftool reads them."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no BTF to tell what it has")
    dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"]
    return subprocess.run(dump, capture_output=True, text=True, check=True, timeout=4 * DEADLINE).stdout


@pytest.fixture(scope="session")
def kernel_names(btf: str) -> frozenset[str]:
    """The names of this kernel's types, their members and constants."""
    return frozenset(re.findall(r"'(\w+)'", btf))


@pytest.fixture(scope="session")
def kernel_reasons(kernel_names: frozenset[str]) -> frozenset[str]:
    """The drop reasons that this kernel has; none where it gives no reasons."""
    prefix = "SKB_DROP_REASON_"
    return frozenset(name.removeprefix(prefix) for name in kernel_names if name.startswith(prefix))


@pytest.fixture(scope="session")
def kernel(btf: str, kernel_names: frozenset[str], kernel_reasons: frozenset[str]) -> Kernel:
    """What this kernel tells of a drop: of the tracepoint's arguments, context included, the fifth is the socket."""
    (pointer,) = re.findall(r"TYPEDEF 'btf_trace_kfree_skb' type_id=(\d+)", btf)
    (tracepoint,) = re.findall(rf"^\[{pointer}\] PTR '\(anon\)' type_id=(\d+)", btf, re.MULTILINE)
    (prune,) = re.findall(r"FUNC 'tcp_prune_ofo_queue' type_id=(\d+)", btf)
    return Kernel(
        kernel_reasons,
        kernel_names,
        has_socket=_arguments(btf, tracepoint) == 5,
        drops_latest=_arguments(btf, prune) == 2,
    )


def _arguments(btf: str, prototype: str) -> int:
    (arguments,) = re.findall(rf"^\[{prototype}\] FUNC_PROTO .* vlen=(\d+)", btf, re.MULTILINE)
    return int(arguments)
