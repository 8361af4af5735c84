# SPDX-License-Identifier: MIT
"""What TCP drops of an open connection's input: counted, or, where the kernel frees it without an event, said to be."""

import os
import socket
import subprocess

from pktdrop.demo import frames
from pktdrop.demo.net import ipv4, mac, two_ns
from tests.kit.process import DEADLINE, on_cpu, wait_until
from tests.kit.rungs import doctor
from tests.kit.trace import inside, total, tracing

N = 23
SYN_PORT, SERVICE = 4000, 4007


def test_input_of_an_open_connection(kernel_reasons: frozenset[str]) -> None:
    """N SYNs in an open connection are N drops; where there is no event for them, both trace and doctor say so.

    RFC 5961 has each answered with a challenge; TcpExtTCPSYNChallenge counts them.
    """
    with two_ns() as net:
        client, server = net["client"], net["server"]
        listener = net.keep(server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((ipv4(0, 2), SERVICE))
        listener.listen(1)
        caller = net.keep(client.socket(socket.AF_INET, socket.SOCK_STREAM))
        caller.bind((ipv4(0, 1), SYN_PORT))
        caller.connect((ipv4(0, 2), SERVICE))
        net.keep(listener.accept()[0])
        raw = net.keep(client.socket(socket.AF_PACKET, socket.SOCK_RAW))
        raw.bind(("eth0", 0))
        ends = ipv4(0, 1), ipv4(0, 2)
        packet = frames.ip4(*ends, frames.TCP, frames.tcp_syn(*ends, SERVICE))
        with tracing() as trace:
            with on_cpu(max(os.sched_getaffinity(0))):
                for _ in range(N):
                    raw.send(frames.ethernet(mac(0, 2), mac(0, 1), frames.ETH_P_IP, packet))
            wait_until(lambda: server.mib("TcpExtTCPSYNChallenge") == N, f"{N} challenges", DEADLINE)
            assert trace.stop() == 0, trace.stderr
            drops = [drop for drop in trace.summary["drops"] if drop["reason"] == "TCP_INVALID_SYN"]
            has_events, has_socket = "TCP_INVALID_SYN" in kernel_reasons, "struct sock *" in tracepoint()
            assert total(drops) == (N if has_events else 0)
            assert {drop["netns"] for drop in drops} == (
                {server.inode if has_socket else None} if has_events else set()
            )
            # without reasons it would be in the namespace, if it were anywhere
            assert has_events or inside(trace.summary["drops"], [server]) == []
            assert ("TCP drops without an event" in trace.stderr) == (not has_events)
            assert ("TCP input carry no namespace" in trace.stderr) == (has_events and not has_socket)
    assert ("TCP input" in doctor()) == (not has_events)


def tracepoint() -> str:
    """Return the type of the tracepoint, by bpftool's reading of BTF."""
    dump = ["bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"]
    types = subprocess.run(dump, capture_output=True, text=True, check=True, timeout=4 * DEADLINE).stdout
    return next(line for line in types.splitlines() if "(*btf_trace_kfree_skb)" in line)
