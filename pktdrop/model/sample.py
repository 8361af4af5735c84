# SPDX-License-Identifier: MIT
"""One sampled packet: a copy of its beginning, as the kernel had it when it was dropped."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pktdrop.model.container import Container
from pktdrop.model.drops import OTHER_PROTOCOL, DropKey

if TYPE_CHECKING:
    from pktdrop.model.packet import Packet

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
    """TCP_* of include/net/tcp_states.h; protocols other than TCP use some of these."""
    inode: int | None
    cgroup: int | None
    is_receiver: bool = False
    """Whether the kernel says that the packet was for this socket; else the packet may have come from it."""


class Owner(NamedTuple):
    """A process that has a socket open."""

    pid: int
    comm: str
    is_receiver: bool = True
    """Whether the packet was for this process; else the packet came from it."""

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
    """Beginning of the packet: from its MAC header on if it has one, else from its network header."""
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
    """A process that had the socket open after the packet was dropped; None: not known, or gone by then."""
    stack: tuple[str, ...] = ()
    """Return addresses in the kernel from the call site on, by symbol; none where they were not asked for."""
    container: Container | None = None
    """What that process runs in, or the socket was made in."""

    @cached_property
    def is_frame(self) -> bool:
        """Whether `content` begins with an Ethernet header."""
        if not self.has_mac or (self.device_type is not None and self.device_type not in ETHERNET_TYPES):
            return False
        # behind the header, or not set yet, which is a number from a packet that was there before or far below
        return self.network >= _ETHERNET_HEADER or self.network < 0

    @cached_property
    def is_for_socket(self) -> bool:
        """Whether the packet was for `socket`; else the packet came from that socket."""
        if self.socket is None or self.socket.is_receiver:
            return self.socket is not None
        port = self.socket.local_port
        if port is None or not self.received:  # what is in it need not be known
            return False
        return port == self.packet.destination_port != self.packet.source_port

    @property
    def whose(self) -> str | None:
        """Return "for statsd[812] (pod shop/cart-7f9)"; without a process "for pod shop/cart-7f9"; None: not known."""
        container = self.container if self.container is not None and self.container.tells else None
        if self.owner is not None:
            return str(self.owner) if container is None else f"{self.owner} ({container})"
        return None if container is None else f"{'for' if self.is_for_socket else 'from'} {container}"

    @cached_property
    def packet(self) -> "Packet":
        """The packet, taken apart."""
        from pktdrop.model.packet import decode, decode_frame  # not needed before there is one

        if self.is_frame:
            return decode_frame(self.content, self.tag)
        protocol = 0 if self.key.protocol == OTHER_PROTOCOL else self.key.protocol
        return decode(self.content[self.start :], protocol, self.tag)

    @property
    def start(self) -> int:
        """Where in `content` the network header is, of what is no frame."""
        return self.network if 0 <= self.network <= _LONGEST_HEADER else 0
