# SPDX-License-Identifier: MIT
"""The other end of a link, packet by packet: a tun device whose user we are, so that no kernel answers for it."""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Scene
from pktdrop.demo.causes.parts import OPEN, Sink
from pktdrop.demo.net import Net, ipv4, ipv6, one_ns
from tests.kit.provoke.packets import ACK, SYN, Segment, timestamps

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # include/uapi/linux/if_tun.h
TUN = Scene(one_ns, "host", "tun0")
SUBNET, HOST, OTHER = 9, 1, 2


class Received(NamedTuple):
    """What the host has sent by TCP."""

    port: int
    seq: int
    ack: int
    flags: int
    window: int
    stamp: int
    """TSval, where there are timestamps (RFC 7323)."""


class Peer:
    """Sends to the host what we please, and takes what the host answers."""

    def __init__(self, net: Net, v6: bool) -> None:
        """Make the device in the namespace of the host."""
        self.net, self.v6 = net, v6
        self.host = net["host"]
        with self.host.entered():
            self._user = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            net.stack.callback(os.close, self._user)
            fcntl.ioctl(self._user, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        self.here, self.there = (ipv6(SUBNET, OTHER), ipv6(SUBNET, HOST)) if v6 else (ipv4(SUBNET, 2), ipv4(SUBNET, 1))
        prefix = "64" if v6 else "24"
        self.host.ip("link", "set", "dev", "tun0", "up")
        self.host.ip("address", "add", f"{self.there}/{prefix}", "dev", "tun0")
        if v6:
            self.host.wait_for_ipv6(self.there)
        self.sink = Sink(net, "host", v6)
        """An open UDP port of the host's."""

    def write(self, packet: bytes) -> int:
        """Send a packet; when this returns the host is done with it."""
        return os.write(self._user, packet)

    def ip(self, protocol: int, payload: bytes) -> int:
        """Send what an IP packet contains."""
        make = frames.ip6 if self.v6 else frames.ip4
        return self.write(make(self.here, self.there, protocol, payload))

    def udp(self) -> int:
        """Send a datagram to the open port."""
        return self.ip(frames.UDP, frames.udp(self.here, self.there, OPEN))

    def tcp(self, segment: Segment) -> None:
        """Send a segment; throw away what the host answers."""
        self.ip(frames.TCP, segment.bytes(self.here, self.there))
        self.drain()

    def ask(self, segment: Segment) -> Received:
        """Send a segment; return what the host answers by TCP."""
        self.drain()
        self.ip(frames.TCP, segment.bytes(self.here, self.there))
        answers = [answer for answer in self._received() if answer.port == segment.source_port]
        if not answers:
            raise ConnectionError("the host does not answer")
        return answers[-1]

    def drain(self) -> None:
        """Read all that the host has sent."""
        for _ in self._received():
            pass

    def _received(self) -> Iterator[Received]:
        while True:
            try:
                packet = os.read(self._user, 65536)
            except BlockingIOError:
                return
            start = 40 if packet[0] >> 4 == 6 else 4 * (packet[0] & 15)
            if packet[6 if packet[0] >> 4 == 6 else 9] == frames.TCP:
                _, port, seq, ack, length, flags, window = struct.unpack_from("!HHIIBBH", packet, start)
                yield Received(port, seq, ack, flags, window, _stamp(packet[start + 20 : start + 4 * (length >> 4)]))

    def listen(self, backlog: int = 100) -> socket.socket:
        """Open a TCP port of the host's: OPEN."""
        family = socket.AF_INET6 if self.v6 else socket.AF_INET
        listener = self.net.keep(self.host.socket(family, socket.SOCK_STREAM))
        listener.bind((self.there, OPEN))
        listener.listen(backlog)
        return listener


def _stamp(options: bytes) -> int:
    while options:
        if options[0] == 1:
            options = options[1:]
        elif options[0] == 8:
            return int.from_bytes(options[2:6], "big")
        elif len(options) < 2 or options[1] < 2:
            break
        else:
            options = options[options[1] :]
    return 0


class Connection:
    """An open TCP connection between the host and us."""

    STAMP = 1_000_000
    """Our clock (RFC 7323): it stands still."""

    def __init__(self, peer: Peer, stamped: bool = False, receive_buffer: int | None = None, port: int = 4000) -> None:
        """Shake hands."""
        self.peer, self.stamped = peer, stamped
        listener = peer.listen()
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.seq = 1_000
        first = Segment(port, OPEN, self.seq, flags=SYN, options=timestamps(self.STAMP, 0) if stamped else b"")
        answer = peer.ask(first)
        self.seq += 1
        self.ack, self._stamp = answer.seq + 1, answer.stamp
        self.window = answer.window
        """How much the host takes at first, in bytes."""
        self._port = port
        peer.tcp(self.segment())
        self.socket = peer.net.keep(listener.accept()[0])
        self.socket.setblocking(False)

    def segment(self, ahead: int = 0, payload: bytes = b"", older: int = 0, flags: int = ACK) -> Segment:
        """Return a segment that begins `ahead` of what the host expects next, with a time stamp `older` than ours."""
        options = timestamps(self.STAMP - older, self._stamp) if self.stamped else b""
        return Segment(
            self._port, OPEN, self.seq + ahead, self.ack, flags=flags, options=options, payload=payload, window=8192
        )

    def send(self, payload: bytes) -> None:
        """Send data as it should be."""
        self.peer.tcp(self.segment(payload=payload))
        self.seq += len(payload)
