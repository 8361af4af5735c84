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

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

from pktdrop.errors import PktdropError
from pktdrop.kernel import readers, sysbpf
from pktdrop.kernel.cache import Cache
from pktdrop.kernel.extras import Extras
from pktdrop.kernel.facts import BACKLOG_FUNCTION, BTF_DIRECTORY, QDISC_TRACEPOINT, XDP_TRACEPOINTS, KernelFacts
from pktdrop.kernel.prepared import Build, Doubted, Prepared, prepare
from pktdrop.kernel.programs import NO_ROOM, Programs
from pktdrop.kernel.records import HOT_DROPS, OTHER_PLACES, OTHER_PLACES_OF_CPU
from pktdrop.process.faults import sentences

KFREE_SKB = ("tp_btf", "raw")
BACKLOG = ("fentry", "kprobe", "none")
if TYPE_CHECKING:
    from pktdrop.kernel.pcap import Instruction

_NO_BTF = "the kernel has no BTF"


class RungError(Exception):
    """Why a rung cannot be stood on, in a few words."""


@dataclass(frozen=True)
class Probes:
    """The attached probes, and by which rung each was attached."""

    programs: Programs
    kfree_skb: str
    enqueue_to_backlog: str
    program: int
    """File descriptor of the program at kfree_skb."""
    refused: dict[str, str]
    """Rungs that were tried before, and why each failed; tracepoints that could not be attached, too."""
    others: tuple[int, ...] = ()
    """File descriptors of the programs at other tracepoints, of those that count."""


def climb(programs: Programs, prepared: Prepared, rung: str) -> int:
    """Attach one probe by one rung; return its program. Raises RungError, or Doubted, see Prepared.refuse()."""
    return _try(prepared, rung, "the kernel has no kprobes", lambda: _attach(programs, prepared.facts, rung))


def attach_tracepoint(programs: Programs, prepared: Prepared, tracepoint: str, rung: str) -> int:
    """Attach another tracepoint by a rung of KFREE_SKB; return its program. Raises as climb() does."""
    name, known, missing = f"at_{tracepoint}", prepared.facts.tracepoints, "the kernel has no such tracepoint"
    if tracepoint not in known:
        raise RungError(missing)

    def attached() -> int:
        if rung == "raw":
            return programs.raw_tracepoint(name, tracepoint)
        return programs.typed(name, sysbpf.AttachType.TRACE_RAW_TP, known[tracepoint])

    return _try(prepared, tracepoint, missing, attached)


def _try(prepared: Prepared, name: str, missing: str, attached: Callable[[], int]) -> int:
    """Return what `attached` does; say why it cannot, by `missing` where what it needs is not there.

    Raises PktdropError where this process has no room for it: that says nothing of the kernel.
    """
    try:
        return attached()
    except FileNotFoundError:
        raise RungError(missing) from None
    except OSError as refused:
        if refused.errno in NO_ROOM:
            raise PktdropError(*sentences(refused)) from None
        if isinstance(refused, sysbpf.LoadError):
            why = f"program refused, {refused.reason}"
        else:
            why = f"attaching refused, {refused.strerror}"
    prepared.refuse(name)
    raise RungError(why)


def _attach(programs: Programs, facts: KernelFacts, rung: str) -> int:
    if rung == "raw":
        return programs.raw_tracepoint("count_kfree_skb", "kfree_skb")
    if rung == "kprobe":
        return programs.kprobe("backlog_kprobe", BACKLOG_FUNCTION)
    if not facts.has_btf:
        raise RungError(_NO_BTF)
    if rung == "tp_btf":
        return programs.typed("count_kfree_skb", sysbpf.AttachType.TRACE_RAW_TP, facts.tracepoint_id)
    if not facts.backlog_id:
        raise RungError(f"{BACKLOG_FUNCTION} is not in the kernel's BTF (inlined or renamed)")
    return programs.typed("backlog_fentry", sysbpf.AttachType.TRACE_FENTRY, facts.backlog_id)


def attach(cache: Cache, map_entries: int, wanted: Collection[str], extras: Extras) -> tuple[KernelFacts, Probes]:
    """Attach both probes, each by the best rung that works, or by those in `wanted` only.

    Raises PktdropError where kfree_skb, or a probe that was asked for, cannot be attached, or not with the filter.
    """
    refused: dict[str, str] = {}
    for rung in _chosen(KFREE_SKB, wanted):
        try:
            if rung == "tp_btf" and not (BTF_DIRECTORY / "vmlinux").exists():
                raise RungError(_NO_BTF)  # nothing needs to be compiled to know it
            attach_both = partial(_attach_both, rung, _chosen(BACKLOG, wanted), refused, map_entries, extras.program)
            build = Build(rung == "raw", stacks=extras.stacks, filters=bool(extras.program), by=extras.by)
            return _prepared(build, cache, attach_both)
        except RungError as reason:
            refused[rung] = str(reason)
    if extras.program:
        raise PktdropError(
            f"This kernel takes no filter of packets ({_told(refused)}).",
            "Run without one, or look at 'pktdrop doctor'.",
        )
    raise _cannot("skb:kfree_skb", refused)


def _prepared(
    build: Build, cache: Cache, attach_both: Callable[[Prepared], tuple[KernelFacts, Probes]]
) -> tuple[KernelFacts, Probes]:
    """Attach with samples, or without where the kernel refuses only those; with the filter always. Raises RungError."""
    try:
        return prepare(build, cache, attach_both)
    except RungError as reason:
        if build.filters:
            raise
        without = prepare(replace(build, samples=False, by=None), cache, attach_both)
        without[1].refused["samples"] = str(reason)
        return without


def _attach_both(
    rung: str,
    backlog: Collection[str],
    refused: dict[str, str],
    map_entries: int,
    program: "Sequence[Instruction]",
    prepared: Prepared,
) -> tuple[KernelFacts, Probes]:
    """Attach kfree_skb by one rung, and the backlog by the best of some. Raises RungError where kfree_skb cannot be."""
    cpus = sysbpf.cpu_numbers()
    entries = {
        "drops": map_entries,
        "other_places": OTHER_PLACES + OTHER_PLACES_OF_CPU * cpus,
        "hot_drops": 2 * HOT_DROPS * cpus,
        "hot_claims": 2 * cpus,
        "uncounted": cpus,
        "sample_cpus": cpus,
        "flows": map_entries,
        "other_flows": map_entries + 2 * HOT_DROPS * cpus + OTHER_PLACES + OTHER_PLACES_OF_CPU * cpus,
    }
    facts = prepared.facts
    programs = Programs(prepared.compiled, entries, facts.cast_function, _filter_function(facts, program))
    with ExitStack() as undo:
        undo.callback(programs.close)
        others = _Others(programs, prepared, rung)
        undo.callback(others.join)  # before the programs are closed
        others.start()
        kfree_skb = climb(programs, prepared, rung)
        second, why = _attach_backlog(programs, prepared, backlog)
        others.join()
        if others.failed is not None:
            raise others.failed
        undo.pop_all()
    why = {**refused, **why, **others.refused}
    return facts, Probes(programs, rung, second, kfree_skb, why, tuple(others.attached))


def _filter_function(facts: KernelFacts, program: "Sequence[Instruction]") -> bytes:
    """Return the filter as the programs call it. Raises RungError where they cannot."""
    if not program:
        return b""
    if facts.samples is None or facts.reader == readers.NONE:
        raise RungError("the kernel lets no program read packets' bytes")
    from pktdrop.kernel.classic import ByteReader, translate  # nothing that a start without a filter needs

    return translate(program, ByteReader(facts.reader, facts.samples.cast_type, facts.cast_function))


class _Others(Thread):
    """Attaches what the kernel lets of the other tracepoints, while it takes its time for the first program."""

    def __init__(self, programs: Programs, prepared: Prepared, rung: str) -> None:
        super().__init__()
        self._arguments = programs, prepared, rung
        self.attached: list[int] = []
        """The programs."""
        self.refused: dict[str, str] = {}
        """Why others are not."""
        self.failed: Doubted | PktdropError | None = None

    def run(self) -> None:
        """Attach each."""
        programs, prepared, rung = self._arguments
        for tracepoint in (*XDP_TRACEPOINTS, QDISC_TRACEPOINT):
            try:
                program = attach_tracepoint(programs, prepared, tracepoint, rung)
                self.attached += [program] if tracepoint in XDP_TRACEPOINTS else []
            except RungError as reason:
                self.refused[tracepoint] = str(reason)
            except (Doubted, PktdropError) as failed:
                self.failed = failed
                return


def _attach_backlog(programs: Programs, prepared: Prepared, chosen: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return the rung, and why others were refused."""
    refused: dict[str, str] = {}
    for rung in chosen:
        try:
            if rung != "none":
                climb(programs, prepared, rung)
            return rung, refused
        except RungError as reason:
            refused[rung] = str(reason)
    raise _cannot(BACKLOG_FUNCTION, refused)


def _chosen(rungs: tuple[str, ...], wanted: Collection[str]) -> tuple[str, ...]:
    return tuple(rung for rung in rungs if rung in wanted) or rungs


def _cannot(probe: str, refused: dict[str, str]) -> PktdropError:
    return PktdropError(
        f"{probe} cannot be traced on this kernel ({_told(refused)}).", "'pktdrop doctor' shows what it allows."
    )


def _told(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{rung}: {reason}" for rung, reason in refused.items())
