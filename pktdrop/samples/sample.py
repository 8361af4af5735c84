# SPDX-License-Identifier: MIT
"""One sampled packet: a copy of its beginning, as the kernel had it when it was dropped."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pktdrop.model import OTHER_PROTOCOL, DropKey

if TYPE_CHECKING:
    from pktdrop.samples.packet import Packet

ETHERNET_TYPES = frozenset({1, 772, 801, 802, 803})
"""ARPHRD_* of devices with Ethernet headers: Ethernet itself, loopback; include/uapi/linux/if_arp.h."""
_ETHERNET_HEADER = 14
_LONGEST_HEADER = 64
"""Bytes that VLAN tags and the like may make of it."""


class Socket(NamedTuple):
    """The socket that a packet was for, or came from, as far as the kernel knew. None: not known, or none."""

    family: int
    """AF_*."""
    local_port: int | None
    remote_port: int | None
    protocol: int | None
    """IPPROTO_*."""
    state: int
    """TCP_* of include/net/tcp_states.h; other protocols use some of them."""
    inode: int | None
    cgroup: int | None
    is_receiver: bool = False
    """The kernel says that the packet was for it; else it may be the one that the packet came from."""


class Owner(NamedTuple):
    """A process that has a socket open."""

    pid: int
    comm: str
    is_receiver: bool = True
    """The packet was for it; else it came from it."""

    def __str__(self) -> str:
        """Return "for dnsmasq[812]", or "from dnsmasq[812]"."""
        return f"{'for' if self.is_receiver else 'from'} {self.comm}[{self.pid}]"


@dataclass
class Sample:
    """A packet, and the kind of drop that it was counted as."""

    time: float
    """Wall clock, seconds since the epoch."""
    key: DropKey
    content: bytes
    """The packet's beginning: from its MAC header on, if it has one, else from its network header."""
    length: int
    """Of the whole packet from there on, in bytes."""
    has_mac: bool
    network: int
    """Offset of the network header in `content`; the kernel may not have got so far, then it means nothing."""
    device_type: int | None
    """ARPHRD_*, None: not known."""
    received: bool
    """Whether it came in by an interface; else it was sent from here, or did not get far enough to tell."""
    tag: int | None
    """VLAN that the device took out of the frame."""
    socket: Socket | None
    owner: Owner | None = None
    """Looked for after it was taken, so it may be gone; None: not known."""

    @cached_property
    def is_frame(self) -> bool:
        """Whether `content` begins with an Ethernet header."""
        if not self.has_mac or (self.device_type is not None and self.device_type not in ETHERNET_TYPES):
            return False
        # behind the header, or not set yet, which is a number from a packet that was there before or far below
        return self.network >= _ETHERNET_HEADER or self.network < 0

    @cached_property
    def is_for_socket(self) -> bool:
        """Whether the packet was for the socket that is known; else it came from that."""
        if self.socket is None or self.socket.is_receiver:
            return self.socket is not None
        port, packet = self.socket.local_port, self.packet
        return self.received and port is not None and port == packet.destination_port != packet.source_port

    @cached_property
    def packet(self) -> "Packet":
        """What is in it."""
        from pktdrop.samples.packet import decode, decode_frame  # not needed before there is one

        if self.is_frame:
            return decode_frame(self.content, self.tag)
        protocol = 0 if self.key.protocol == OTHER_PROTOCOL else self.key.protocol
        return decode(self.content[self.start :], protocol, self.tag)

    @property
    def start(self) -> int:
        """Where in `content` the network header is, of what is no frame."""
        return self.network if 0 <= self.network <= _LONGEST_HEADER else 0


Ethertype = Callable[[int], str]
"""Gives the name of an ethertype."""


def endpoint(address: str, port: int | None) -> str:
    """Write an address with its port: "10.0.0.5:53", "[fe80::1]:53"."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def peers(packet: "Packet") -> str | None:
    """Write from where to where a packet is: "10.0.0.5:43210 > 10.0.0.9:8125"; by MAC addresses if it has no others."""
    if packet.source is not None and packet.destination is not None:
        source = endpoint(packet.source, packet.source_port)
        return f"{source} > {endpoint(packet.destination, packet.destination_port)}"
    if packet.link_source is not None and packet.link_destination is not None:
        return f"{packet.link_source} > {packet.link_destination}"
    return None


def describe(packet: "Packet", ethertype: Ethertype) -> str:
    """Write a packet in a line: "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B"."""
    return _known(packet, ethertype) or "no network packet"


def _known(packet: "Packet", ethertype: Ethertype) -> str:
    parts = [peers(packet), *_kind(packet, ethertype)]
    if packet.fragment is not None:
        parts.append(f"fragment at {packet.fragment}")
    if packet.payload is not None:
        parts.append(f"{packet.payload} B")
    if packet.vlans:
        parts.append("VLAN " + ".".join(map(str, packet.vlans)))
    text = " ".join(part for part in parts if part)
    if packet.inner is not None and (inner := _known(packet.inner, ethertype)):
        text += f" ({inner})"
    return text


def _kind(packet: "Packet", ethertype: Ethertype) -> list[str]:
    if packet.protocol is None:
        return [] if packet.ethertype is None else [ethertype(packet.ethertype)]
    what = packet.what if packet.what != packet.protocol else None
    return [packet.protocol, *(["+".join(packet.flags)] if packet.flags else []), *([what] if what else [])]
