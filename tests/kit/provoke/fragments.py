# SPDX-License-Identifier: MIT
"""Fragments that are not put together."""

from itertools import count

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, OPEN, SERVER, Wire, mib, to_server
from pktdrop.demo.net import Net
from tests.kit.provoke.packets import FRAGMENT6, fragment6, header4, payload

MORE = 0x2000  # IP_MF, include/net/ip.h


def fragment(line: Wire, ident: int, offset: int, data: bytes, more: bool = True) -> bytes:
    """Return one fragment of a UDP datagram to nobody; `offset` in bytes."""
    if line.v6:
        part = fragment6(frames.UDP, data, ident=ident, offset=offset, more=more)
        return frames.ip6(line.source, line.destination, FRAGMENT6, part)
    flags = (MORE if more else 0) | offset // 8
    return header4(line.source, line.destination, frames.UDP, data, ident=ident, fragment=flags)


@cause(
    "NOT_SPECIFIED", "ip_defrag", "ipv6_frag_rcv", short="fragmem", at=SERVER, versions=BOTH,
    bounds=("mib.IpReasmFails",), bounds6=("mib.Ip6ReasmFails",),
)  # fmt: skip
def fragments_too_many(net: Net, v6: bool) -> Traffic:
    """A fragment when those that wait already take all memory there may be for them."""
    line, sink = to_server(net, v6)
    limits = {f"{'ipv6__ip6' if v6 else 'ipv4__ip'}frag_{limit}_thresh": 0 for limit in ("low", "high")}
    net["server"].sysctl(**limits)
    idents = count(1)
    return Traffic(
        lose=lambda: payload(line, fragment(line, next(idents), 0, b"x" * 64))(),
        lost=mib(net, "server", "IpReasmFails", "Ip6ReasmFails", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("DUP_FRAG", "ip_frag_queue", "ip6_frag_queue", "ip_defrag", "ipv6_frag_rcv",
       short="dupfrag", at=SERVER, versions=BOTH)  # fmt: skip
def fragment_twice(net: Net, v6: bool) -> Traffic:
    """A fragment that came before."""
    line, sink = to_server(net, v6)
    net["server"].sysctl(**{"ipv6__ip6frag_time" if v6 else "ipv4__ipfrag_time": 24 * 3600})
    again = payload(line, fragment(line, 1, 0, b"x" * 64))
    again()
    return Traffic(again, mib(net, "server", "IpReasmReqds", "Ip6ReasmReqds", v6), line.udp(OPEN), sink.received)


@cause("NOT_SPECIFIED", "ip6_frag_queue", "ipv6_frag_rcv", short="badfrag", at=SERVER, versions=(6,),
       bounds=("mib.Ip6InHdrErrors",))  # fmt: skip
def fragment_of_odd_length(net: Net, v6: bool) -> Traffic:
    """A fragment of IPv6 that is not the last one and whose length is no multiple of 8."""
    line, sink = to_server(net, v6)
    net["server"].sysctl(ipv6__ip6frag_time=24 * 3600)  # what waits for the rest, which is no packet, would count then
    odd = payload(line, fragment(line, 1, 0, b"x" * 63))
    return Traffic(odd, lambda: net["server"].mib("Ip6InHdrErrors"), line.udp(OPEN), sink.received)


CAUSES = (*fragments_too_many, *fragment_twice, *fragment_of_odd_length)
