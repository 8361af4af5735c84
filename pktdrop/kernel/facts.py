# SPDX-License-Identifier: MIT
"""What the programs must know about the running kernel before they are compiled."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pktdrop.errors import PktdropError
from pktdrop.host.netns import cookie_here
from pktdrop.kernel import host, layout, readers
from pktdrop.kernel.btf import Btf, BtfError, BtfKind
from pktdrop.kernel.reasons import ReasonNames

BTF_DIRECTORY = Path("/sys/kernel/btf")
BACKLOG_FUNCTION = "enqueue_to_backlog"
_TRACEPOINT = "kfree_skb"
_RECURSION_GUARD = "bpf_prog_inc_misses_counter"
_FORMATS = tuple(
    Path(root) / f"events/skb/{_TRACEPOINT}/format" for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
)
_BACKLOG_REASONS = ("CPU_BACKLOG", "DEV_READY", "NOT_SPECIFIED")
"""Reasons that enqueue_to_backlog() frees with, net/core/dev.c; kernels that lack the first give none there.

Where the device is down that is the second (v6.12, v7.3) or the last (v6.1).
"""
_GROUP_REASON = "IP_INNOROUTES"
"""IPv6 frees so what comes for a group before the interface has an address: ip6_pkt_discard, net/ipv6/route.c."""
_NO_CARRIER_REASON = "QDISC_DROP"
"""What an interface without carrier does not send is freed so: noop_enqueue, net/sched/sch_generic.c."""
_NO_PORT_REASON = "NO_TX_TARGET"
"""What a bridge has no port for is: br_flood, net/bridge/br_forward.c."""
_NO_REASON = "NOT_SPECIFIED"
_XDP_REASONS = ("XDP", _NO_REASON)
"""What is freed in XDP is freed so: do_xdp_generic, net/core/dev.c; veth_xdp_rcv_skb, drivers/net/veth.c."""
XDP_TRACEPOINTS = ("xdp_exception", "xdp_redirect_err", "xdp_devmap_xmit", "xdp_bulk_tx")
"""include/trace/events/xdp.h; each has a program in bpf/xdp.c."""
QDISC_TRACEPOINT = "qdisc_drop"
"""include/trace/events/qdisc.h, v7.3, of which kernels before 7.1 have none; its program is there, too."""


@dataclass(frozen=True)
class KernelFacts:
    """The running kernel, as far as the programs depend on it."""

    layout: str
    """C declarations of the structs that the programs read."""
    arguments: int
    """Of the tracepoint: 2 (skb, location), 3 (+ reason), 4 (+ rx_sk)."""
    tracepoint_id: int
    """BTF id of the tracepoint's typedef; 0 without BTF."""
    backlog_id: int
    """BTF id of the function enqueue_to_backlog; 0 where it is not known."""
    nests: bool
    """Whether a program can be interrupted by itself on a CPU.

    Linux kernel commit 05b24ff9b2cf ("bpf: Prevent bpf program recursion for raw tracepoint probes") (in v6.2, and in
    stable kernels) makes __bpf_trace_run() skip and count such a run, and made the function that counts global.
    """
    netns_cookie: bool
    """Whether namespaces are known by their cookies, to the programs and to user space; else by their inodes."""
    reasons: ReasonNames
    samples: readers.SampleFacts | None = None
    """What BTF says of packets and sockets, for samples; None: no samples can be taken."""
    reader: str = readers.NONE
    """How a BTF-typed program reads bytes of packets, one of readers.READERS."""

    tracepoints: Mapping[str, int] = field(default_factory=dict)
    """BTF ids of the tracepoints of XDP and of queueing disciplines that there are; without BTF 0."""

    qdisc_generic: int = 0
    """What the tracepoint of queueing disciplines says where they give no reason of their own."""

    @property
    def has_btf(self) -> bool:
        """Whether typed programs can be loaded."""
        return self.tracepoint_id != 0

    @classmethod
    def read(cls, directory: Path = BTF_DIRECTORY) -> "KernelFacts":
        """Read them from BTF, else from tracefs and installed headers. Raises PktdropError."""
        host.require_sys()
        try:
            btf = Btf.load(directory / "vmlinux")
            typedef = btf.find(f"btf_trace_{_TRACEPOINT}", BtfKind.TYPEDEF)
            arguments = btf.tracepoint_parameters(_TRACEPOINT)
            if typedef is None or arguments is None:
                raise BtfError("it does not know the tracepoint kfree_skb")
            reasons = ReasonNames.from_btf(btf, directory)
            backlog, nests = btf.function(BACKLOG_FUNCTION) or 0, btf.function(_RECURSION_GUARD) is None
            cookie = layout.has_netns_cookie(btf) and cookie_here() is not None
            samples = readers.facts(btf)
            tracepoints = _tracepoints(btf)
            generic = (btf.enum("qdisc_drop_reason") or {}).get("QDISC_DROP_GENERIC", 0) & 0xFFFFFFFF
            parts = [layout.XDP_MEMBERS] if layout.has_members(btf, layout.XDP_MEMBERS) else []
            parts += [samples.members()] if samples else []
            wanted = layout.with_members(layout.members(cookie), *parts)
            declared = layout.declarations(btf, wanted) + layout.packet_type(btf)
            return cls(
                declared,
                arguments,
                typedef,
                backlog,
                nests,
                cookie,
                reasons,
                samples,
                tracepoints=tracepoints,
                qdisc_generic=generic,
            )
        except FileNotFoundError:
            return cls._without_btf()
        except (OSError, BtfError, layout.LayoutError) as error:
            raise PktdropError(
                f"The kernel's type information cannot be used: {error}.", "Report this with the output of 'uname -a'."
            ) from None

    @classmethod
    def _without_btf(cls) -> "KernelFacts":
        build = Path("/lib/modules") / os.uname().release / "build"
        if not build.exists():
            raise PktdropError(
                "This kernel has no BTF (/sys/kernel/btf/vmlinux), and its headers are not installed.",
                "Install them: 'apt install linux-headers-$(uname -r)' or 'dnf install kernel-devel-$(uname -r)'.",
            )
        for path in _FORMATS:
            if path.exists():
                text = path.read_text(encoding="ascii", errors="replace")
                arguments = 2 + (" reason;" in text) + (" rx_sk;" in text)
                # what gives user space the cookie came two versions after the plain member (v5.14, v5.12)
                cookie = cookie_here() is not None
                reasons = ReasonNames.from_format(text)
                tracepoints = dict.fromkeys((*XDP_TRACEPOINTS, QDISC_TRACEPOINT), 0)
                samples = readers.SampleFacts(0, 0)
                return cls(
                    layout.FROM_HEADERS, arguments, 0, 0, True, cookie, reasons, samples, tracepoints=tracepoints
                )
        raise PktdropError(
            "This kernel has no BTF, and the format of its tracepoint kfree_skb cannot be read.",
            "Mount tracefs: 'mount -t tracefs tracefs /sys/kernel/tracing', or start pktdrop as root.",
        )

    @property
    def may_be_to_group(self) -> str:
        """A C expression over `reason`, true where it makes a difference whether the frame came for a group."""
        return f"(reason) == {self._given_for(_GROUP_REASON)}"

    @property
    def may_be_unsent(self) -> str:
        """A C expression over `reason`, true where it makes a difference whether the frame could not leave at all."""
        return f"({self.has_no_port} || (reason) == {self._given_for(_NO_CARRIER_REASON)})"

    @property
    def has_no_port(self) -> str:
        """A C expression over `reason`, true where a bridge had no port to send the frame by."""
        value = self.reasons.value(_NO_PORT_REASON)
        return "0" if value is None else f"(reason) == {value}"

    @property
    def may_be_of_xdp(self) -> str:
        """A C expression over `reason`, true where an skb may have been freed for what XDP said of it."""
        values = {self._given_for(name) for name in _XDP_REASONS}
        return " || ".join(f"(reason) == {value}" for value in sorted(values))

    @property
    def is_qdisc_drop(self) -> str:
        """A C expression over `reason`, true where the tracepoint of queueing disciplines may have told more."""
        value = self.reasons.value(_NO_CARRIER_REASON) if QDISC_TRACEPOINT in self.tracepoints else None
        return "0" if value is None else f"(reason) == {value}"

    def _given_for(self, name: str) -> int:
        """Return what the kernel gives for a core reason: where it does not have it, what says that there is none."""
        value, none = self.reasons.value(name), self.reasons.value(_NO_REASON)
        return value if value is not None else none or 0

    @property
    def cast_function(self) -> int:
        """BTF id of the kfunc that programs call to read bytes of packets; 0: none."""
        return self.samples.cast_function if self.samples is not None else 0

    @property
    def may_be_backlog(self) -> str:
        """A C expression over `reason`, true if an skb freed for it may have been on its way into a backlog."""
        values = [self.reasons.value(name) for name in _BACKLOG_REASONS]
        if values[0] is None:
            return "1"
        return " || ".join(f"(reason) == {value}" for value in values if value is not None)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "reasons": self.reasons.as_json()}  # of a NamedTuple it makes a list

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "KernelFacts":
        """Return what as_json() wrote."""
        samples = None if data["samples"] is None else readers.SampleFacts(*data["samples"])
        return cls(**{**data, "reasons": ReasonNames.from_json(data["reasons"]), "samples": samples})


def _tracepoints(btf: Btf) -> dict[str, int]:
    """Return the tracepoints besides kfree_skb that the kernel has, with the ids of their typedefs."""
    wanted = (*(XDP_TRACEPOINTS if layout.has_members(btf, layout.XDP_MEMBERS) else ()), QDISC_TRACEPOINT)
    found = {name: btf.find(f"btf_trace_{name}", BtfKind.TYPEDEF) for name in wanted}
    return {name: number for name, number in found.items() if number is not None}
