# SPDX-License-Identifier: MIT
"""The answer of the kernel to an RTM_GETSTATS dump, and answers it should not give."""

import errno
import json
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import links
from pktdrop.counters.links import NAMES, parse
from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters/links-6.18.44"
# include/uapi/linux/netlink.h, rtnetlink.h
ERROR, DONE, NEWSTATS = 2, 3, 92
MULTI, INTERRUPTED = 0x2, 0x10


def message(kind: int, payload: bytes, flags: int = MULTI, sequence: int = 1) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def stats(ifindex: int, *values: int, flags: int = MULTI, sequence: int = 1) -> bytes:
    """Counters of one interface."""
    head = struct.pack("=BxHII", 0, 0, ifindex, 1)
    return message(NEWSTATS, head + attribute(1, struct.pack(f"={len(values)}Q", *values)), flags, sequence)


END = message(DONE, struct.pack("=i", 0))
ALL = tuple(range(100, 125))


def test_real_dump_equals_ip() -> None:
    """Of a real answer each counter of each interface is the one that ip(8) showed."""
    shown = json.loads((DATA / "ip.json").read_text())
    dump = parse(NetlinkAnswer([(DATA / "getstats").read_bytes()], 1))
    assert dump.faults == ()
    assert not dump.interrupted
    assert list(dump.rows) == [link["ifindex"] for link in shown]
    for link in shown:
        row = dict(zip(dump.rows[link["ifindex"]].names, dump.rows[link["ifindex"]].values, strict=True))
        received, sent = link["stats64"]["rx"], link["stats64"]["tx"]
        assert row == dict.fromkeys(NAMES, 0) | {
            "rx_packets": received["packets"],
            "tx_packets": sent["packets"],
            "rx_bytes": received["bytes"],
            "tx_bytes": sent["bytes"],
            "rx_errors": received["errors"],
            "tx_errors": sent["errors"],
            "rx_dropped": received["dropped"],
            "tx_dropped": sent["dropped"],
            "rx_frame_errors": received["frame_errors"],
            "tx_carrier_errors": sent["carrier_errors"],
            "rx_otherhost_dropped": received.get("otherhost", 0),
        }
    assert any(link["stats64"]["rx"].get("otherhost") for link in shown)


@pytest.mark.parametrize(("width", "last"), [(23, "tx_compressed"), (24, "rx_nohandler"), (25, "rx_otherhost_dropped")])
def test_older_kernels_have_fewer_counters(width: int, last: str) -> None:
    """A row has the counters that the kernel has, and no others."""
    (row,) = parse(NetlinkAnswer([stats(1, *ALL[:width]) + END], 1)).rows.values()
    assert row.names[-1] == last
    assert row.values == ALL[:width]


def test_newer_kernels_have_more_counters() -> None:
    """Counters that came after ours are left out, and that is said once."""
    dump = parse(NetlinkAnswer([stats(1, *ALL, 7, 8) + stats(2, *ALL, 7, 8) + END], 1))
    assert {row.values for row in dump.rows.values()} == {ALL}
    assert dump.faults == (Limit("more-counters", number=2),)


def test_many_parts_and_padding() -> None:
    """Interfaces of all parts are there, in the order of their indexes; padding is passed over."""
    head = struct.pack("=BxHII", 0, 0, 3, 1)
    padded = message(NEWSTATS, head + attribute(0, b"") + attribute(5, b"\1\2\3") + attribute(1, struct.pack("=Q", 9)))
    dump = parse(NetlinkAnswer([stats(7, *ALL) + padded, stats(5, *ALL), END], 1))
    assert dump.faults == ()
    assert list(dump.rows) == [3, 5, 7]
    assert dump.rows[3].values == (9,)


def test_largest_numbers() -> None:
    """Counters have 64 bits."""
    (row,) = parse(NetlinkAnswer([stats(1, *[2**64 - 1] * 25) + END], 1)).rows.values()
    assert set(row.values) == {2**64 - 1}


@pytest.mark.parametrize("where", ["message", "end"])
def test_interrupted_dump(where: str) -> None:
    """The kernel says so where the list may not be whole."""
    end = message(DONE, struct.pack("=i", 0), MULTI | INTERRUPTED) if where == "end" else END
    dump = parse(NetlinkAnswer([stats(1, *ALL, flags=MULTI | (INTERRUPTED if where == "message" else 0)) + end], 1))
    assert dump.interrupted
    assert len(dump.rows) == 1


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_errors_of_the_kernel(kind: int) -> None:
    """An error in place of an end is a fault; what came before stays."""
    dump = parse(NetlinkAnswer([stats(1, *ALL), message(kind, struct.pack("=i", -errno.EPERM))], 1))
    assert dump.faults == (Limit("refused", why=os.strerror(errno.EPERM)),)
    assert len(dump.rows) == 1


def test_answers_to_others_are_passed_over() -> None:
    """What has another sequence number is neither counted nor the end."""
    other = stats(2, *ALL, sequence=9) + message(DONE, b"", sequence=9)
    dump = parse(NetlinkAnswer([other + stats(1, *ALL) + END], 1))
    assert list(dump.rows) == [1]
    assert dump.faults == ()


def test_truncated() -> None:
    """Cut anywhere, an answer gives the interfaces before the cut and a fault."""
    one = len(stats(1, *ALL))
    whole = stats(1, *ALL) + stats(2, *ALL) + END
    for cut in range(len(whole)):
        dump = parse(NetlinkAnswer([whole[:cut]], 1))
        assert len(dump.rows) == cut // one
        assert dump.faults


def test_a_malformed_message_does_not_hide_the_next() -> None:
    """Half a counter, no counters or no ifindex: only that interface is missing."""
    half = message(NEWSTATS, struct.pack("=BxHII", 0, 0, 1, 1) + attribute(1, bytes(12)))
    none = message(NEWSTATS, struct.pack("=BxHII", 0, 0, 1, 1))
    short = message(NEWSTATS, bytes(4))
    dump = parse(NetlinkAnswer([half + none + short + stats(2, *ALL) + END], 1))
    assert list(dump.rows) == [2]
    assert dump.faults == (Limit("malformed-parts", number=3),)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage(datagrams: list[bytes]) -> None:
    """Any bytes at all give no exception, and are not taken for a whole list."""
    assert parse(NetlinkAnswer(datagrams, 1)).faults


@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """A real answer with some bytes changed gives no exception."""
    answer = bytearray((DATA / "getstats").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    for row in parse(NetlinkAnswer([bytes(answer)], 1)).rows.values():
        assert row.names == NAMES[: len(row.values)]


def test_no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no socket can be had, the reading is empty and says why."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    reading = links.read(Netns(4026531840, 1))[0]
    assert reading.rows == {}
    assert sentences(reading.limits) == ["Interface counters of network namespace 4026531840: Operation not permitted."]


@pytest.mark.parametrize(("dumps", "limits"), [((False,), 0), ((True, False), 0), ((True, True), 1)])
def test_an_interrupted_dump_is_repeated_once(
    monkeypatch: pytest.MonkeyPatch, dumps: tuple[bool, ...], limits: int
) -> None:
    """An interrupted dump is asked for again; if that is interrupted too, it is used and the reading says so."""
    left = list(dumps)
    monkeypatch.setattr(links, "_dump", lambda: links.LinkDump({}, left.pop(0)))
    assert len(links.read(Netns(4026531840, 1))[0].limits) == limits
    assert left == []


def test_an_interface_that_is_gone_has_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gone between its counters and its name, an interface is left out, and no limit: it is not there."""
    gone = 2**31 - 1
    loopback = socket.if_nametoindex("lo")
    row = links.Row(NAMES, ALL)
    monkeypatch.setattr(links, "_dump", lambda: links.LinkDump({loopback: row, gone: row}))
    reading = links.read(Netns(4026531840, 1))[0]
    assert [scope.interface for scope in reading.rows] == ["lo"]
    assert reading.limits == ()
