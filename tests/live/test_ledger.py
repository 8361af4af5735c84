# SPDX-License-Identifier: MIT
"""The ledger of real drops: each counter that rose is explained, to the packet, and nothing is left over.

Which counters a cause moves is from the kernel's sources, as read for kernel-facts: net/ipv4/ip_input.c, udp.c, ... ;
that they do move, by as much, is what nstat(8), ip(8) and tc(8) say in the same namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import Cause
from tests.live.test_causes import N, send
from tests.live.tracing import tracing

by_name = {cause.name: cause for cause in CAUSES}

#: Counters that rise by one for each packet lost. "silent": the kernel counts such packets nowhere.
COUNTERS: Mapping[str, tuple[str, ...]] = {
    "udp_closed_port": ("mib.UdpNoPorts",),
    "udp_closed_port6": ("mib.Udp6NoPorts",),
    "tcp_closed_port": ("mib.TcpOutRsts",),
    "tcp_closed_port6": ("mib.TcpOutRsts",),
    "receive_buffer_full": ("mib.UdpRcvbufErrors", "mib.UdpInErrors"),
    "receive_buffer_full6": ("mib.Udp6RcvbufErrors", "mib.Udp6InErrors"),
    "socket_filter": ("mib.UdpInErrors",),
    "socket_filter6": ("mib.Udp6InErrors",),
    "nftables_input": ("silent",),
    "nftables_input6": ("silent",),
    "nftables_forward": ("silent",),
    "nftables_forward6": ("silent",),
    "reverse_path": ("mib.TcpExtIPReversePathFilter",),
    "ipv6_off": ("mib.Ip6InDiscards",),
    "not_for_us": ("mib.IpInAddrErrors",),
    "not_for_us6": ("mib.Ip6InAddrErrors",),
    "no_route": ("mib.IpExtInNoRoutes",),
    "no_route6": ("mib.Ip6InNoRoutes",),
    "foreign_mac": ("links.rx_otherhost_dropped",),
    "foreign_mac6": ("links.rx_otherhost_dropped",),
    "unknown_ethertype": ("links.rx_dropped",),
    "unknown_protocol": ("mib.IpInUnknownProtos",),
    "unknown_protocol6": ("mib.Ip6InUnknownProtos",),
    "too_big_to_forward": ("mib.IpFragFails",),
    "too_big_to_forward6": ("mib.Ip6FragFails", "mib.Ip6InTooBigErrors"),
    "time_to_live_over": ("mib.IpInHdrErrors",),
    "time_to_live_over6": ("mib.Ip6InHdrErrors",),
    "udp_checksum": ("mib.UdpInCsumErrors", "mib.UdpInErrors"),
    "udp_checksum6": ("mib.Udp6InCsumErrors", "mib.Udp6InErrors"),
    "tcp_checksum": ("mib.TcpInCsumErrors", "mib.TcpInErrs"),
    "tcp_checksum6": ("mib.TcpInCsumErrors", "mib.TcpInErrs"),
    "icmp_checksum": ("mib.IcmpInCsumErrors", "mib.IcmpInErrors"),
    "icmp_checksum6": ("mib.Icmp6InCsumErrors", "mib.Icmp6InErrors"),
    "ip_checksum": ("mib.IpExtInCsumErrors", "mib.IpInHdrErrors"),
    "truncated": ("mib.IpExtInTruncatedPkts",),
    "truncated6": ("mib.Ip6InTruncatedPkts",),
    "neighbour_failed": ("silent",),
    "neighbour_failed6": ("silent",),
    "shaper_full": ("qdisc.drops", "mib.IpOutDiscards"),
    "shaper_full6": ("qdisc.drops", "mib.Ip6OutDiscards"),
    "tap_full": ("links.tx_dropped",),
}


def entries(lines: Iterable[Mapping[str, Any]], netns: Iterable[int]) -> list[dict[str, Any]]:
    """The ledger entries of some namespaces."""
    inodes = set(netns)
    return [entry for line in lines for entry in line["ledger"] if entry["scope"].get("netns") in inodes]


@pytest.mark.parametrize("name", sorted(COUNTERS))
def test_what_is_lost_is_explained(name: str, kernel_reasons: frozenset[str]) -> None:
    """N packets lost: the counters of the cause rose by N, drop events explain N, and nothing is unexplained."""
    cause: Cause = by_name[name]
    if cause.reason not in kernel_reasons:
        pytest.skip(f"this kernel has no drop reason {cause.reason}")
    with cause.net() as net:
        traffic = cause.build(net)
        with tracing("--all-netns") as trace:
            send(traffic, lose=N, spare=N, cpu=max(os.sched_getaffinity(0)))
            assert trace.stop() == 0, trace.stderr
            summary = trace.summary
            here = [namespace.inode for namespace in net.namespaces.values()]
            found = entries([summary], here)
            for counter in COUNTERS[name]:
                if counter == "silent":
                    (entry,) = (one for one in found if one["status"] == "silent")
                    assert (entry["counter"], entry["delta"]) == ("none", 0)
                else:
                    (entry,) = (one for one in found if one["counter"] == counter)
                    assert (entry["delta"], entry["explained"], entry["unexplained"]) == (N, N, 0)
                    assert entry["status"] in ("exact", "bound")
                assert entry["by"] == [{"reason": cause.reason, "count": N}]
            assert [one for one in entries([summary, *trace.intervals], here) if one["status"] == "unexplained"] == []
            lost = sum(drop["count"] for drop in summary["drops"] if drop["netns"] in here and not drop["noise"])
            assert summary["layers"].get(cause.layer, 0) >= lost  # this is a sum over the host


def test_every_cause_has_an_expectation() -> None:
    """A cause that is added must say which counters it moves, or that there is none."""
    without = {cause.name for cause in CAUSES} - COUNTERS.keys()
    assert without <= {"neighbour_queue_full", "neighbour_queue_full6"}
