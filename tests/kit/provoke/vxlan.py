# SPDX-License-Identifier: MIT
"""Packets into and out of a VXLAN tunnel."""

import struct
from collections.abc import Callable

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Scene, Traffic, cause
from pktdrop.demo.causes.parts import OPEN, SERVER, Wire, to_server, wire
from pktdrop.demo.net import Net, ipv4, two_ns
from tests.kit.provoke.packets import header4, payload
from tests.kit.provoke.witnesses import swallowed

PORT, VNI = 4789, 42
HAS_VNI = 0x08000000  # VXLAN_HF_VNI, include/net/vxlan.h
RCV = ("vxlan_rcv",)
XMIT = ("vxlan_xmit", "vxlan_xmit_one")
INNER, OWN = "02:00:00:00:77:01", "02:00:00:00:77:02"
TUNNEL = Scene(two_ns, "server", "vxlan0")
SINCE_6_14 = "BRIDGE_INGRESS_STP_STATE"
"""A reason that came when VXLAN began to look at reserved bits first, and to name what has no route."""
UNKNOWN = f"{frames.UNKNOWN_ETHERTYPE:#06x}"


def _tunnel(net: Net, *options: str) -> None:
    server = net["server"]
    kind = ("type", "vxlan", "dstport", str(PORT), "local", ipv4(0, 2), *(options or ("id", str(VNI), "dev", "eth0")))
    server.ip("link", "add", "vxlan0", "address", OWN, *kind)
    server.ip("link", "set", "dev", "vxlan0", "arp", "off", "up")


def _outer(line: Wire, data: bytes, tos: int = 0) -> bytes:
    datagram = struct.pack("!HHHH", 4000, PORT, 8 + len(data), 0) + data
    return header4(line.source, line.destination, frames.UDP, datagram, tos=tos)


def _inner(source: str = INNER) -> bytes:
    return frames.ethernet(OWN, source, frames.UNKNOWN_ETHERTYPE, b"pktdrop")


def _into(net: Net, data: bytes, counter: Callable[[], int] | None = None, tos: int = 0) -> Traffic:
    line, sink = to_server(net, False)
    received = counter or swallowed(net, "server", sink, False)
    return Traffic(payload(line, _outer(line, data, tos)), received, line.udp(OPEN), sink.received)


def _header(flags: int = HAS_VNI, vni: int = VNI) -> bytes:
    return struct.pack("!II", flags, vni << 8)


@cause("VXLAN_INVALID_HDR", *RCV, short="vxflags", at=SERVER)
def vxlan_without_number(net: Net, v6: bool) -> Traffic:
    """A VXLAN packet that says of itself that its network has no number."""
    _tunnel(net)
    return _into(net, _header(flags=0) + _inner())


@cause("VXLAN_INVALID_HDR", *RCV, short="vxbits", at=SERVER, bounds=("links.rx_errors",), older=("VXLAN_INVALID_HDR",),
       since=SINCE_6_14, otherwise={"protocol": UNKNOWN})  # fmt: skip
def vxlan_reserved_bits(net: Net, v6: bool) -> Traffic:
    """A VXLAN packet with flags that are not for use."""
    _tunnel(net)
    return _into(net, _header(flags=HAS_VNI | 0x01000000) + _inner())


@cause("VXLAN_VNI_NOT_FOUND", *RCV, short="vxvni", at=SERVER)
def vxlan_of_others(net: Net, v6: bool) -> Traffic:
    """A VXLAN packet of a network that this host has no part in."""
    _tunnel(net)
    return _into(net, _header(vni=VNI + 1) + _inner())


@cause("LOCAL_MAC", *RCV, short="vxlocal", at=TUNNEL, protocol=UNKNOWN)
def vxlan_own_address(net: Net, v6: bool) -> Traffic:
    """A frame out of a tunnel with this host's own hardware address as its source."""
    _tunnel(net)
    return _into(net, _header() + _inner(source=OWN))


@cause("MAC_INVALID_SOURCE", *RCV, short="vxmac", at=TUNNEL, protocol=UNKNOWN)
def vxlan_invalid_source(net: Net, v6: bool) -> Traffic:
    """A frame out of a tunnel whose source is no hardware address of a host."""
    _tunnel(net)
    return _into(net, _header() + _inner(source="01:00:00:00:00:01"))


@cause("VXLAN_ENTRY_EXISTS", *RCV, short="vxentry", at=TUNNEL, protocol=UNKNOWN)
def vxlan_elsewhere(net: Net, v6: bool) -> Traffic:
    """A frame out of a tunnel from a hardware address that is known to be elsewhere, for good."""
    _tunnel(net)
    net["server"].run("bridge", "fdb", "add", INNER, "dev", "vxlan0", "dst", ipv4(0, 99), "self", "permanent")
    return _into(net, _header() + _inner())


@cause("IP_TUNNEL_ECN", *RCV, short="vxecn", at=TUNNEL, bounds=("links.rx_errors",))
def vxlan_congestion(net: Net, v6: bool) -> Traffic:
    """A packet that met congestion in the tunnel, and whose sender cannot be told so (RFC 6040)."""
    _tunnel(net)
    inner = header4("10.7.7.1", "10.7.7.2", frames.UDP, b"x" * 20)
    data = _header() + frames.ethernet(OWN, INNER, frames.ETH_P_IP, inner)
    return _into(net, data, lambda: net["server"].link("vxlan0", "rx.errors"), tos=3)


@cause("NO_TX_TARGET", *XMIT, short="vxtarget", at=TUNNEL, layer="tx", protocol=UNKNOWN, counters=("links.tx_dropped",))
def vxlan_without_target(net: Net, v6: bool) -> Traffic:
    """A frame into a tunnel that does not know where to."""
    _tunnel(net)
    return _out(net, "tx.dropped")


@cause("TUNNEL_TXINFO", *XMIT, short="vxinfo", at=TUNNEL, layer="tx", protocol=UNKNOWN)
def vxlan_without_orders(net: Net, v6: bool) -> Traffic:
    """A frame into a tunnel that others must tell where to, and nobody has."""
    _tunnel(net, "external")
    return _out(net, None)


@cause("IP_OUTNOROUTES", *XMIT, short="vxroute", at=TUNNEL, protocol=UNKNOWN,
       counters=("links.tx_errors",), since=SINCE_6_14)  # fmt: skip
def vxlan_without_route(net: Net, v6: bool) -> Traffic:
    """A frame into a tunnel whose other end has no route to it."""
    _tunnel(net, "id", str(VNI), "remote", "198.51.100.1")
    return _out(net, "tx.errors")


def _out(net: Net, counter: str | None) -> Traffic:
    """Frames out of the tunnel's device, whose counter tells of each; None: the device has sent nothing at all."""
    line, sink = to_server(net, False)
    server, raw = net["server"], wire(net, "server", "vxlan0")
    frame = frames.ethernet(INNER, OWN, frames.UNKNOWN_ETHERTYPE, b"pktdrop")
    given = 0

    def lose() -> None:
        nonlocal given
        given += raw.send(frame) > 0

    def lost() -> int:
        return given - server.link("eth0", "tx.packets") if counter is None else server.link("vxlan0", counter)

    return Traffic(lose, lost, line.udp(OPEN), sink.received)


CAUSES = (
    *vxlan_without_number,
    *vxlan_reserved_bits,
    *vxlan_of_others,
    *vxlan_own_address,
    *vxlan_invalid_source,
    *vxlan_elsewhere,
    *vxlan_congestion,
    *vxlan_without_target,
    *vxlan_without_orders,
    *vxlan_without_route,
)
