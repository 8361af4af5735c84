# SPDX-License-Identifier: MIT
"""What this process may do on this host."""

import resource
from contextlib import suppress
from pathlib import Path

from pktdrop.errors import PktdropError

# Bits of include/uapi/linux/capability.h.
CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}


def capabilities(status: str) -> frozenset[str]:
    """Return which of CAPABILITIES are effective, from the text of /proc/self/status (proc(5), CapEff)."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            bits = int(value, 16)
            return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)
    return frozenset()


def own_capabilities() -> frozenset[str]:
    """Return which of CAPABILITIES this process has."""
    return capabilities(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))


def may_use_bpf(held: frozenset[str]) -> bool:
    """Tell whether tracing programs may be loaded: CAP_BPF and CAP_PERFMON (5.8+), or CAP_SYS_ADMIN."""
    return "CAP_SYS_ADMIN" in held or {"CAP_BPF", "CAP_PERFMON"} <= held


def require_bpf_rights() -> None:
    """Raise PktdropError where this process may not load tracing programs."""
    if not may_use_bpf(own_capabilities()):
        raise PktdropError(
            "Tracing needs root, or the capabilities CAP_BPF and CAP_PERFMON.", "Start pktdrop with sudo."
        )


def require_proc() -> None:
    """Raise PktdropError where there is no /proc that shows this process."""
    if not Path("/proc/self/ns/net").exists():
        raise PktdropError(
            "/proc is not mounted, or does not show this process.", "Mount it: 'mount -t proc proc /proc'."
        )


def require_sys() -> None:
    """Raise PktdropError where sysfs, which tells of the kernel and its CPUs, is not mounted."""
    if not Path("/sys/kernel").is_dir():
        raise PktdropError(
            "/sys, where the kernel describes itself, is not mounted.", "Mount it: 'mount -t sysfs sysfs /sys'."
        )


def raise_memlock() -> None:
    """Lift RLIMIT_MEMLOCK, to which kernels before 5.11 charge maps and programs; later ones do not look at it."""
    with suppress(OSError, ValueError):  # without CAP_SYS_RESOURCE: where it matters, making the maps fails and says so
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
