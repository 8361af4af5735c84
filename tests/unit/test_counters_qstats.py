# SPDX-License-Identifier: MIT
"""Statistics by the kernel's own names: the bytes of its answers, and the answer of this host.

Bytes are packed here by hand after include/uapi/linux/netlink.h, genetlink.h and netdev.h.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import qstats
from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.model.counters import Reading
from pktdrop.model.limits import Limit
from pktdrop.views.limits import sentences

FAMILY = 27
DONE, ERROR = 3, 2


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def message(kind: int, payload: bytes) -> bytes:
    """One netlink message, the answer to question 1."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, 0) + payload


def qstats_message(*attributes: bytes) -> bytes:
    """An answer of the family: the generic header (command, version, reserved), then attributes."""
    return message(FAMILY, struct.pack("=BBH", 12, 1, 0) + b"".join(attributes))


END = message(DONE, struct.pack("=i", 0))
IFINDEX_2 = attribute(1, struct.pack("=I", 2))


def test_qstats_of_a_queue() -> None:
    """Attributes of 4 and 8 bytes are numbers; one newer than the table keeps its number."""
    queue = qstats_message(
        IFINDEX_2,
        attribute(2, struct.pack("=I", 0)),
        attribute(3, struct.pack("=I", 5)),
        attribute(12, struct.pack("=I", 6)),
        attribute(14, struct.pack("=Q", 2**40)),
        attribute(99, struct.pack("=Q", 8)),
        attribute(13, b"odd"),
    )
    counters = {"qstats.rx_alloc_fail": 6, "qstats.rx_hw_drop_overruns": 2**40, "qstats.attribute_99": 8}
    assert qstats.parse(NetlinkAnswer([queue + END], 1), FAMILY) == [(2, 5, counters)]


def test_what_names_no_interface_or_has_no_counter_is_nothing() -> None:
    """Neither a counter of nobody nor an interface without any becomes a row."""
    nobody, nothing = qstats_message(attribute(12, struct.pack("=I", 6))), qstats_message(IFINDEX_2)
    assert qstats.parse(NetlinkAnswer([nobody + nothing + END], 1), FAMILY) == []


def test_a_malformed_attribute_is_told() -> None:
    """A message that cannot be taken apart is left out and counted, those behind it are not."""
    answer = NetlinkAnswer([qstats_message(struct.pack("=HH", 99, 1)) + qstats_message(IFINDEX_2, IFINDEX_2) + END], 1)
    assert qstats.parse(answer, FAMILY) == []
    assert answer.faults() == [Limit("malformed-parts", number=1)]


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_garbage_raises_nothing(datagrams: list[bytes]) -> None:
    """Whatever the bytes: no exception, and no counter without a name."""
    datagrams = [*datagrams, qstats_message(*datagrams)]
    for _, _, counters in qstats.parse(NetlinkAnswer(datagrams, 1), FAMILY):
        assert counters


# ------------------------------------------------------------------------------------------------------- this host


def test_loopback_has_none() -> None:
    """The loopback device has no queue statistics, which is no fault; nor is a kernel without the family."""
    family = qstats.family()
    if family is not None:
        assert qstats.read(family, None, ["lo"]) == Reading({})


def test_a_family_that_is_not_there_is_told() -> None:
    """A number that no family has is an error of the kernel, said once although two lists are asked for."""
    read = qstats.read(0x3FF, None, ["lo"])
    assert read.rows == {}
    assert sentences(read.limits) == [f"netdev qstats: {os.strerror(errno.ENOENT)}."]


def test_nothing_stays_open() -> None:
    """After a reading no socket is left: it would keep a deleted namespace alive."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    qstats.read(qstats.family() or 0x3FF, None, ["lo"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
