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
from pktdrop.kernel.compiler import Compiled, Compiler
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.programs import Programs

KFREE_SKB = ("tp_btf", "raw")
BACKLOG = ("fentry", "kprobe", "none")
_BACKLOG_FUNCTION = "enqueue_to_backlog"


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


def build(facts: KernelFacts, map_entries: int, safe_read: bool, compiler: Compiler | None = None) -> Compiled:
    """Compile the programs, with typed loads or with safe reads. Raises PktdropError."""
    definitions = {
        "SAFE_READ": str(int(safe_read)),
        "ARGUMENTS": str(facts.arguments),
        "MAP_ENTRIES": str(map_entries),
        "MAY_BE_BACKLOG(reason)": facts.may_be_backlog,
    }
    with compiler or Compiler() as running:
        return running.compile(facts.layout, definitions, own_headers=facts.btf is not None)


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
        return programs.raw_tracepoint("kfree_skb", "kfree_skb")
    if rung == "kprobe":
        return programs.kprobe("backlog_kprobe", _BACKLOG_FUNCTION)
    if facts.btf is None:
        raise RungError("the kernel has no BTF")
    if rung == "tp_btf":
        return programs.typed("kfree_skb", sysbpf.AttachType.TRACE_RAW_TP, facts.tracepoint_id)
    function = facts.btf.function(_BACKLOG_FUNCTION)
    if function is None:
        raise RungError(f"{_BACKLOG_FUNCTION} is not in the kernel's BTF (inlined or renamed)")
    return programs.typed("backlog_fentry", sysbpf.AttachType.TRACE_FENTRY, function)


def attach(facts: KernelFacts, map_entries: int, wanted: Collection[str], compiler: Compiler) -> Probes:
    """Attach both probes, each by the best rung that works, or by those in `wanted` only.

    Raises PktdropError where kfree_skb, or a probe that was asked for, cannot be attached.
    """
    refused: dict[str, str] = {}
    for rung in _chosen(KFREE_SKB, wanted):
        if rung == "tp_btf" and facts.btf is None:
            refused[rung] = "the kernel has no BTF"
            continue
        # a compiler is good for one compilation, and this one was started for the first
        compiled = build(facts, map_entries, rung == "raw", None if refused else compiler)
        programs = Programs(compiled)
        try:
            kfree_skb = climb(programs, facts, rung)
        except RungError as reason:
            refused[rung] = str(reason)
            programs.close()
            continue
        backlog, descriptors = _attach_backlog(programs, facts, wanted, refused)
        return Probes(programs, rung, backlog, (kfree_skb, *descriptors), refused)
    raise _cannot("skb:kfree_skb", refused)


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
    raise _cannot(_BACKLOG_FUNCTION, {rung: refused[rung] for rung in chosen})


def _chosen(rungs: tuple[str, ...], wanted: Collection[str]) -> tuple[str, ...]:
    return tuple(rung for rung in rungs if rung in wanted) or rungs


def _cannot(probe: str, refused: dict[str, str]) -> PktdropError:
    why = "; ".join(f"{rung}: {reason}" for rung, reason in refused.items())
    return PktdropError(f"{probe} cannot be traced on this kernel ({why}).", "'pktdrop doctor' shows what it allows.")
