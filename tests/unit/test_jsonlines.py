# SPDX-License-Identifier: MIT
"""Drops as JSON: one object per line, with fixed keys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pktdrop.model.container import Container
from pktdrop.model.drops import Count, Netns, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.model.sample import Owner, Socket
from pktdrop.rules.protocols import Protocols
from pktdrop.views.jsonlines import JsonView
from tests.kit.frames import MAC_A, MAC_B, ether, ipv4, udp
from tests.unit.make import (
    NOON,
    VIEW,
    make_backlog_drop,
    make_drop,
    make_interval,
    make_ledger,
    make_noise,
    make_sample,
    make_selection,
)


def _object(pieces: Iterable[str]) -> dict[str, Any]:
    line = "".join(pieces)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_start() -> None:
    """The first line: when, what runs on what, how the probes are attached, what cannot be known."""
    probes = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "none"}
    assert _object(VIEW.start(NOON + 0.25, "0.1.0", "6.12.95", probes, (Limit("missing", ("nothing",)),))) == {
        "type": "start",
        "time": NOON + 0.25,
        "version": "0.1.0",
        "kernel": "6.12.95",
        "probes": {"kfree_skb": "tp_btf", "enqueue_to_backlog": "none"},
        "limits": ["nothing is missing."],
    }


def test_an_interval() -> None:
    """An interval has exactly these keys, the most dropped first."""
    drops = {make_drop(): Count(23, 667), make_backlog_drop(): Count(812, 81200)}
    line = VIEW.interval(make_interval(drops, uncounted=Uncounted(5, 6)), make_selection(drops, 9), make_ledger())
    assert _object(line) == {
        "type": "interval",
        "start": NOON - 2,
        "end": NOON,
        "drops": [
            {
                "reason": "CPU_BACKLOG", "subsystem": "core", "count": 812, "bytes": 81200, "cpu": 0, "target_cpu": 3,
                "interface": "eth0", "ifindex": 2, "netns": 4026531833, "netns_cookie": 1, "netns_name": "host",
                "netns_gone": False, "container": None,
                "protocol": "IPv4", "location": "enqueue_to_backlog+0x1a8", "layer": "backlog", "noise": "",
                "doubt": "", "other_places": False, "sampled": 0, "samples": [],
            },
            {
                "reason": "NO_SOCKET", "subsystem": "core", "count": 23, "bytes": 667, "cpu": 0, "target_cpu": None,
                "interface": "lo", "ifindex": 1, "netns": 4026532281, "netns_cookie": 7, "netns_name": "blue",
                "netns_gone": False, "container": None,
                "protocol": "IPv4", "location": "udp_rcv+0x49e", "layer": "socket", "noise": "",
                "doubt": "", "other_places": False, "sampled": 0, "samples": [],
            },
        ],
        "ledger": [],
        "layers": {},
        "doubt": {},
        "lost": {"map_full": 5, "missed": 6},
        "filtered": 9,
    }  # fmt: skip


def test_a_sample() -> None:
    """A sampled packet has exactly these keys, and so has one in it; how many there were is told with the drop."""
    quoting = ether(0x0800, ipv4(1, b"\3\3" + bytes(6) + ipv4(17, udp(5, 53, b"")), "10.0.0.9", "10.0.0.5"))
    sample = make_sample(quoting, length=1400, socket=Socket(2, 53, None, 17, 7, 812, 40), owner=Owner(7, "a\x1bb"),
                         stack=("udp_rcv+0x49e", "process_backlog+0x83"))  # fmt: skip
    drops, key = {make_drop(): Count(23, 667)}, make_drop()
    (drop,) = _object(
        VIEW.interval(
            make_interval(drops), make_selection(drops), make_ledger(), samples={key: [sample]}, sampled={key: 4}
        )
    )["drops"]
    assert drop["sampled"] == 4
    inner = {
        "source": "10.0.0.5", "destination": "10.0.0.9", "protocol": "UDP", "source_port": 5, "destination_port": 53,
        "flags": [], "options": [], "payload": 0, "what": None, "fragment": None, "ttl": 64, "sequence": None,
        "link_source": None, "link_destination": None, "vlans": [], "inner": None,
    }  # fmt: skip
    assert drop["samples"] == [
        {
            **inner,
            "time": NOON - 1,
            "text": "10.0.0.9 > 10.0.0.5 ICMP port unreachable 28 B (10.0.0.5:5 > 10.0.0.9:53 UDP 0 B)",
            "length": 1400, "captured": 70, "received": True, "source": "10.0.0.9", "destination": "10.0.0.5",
            "protocol": "ICMP", "source_port": None, "destination_port": None, "payload": 28,
            "what": "port unreachable", "link_source": MAC_A, "link_destination": MAC_B, "inner": inner,
            "socket": {"family": 2, "local_port": 53, "remote_port": None, "protocol": 17, "state": 7, "inode": 812,
                       "cgroup": 40, "is_receiver": False},
            "owner": {"pid": 7, "comm": "a\x1bb", "is_receiver": True}, "container": None,
            "stack": ["udp_rcv+0x49e", "process_backlog+0x83"],
        }
    ]  # fmt: skip


def test_containers() -> None:
    """A drop tells the container that its namespace is called by, and a sample the one that its process is in."""
    cart = Container("containerd", "c" * 64, "cart", "cart-7f9", "shop", "3f2a9c14", None, None)
    told = {
        "label": "pod shop/cart-7f9", "runtime": "containerd", "id": "c" * 64, "name": "cart", "pod": "cart-7f9",
        "pod_namespace": "shop", "pod_uid": "3f2a9c14", "unit": None, "user": None,
    }  # fmt: skip
    key, other = make_drop(), make_drop(netns=Netns(4026532999), netns_name="blue")
    view = JsonView(Protocols.load(), container={key.netns: cart}.get)  # type: ignore[arg-type]
    drops = {key: Count(2, 2), other: Count(1, 1)}
    samples = {key: [make_sample(container=cart)], other: [make_sample()]}
    first, second = _object(view.interval(make_interval(drops), make_selection(drops), make_ledger(), samples=samples))[
        "drops"
    ]
    assert (first["container"], first["samples"][0]["container"]) == (told, told)
    assert (second["container"], second["samples"][0]["container"]) == (None, None)
    view = JsonView(Protocols.load(), by="reason", container={key.netns: cart}.get)  # type: ignore[arg-type]
    (row,) = _object(view.interval(make_interval(drops), make_selection(drops), make_ledger()))["drops"]
    assert row["container"] is None
    assert row["different"]["container"] == 2


def test_a_summary() -> None:
    """A summary has the keys of an interval, over the whole run."""
    drops = {make_drop(): Count(23, 667)}
    summary = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger(), kind="summary"))
    interval = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))
    assert summary == {**interval, "type": "summary"}


def test_quiet() -> None:
    """An interval without drops is a line all the same: a reader sees that time goes on."""
    quiet = _object(VIEW.interval(make_interval(), make_selection(), make_ledger()))
    assert quiet["drops"] == []
    assert quiet["lost"] == {"map_full": 0, "missed": 0}
    assert quiet["filtered"] == 0


def test_unknown_is_null() -> None:
    """What this run cannot know is null, never zero or an empty text."""
    drops = {make_drop(ifindex=None, interface=None, netns=None, netns_name=None): Count(1, 1)}
    (drop,) = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))["drops"]
    assert [key for key, value in drop.items() if value is None] == [
        "target_cpu",
        "interface",
        "ifindex",
        "netns",
        "netns_cookie",
        "netns_name",
        "container",
    ]


def test_a_line_comes_in_pieces() -> None:
    """However many drops there are, no piece of the line has many, and all are in it, the most dropped first."""
    drops = {make_drop(ifindex=number): Count(number, 1) for number in range(1, 5001)}
    pieces = list(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))
    assert max(piece.count('"reason"') for piece in pieces) < 500
    assert [drop["ifindex"] for drop in _object(pieces)["drops"]] == list(range(5000, 0, -1))


def test_other_places_are_marked() -> None:
    """Drops of many places that count together have no place of their own, and say so."""
    drops = {make_drop().of_other_places(): Count(1, 1)}
    (drop,) = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))["drops"]
    assert [drop[key] for key in ("other_places", "interface", "ifindex", "netns", "netns_name")] == [True, *[None] * 4]
    assert (drop["reason"], drop["location"], drop["cpu"]) == ("NO_SOCKET", "udp_rcv+0x49e", 0)


def test_cpu_zero_is_not_null() -> None:
    """CPU 0 is a CPU, as the one that dropped and as the one whose queue was full."""
    drops = {make_backlog_drop(cpu=0, target_cpu=0): Count(1, 1)}
    (drop,) = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))["drops"]
    assert (drop["cpu"], drop["target_cpu"]) == (0, 0)


def test_protocols_without_a_name_are_numbers() -> None:
    """An ethertype that has no name is its number in hex."""
    drops = {make_drop(protocol=0x88B5): Count(1, 1)}
    (drop,) = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))["drops"]
    assert drop["protocol"] == "0x88b5"


def test_noise_is_among_the_drops() -> None:
    """Noise is not left out: every free that was counted is in the line."""
    drops = {make_drop(): Count(1, 1), make_noise(): Count(2, 2)}
    line = _object(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))
    assert {drop["reason"] for drop in line["drops"]} == {"NO_SOCKET", "OTHERHOST"}


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 2**64 - 1))
def test_any_name_and_number_survives(interface: str, netns: str, packets: int) -> None:
    """A line is plain ASCII on one line, and gives back every name and number exactly."""
    drops = {make_drop(interface=interface, netns_name=netns): Count(packets, packets)}
    line = "".join(VIEW.interval(make_interval(drops), make_selection(drops), make_ledger()))
    assert line.isascii()
    (drop,) = _object(line)["drops"]
    assert (drop["interface"], drop["netns_name"], drop["count"], drop["bytes"]) == (interface, netns, packets, packets)


def test_drops_summed_by_reason_say_what_differs() -> None:
    """What is the same keeps its value; what differs is null, with how many values there are; amounts are sums."""
    drops = {make_drop(netns=Netns(number, number), cpu=number % 2): Count(3, 90) for number in range(1, 101)}
    view = JsonView(Protocols.load(), by="reason")
    (one, noise) = _object(
        view.interval(
            make_interval(drops),
            make_selection(drops | {make_noise(): Count(9, 9)}),
            make_ledger(),
            sampled=dict.fromkeys(drops, 2),
        )
    )["drops"]
    assert (one["count"], one["bytes"], one["sampled"], one["kinds"]) == (300, 9000, 200, 100)
    assert (one["reason"], one["interface"], one["netns"], one["cpu"]) == ("NO_SOCKET", "lo", None, None)
    assert one["different"] == {"netns": 100, "netns_cookie": 100, "cpu": 2}
    assert (noise["count"], noise["kinds"], noise["different"]) == (9, 1, {})
