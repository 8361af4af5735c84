# SPDX-License-Identifier: MIT
"""Packet sockets as sock_diag lists them, and what a diagnosis says of the copies they dropped."""

from __future__ import annotations

import struct

from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.counters.packets import parse
from pktdrop.model.counters import Scope
from tests.unit.accounts import HOST, judge, make_account
from tests.unit.make import make_drop


def _message(inode: int, index: int, drops: int, kind: int = 20) -> bytes:
    """A socket as packet_diag writes it: net/packet/diag.c sk_diag_fill, sock_diag_put_meminfo."""
    info = struct.pack("=HHIIIIII", 28, 0, index, 0, 0, 0, 0, 0)
    memory = struct.pack("=HH9I", 40, 6, 1, 212992, 0, 0, 0, 0, 0, 0, drops)
    body = struct.pack("=BBHIII", 17, 3, 3, inode, 5, 0) + info + memory
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 7, 0) + body


_DONE = struct.pack("=IHHIIi", 20, 3, 2, 7, 0, 0)


def test_sockets_that_dropped_are_found() -> None:
    """Interface, inode and drops; one that dropped nothing is left out, one cut short is counted."""
    answer = NetlinkAnswer([_message(812, 2, 3244) + _message(813, 0, 0) + _message(814, 0, 9) + _DONE], 7)
    assert parse(answer) == [(2, 812, 3244), (0, 814, 9)]
    assert list(answer.faults()) == []


def test_copies_are_named_and_not_counted_as_lost() -> None:
    """A capture that is too slow has lost copies, this host has lost nothing."""
    scope = Scope(netns=HOST, socket="packet eth0 ino:812")
    diagnosis = judge(make_account({}, {"packet_socket": {scope: {"drops": 3244}}}))
    assert diagnosis.lost == 0
    assert [(one.reason, one.packets) for one in diagnosis.noise] == [("packet_socket.drops", 3244)]
    assert "packets went on" in diagnosis.noise[0].why


def test_copies_with_an_event_are_told_once() -> None:
    """What the events of a capture tell is not told by its counter as well: only what is beyond them."""
    scope = Scope(netns=HOST, socket="packet * ino:1")
    copy = make_drop(reason="PACKET_SOCK_ERROR", call_site="tpacket_rcv+0x1")
    diagnosis = judge(make_account({copy: 3000}, {"packet_socket": {scope: {"drops": 3244}}}))
    assert [(one.reason, one.packets) for one in diagnosis.noise] == [
        ("PACKET_SOCK_ERROR", 3000),
        ("packet_socket.drops", 244),
    ]
    assert diagnosis.lost == 0
