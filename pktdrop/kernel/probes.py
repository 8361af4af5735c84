# SPDX-License-Identifier: MIT
"""The ladder: for each probe, the ways of attaching it, best first, chosen by trying.

tp_btf  kfree_skb by BTF-typed raw tracepoint: typed loads, allowed under any lockdown.
raw     kfree_skb by raw tracepoint with bpf_probe_read_kernel(), which lockdown=confidentiality forbids.
fentry  enqueue_to_backlog by BPF trampoline; needs BTF and a kernel with function tracing.
kprobe  enqueue_to_backlog by kprobe.
none    no probe there: drops of the backlog carry no target CPU.

The backlog is probed at its entry: kfree_skb, called inside the function, then knows for which CPU the skb was meant,
so the drop is counted once, with both CPUs. A probe at the return would see a freed skb and would have to be matched
with the event afterwards.
"""

from collections.abc import Collection
from dataclasses import dataclass

from pktdrop.errors import PktdropError
from pktdrop.kernel import sysbpf
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.facts import BACKLOG_FUNCTION, KernelFacts
from pktdrop.kernel.prepared import prepare
from pktdrop.kernel.programs import Programs
from pktdrop.kernel.records import HOT_DROPS

KFREE_SKB = ("tp_btf", "raw")
BACKLOG = ("fentry", "kprobe", "none")


class RungError(Exception):
    """Why a rung cannot be stood on, in a few words."""


@dataclass(frozen=True)
class Probes:
    """The attached probes."""

    programs: Programs
    kfree_skb: str
    enqueue_to_backlog: str
    descriptors: tuple[int, ...]
    """Of the loaded programs."""
    refused: dict[str, str]
    """Rungs that were tried before, and why each failed."""


def climb(programs: Programs, facts: KernelFacts, rung: str) -> int:
    """Attach one probe by one rung; return its program. Raises RungError."""
    try:
        return _attach(programs, facts, rung)
    except sysbpf.LoadError as refused:
        raise RungError(f"program refused, {refused.reason}") from None
    except FileNotFoundError:
        raise RungError("the kernel has no kprobes") from None
    except OSError as refused:
        raise RungError(f"attaching refused, {refused.strerror}") from None


def _attach(programs: Programs, facts: KernelFacts, rung: str) -> int:
    if rung == "raw":
        return programs.raw_tracepoint("count_kfree_skb", "kfree_skb")
    if rung == "kprobe":
        return programs.kprobe("backlog_kprobe", BACKLOG_FUNCTION)
    if not facts.has_btf:
        raise RungError("the kernel has no BTF")
    if rung == "tp_btf":
        return programs.typed("count_kfree_skb", sysbpf.AttachType.TRACE_RAW_TP, facts.tracepoint_id)
    if not facts.backlog_id:
        raise RungError(f"{BACKLOG_FUNCTION} is not in the kernel's BTF (inlined or renamed)")
    return programs.typed("backlog_fentry", sysbpf.AttachType.TRACE_FENTRY, facts.backlog_id)


def attach(cache: Cache, map_entries: int, wanted: Collection[str]) -> tuple[KernelFacts, Probes]:
    """Attach both probes, each by the best rung that works, or by those in `wanted` only.

    Raises PktdropError where kfree_skb, or a probe that was asked for, cannot be attached.
    """
    refused: dict[str, str] = {}
    for rung in _chosen(KFREE_SKB, wanted):
        try:
            facts, programs, kfree_skb = _attach_kfree_skb(rung, cache, map_entries)
        except RungError as reason:
            refused[rung] = str(reason)
            continue
        backlog, descriptors = _attach_backlog(programs, facts, wanted, refused)
        return facts, Probes(programs, rung, backlog, (kfree_skb, *descriptors), refused)
    raise _cannot("skb:kfree_skb", refused)


def _attach_kfree_skb(
    rung: str, cache: Cache, map_entries: int, anew: bool = False
) -> tuple[KernelFacts, Programs, int]:
    prepared = prepare(rung == "raw", cache, anew)
    programs = Programs(prepared.compiled, {"drops": map_entries, "hot_drops": HOT_DROPS * sysbpf.cpu_numbers()})
    try:
        return prepared.facts, programs, climb(programs, prepared.facts, rung)
    except RungError:
        programs.close()
        if not prepared.cached:
            raise
        # what was stored may be what is wrong
        return _attach_kfree_skb(rung, cache, map_entries, anew=True)


def _attach_backlog(
    programs: Programs, facts: KernelFacts, wanted: Collection[str], refused: dict[str, str]
) -> tuple[str, tuple[int, ...]]:
    chosen = _chosen(BACKLOG, wanted)
    for rung in chosen:
        if rung == "none":
            return rung, ()
        try:
            return rung, (climb(programs, facts, rung),)
        except RungError as reason:
            refused[rung] = str(reason)
    programs.close()
    raise _cannot(BACKLOG_FUNCTION, {rung: refused[rung] for rung in chosen})


def _chosen(rungs: tuple[str, ...], wanted: Collection[str]) -> tuple[str, ...]:
    return tuple(rung for rung in rungs if rung in wanted) or rungs


def _cannot(probe: str, refused: dict[str, str]) -> PktdropError:
    why = "; ".join(f"{rung}: {reason}" for rung, reason in refused.items())
    return PktdropError(f"{probe} cannot be traced on this kernel ({why}).", "'pktdrop doctor' shows what it allows.")
