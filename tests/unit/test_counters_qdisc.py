# SPDX-License-Identifier: MIT
"""The answer of the kernel to an RTM_GETQDISC dump, and whose drops are whose."""

import errno
import json
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import qdisc
from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.counters.qdisc import Qdisc, parse
from pktdrop.model.counters import Reading
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters/qdisc-6.18.44"
NETNS = Netns(4026531840, 1)
# include/uapi/linux/netlink.h, rtnetlink.h, gen_stats.h
DONE, NEWQDISC = 3, 36
KIND, STATS2 = 1, 7
BASIC, QUEUE, PKT64 = 1, 3, 8
ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
LOOPBACK = socket.if_nametoindex("lo")


def message(kind: int, payload: bytes) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 2, 1, 0) + payload


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


END = message(DONE, struct.pack("=i", 0))


def told(
    kind: str,
    handle: int,
    parent: int,
    drops: int,
    packets: int = 0,
    packets64: int | None = None,
    ifindex: int = LOOPBACK,
    stats: bytes | None = None,
) -> bytes:
    """One qdisc as the kernel tells of it: overlimits 5, requeues 4, 6 bytes, 3 packets with 2 bytes wait."""
    inner = attribute(BASIC, struct.pack("=QI4x", 6, packets)) + attribute(QUEUE, struct.pack("=5I", 3, 2, drops, 4, 5))
    if packets64 is not None:
        inner += attribute(PKT64, struct.pack("=Q", packets64))
    head = struct.pack("=BxxxiIII", 0, ifindex, handle, parent, 2)
    name = attribute(KIND, kind.encode() + b"\0")
    return message(NEWQDISC, head + name + attribute(STATS2, inner if stats is None else stats))


class Kernel:
    """Gives a reader the answers of a test instead of the kernel's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be asked from now on."""
        self.reader = qdisc.QdiscReader()
        self._answer = b""
        monkeypatch.setattr(qdisc, "_dump", lambda: parse(NetlinkAnswer([self._answer], 1)))

    def answers(self, *messages: bytes, end: bytes = END) -> dict[str, dict[str, int]]:
        """Return what the reader makes of an answer: counters of the qdiscs by their names."""
        self._answer = b"".join(messages) + end
        rows = self.reader.read(NETNS).rows
        assert {(scope.netns, scope.interface) for scope in rows} <= {(NETNS, "lo")}
        return {str(scope.qdisc): dict(zip(row.names, row.values, strict=True)) for scope, row in rows.items()}

    def drops(self, *messages: bytes, end: bytes = END) -> dict[str, int]:
        """Return the same, drops alone."""
        return {name: row["drops"] for name, row in self.answers(*messages, end=end).items()}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel that answers as told."""
    return Kernel(monkeypatch)


def test_real_dump_equals_tc() -> None:
    """Of a real answer every number of each qdisc is the one that tc(8) showed, and so are handle and parent."""
    shown = json.loads((DATA / "tc.json").read_text())
    names = json.loads((DATA / "links.json").read_text())
    dump = parse(NetlinkAnswer([(DATA / "getqdisc").read_bytes()], 1))
    assert dump.faults == ()
    found = []
    for one in dump.qdiscs:
        parent = {"root": True} if one.parent == ROOT else {"parent": f"{one.parent >> 16:x}:{one.parent & 0xFFFF:x}"}
        numbers = ("bytes", "packets", "drops", "overlimits", "requeues", "backlog", "qlen")
        found.append(
            {"kind": one.kind, "handle": f"{one.handle >> 16:x}:", "dev": names[str(one.ifindex)]}
            | parent
            | {name: getattr(one, name) for name in numbers}
        )
    assert found == [
        {key: value for key, value in entry.items() if key in found[0] | {"parent": ""}} for entry in shown
    ]


def test_sum_of_a_real_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    """htb and the queue in its class count the same 19 packets, which were lost once; two more the filter dropped."""
    names = {int(index): name for index, name in json.loads((DATA / "links.json").read_text()).items()}
    monkeypatch.setattr(qdisc, "_dump", lambda: parse(NetlinkAnswer([(DATA / "getqdisc").read_bytes()], 1)))
    monkeypatch.setattr("pktdrop.counters.interfaces.names", lambda wanted: (names, []))
    rows = qdisc.QdiscReader().read(NETNS).rows
    drops = {(scope.interface, scope.qdisc): row.values[0] for scope, row in rows.items()}
    assert {place: number for place, number in drops.items() if number} == {
        ("eth0", "pfifo 10:"): 19,
        ("eth0", "clsact ffff:"): 2,
    }
    assert ("several", "pfifo_fast 0: parent 7:1") in drops


@pytest.mark.parametrize(
    ("handle", "parent", "name"),
    [
        (0x80010000, ROOT, "fq_codel 8001:"),
        (0, ROOT, "fq_codel 0:"),
        (0xFFFF0000, INGRESS, "fq_codel ffff:"),
        (0x00100000, 0x00010002, "fq_codel 10:"),
        (0, 0x00000003, "fq_codel 0: parent :3"),
        (0, 0x8002000A, "fq_codel 0: parent 8002:a"),
    ],
)
def test_names(handle: int, parent: int, name: str) -> None:
    """Handle and parent are written in hexadecimal as tc writes them; the parent where the handle is not unique."""
    (one,) = parse(NetlinkAnswer([told("fq_codel", handle, parent, 0) + END], 1)).qdiscs
    assert one.name == name


def test_all_columns(kernel: Kernel) -> None:
    """Each number is in its place."""
    row = kernel.answers(told("pfifo", 0x10000, ROOT, 7, packets=8))["pfifo 1:"]
    assert row == {"drops": 7, "overlimits": 5, "requeues": 4, "packets": 8, "bytes": 6}


def test_more_packets_than_32_bits_hold(kernel: Kernel) -> None:
    """The kernel adds the whole number where it does not fit."""
    assert kernel.answers(told("pfifo", 0x10000, ROOT, 0, 5, 2**32 + 5))["pfifo 1:"]["packets"] == 2**32 + 5


HTB = 0x10000


def tree(total: int, *below: int) -> list[bytes]:
    """htb 1: with a queue in each class."""
    queues = [told("pfifo", (0x10 + number) << 16, HTB + 1 + number, drops) for number, drops in enumerate(below)]
    return [told("htb", HTB, ROOT, total), *queues]


def test_parents_count_again(kernel: Kernel) -> None:
    """The drops of one with others below it are those that they do not have; what tc shows is there, too."""
    rows = kernel.answers(*tree(12, 3, 4))
    assert {name: row["drops"] for name, row in rows.items()} == {"htb 1:": 5, "pfifo 10:": 3, "pfifo 11:": 4}
    assert rows["htb 1:"]["tree_drops"] == 12
    assert "tree_drops" not in rows["pfifo 10:"]


def test_three_levels(kernel: Kernel) -> None:
    """A sum over all levels is what the topmost counts."""
    red = told("red", 0x20000, HTB + 1, 8)
    queue = told("pfifo", 0x30000, 0x20001, 6)
    assert kernel.drops(told("htb", HTB, ROOT, 11), queue, red) == {"htb 1:": 3, "red 2:": 2, "pfifo 3:": 6}


def test_a_reading_between_below_and_above(kernel: Kernel) -> None:
    """Where the kernel was read when it had counted below and not yet above, nothing falls, and nothing is lost."""
    assert kernel.drops(*tree(10, 4))["htb 1:"] == 6
    assert kernel.drops(*tree(10, 7))["htb 1:"] == 6
    assert kernel.drops(*tree(13, 7))["htb 1:"] == 6
    assert kernel.drops(*tree(15, 8))["htb 1:"] == 7


def test_a_queue_that_comes_and_goes(kernel: Kernel) -> None:
    """Nothing rises because a queue is added, taken out, or put in again by the same name; nothing falls either."""
    assert kernel.drops(*tree(5)) == {"htb 1:": 5}
    assert kernel.drops(*tree(5, 0))["htb 1:"] == 5
    assert kernel.drops(*tree(9, 4)) == {"htb 1:": 5, "pfifo 10:": 4}
    assert kernel.drops(*tree(9)) == {"htb 1:": 5}
    assert kernel.drops(*tree(9, 0)) == {"htb 1:": 5, "pfifo 10:": 0}
    assert kernel.drops(*tree(11, 2)) == {"htb 1:": 5, "pfifo 10:": 2}
    assert kernel.drops(*tree(14, 2)) == {"htb 1:": 8, "pfifo 10:": 2}


def test_another_one_with_the_same_name(kernel: Kernel) -> None:
    """Made anew, a qdisc counts from zero."""
    assert kernel.drops(*tree(9, 4))["htb 1:"] == 5
    assert kernel.drops(*tree(2, 1))["htb 1:"] == 1


@pytest.mark.parametrize("kind", ["mq", "mqprio", "cake_mq", "cbs"])
def test_kinds_that_drop_nothing(kernel: Kernel, kind: str) -> None:
    """What they count is what is below them counts, though a queue that goes takes its drops with it."""
    queues = [told("pfifo_fast", 0, number, 3) for number in (1, 2)]
    assert sum(kernel.drops(told(kind, 0, ROOT, 6), *queues).values()) == 6
    assert kernel.drops(told(kind, 0, ROOT, 8), *queues)[f"{kind} 0:"] == 0


def test_taprio(kernel: Kernel) -> None:
    """taprio does not count what is below it."""
    queue = told("pfifo_fast", 0, HTB + 1, 30)
    assert kernel.drops(told("taprio", HTB, ROOT, 6), queue)["taprio 1:"] == 6


def test_same_handle_on_two_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles are those of one interface."""
    answer = b"".join([*tree(9, 4), told("htb", HTB, ROOT, 7, ifindex=900), END])
    monkeypatch.setattr(qdisc, "_dump", lambda: parse(NetlinkAnswer([answer], 1)))
    monkeypatch.setattr("pktdrop.counters.interfaces.names", lambda wanted: ({LOOPBACK: "lo", 900: "other"}, []))
    rows = qdisc.QdiscReader().read(NETNS).rows
    assert [row.values[0] for row in rows.values()] == [5, 4, 7]


def test_an_interface_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone between its counters and its name, an interface is left out, and no limit: it is not there."""
    answer = told("pfifo", HTB, ROOT, 1, ifindex=2**31 - 1) + END
    monkeypatch.setattr(qdisc, "_dump", lambda: parse(NetlinkAnswer([answer], 1)))
    assert qdisc.QdiscReader().read(NETNS) == Reading({})


def test_a_malformed_qdisc(kernel: Kernel) -> None:
    """Whatever is below another may be missing: then it is not known what that one dropped, and later it is again."""
    assert kernel.drops(*tree(9, 4))["htb 1:"] == 5
    above, below = tree(12, 6)
    assert kernel.drops(above, told("pfifo", 0x100000, HTB + 1, 6, stats=b"")) == {}
    assert kernel.drops(above, below[:-4], end=b"") == {}
    assert kernel.drops(above, below) == {"htb 1:": 6, "pfifo 10:": 6}


@pytest.mark.parametrize(
    "bad",
    [
        message(NEWQDISC, b""),
        message(NEWQDISC, bytes(20)),
        message(NEWQDISC, bytes(20) + attribute(KIND, b"pfifo\0")),
        message(NEWQDISC, bytes(20) + attribute(STATS2, b"")),
        told("pfifo", HTB, ROOT, 1, stats=attribute(BASIC, bytes(16))),
        told("pfifo", HTB, ROOT, 1, stats=attribute(BASIC, bytes(16)) + attribute(QUEUE, bytes(19))),
        told("pfifo", HTB, ROOT, 1, stats=attribute(BASIC, bytes(11)) + attribute(QUEUE, bytes(20))),
        told("pfifo", HTB, ROOT, 1, stats=b"\xff" * 40),
    ],
)
def test_malformed_messages(bad: bytes) -> None:
    """A malformed message is left out and counted; the next one is there."""
    dump = parse(NetlinkAnswer([bad + told("pfifo", 0x20000, ROOT, 3) + END], 1))
    assert [one.drops for one in dump.qdiscs] == [3]
    assert dump.faults == (Limit("malformed-parts", number=1),)


def test_longer_structs() -> None:
    """A kernel may have appended members to a struct, and attributes."""
    stats = (
        attribute(BASIC, struct.pack("=QI20x", 1, 2)) + attribute(99, b"new") + attribute(QUEUE, bytes(8) + b"\3" * 24)
    )
    (one,) = parse(NetlinkAnswer([told("pfifo", HTB, ROOT, 0, stats=stats) + END], 1)).qdiscs
    assert (one.bytes, one.packets, one.drops) == (1, 2, 0x03030303)


def test_no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no socket can be had, the reading is empty and says why."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    both = qdisc.QdiscReader().read(NETNS)
    assert both.rows == both.gauges == {}
    assert sentences(both.limits) == [f"Queueing disciplines of network namespace {NETNS}: Operation not permitted."]


def test_forget(kernel: Kernel) -> None:
    """Of a namespace that was forgotten, nothing is remembered: neither which qdisc had others below it."""
    assert kernel.drops(*tree(9, 4))["htb 1:"] == 5
    kernel.reader.forget(NETNS)
    assert kernel.drops(*tree(9)) == {"htb 1:": 9}


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage(datagrams: list[bytes]) -> None:
    """Any bytes at all give no exception, and are not taken for a whole list."""
    assert parse(NetlinkAnswer(datagrams, 1)).faults


@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """A real answer with some bytes changed gives no exception, nor do the rows that are made of it."""
    answer = bytearray((DATA / "getqdisc").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    qdiscs = parse(NetlinkAnswer([bytes(answer)], 1)).qdiscs
    assert all(name_is_whole(one) for one in qdiscs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qdisc, "_dump", lambda: parse(NetlinkAnswer([bytes(answer)], 1)))
        patch.setattr("pktdrop.counters.interfaces.names", lambda wanted: ({one: str(one) for one in wanted}, []))
        reading = qdisc.QdiscReader().read(NETNS)
    assert all(len(row.names) == len(row.values) for row in reading.rows.values())


def name_is_whole(one: Qdisc) -> bool:
    """Whether a name has kind and handle."""
    return one.name.startswith(f"{one.kind} ") and ":" in one.name


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=8))
def test_sum_is_what_the_topmost_counts(steps: Iterable[tuple[int, list[int]]]) -> None:
    """Whatever drops where, and whichever queues are there: the sum of drops is each lost packet once; none falls."""
    with pytest.MonkeyPatch.context() as patch:
        kernel = Kernel(patch)
        own, below = 0, [0, 0, 0]
        before: dict[str, int] = {}
        for more, queues in steps:
            own += more
            for number, drops in enumerate(queues):
                below[number] += drops
            now = kernel.drops(*tree(own + sum(below), *below))
            assert now["htb 1:"] == own
            assert sum(now.values()) == own + sum(below)
            assert all(now[name] >= drops for name, drops in before.items())
            before = now
