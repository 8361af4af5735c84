# SPDX-License-Identifier: MIT
"""What a kernel tells of the packets that it drops, decided by what it has."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pktdrop.demo.causes.cause import DemoCause
from tests.kit.process import DEADLINE

Found = Literal["here", "nowhere", "none"]


@dataclass(frozen=True)
class Kernel:
    """What the kernel has, as other tools than pktdrop say."""

    reasons: frozenset[str]
    names: frozenset[str]
    """Names of types, their members and constants."""
    has_socket: bool
    """Whether the event says which socket the packet was for (rx_sk)."""
    drops_latest: bool
    """Whether TCP, out of room, drops data further ahead than all that waits; or it makes room by dropping that."""

    def name(self, reason: str) -> str:
        """Return what the kernel gives for a reason that it may not have."""
        return reason if reason in self.reasons else "NOT_SPECIFIED"

    def found(self, cause: DemoCause) -> Found:
        """Where a cause's drop is found: in its network namespace, in none that is known, or there is no event at all.

        TCP forgets the device of a packet before it looks at it (tcp_v4_rcv, net/ipv4/tcp_ipv4.c), so that only the
        socket tells the namespace; data that waited in a queue belong to one (tcp_data_queue_ofo). Without reasons
        tcp_drop() frees with __kfree_skb(), which raises no event (net/ipv4/tcp_input.c, v5.10).
        """
        if cause.needs_reasons and not self.reasons:
            return "none"
        return "nowhere" if cause.told_by == "socket" and not self.has_socket else "here"


Reasons = frozenset[str]


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
