# SPDX-License-Identifier: MIT
"""What this kernel offers is what a kernel of this distribution is known to offer: nothing is left out unseen."""

from collections.abc import Callable

from tests.kit.rungs import BACKLOG, KFREE_SKB, Rungs, doctor, offered


def test_every_rung_is_there() -> None:
    """Distribution kernels have BTF, kprobes and function tracing: every pair of rungs can be stood on."""
    assert offered() == [Rungs(kfree_skb, backlog) for kfree_skb in KFREE_SKB for backlog in BACKLOG]


def test_doctor_tells_of_reasons(
    kernel_reasons: frozenset[str], record_property: Callable[[str, object], None]
) -> None:
    """The doctor counts as many reasons as bpftool, or says that the kernel gives none."""
    checks = doctor()
    own = {name for name in kernel_reasons if name != "MAX" and not name.startswith("SUBSYS_")}
    record_property("reasons", len(own))
    if own:
        # newer kernels have more in the same enum that are not called drop reasons: SKB_CONSUMED and the like
        count, _, source = checks["reasons core"]["found"].partition(" ")
        assert int(count) >= len(own)
        assert source == "names from BTF"
    else:
        assert checks["reasons"]["status"] == "degraded"
    assert ("TCP input" in checks) == (not own)
