# SPDX-License-Identifier: MIT
"""What works on this host, what does not, and what that means for the answer."""

import ctypes
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pktdrop.errors import PktdropError
from pktdrop.kernel import host, probes, readers
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.facts import BTF_DIRECTORY, QDISC_TRACEPOINT, XDP_TRACEPOINTS, KernelFacts
from pktdrop.kernel.pcap import require_libpcap
from pktdrop.kernel.prepared import Build, Prepared, prepare
from pktdrop.kernel.programs import MapsRefused, Programs
from pktdrop.kernel.symbols import Symbols

CheckStatus = Literal["ok", "degraded", "missing"]
_FEW_ENTRIES = 16
_TRACEPOINTS = (*XDP_TRACEPOINTS, QDISC_TRACEPOINT)
_READERS = {
    readers.PLAIN: "their first 128 bytes are read by plain loads",
    readers.CAST: "their first 128 bytes are read by loads, by leave of bpf_rdonly_cast()",
    readers.PROBE: "their first 128 bytes are read by bpf_probe_read_kernel()",
}
_VERSION = ctypes.CFUNCTYPE(ctypes.c_char_p)


@dataclass(frozen=True)
class Check:
    """One thing that doctor looked at. `means` and `do` are empty where there is nothing to say."""

    name: str
    status: CheckStatus
    found: str
    means: str = ""
    do: str = ""


@dataclass(frozen=True)
class Checks:
    """All checks, and whether `pktdrop trace` can run."""

    checks: tuple[Check, ...]
    can_trace: bool


def check() -> Checks:
    """Check everything; try each rung of each probe for real. Needs no root to say that root is missing."""
    mounts = list(_mounts())
    if mounts:
        return Checks((_kernel(), *mounts), can_trace=False)
    checks = [_kernel(), _rights(), _btf(), _lockdown(), _libbpf(), _libpcap(), _memlock(), _symbols()]
    if checks[1].status == "missing":
        return Checks(tuple(checks), can_trace=False)
    host.raise_memlock()
    try:
        facts = KernelFacts.read()
    except PktdropError as missing:
        return Checks((*checks, Check("layouts", "missing", missing.what, "trace cannot run.", missing.do)), False)
    checks += _reasons(facts)
    rungs = list(_rungs(facts.has_btf))
    can_trace = any(check.status == "ok" for check in rungs if check.name.startswith("kfree_skb"))
    return Checks((*checks, *rungs), can_trace)


def _kernel() -> Check:
    host_name = os.uname()
    return Check("kernel", "ok", f"{host_name.release} {host_name.machine}")


def _mounts() -> Iterator[Check]:
    """Yield what all else is read from, where it is not mounted."""
    for name, require in (("/proc", host.require_proc), ("/sys", host.require_sys)):
        try:
            require()
        except PktdropError as missing:
            yield Check(name, "missing", missing.what, "trace cannot run, and nothing else can be checked.", missing.do)


def _rights() -> Check:
    held = host.own_capabilities()
    found = ", ".join(sorted(held)) or "none of " + ", ".join(sorted(host.CAPABILITIES))
    if host.may_use_bpf(held):
        return Check("rights", "ok", found)
    return Check("rights", "missing", found, "BPF programs may not be loaded: trace cannot run.", "Use sudo.")


def _btf() -> Check:
    vmlinux = BTF_DIRECTORY / "vmlinux"
    if vmlinux.exists():
        modules = len(list(BTF_DIRECTORY.iterdir())) - 1
        return Check("BTF", "ok", f"{vmlinux}, and of {modules} modules")
    return Check(
        "BTF",
        "degraded",
        f"{vmlinux} is not there",
        "Struct layouts must come from kernel headers, call sites carry no typed reads.",
        "Use a kernel built with CONFIG_DEBUG_INFO_BTF=y, or install the headers of this one.",
    )


def _lockdown() -> Check:
    path = Path("/sys/kernel/security/lockdown")
    try:
        level = path.read_text(encoding="ascii").partition("[")[2].partition("]")[0]
    except OSError:
        return Check("lockdown", "ok", "none seen: the kernel has no lockdown, or securityfs is not mounted")
    if level == "confidentiality":
        return Check(
            "lockdown",
            "degraded",
            level,
            "Only tp_btf and fentry can work: raw and kprobe are forbidden.",
            "Nothing, unless the target CPU of backlog drops matters and fentry is refused: boot with "
            "lockdown=integrity.",
        )
    return Check("lockdown", "ok", level or "none")


def _libbpf() -> Check:
    for name in ("libbpf.so.1", "libbpf.so.0"):
        with suppress(OSError, AttributeError):
            version = _VERSION(("libbpf_version_string", ctypes.CDLL(name)))
            return Check("libbpf", "ok", f"{version().decode()} ({name}); pktdrop itself does not use it")
    return Check("libbpf", "ok", "not found; pktdrop itself does not use it")


def _libpcap() -> Check:
    try:
        version = require_libpcap().version().decode(errors="replace")
    except PktdropError as missing:
        return Check("libpcap", "degraded", "not found", "--filter, --port and --host do not work.", missing.do)
    return Check("libpcap", "ok", version)


def _memlock() -> Check:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    text = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024:,} KiB"
    return Check("memlock", "ok", f"{text}; raised at start where allowed, counts before Linux 5.11 only")


def _symbols() -> Check:
    symbols = Symbols()
    symbols.name(0)
    if symbols.hidden is None:
        return Check("symbols", "ok", "/proc/kallsyms")
    return Check(
        "symbols",
        "degraded",
        symbols.hidden,
        "Call sites are shown as addresses; layers are known by reason only.",
        "Run as root with kernel.kptr_restrict at 0 or 1.",
    )


def _reasons(facts: KernelFacts) -> Iterator[Check]:
    reasons = facts.reasons
    if not reasons.tcp_input_has_events:
        yield Check(
            "TCP input",
            "degraded",
            "this kernel frees the input that TCP drops without an event",
            "trace does not see these drops; pktdrop counters does.",
            "Use a kernel from 5.18 on, or a distribution kernel with the backport.",
        )
    if reasons.source == "none":
        yield Check(
            "reasons",
            "degraded",
            "this kernel gives no drop reasons",
            "All drops are NOT_SPECIFIED; the call site tells.",
            "Use a kernel from 5.17 on, or a distribution kernel with the backport.",
        )
        return
    for subsystem, count in reasons.counts().items():
        found = f"{count} names from {reasons.source}" if count else "no names: its module is not loaded, or has no BTF"
        yield Check(f"reasons {subsystem}", "ok", found)


def _rungs(has_btf: bool) -> Iterator[Check]:
    """Try every rung, in one compilation with typed loads and one with safe reads."""
    tried: dict[str, str | None] = {}
    modes = ((False, ("tp_btf", "fentry", "kprobe")), (True, ("raw",)))
    for safe_read, rungs in modes if has_btf else ((True, ("tp_btf", "fentry", "kprobe", "raw")),):
        cache = Cache(default_directory())
        try:
            version, reader, reasons = prepare(Build(safe_read), cache, partial(_try, rungs))
        except PktdropError as refused:
            if not tried:
                yield Check("bcc", "missing", refused.what, "The programs cannot be compiled.", refused.do)
            tried |= dict.fromkeys((*rungs, *_TRACEPOINTS), "not compiled")
            continue
        if not tried:
            yield Check("bcc", "ok", version)
            yield _kept(cache)
            yield _packets(reader)
        tried = reasons | tried  # of XDP, what the better way said
    yield _xdp(tried)
    lacking = tried[QDISC_TRACEPOINT]
    found = QDISC_TRACEPOINT if lacking is None else f"{QDISC_TRACEPOINT}: {lacking}; all are QDISC_DROP"
    yield Check("qdisc", "ok", found)
    yield from _judge("kfree_skb", probes.KFREE_SKB, tried, "missing", "Drops cannot be traced: trace cannot run.")
    yield from _judge(
        "enqueue_to_backlog",
        probes.BACKLOG[:-1],
        tried,
        "degraded",
        "Backlog drops show the CPU that dropped, not the one whose queue was full.",
    )


def _kept(cache: Cache) -> Check:
    name = "compiled programs"
    if cache.kept:
        return Check(name, "ok", cache.state)
    return Check(
        name,
        "degraded",
        cache.state,
        "Each start compiles them, which takes longer.",
        "Let that directory belong to the user who starts pktdrop, be writable for that user only, and not be full.",
    )


def _packets(reader: str) -> Check:
    if reader != readers.NONE:
        return Check("packets", "ok", _READERS[reader])
    return Check(
        "packets",
        "degraded",
        "this kernel lets no program read their bytes",
        "Drops are counted, but whose packets they were is not shown.",
        "Before Linux 6.2, boot with lockdown=integrity or none.",
    )


def _try(rungs: Sequence[str], prepared: Prepared) -> tuple[str, str, dict[str, str | None]]:
    """Attach by each rung; return bcc's version, how packets are read, and why each rung failed: None if it did not."""
    reader = prepared.facts.reader
    found: dict[str, str | None] = {}
    try:
        programs = Programs(prepared.compiled, {"drops": _FEW_ENTRIES}, prepared.facts.cast_function)
    except MapsRefused as refused:
        if prepared.cached:
            raise
        return prepared.compiled.bcc_version, reader, dict.fromkeys((*rungs, *_TRACEPOINTS), refused.what)
    rung = next(one for one in probes.KFREE_SKB if one in rungs)
    attempts = {one: partial(probes.climb, programs, prepared, one) for one in rungs}
    attempts |= {one: partial(probes.attach_tracepoint, programs, prepared, one, rung) for one in _TRACEPOINTS}
    with closing(programs):
        for name, attempt in attempts.items():
            try:
                attempt()
                found[name] = None
            except probes.RungError as reason:
                found[name] = str(reason)
    return prepared.compiled.bcc_version, reader, found


def _xdp(tried: Mapping[str, str | None]) -> Check:
    """Say which tracepoints tell of frames that end in XDP."""
    missing = "; ".join(f"{name}: {tried[name]}" for name in XDP_TRACEPOINTS if tried[name] is not None)
    if not missing:
        return Check("xdp", "ok", ", ".join(XDP_TRACEPOINTS))
    means = "Frames that end so in XDP are in the counters of drivers only, if there."
    return Check("xdp", "degraded", missing, means, "Nothing, unless XDP programs run here: use a newer kernel.")


def _judge(
    probe: str, rungs: Sequence[str], tried: Mapping[str, str | None], without: CheckStatus, meaning: str
) -> Iterator[Check]:
    """One line a rung. Below the first that works, failing costs nothing; if none works, it costs `meaning`."""
    first = next((rung for rung in rungs if tried[rung] is None), None)
    for rung in rungs:
        reason = tried[rung]
        name = f"{probe} {rung}"
        if reason is None:
            yield Check(name, "ok", "in use" if rung == first else "works, not needed")
        elif first is None:
            yield Check(name, without, reason, meaning, "Use a kernel and rights that allow one of these probes.")
        elif rungs.index(first) < rungs.index(rung):
            yield Check(name, "degraded", reason, f"Nothing: {first} is used.")
        else:
            yield Check(name, "degraded", reason, f"{first} is used instead, at a higher cost per event.")
