# SPDX-License-Identifier: MIT
"""What a run cannot know, a sentence each."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pktdrop.model.limits import Limit
from pktdrop.text.wording import listed

SENTENCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        # the tracer
        "slow-kfree-skb": "kfree_skb is traced at about three times the cost (tp_btf: {why}).",
        "no-target-cpu": "drops of the CPU backlog carry no target CPU ({why}).",
        "not-all-of-xdp": "frames that end in XDP are not all seen ({why}): drivers' counters only.",
        "no-reasons": "this kernel gives no drop reasons: all are NOT_SPECIFIED, the call site tells.",
        "no-tcp-input": "this kernel frees the input that TCP drops without an event: counters only.",
        "tcp-input-without-netns": (
            "drops of TCP input carry no namespace: this kernel does not say for which socket (rx_sk)."
        ),
        "read-in-batches": (
            "there are thousands of kinds of drops: each time they are read, the CPU that reads traces none for a few "
            "milliseconds, and those are not counted as missed (the ledger tells)."
        ),
        "no-samples": "packets are counted, but none is shown: {why}.",
        "no-flows": "drops are not counted by {names}: {why}.",
        "few-samples": (
            "there are too many kinds of drops to show packets of each: more were counted than could be looked at."
        ),
        "no-symbols": (
            "call sites are addresses: {why}. What only they tell is not known: the layer of a drop, and whether it is "
            "noise; such drops are counted as not known whether lost."
        ),
        "untraced": (
            "Drops could not be traced: {why} Losses are known as far as counters show them; their reasons, the CPUs "
            "they were dropped on, and drops that no counter shows are not. {do}"
        ),
        # network namespaces
        "unnamed": "names of network namespaces: {names} cannot be read: {why}.",
        "hidden-by-proc": (
            "processes and network namespaces of the host cannot be seen: /proc hides those of others (hidepid). Drops "
            "in those show an inode, and their counters are not read."
        ),
        "hidden-by-pid-namespace": (
            "processes and network namespaces of the host cannot be seen: this is a PID namespace. Drops in those show "
            "an inode, and their counters are not read."
        ),
        "not-entered": "Network namespace {names} cannot be entered: {why}.",
        "several-not-entered": "{number} network namespaces cannot be entered ({names}): {why}.",
        "unread-at-start": (
            "{number} of {of} network namespaces were not read at the start: the counters of each are compared from "
            "when it is first read (--all-netns reads all)."
        ),
        "unread-at-end": (
            "{number} of {of} network namespaces were not read at the end, as time ran out: what their counters rose "
            "by since they were last read is missing."
        ),
        "unread-and-gone": (
            "some network namespaces were gone, or hidden, before their counters were read: what only counters show of "
            "them, such as SYNs at a full listen queue, is not known."
        ),
        "gone-together": (
            "network namespaces that are gone, but for the last {number}, are one in the summary's ledger, called "
            "gone; so are interfaces and sockets that are gone, but for the last {number} of namespaces that are there."
        ),
        # the run
        "late": "pktdrop cannot keep up: a look took longer than an interval. Intervals are as long as shown.",
        # the demo
        "left-out": "{names} is left out. {why}",
        "stopped": "{names} works no more. {why}",
        "slow-sender": "This host cannot send that many packets per second: some are left out.",
        # counters
        "refused": "{about}{why}.",
        "short-error": "{about}the kernel sent an error message that is too short.",
        "endless": "{about}the list of the kernel has no end.",
        "malformed-parts": "{about}{number} malformed parts of the list of the kernel are left out.",
        "list-changed": "interfaces came or went during both attempts to list them, one may be missing.",
        "more-counters": "this kernel has {number} further counters, which pktdrop does not know.",
        "statistics-changed": "their number changed while they were read.",
        "interface-unnamed": "the name of interface {number} cannot be read: {why}.",
        "interfaces-unnamed": "names of interfaces cannot be read: {why}.",
        "no-softnet": "Counters of the CPUs (softnet_stat) cannot be read: {why}.",
        "missing": "{names} is missing.",
        "unreadable": "{names} cannot be read: {why}.",
        "empty": "{names} is empty.",
        "malformed-lines": "{number} malformed lines of {names} are left out.",
        "malformed-sections": "{number} malformed sections of {names} are left out.",
        "more-columns": "{names} has {number} columns that pktdrop does not know.",
        "lines-without-cpu": "{names} has {number} lines for {of} CPUs that are online: all left out.",
        "sockets-left-out": (
            "{number} more dropped packets than the {of} that are told apart: those are counted by protocol alone."
        ),
        "no-diag": "this kernel has no {names}_diag, so what listeners dropped is not known.",
        "neighbours-elsewhere": "Counters of neighbours can be read in the host's first network namespace only.",
    }
)
"""What each kind of limits is, by its facts; `about`: "tcp: ", the protocol that was asked for."""
SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "links": "Interface counters of network namespace {netns}",
        "mib": "SNMP counters of network namespace {netns}",
        "qdisc": "Queueing disciplines of network namespace {netns}",
        "socket": "Sockets of network namespace {netns}",
        "packet_socket": "Packet sockets of network namespace {netns}",
        "xfrm": "IPsec counters of network namespace {netns}",
        "driver": "ethtool statistics{of_names}",
        "qstats": "netdev qstats",
    }
)
"""What comes before the sentence of a limit of one source's counters."""


def sentence(limit: Limit) -> str:
    """Return what cannot be known, and why."""
    names = listed(limit.names)
    is_named = limit.source == "driver"  # by the source
    facts = {
        **limit._asdict(),
        "names": names,
        "of_names": f" of {names}" if names else "",
        "about": f"{names}: " if names and not is_named else "",
    }
    parts = [SOURCES[limit.source].format_map(facts)] if limit.source else []
    return ": ".join([*parts, SENTENCES[limit.kind].format_map(facts)])


def sentences(limits: Iterable[Limit]) -> list[str]:
    """Return a sentence for each."""
    return [sentence(one) for one in limits]
