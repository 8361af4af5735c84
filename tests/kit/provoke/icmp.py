# SPDX-License-Identifier: MIT
"""ICMP messages that are not acted on."""

import struct

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import OPEN, SERVER, to_server
from pktdrop.demo.net import Net
from tests.kit.provoke.packets import header4, icmp, payload

UNREACHABLE, ECHO, UNKNOWN = 3, 8, 200


def _message(net: Net, message: bytes, counter: str, destination: str | None = None) -> Traffic:
    line, sink = to_server(net, False)
    packet = frames.ip4(line.source, destination or line.destination, frames.ICMP, message)
    return Traffic(payload(line, packet), lambda: net["server"].mib(counter), line.udp(OPEN), sink.received)


@cause("IP_INHDR", "icmp_rcv", short="icmphead", at=SERVER, counters=("mib.IcmpInErrors",))
def icmp_about_bad_header(net: Net, v6: bool) -> Traffic:
    """An ICMP error about a packet whose header is shorter than it must be."""
    inner = bytes([0x44]) + header4("10.7.0.2", "10.7.0.1", frames.UDP, b"x" * 8)[1:]
    return _message(net, icmp(UNREACHABLE, 1, b"\0\0\0\0" + inner), "IcmpInErrors")


@cause("NOT_SPECIFIED", "icmp_rcv", short="icmpcut", at=SERVER, bounds=("mib.IcmpInErrors",))
def icmp_about_nothing(net: Net, v6: bool) -> Traffic:
    """An ICMP error that has nothing of the packet that it is about."""
    return _message(net, icmp(UNREACHABLE, 1, b"\0\0\0\0"), "IcmpInErrors")


@cause("INVALID_PROTO", "icmp_rcv", short="icmpbcast", at=SERVER, counters=("mib.IcmpInErrors",))
def ping_of_all(net: Net, v6: bool) -> Traffic:
    """A ping of all hosts of a network, which the host does not answer."""
    net["server"].sysctl(ipv4__icmp_echo_ignore_broadcasts=1)
    return _message(net, icmp(ECHO, 0, struct.pack("!HH", 1, 1)), "IcmpInErrors", "10.7.0.255")


@cause("UNHANDLED_PROTO", "icmp_rcv", short="icmptype", at=SERVER, counters=("mib.IcmpInErrors",))
def icmp_of_unknown_type(net: Net, v6: bool) -> Traffic:
    """An ICMP message of a type that nobody knows."""
    return _message(net, icmp(UNKNOWN, 0, b"\0\0\0\0"), f"IcmpMsgInType{UNKNOWN}")


CAUSES = (*icmp_about_bad_header, *icmp_about_nothing, *ping_of_all, *icmp_of_unknown_type)
