# SPDX-License-Identifier: MIT
"""Counters of queueing disciplines, equal to tc(8), and each lost packet counted once."""

import json
import os
import socket
from collections.abc import Iterator, Mapping

import pytest

from pktdrop.counters import qdisc
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from pktdrop.errors import PktdropError
from pktdrop.model.counters import Row
from tests.kit.process import run, wait_until

PORT = 4009
SIZE = 772
"""Bytes of data in each packet: 800 in all, and 814 for a qdisc."""
SENT = 23
# One byte a second: what does not go out at once stays until the test is over.
STOPPED = ("rate", "8bit", "burst", "1000b", "cburst", "1000b")
# Qdiscs that not every kernel has; each is compared where it can be had.
FURTHER = (
    "fq_codel limit 2",
    "fq limit 2",
    "sfq limit 2",
    "codel limit 2",
    "pie limit 2",
    "cake bandwidth 1kbit memlimit 2000",
    "netem loss 50% limit 5 delay 1000s",
    "red limit 3000 min 500 max 1000 avpkt 1000 burst 1",
    "prio",
    "pfifo_head_drop limit 3",
)
# Qdiscs with another one below them, and the class it is attached to; netem loses packets itself.
PARENTS = (
    ("tbf rate 8bit burst 1000b limit 9000", "5:1"),
    ("netem loss 50%", "5:1"),
    ("red limit 3000 min 500 max 1000 avpkt 1000 burst 1", "5:1"),
    ("sfb", "5:1"),
    ("prio", "5:2"),
)


def tc(namespace: Namespace, *arguments: str) -> str:
    """Run tc(8) on a namespace."""
    return run("tc", "-n", namespace.name, *arguments)


def shown_by_tc(namespace: Namespace) -> dict[tuple[str, str], dict[str, int]]:
    """Give all numbers that tc shows by interface and name of the qdisc, which is put together from its words."""
    numbers = ("bytes", "packets", "drops", "overlimits", "requeues", "backlog", "qlen")
    shown = {}
    for entry in json.loads(tc(namespace, "-s", "-j", "qdisc", "show")):
        name = f"{entry['kind']} {entry['handle']}"
        if entry["handle"] == "0:" and not entry.get("root"):
            name += f" parent {entry['parent']}"
        shown[entry["dev"], name] = {number: entry[number] for number in numbers}
    return shown


def rows(
    reader: qdisc.QdiscReader, namespace: Namespace
) -> tuple[dict[tuple[str, str], Row], dict[tuple[str, str], Row]]:
    """Counters and gauges, by interface and qdisc."""
    with namespace.entered():
        both = reader.read(namespace.inode)
    assert both.limits == ()
    assert {scope.netns for scope in both.rows} == {namespace.inode}
    counters, gauges = (
        {(str(scope.interface), str(scope.qdisc)): row for scope, row in some.items()}
        for some in (both.rows, both.gauges)
    )
    return counters, gauges


def as_tc(counters: Mapping[tuple[str, str], Row], gauges: Mapping[tuple[str, str], Row]) -> object:
    """Our rows as tc shows them: of qdiscs with others below them all drops."""
    shown = {}
    for key, row in counters.items():
        values = dict(zip(row.names, row.values, strict=True)) | dict(
            zip(gauges[key].names, gauges[key].values, strict=True)
        )
        values["drops"] = values.pop("tree_drops", values["drops"])
        shown[key] = values
    return shown


def drops(counters: Mapping[tuple[str, str], Row], interface: str = "eth0") -> dict[str, int]:
    """`drops` by qdisc of an interface, where there are any."""
    return {name: row.values[0] for (device, name), row in counters.items() if device == interface and row.values[0]}


def send(net: Net, number: int = SENT, size: int = SIZE) -> None:
    """Send packets out of the client's eth0."""
    sender = net["client"].socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(number):
            sender.sendto(bytes(size), (ipv4(0, 2), PORT))


def received(net: Net) -> int:
    """Count what came out at the other end, by ip(8)."""
    return net["server"].link("eth0", "rx.packets")


@pytest.fixture
def net() -> Iterator[Net]:
    """Two namespaces; eth0 of the client has no qdisc yet, and nothing has been sent."""
    with two_ns() as made:
        yield made


def test_every_number_of_every_qdisc_equals_tc(net: Net) -> None:
    """On interfaces of all kinds, with and without qdiscs below, every number that `tc -s` has is ours."""
    client = net["client"]
    htb_with_queue(client, "eth0")
    clsact(client, "eth0")
    several = ("add", "name", "several", "numtxqueues", "3", "numrxqueues", "3", "type", "veth", "peer", "name", "peer")
    client.ip("link", *several)
    tc(client, "qdisc", "replace", "dev", "several", "root", "handle", "7:", "mq")
    for interface in ("several", "peer"):
        client.ip("link", "set", "dev", interface, "up")
    tc(client, "qdisc", "add", "dev", "several", "parent", "7:2", "handle", "72:", "bfifo", "limit", "1000")
    tc(client, "qdisc", "add", "dev", "peer", "ingress")
    for number, further in enumerate(FURTHER):
        if a_pair_with(client, f"x{number}", further):
            send_frames(client, f"x{number}")
    send(net)
    send(net, 2, 100)
    counters, gauges = rows(qdisc.QdiscReader(), client)
    assert as_tc(counters, gauges) == shown_by_tc(client)
    assert len({id(row.names) for row in counters.values()}) == 2
    assert ("several", "pfifo_fast 0: parent 7:1") in counters or ("several", "fq_codel 0: parent 7:1") in counters
    assert drops(counters) == {"clsact ffff:": 2, "pfifo 10:": SENT - 3 - received(net)}
    assert gauges["eth0", "pfifo 10:"] == Row(qdisc.GAUGES, (3 * (SIZE + 42), 3))


def a_pair_with(namespace: Namespace, name: str, words: str, *below: str) -> bool:
    """Make an interface with a qdisc, or two; return False where the kernel has no such qdisc."""
    namespace.ip("link", "add", "name", name, "address", mac(9, 1), "type", "veth", "peer", "name", f"{name}-peer")
    try:
        tc(namespace, "qdisc", "add", "dev", name, "root", "handle", "5:", *words.split())
    except PktdropError:
        namespace.ip("link", "delete", "dev", name)
        return False
    if below:
        tc(namespace, "qdisc", "add", "dev", name, *below)
    for end in (name, f"{name}-peer"):
        namespace.ip("link", "set", "dev", end, "arp", "off", "up")
    # until the kernel notices the carrier, packets go to its noop qdisc: net/core/link_watch.c, dev_activate()
    wait_until(lambda: "state UP" in namespace.ip("link", "show", "dev", name), f"the carrier of {name}")
    return True


def send_frames(namespace: Namespace, name: str) -> None:
    """Send packets out of an interface."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for _ in range(SENT):
            try:
                sender.sendto(bytes(SIZE + 28), (name, 0x88B5, 0, 0, bytes.fromhex(mac(9, 2).replace(":", ""))))
            except OSError:  # the qdisc dropped it, or there is no room for more
                continue


def htb_with_queue(namespace: Namespace, interface: str) -> None:
    """Attach htb with one class and a queue of three packets in it."""
    tc(namespace, "qdisc", "add", "dev", interface, "root", "handle", "1:", "htb", "default", "1")
    tc(namespace, "class", "add", "dev", interface, "parent", "1:", "classid", "1:1", "htb", *STOPPED)
    tc(namespace, "qdisc", "add", "dev", interface, "parent", "1:1", "handle", "10:", "pfifo", "limit", "3")


def clsact(namespace: Namespace, interface: str) -> None:
    """Drop packets before they come to the queue: those with 100 bytes of data."""
    tc(namespace, "qdisc", "add", "dev", interface, "clsact")
    # classic BPF: load the length in the IPv4 header; if it is 128 return TC_ACT_SHOT, else TC_ACT_OK
    program = "4,40 0 0 16,21 0 1 128,6 0 0 2,6 0 0 0"
    tc(namespace, "filter", "add", "dev", interface, "egress", "bpf", "bytecode", program, "direct-action")


def test_a_queue_below_htb(net: Net) -> None:
    """What a queue in a class of htb drops is counted there and not in htb again."""
    htb_with_queue(net["client"], "eth0")
    reader = qdisc.QdiscReader()
    rows(reader, net["client"])
    send(net)
    counters, _ = rows(reader, net["client"])
    lost = SENT - 3 - received(net)
    assert drops(counters) == {"pfifo 10:": lost}
    assert shown_by_tc(net["client"])["eth0", "htb 1:"]["drops"] == lost > 0


def test_what_clsact_drops(net: Net) -> None:
    """A filter's drops are those of clsact, and of no queue."""
    clsact(net["client"], "eth0")
    send(net, 17, 100)
    counters, _ = rows(qdisc.QdiscReader(), net["client"])
    assert drops(counters) == {"clsact ffff:": 17}
    assert received(net) == 0
    send(net, 2)
    assert drops(rows(qdisc.QdiscReader(), net["client"])[0]) == {"clsact ffff:": 17}
    wait_until(lambda: received(net) == 2, "two packets that the filter lets through")


def test_what_tbf_drops_itself(net: Net) -> None:
    """Packets larger than the burst of tbf never come to the queue below it: they are the drops of tbf."""
    client = net["client"]
    burst = ("rate", "8bit", "burst", "600b", "limit", "9000")
    tc(client, "qdisc", "add", "dev", "eth0", "root", "handle", "2:", "tbf", *burst)
    tc(client, "qdisc", "add", "dev", "eth0", "parent", "2:1", "handle", "20:", "pfifo", "limit", "2")
    reader = qdisc.QdiscReader()
    for turn in (1, 2):
        send(net, 5)  # each larger than the burst
        send(net, 7, 400)
        counters, gauges = rows(reader, client)
        in_queue = 7 * turn - received(net) - gauges["eth0", "pfifo 20:"].values[1]
        assert drops(counters) == {"tbf 2:": 5 * turn, "pfifo 20:": in_queue}
        assert shown_by_tc(client)["eth0", "tbf 2:"]["drops"] == 5 * turn + in_queue


def test_each_lost_packet_is_counted_once(net: Net) -> None:
    """Whatever has a queue below it, the drops of both are the packets that did not come out and do not wait."""
    client = net["client"]
    for number, (words, parent) in enumerate(PARENTS):
        name = f"x{number}"
        queue = ("parent", parent, "handle", "50:", "tbf", "rate", "8bit", "burst", "1000b", "limit", "1700")
        if not a_pair_with(client, name, words, *queue):
            continue
        send_frames(client, name)
        counters, gauges = rows(qdisc.QdiscReader(), client)
        waiting = max(row.values[1] for (interface, _), row in gauges.items() if interface == name)
        lost = SENT - client.link(f"{name}-peer", "rx.packets") - waiting
        assert sum(drops(counters, name).values()) == lost > 0, words
        below = shown_by_tc(client)[name, "tbf 50:"]["drops"]
        above = shown_by_tc(client)[name, f"{words.split()[0]} 5:"]["drops"]
        assert drops(counters, name).get("tbf 50:", 0) == below, words
        assert above == lost, words


def test_a_queue_that_is_not_shown(net: Net) -> None:
    """The queue that tbf has by default counts as part of tbf."""
    limit = ("rate", "8bit", "burst", "1000b", "limit", "2000")
    tc(net["client"], "qdisc", "add", "dev", "eth0", "root", "handle", "2:", "tbf", *limit)
    send(net)
    counters, gauges = rows(qdisc.QdiscReader(), net["client"])
    assert drops(counters) == {"tbf 2:": SENT - received(net) - gauges["eth0", "tbf 2:"].values[1]}
    assert counters["eth0", "tbf 2:"].names == qdisc.NAMES


def test_a_queue_that_goes(net: Net) -> None:
    """No counter rises because a queue is taken out from below htb, though htb keeps what it counted for it."""
    client = net["client"]
    htb_with_queue(client, "eth0")
    reader = qdisc.QdiscReader()
    send(net)
    before, _ = rows(reader, client)
    lost = sum(drops(before).values())
    tc(client, "qdisc", "delete", "dev", "eth0", "parent", "1:1")
    after, _ = rows(reader, client)
    assert ("eth0", "pfifo 10:") not in after
    # the three packets that were waiting are lost, and htb alone counts them
    assert drops(after) == {"htb 1:": 3}
    assert shown_by_tc(client)["eth0", "htb 1:"]["drops"] == lost + 3
    send(net, 4)
    assert drops(rows(reader, client)[0])["htb 1:"] == 3 + shown_by_tc(client)["eth0", "htb 1:"]["drops"] - lost - 3


def test_nothing_lost(net: Net) -> None:
    """Packets that pass are counted and none as lost."""
    tc(net["client"], "qdisc", "add", "dev", "eth0", "root", "handle", "3:", "pfifo", "limit", "100")
    send(net)
    counters, gauges = rows(qdisc.QdiscReader(), net["client"])
    assert received(net) == SENT
    assert counters["eth0", "pfifo 3:"] == Row(qdisc.NAMES, (0, 0, 0, SENT, SENT * (SIZE + 42)))
    assert gauges["eth0", "pfifo 3:"].values == (0, 0)


def test_nothing_stays_open(net: Net) -> None:
    """A reading leaves no socket behind, which would keep a deleted namespace alive."""
    before = sorted(os.listdir("/proc/self/fd"))
    rows(qdisc.QdiscReader(), net["client"])
    assert sorted(os.listdir("/proc/self/fd")) == before
