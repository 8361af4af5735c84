# SPDX-License-Identifier: MIT
"""What a process may do, from the text of its status."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pktdrop.errors import PktdropError
from pktdrop.kernel import host

# /proc/PID/status of Debian 12 on 6.18 (excerpts): a shell of root, of nobody, and of nobody with capabilities that
# "setpriv --reuid nobody --inh-caps +bpf,+perfmon --ambient-caps +bpf,+perfmon" leaves.
ROOT = "Name:\tsh\nUmask:\t0022\nSeccomp:\t0\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\n"
ROOT += "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
NOBODY = ROOT.replace("CapPrm:\t000001ffffffffff", "CapPrm:\t0000000000000000").replace(
    "CapEff:\t000001ffffffffff", "CapEff:\t0000000000000000"
)
BPF_AND_PERFMON = NOBODY.replace("CapEff:\t0000000000000000", "CapEff:\t000000c000000000")


def _status(effective: int) -> str:
    return NOBODY.replace("CapEff:\t0000000000000000", f"CapEff:\t{effective:016x}")


@pytest.mark.parametrize(
    ("status", "held"),
    [
        (ROOT, {"CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_PERFMON", "CAP_BPF"}),
        (NOBODY, set()),
        (BPF_AND_PERFMON, {"CAP_BPF", "CAP_PERFMON"}),
        (_status(1 << 21), {"CAP_SYS_ADMIN"}),
        (_status(1 << 34), {"CAP_SYSLOG"}),
        (_status(1 << 12), set()),
        ("Name:\tx\n", set()),
        ("", set()),
        (NOBODY.replace("Name:\tsh", "Name:\tCapEff:"), set()),
    ],
)
def test_capabilities(status: str, held: set[str]) -> None:
    """The effective capabilities count: not those of the bounding set, nor those a process could take."""
    assert host.capabilities(status) == held


def test_capability_numbers_are_those_of_the_kernel() -> None:
    """The bits are those of the kernel's own header."""
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
    defined = {words[1]: words[2] for words in words if len(words) == 3}
    assert {name: int(defined[name]) for name in host.CAPABILITIES} == host.CAPABILITIES


@pytest.mark.parametrize(
    "held", [set(some) for length in range(5) for some in itertools.combinations(sorted(host.CAPABILITIES), length)]
)
def test_who_may_use_bpf(held: set[str]) -> None:
    """CAP_SYS_ADMIN is enough, as are CAP_BPF and CAP_PERFMON together; capabilities(7)."""
    enough = "CAP_SYS_ADMIN" in held or ("CAP_BPF" in held and "CAP_PERFMON" in held)
    assert host.may_use_bpf(frozenset(held)) == enough


def test_own_capabilities_are_checked() -> None:
    """A process that may trace is not refused, and one that may not is told what it lacks and what to do."""
    if host.may_use_bpf(host.own_capabilities()):
        host.require_bpf_rights()
        return
    with pytest.raises(PktdropError) as refused:
        host.require_bpf_rights()
    assert "CAP_BPF" in refused.value.what
    assert "sudo" in refused.value.do
