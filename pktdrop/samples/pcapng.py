# SPDX-License-Identifier: MIT
"""Samples as a capture file that Wireshark opens: pcapng (draft-ietf-opsawg-pcapng), in this machine's byte order."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pktdrop.model.drops import Netns
from pktdrop.model.packet import IPV4, IPV6
from pktdrop.model.sample import Sample
from pktdrop.text.escaping import safe

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_END, _COMMENT = 0, 1
_APPLICATION, _NAME = 4, 2  # shb_userappl, if_name
_FLAGS, _DROPPED = 2, 4  # epb_flags, epb_dropcount
_INBOUND, _OUTBOUND = 1, 2
_SNAPLEN = 0  # no limit
# LINKTYPE_ETHERNET, LINKTYPE_RAW (IP without anything before it), LINKTYPE_LINUX_SLL: www.tcpdump.org/linktypes.html
_ETHERNET, _RAW, _COOKED = 1, 101, 113
_COOKED_HEADER = struct.Struct("!HHH8xH")
_NO_ADDRESS = 0
_TAG = struct.Struct("!HH")
_TAGGED, _ADDRESSES = 0x8100, 12


class _Wire(NamedTuple):
    """What has an interface of its own in the file."""

    netns: Netns | None
    interface: str
    link: int


class Frame(NamedTuple):
    """A sample in the form that the capture file has it."""

    link: int
    content: bytes
    length: int


def frame(sample: Sample) -> Frame:
    """Return the bytes of a sample under a link type that says what they begin with.

    A VLAN tag that a device took out is put back. What is neither a frame nor IP gets a header with its ethertype.
    """
    if sample.is_frame:
        if sample.tag is None or len(sample.content) < _ADDRESSES:
            return Frame(_ETHERNET, sample.content, sample.length)
        first, rest = sample.content[:_ADDRESSES], sample.content[_ADDRESSES:]
        return Frame(_ETHERNET, first + _TAG.pack(_TAGGED, sample.tag) + rest, sample.length + _TAG.size)
    start = sample.start
    content, length = sample.content[start:], max(sample.length - start, 0)
    ethertype = sample.packet.ethertype or 0
    if ethertype in (IPV4, IPV6):
        return Frame(_RAW, content, length)
    kind = 0 if sample.received else 4  # to this host, or from it: include/uapi/linux/if_packet.h
    header = _COOKED_HEADER.pack(kind, sample.device_type or 0, _NO_ADDRESS, ethertype)
    return Frame(_COOKED, header + content, length + len(header))


class Pcapng:
    """Makes the blocks of one file, in order."""

    def __init__(self) -> None:
        """Start without interfaces."""
        self._wires: dict[_Wire, int] = {}

    def header(self, application: str) -> bytes:
        """Return how the file begins."""
        body = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1)
        return _block(_SECTION, body, [(_APPLICATION, _text(application))])

    def packet(self, sample: Sample, interface: str, netns: str, comment: str, dropped: int = 0) -> Iterator[bytes]:
        """Yield the block of a packet, after that of its interface where it is the first there.

        `dropped` is how many packets of that interface were dropped before it, since the one before, and not sampled.
        """
        found = frame(sample)
        wire = _Wire(sample.key.netns, interface, found.link)
        if wire not in self._wires:
            self._wires[wire] = len(self._wires)
            name = (_NAME, _text(f"{interface} ({netns})"))
            yield _block(_INTERFACE, struct.pack("=HHI", found.link, 0, _SNAPLEN), [name])
        moment = round(sample.time * 1e6)  # microseconds, if nothing else is said; a float has no more
        body = struct.pack(
            "=IIIII", self._wires[wire], moment >> 32, moment & 0xFFFFFFFF, len(found.content), found.length
        )
        direction = _INBOUND if sample.received else _OUTBOUND if sample.socket and not sample.is_for_socket else 0
        options = [(_COMMENT, _text(comment)), (_FLAGS, struct.pack("=I", direction))]
        if dropped:
            options.append((_DROPPED, struct.pack("=Q", dropped)))
        yield _block(_PACKET, body + _padded(found.content), options)


def _text(text: str) -> bytes:
    return safe(text).encode("utf-8", "backslashreplace")


def _block(kind: int, body: bytes, options: Sequence[tuple[int, bytes]]) -> bytes:
    end = _options(options)
    length = struct.pack("=I", 12 + len(body) + len(end))
    return struct.pack("=I", kind) + length + body + end + length


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [struct.pack("=HH", code, len(value[:0xFFFF])) + _padded(value[:0xFFFF]) for code, value in options]
    return b"".join([*parts, struct.pack("=HH", _END, 0)])


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
