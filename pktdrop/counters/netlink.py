# SPDX-License-Identifier: MIT
"""Lists that the kernel gives over netlink: asking for them, and taking them apart, whatever is wrong with them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator

from pktdrop.model.limits import Limit

# include/uapi/linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
_CUT_OFF = (0, 0, 0, 0, 0)
"""Stands for a header of which not all is there."""
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_ERROR = struct.Struct("=i")
_LARGEST_ERROR = 2**31 - 1  # for strerror(3)
# The kernel makes a part of a dump no larger than 32 KiB (netlink_dump in net/netlink/af_netlink.c).
_RECEIVE = 1 << 16

NetlinkPiece = tuple[bytes, int, int]
"""A datagram, and where in it a payload begins and ends."""


class Netlink:
    """A netlink socket, of the network namespace this thread is in when it is opened."""

    def __init__(self, protocol: int) -> None:
        """Open the socket. Raises OSError if the kernel does not have the protocol."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def ask(self, kind: int, body: bytes) -> NetlinkAnswer:
        """Ask for a list: a message of a type, with what follows its header. Raises OSError, here or in the answer."""
        self._send(kind, _NLM_F_REQUEST | _NLM_F_DUMP, body)
        return NetlinkAnswer(self._parts(), self._sequence)

    def ask_one(self, kind: int, body: bytes) -> NetlinkAnswer:
        """Ask for one thing; the answer is one message with that thing, or an error. Raises OSError."""
        self._send(kind, _NLM_F_REQUEST, body)
        return NetlinkAnswer([self._socket.recv(_RECEIVE)], self._sequence)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _parts(self) -> Iterator[bytes]:
        while True:
            data, _, flags, _ = self._socket.recvmsg(_RECEIVE)
            yield data
            # The end may have been in what was cut off: waiting for more could be for ever.
            if flags & socket.MSG_TRUNC or not data:
                return


class NetlinkAnswer:
    """The list, to be gone through once with `messages`; then it is known what was wrong with it."""

    def __init__(self, datagrams: Iterable[bytes], sequence: int) -> None:
        """Take the parts of the answer, and the sequence number of the question."""
        self._datagrams = datagrams
        self._sequence = sequence
        self._ended = False
        self._short_error = False
        self.interrupted = False
        """Something came or went meanwhile: the list may lack it."""
        self.error = 0
        """Why the kernel refused the list or broke it off: an errno, or 0."""
        self.malformed = 0
        """Parts that were left out, here or by who read them."""

    def messages(self, wanted: int) -> Iterator[NetlinkPiece]:
        """Give the payload of each message of a type, up to the end of the list."""
        for data in self._datagrams:
            offset, size = 0, len(data)
            while offset < size:  # no generator of its own: there are thousands of messages in a look
                start = offset + _HEADER.size
                length, kind, flags, number, _ = _HEADER.unpack_from(data, offset) if start <= size else _CUT_OFF
                if length < _HEADER.size or offset + length > size:
                    self.malformed += 1
                    break
                end, offset = offset + length, offset + ((length + 3) & ~3)
                if number != self._sequence:
                    continue
                self.interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind == wanted:
                    yield data, start, end
                elif kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    self._ended = True
                    self._take_status(data, start, end, kind == _NLMSG_ERROR)
                    return

    def faults(self) -> list[Limit]:
        """Return what could not be read."""
        faults = []
        if self.error:
            faults.append(Limit("refused", why=os.strerror(self.error)))
        if self._short_error:
            faults.append(Limit("short-error"))
        if not self._ended:
            faults.append(Limit("endless"))
        if self.malformed:
            faults.append(Limit("malformed-parts", number=self.malformed))
        return faults

    def _take_status(self, data: bytes, start: int, end: int, is_error: bool) -> None:
        if end - start < _ERROR.size:  # the end of a dump tells nothing more on old kernels
            self._short_error = is_error
            return
        (code,) = _ERROR.unpack_from(data, start)
        self.error = max(0, min(-code, _LARGEST_ERROR))


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give type, begin and end of the payload of each attribute. Raises ValueError at one that is malformed."""
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > end:
            raise ValueError("an attribute is longer than its message")
        yield kind & _NLA_TYPE_MASK, start + _ATTRIBUTE.size, start + length
        start += (length + 3) & ~3
