# SPDX-License-Identifier: MIT
"""Frames that end in XDP are counted once each, whether there is an skb of them or not."""

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, unlike_others
from tests.kit.diagnosed import diagnosing, judged
from tests.kit.process import wait_until
from tests.kit.provoke import bpf
from tests.kit.trace import inside, tracing

N = 30
ABORTED, DROP, PASS, TX, REDIRECT, NO_ACTION = 0, 1, 2, 3, 4, 7  # enum xdp_action, include/uapi/linux/bpf.h
NATIVE, GENERIC = bpf.XDP_FLAGS_DRV_MODE, bpf.XDP_FLAGS_SKB_MODE
FRAME = bytes.fromhex("020000000001020000000002") + b"\x08\x00" + bytes(186)
SMALLEST_MTU = 68


@pytest.fixture
def net() -> Iterator[Net]:
    """One host with two pairs of interfaces: what is sent by in0 comes by in1, what leaves by out0 by out1."""
    net = Net(unlike_others())
    with net.stack:
        host = net.add("host")
        for pair in ("in", "out"):
            host.ip("link", "add", f"{pair}0", "type", "veth", "peer", "name", f"{pair}1")
            for end in "01":
                host.ip("link", "set", f"{pair}{end}", "up")
        yield net


def attach(net: Net, interface: str, code: bytes, mode: int) -> None:
    """Let a program have what comes by an interface."""
    with net["host"].entered():
        bpf.attach(net, bpf.XDP, code, socket.if_nametoindex(interface), bpf.AT_XDP, mode)


def ended(net: Net) -> tuple[Counter[str], int]:
    """Send N frames; return the drops of in1 and out0 by reason, and what diagnose says was lost in the namespace."""
    host = net["host"]
    with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
        before = host.link("in1", "rx.packets")
        with host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("in0", 0))
            for _ in range(N):
                wire.send(FRAME)
        wait_until(lambda: host.link("in1", "rx.packets") >= before + N, "the last frame")
        assert trace.stop() == 0
        summary, data = trace.summary, judged(made)
    drops = [one for one in inside(summary["drops"], [host]) if one["interface"] in ("in1", "out0")]
    found: Counter[str] = Counter()
    for one in drops:
        found[f"{one['subsystem']}/{one['reason']} in {one['layer']}"] += one["count"]
    return found, sum(loss["packets"] for loss in data["losses"] if loss["netns"] == host.inode)


@pytest.mark.parametrize(
    ("mode", "action", "reason"),
    [
        (NATIVE, ABORTED, "ABORTED"),
        (NATIVE, NO_ACTION, "INVALID_ACTION"),
        (NATIVE, REDIRECT, "REDIRECT_ERR"),
        (NATIVE, TX, "BULK_TX"),  # the other end takes no XDP frames
        (GENERIC, ABORTED, "ABORTED"),
        (GENERIC, NO_ACTION, "INVALID_ACTION"),
        (GENERIC, REDIRECT, "REDIRECT_ERR"),
    ],
)
def test_what_xdp_cannot_do_is_counted_once(net: Net, mode: int, action: int, reason: str) -> None:
    """In a driver by the tracepoint alone, also where the driver frees an skb; else by the skb, for its reason."""
    attach(net, "in1", bpf.returning(action), mode)
    assert ended(net) == ({f"xdp/{reason} in driver": N}, N)


@pytest.mark.parametrize("mode", [NATIVE, GENERIC])
def test_what_a_program_drops_has_no_reason_of_ours(net: Net, mode: int) -> None:
    """XDP_DROP is the drop of an skb, if there is one (veth has), and counted once, with the driver's own counter."""
    attach(net, "in1", bpf.returning(DROP), mode)
    found, lost = ended(net)
    assert (found.total(), lost) == (N, N)
    assert not any(name.startswith("xdp/") for name in found)


def test_what_passes_is_not_lost(net: Net) -> None:
    """Nor does a redirection that works lose anything."""
    attach(net, "out1", bpf.returning(PASS), NATIVE)
    with net["host"].entered():
        out = socket.if_nametoindex("out0")
    attach(net, "in1", bpf.redirecting(out), NATIVE)
    assert ended(net) == ({}, 0)


def test_what_the_other_interface_does_not_take(net: Net) -> None:
    """It is lost where it was to leave."""
    host = net["host"]
    attach(net, "out1", bpf.returning(PASS), NATIVE)
    host.ip("link", "set", "out1", "mtu", str(SMALLEST_MTU))
    with host.entered():
        out = socket.if_nametoindex("out0")
    attach(net, "in1", bpf.redirecting(out), NATIVE)
    assert ended(net) == ({"xdp/DEVMAP_XMIT in tx": N}, N)


def test_others_are_counted_beside_it(net: Net) -> None:
    """Drops of the stack between them are theirs: a frame that ended before has nothing to do with them."""
    host: Namespace = net["host"]
    attach(net, "in1", bpf.returning(ABORTED), NATIVE)
    with (
        tracing("--all-netns") as trace,
        host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire,
        host.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody,
    ):
        before = host.link("in1", "rx.packets")
        wire.bind(("in0", 0))
        host.ip("link", "set", "lo", "up")
        for _ in range(N):
            wire.send(FRAME)
            nobody.sendto(b"closed", ("127.0.0.1", 5399))
        wait_until(lambda: host.link("in1", "rx.packets") >= before + N, "the last frame")
        assert trace.stop() == 0
        drops = inside(trace.summary["drops"], [host])
    counts = {name: sum(one["count"] for one in drops if one["interface"] == name) for name in ("in1", "lo")}
    assert counts == {"in1": N, "lo": N}
