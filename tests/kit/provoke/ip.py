# SPDX-License-Identifier: MIT
"""IP packets with a header or an address that the host does not want."""

import struct

from pktdrop.demo import frames
from pktdrop.demo.causes.cause import Traffic, cause
from pktdrop.demo.causes.parts import BOTH, OPEN, SERVER, Wire, mib, to_server
from pktdrop.demo.net import Net, ipv4, mac
from tests.kit.provoke.packets import OPTIONS6, header4, payload
from tests.kit.provoke.witnesses import swallowed

ROUTE = ("ip_rcv_finish_core", "ip_rcv_finish", "ip_sublist_rcv_finish", "ip_list_rcv_finish")


def _from(line: Wire, source: str, destination: str | None = None) -> bytes:
    """Return a datagram to the open port with another source."""
    there = destination or line.destination
    return frames.ip4(source, there, frames.UDP, frames.udp(source, there, OPEN))


def _martian(net: Net, source: str | None = None, destination: str | None = None) -> Traffic:
    line, sink = to_server(net, False)
    wrong = payload(line, _from(line, source or line.source, destination))
    return Traffic(wrong, swallowed(net, "server", sink, False), line.udp(OPEN), sink.received)


@cause("IP_INHDR", "ip_rcv_core", "ip_rcv", short="version", at=SERVER, bounds=("mib.IpInHdrErrors",))
def wrong_version(net: Net, v6: bool) -> Traffic:
    """A packet in a frame of IPv4 that says that it is of another version."""
    line, sink = to_server(net, v6)
    packet = header4(line.source, line.destination, frames.UDP, b"x" * 40, version=5)
    return Traffic(payload(line, packet), lambda: net["server"].mib("IpInHdrErrors"), line.udp(OPEN), sink.received)


@cause("UNHANDLED_PROTO", "ip6_rcv_core", "ipv6_rcv", short="version6", at=SERVER, versions=(6,),
       counters=("mib.Ip6InHdrErrors",))  # fmt: skip
def wrong_version_6(net: Net, v6: bool) -> Traffic:
    """A packet in a frame of IPv6 that says that it is of another version."""
    line, sink = to_server(net, v6)
    right = frames.ip6(line.source, line.destination, frames.UDP, b"x" * 40)
    packet = bytes([0x50]) + right[1:]
    return Traffic(payload(line, packet), lambda: net["server"].mib("Ip6InHdrErrors"), line.udp(OPEN), sink.received)


@cause("IP_INHDR", *ROUTE, short="option", at=SERVER, bounds=("mib.IpInHdrErrors",), since="IP_LOCAL_SOURCE")
def bad_option(net: Net, v6: bool) -> Traffic:
    """An IPv4 option that is shorter than it must be."""
    line, sink = to_server(net, v6)
    data = frames.udp(line.source, line.destination, OPEN)
    packet = header4(line.source, line.destination, frames.UDP, data, options=struct.pack("!BBBB", 7, 2, 4, 0))
    return Traffic(payload(line, packet), lambda: net["server"].mib("IpInHdrErrors"), line.udp(OPEN), sink.received)


@cause("IP_LOCAL_SOURCE", *ROUTE, short="martian", at=SERVER, bounds=("rt_cache.in_martian_src",))
def source_is_own(net: Net, v6: bool) -> Traffic:
    """A packet from outside whose source is an address of this host's."""
    return _martian(net, source=ipv4(0, 2))


@cause("IP_INVALID_SOURCE", *ROUTE, short="badsource", at=SERVER, bounds=("rt_cache.in_martian_src",))
def source_is_multicast(net: Net, v6: bool) -> Traffic:
    """A packet whose source is a multicast address."""
    return _martian(net, source="224.0.0.5")


@cause("IP_INVALID_DEST", *ROUTE, short="baddest", at=SERVER, bounds=("rt_cache.in_martian_dst",))
def destination_is_nothing(net: Net, v6: bool) -> Traffic:
    """A packet to the address 0.0.0.0."""
    return _martian(net, destination="0.0.0.0")


@cause("IP_LOCALNET", *ROUTE, short="localnet", at=SERVER, bounds=("rt_cache.in_martian_dst",))
def destination_is_loopback(net: Net, v6: bool) -> Traffic:
    """A packet from outside to an address of the loopback network."""
    return _martian(net, destination="127.0.0.1")


@cause("UNICAST_IN_L2_MULTICAST", *ROUTE, "ip6_rcv_core", "ipv6_rcv", short="l2bcast", at=SERVER, versions=BOTH,
       counters6=("mib.Ip6InHdrErrors",))  # fmt: skip
def unicast_in_broadcast(net: Net, v6: bool) -> Traffic:
    """A broadcast frame with a packet for one host, where the host drops these (RFC 1122, 3.3.6)."""
    line, sink = to_server(net, v6)
    family = "ipv6" if v6 else "ipv4"
    net["server"].sysctl(**{f"{family}__conf__eth0__drop_unicast_in_l2_multicast": 1})
    right = line.udp(OPEN)
    line.macs = ("ff:ff:ff:ff:ff:ff", mac(0, 1))
    return Traffic(line.udp(OPEN), swallowed(net, "server", sink, v6), right, sink.received)


@cause("OTHERHOST", "ip_rcv_core", "ip6_rcv_core", short="vlan", at=SERVER, versions=BOTH,
       counters=("links.rx_otherhost_dropped",))  # fmt: skip
def unknown_vlan(net: Net, v6: bool) -> Traffic:
    """A packet of a VLAN that the host has no device for."""
    line, sink = to_server(net, v6)
    received = mib(net, "server", "IpInReceives", "Ip6InReceives", v6)
    data = frames.udp(line.source, line.destination, OPEN)
    packet = (frames.ip6 if v6 else frames.ip4)(line.source, line.destination, frames.UDP, data)
    tag = struct.pack("!HH", 5, frames.ETH_P_IPV6 if v6 else frames.ETH_P_IP)
    return Traffic(
        lose=line.frame(*line.macs, 0x8100, tag + packet),
        # IP does not count it as received; rx.otherhost, which does, came with Linux 5.19
        lost=lambda: net["server"].link("eth0", "rx.packets") - received(),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("NOT_SPECIFIED", "ipv6_destopt_rcv", "ip6_parse_tlv", short="destopt", at=SERVER, versions=(6,),
       bounds=("mib.Ip6InHdrErrors",))  # fmt: skip
def bad_destination_option(net: Net, v6: bool) -> Traffic:
    """Destination options of IPv6 that go on behind the end of the packet."""
    line, sink = to_server(net, v6)
    packet = frames.ip6(line.source, line.destination, OPTIONS6, struct.pack("!BB6x", frames.UDP, 200))
    return Traffic(payload(line, packet), lambda: net["server"].mib("Ip6InHdrErrors"), line.udp(OPEN), sink.received)


CAUSES = (
    *wrong_version,
    *wrong_version_6,
    *bad_option,
    *source_is_own,
    *source_is_multicast,
    *destination_is_nothing,
    *destination_is_loopback,
    *unicast_in_broadcast,
    *unknown_vlan,
    *bad_destination_option,
)
