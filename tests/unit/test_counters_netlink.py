# SPDX-License-Identifier: MIT
"""Lists from the kernel, and answers it should not give."""

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters.netlink import NetlinkAnswer, attributes
from pktdrop.model.limits import Limit

# include/uapi/linux/netlink.h
ERROR, DONE = 2, 3
INTERRUPTED = 0x10
WANTED, OTHER = 77, 78


def message(kind: int, payload: bytes, flags: int = 0, sequence: int = 1) -> bytes:
    """One netlink message, padded."""
    data = struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload
    return data + bytes(-len(data) % 4)


END = message(DONE, struct.pack("=i", 0))


def gone_through(*datagrams: bytes) -> tuple[list[bytes], NetlinkAnswer]:
    """Give the payloads of the messages that are wanted, and what is known after them."""
    answer = NetlinkAnswer(datagrams, 1)
    return [data[start:end] for data, start, end in answer.messages(WANTED)], answer


def test_messages() -> None:
    """Wanted messages of all parts are there in their order; others, and those to other questions, are passed over."""
    parts = (
        message(WANTED, b"a") + message(OTHER, b"b") + message(WANTED, b"c", sequence=9),
        message(WANTED, b"defgh") + message(DONE, b"", sequence=9) + message(WANTED, b"") + END,
    )
    payloads, answer = gone_through(*parts)
    assert payloads == [b"a", b"defgh", b""]
    assert answer.faults() == []
    assert not answer.interrupted


def test_nothing_is_read_after_the_end() -> None:
    """What follows the end belongs to no list, and no further part is waited for."""
    payloads, answer = gone_through(END + message(WANTED, b"late"), message(WANTED, b"later"))
    assert payloads == []
    assert answer.faults() == []


@pytest.mark.parametrize("kind", [ERROR, DONE])
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOENT])
def test_refused(kind: int, code: int) -> None:
    """Why the kernel refused is known as a number and in words."""
    payloads, answer = gone_through(message(WANTED, b"a") + message(kind, struct.pack("=i", -code)))
    assert payloads == [b"a"]
    assert answer.error == code
    assert answer.faults() == [Limit("refused", why=os.strerror(code))]


def test_smallest_error() -> None:
    """The smallest number there is in the place of an error is one, too."""
    assert gone_through(message(ERROR, struct.pack("=i", -(2**31))))[1].faults()


def test_a_short_error() -> None:
    """An error without a number is said; an end without one is an end."""
    assert gone_through(message(ERROR, b""))[1].faults() == [Limit("short-error")]
    assert gone_through(message(DONE, b""))[1].faults() == []


def test_interrupted() -> None:
    """The kernel marks a list that may lack something."""
    assert gone_through(message(WANTED, b"", INTERRUPTED) + END)[1].interrupted
    assert gone_through(message(DONE, b"", INTERRUPTED))[1].interrupted


def test_cut_off() -> None:
    """Cut anywhere, a list gives the messages before the cut and a fault."""
    one = len(message(WANTED, b"1234"))
    whole = message(WANTED, b"1234") * 2 + END
    for cut in range(len(whole)):
        payloads, answer = gone_through(whole[:cut])
        assert len(payloads) == cut // one
        assert answer.faults()


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage(datagrams: list[bytes]) -> None:
    """Any bytes at all give no exception, and are not taken for a whole list."""
    assert gone_through(*datagrams)[1].faults()


def test_attributes() -> None:
    """Types are without flags, payloads without padding."""
    data = b"head" + struct.pack("=HH1s3x", 5, 3, b"a") + struct.pack("=HH4s", 8, 0x8004, b"bcde") + b"xy"
    found = [(kind, data[begin:end]) for kind, begin, end in attributes(data, 4, len(data))]
    assert found == [(3, b"a"), (4, b"bcde")]


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_malformed_attributes(length: int) -> None:
    """An attribute shorter than its header or longer than its message is refused."""
    with pytest.raises(ValueError, match="longer than its message"):
        list(attributes(struct.pack("=HH4s", length, 1, b"abcd"), 0, 8))
