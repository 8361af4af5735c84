# SPDX-License-Identifier: MIT
"""What causes are built of: sockets, frames on a wire, witnesses, and the scenes of losses."""

import ctypes
import socket
import struct
from collections.abc import Callable

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Scene
from pktdrop.demo.net import Net, ipv4, ipv6, mac, one_ns, three_ns, two_ns

CLOSED, OPEN, FULL = 9, 4007, 4008
"""Ports: nobody listens, somebody does, somebody whose buffer is full."""
LARGE = b"x" * 1450
"""What of a packet to send: it leaves a shaper no tokens for another, of 1 byte/s, for 20 minutes."""
NOWHERE = {False: "198.51.100.1", True: "2001:db8::1"}
"""Addresses that no namespace has or has a route to (RFC 5737, RFC 3849)."""
SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
BOTH = (4, 6)
"""Versions of IP."""

LO = Scene(one_ns, "host", "lo")
SERVER = Scene(two_ns, "server", "eth0")
CLIENT = Scene(two_ns, "client", "eth0")
ROUTER = Scene(three_ns, "router", "west")


class Sink:
    """An open UDP port that counts what it receives; it never runs full of a few packets."""

    def __init__(self, net: Net, role: str, v6: bool) -> None:
        """Bind to OPEN in the namespace of a role."""
        self._socket = udp_socket(net, role, v6)
        self._socket.bind(("", OPEN))
        self._socket.setblocking(False)
        self._received = 0

    def received(self) -> int:
        """Read all there is; return how many packets came so far."""
        while True:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return self._received
            self._received += 1


def udp_socket(net: Net, role: str, v6: bool) -> socket.socket:
    """Open a UDP socket in the namespace of a role."""
    return net.keep(net[role].socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM))


def wire(net: Net, role: str, interface: str) -> socket.socket:
    """Open a socket that sends whole frames out of an interface."""
    raw = net.keep(net[role].socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    raw.bind((interface, 0))
    return raw


class Wire:
    """Frames from the client to whoever is at the other end of its eth0, addressed to `destination`."""

    def __init__(self, net: Net, v6: bool, subnet: int, source: int, hop: int, destination: str) -> None:
        """Name the ends by the address plan: client is (subnet, source), the next hop (subnet, hop)."""
        self.v6 = v6
        self.source = ipv6(subnet, source) if v6 else ipv4(subnet, source)
        self.destination = destination
        self.macs = (mac(subnet, hop), mac(subnet, source))
        self._raw = wire(net, "client", "eth0")

    def ip(
        self,
        protocol: int,
        payload: bytes,
        destination: str | None = None,
        hops: int = 64,
        df: bool = False,
        wrong: int = 0,
    ) -> Callable[[], int]:
        """Return a function that sends one IP packet around the payload; IPv6 has neither `df` nor a checksum."""
        ends = (self.source, destination or self.destination)
        if self.v6:
            return self.frame(*self.macs, frames.ETH_P_IPV6, frames.ip6(*ends, protocol, payload, hops=hops))
        packet = frames.ip4(*ends, protocol, payload, ttl=hops, df=df, wrong=wrong)
        return self.frame(*self.macs, frames.ETH_P_IP, packet)

    def udp(
        self,
        port: int,
        size: int = 8,
        wrong: int = 0,
        destination: str | None = None,
        hops: int = 64,
        df: bool = False,
    ) -> Callable[[], int]:
        """Return a function that sends one UDP datagram of `size` bytes of data."""
        payload = frames.udp(self.source, destination or self.destination, port, b"x" * size, wrong=wrong)
        return self.ip(frames.UDP, payload, destination, hops, df)

    def frame(self, destination: str, source: str, ethertype: int, payload: bytes) -> Callable[[], int]:
        """Return a function that sends one frame."""
        data = frames.ethernet(destination, source, ethertype, payload)
        return lambda: self._raw.send(data)


def to_server(net: Net, v6: bool) -> tuple[Wire, Sink]:
    """In two_ns: the wire from client to server, and an open port at its end."""
    return Wire(net, v6, 0, 1, 2, ipv6(0, 2) if v6 else ipv4(0, 2)), Sink(net, "server", v6)


def through_router(net: Net, v6: bool) -> tuple[Wire, Sink]:
    """In three_ns: the wire from client to router, addressed to the server behind it, and an open port there."""
    return Wire(net, v6, 1, 2, 1, ipv6(2, 2) if v6 else ipv4(2, 2)), Sink(net, "server", v6)


def mib(net: Net, role: str, name: str, name6: str, v6: bool) -> Callable[[], int]:
    """Return a function that reads an SNMP counter, which has another name for IPv6."""
    return lambda: net[role].mib(name6 if v6 else name)


def filled(send: Callable[[], object], dropped: Callable[[], int]) -> Callable[[], bool]:
    """Return a condition to wait for: that one more packet is one too many."""

    def full() -> bool:
        send()
        return dropped() > 0

    return full


def refuse_all(refusing: socket.socket) -> None:
    """Attach a classic BPF filter that takes no packet."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: 0 bytes
    refusing.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(instruction))
    )  # struct sock_fprog
