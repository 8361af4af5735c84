# SPDX-License-Identifier: MIT
"""How to provoke a drop: one definition per cause, shared by all live tests.

A cause builds its traffic inside a topology of net.py. Every call of `Traffic.lose` sends exactly one packet that the
kernel must drop for the stated reason; every call of `Traffic.spare` one much like it that must get through. Who drops
and who gets through is counted by somebody else than pktdrop: `lost` and `spared` read SNMP counters, nftables, ip(8),
tc(8) or the receiving socket. Both kinds of packets leave from the calling CPU, and nothing on their way moves them
to another one.

What a cause needs to be in place (a full buffer, a missing neighbour) is there when its function returns: whatever
was dropped for that came before the traffic.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.live import frames
from tests.live.net import Net, ipv4, ipv6, mac, one_ns, three_ns, two_ns, wait_until

CLOSED, OPEN, FULL = 9, 4007, 4008
"""Ports: nobody listens, somebody does, somebody whose buffer is full."""
SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # include/uapi/linux/if_tun.h
NOWHERE = {False: "198.51.100.1", True: "2001:db8::1"}
"""Addresses that no namespace has or has a route to (RFC 5737, RFC 3849)."""


@dataclass(frozen=True)
class Traffic:
    """One packet at a time, lost or spared, and the two counters that tell how many of each there were."""

    lose: Callable[[], object]
    lost: Callable[[], int]
    spare: Callable[[], object]
    spared: Callable[[], int]


@dataclass(frozen=True)
class Cause:
    """A way to lose packets, and what a tracer must say of it."""

    name: str
    reason: str
    functions: tuple[str, ...]
    """Where the kernel may free the packet: compilers inline, and the functions get renamed."""
    layer: str
    role: str
    """The namespace that loses, by its role in the topology."""
    interface: str
    """The device that the packet was on: the one it came in by, unless the kernel has already moved it on."""
    protocol: str
    topology: Callable[..., AbstractContextManager[Net]]
    ipv6: bool
    build: Callable[[Net], Traffic]

    def net(self) -> AbstractContextManager[Net]:
        """Set the topology up."""
        return self.topology(ipv6=self.ipv6)


_registered: list[Cause] = []


def cause(
    reason: str,
    *functions: str,
    at: tuple[Callable[..., AbstractContextManager[Net]], str, str],
    layer: str = "stack",
    versions: tuple[int, ...] = (4,),
    protocol: str | None = None,
    net_ipv6: bool | None = None,
    interface6: str | None = None,
) -> Callable[[Callable[[Net, bool], Traffic]], Callable[[Net, bool], Traffic]]:
    """Register a function as one cause per IP version; `at` is the topology, the role and the interface."""
    topology, role, interface = at

    def name_of(build: Callable[[Net, bool], Traffic], v6: bool) -> str:
        return build.__name__ + ("6" if v6 and len(versions) > 1 else "")

    def register(build: Callable[[Net, bool], Traffic]) -> Callable[[Net, bool], Traffic]:
        for version in versions:
            v6 = version == 6
            _registered.append(
                Cause(
                    name=name_of(build, v6),
                    reason=reason,
                    functions=functions,
                    layer=layer,
                    role=role,
                    interface=(interface6 or interface) if v6 else interface,
                    protocol=protocol or ("IPv6" if v6 else "IPv4"),
                    topology=topology,
                    ipv6=v6 if net_ipv6 is None else net_ipv6,
                    build=lambda net, v6=v6: build(net, v6),
                )
            )
        return build

    return register


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

    def ip(self, protocol: int, payload: bytes, destination: str | None = None, **how: int) -> Callable[[], int]:
        """Return a function that sends one IP packet around the payload."""
        make = frames.ip6 if self.v6 else frames.ip4
        packet = make(self.source, destination or self.destination, protocol, payload, **how)
        return self.frame(*self.macs, frames.ETH_P_IPV6 if self.v6 else frames.ETH_P_IP, packet)

    def udp(
        self, port: int, size: int = 8, wrong: int = 0, destination: str | None = None, **how: int
    ) -> Callable[[], int]:
        """Return a function that sends one UDP datagram of `size` bytes of data."""
        payload = frames.udp(self.source, destination or self.destination, port, b"x" * size, wrong=wrong)
        return self.ip(frames.UDP, payload, destination, **how)

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


LO = (one_ns, "host", "lo")
SERVER = (two_ns, "server", "eth0")
CLIENT = (two_ns, "client", "eth0")
ROUTER = (three_ns, "router", "west")
BOTH = (4, 6)


# --- sockets


def _loopback(v6: bool) -> str:
    return "::1" if v6 else "127.0.0.1"


@cause("NO_SOCKET", "__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv", at=LO, layer="socket", versions=BOTH)
def udp_closed_port(net: Net, v6: bool) -> Traffic:
    """UDP to a port nobody listens on."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    return Traffic(
        lose=lambda: sender.sendto(b"x", (_loopback(v6), CLOSED)),
        lost=mib(net, "host", "UdpNoPorts", "Udp6NoPorts", v6),
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
    )


@cause("NO_SOCKET", "tcp_v4_rcv", "tcp_v6_rcv", at=LO, layer="socket", versions=BOTH)
def tcp_closed_port(net: Net, v6: bool) -> Traffic:
    """A TCP connection to a port nobody listens on; the kernel answers each SYN with a reset."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    listener = net.keep(net["host"].socket(family, socket.SOCK_STREAM))
    listener.bind((_loopback(v6), OPEN))
    listener.listen(1000)

    def refused() -> None:
        with net["host"].socket(family, socket.SOCK_STREAM) as caller:
            if caller.connect_ex((_loopback(v6), CLOSED)) == 0:
                raise AssertionError(f"somebody listens on port {CLOSED}")

    return Traffic(
        lose=refused,
        lost=lambda: net["host"].mib("TcpOutRsts"),
        spare=lambda: net.keep(net["host"].socket(family, socket.SOCK_STREAM)).connect((_loopback(v6), OPEN)),
        spared=lambda: net["host"].mib("TcpPassiveOpens"),
    )


@cause(
    "SOCKET_RCVBUFF", "__udp_queue_rcv_skb", "__udpv6_queue_rcv_skb", "__udp_enqueue_schedule_skb",
    "udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb", at=LO, layer="socket", versions=BOTH,
)  # fmt: skip
def receive_buffer_full(net: Net, v6: bool) -> Traffic:
    """UDP to a socket that nobody reads and whose buffer is full."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    lazy = udp_socket(net, "host", v6)
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lazy.bind((_loopback(v6), FULL))
    errors = mib(net, "host", "UdpRcvbufErrors", "Udp6RcvbufErrors", v6)

    def lose() -> int:
        return sender.sendto(b"x", (_loopback(v6), FULL))

    def full() -> bool:
        lose()
        return errors() > 0

    wait_until(full, "the buffer to be full")
    return Traffic(
        lose=lose,
        lost=errors,
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
    )


@cause(
    "SOCKET_FILTER", "udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb", "sk_filter_trim_cap",
    at=LO, layer="socket", versions=BOTH,
)  # fmt: skip
def socket_filter(net: Net, v6: bool) -> Traffic:
    """UDP to a socket whose classic BPF filter refuses all."""
    sender, sink = udp_socket(net, "host", v6), Sink(net, "host", v6)
    choosy = udp_socket(net, "host", v6)
    refuse_all = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: 0 bytes
    program = struct.pack("@HP", 1, ctypes.addressof(refuse_all))  # struct sock_fprog
    choosy.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    choosy.bind((_loopback(v6), FULL))
    return Traffic(
        lose=lambda: sender.sendto(b"x", (_loopback(v6), FULL)),
        lost=mib(net, "host", "UdpInErrors", "Udp6InErrors", v6),
        spare=lambda: sender.sendto(b"x", (_loopback(v6), OPEN)),
        spared=sink.received,
    )


# --- policy


def _drop_rule(hook: str) -> str:
    return f"""table inet pktdrop {{
        counter lost {{ }}
        chain {hook} {{
            type filter hook {hook} priority 0; policy accept;
            udp dport {CLOSED} counter name lost drop
        }}
    }}"""


@cause("NETFILTER_DROP", "nft_do_chain", "nf_hook_slow", "nf_hook_slow_list", at=SERVER, versions=BOTH)
def nftables_input(net: Net, v6: bool) -> Traffic:
    """A packet for this host that a rule drops."""
    line, sink = to_server(net, v6)
    net["server"].nft(_drop_rule("input"))
    return Traffic(line.udp(CLOSED), lambda: net["server"].nft_counter("lost"), line.udp(OPEN), sink.received)


@cause("NETFILTER_DROP", "nft_do_chain", "nf_hook_slow", "nf_hook_slow_list", at=ROUTER, versions=BOTH)
def nftables_forward(net: Net, v6: bool) -> Traffic:
    """A packet on its way through a router that a rule drops."""
    line, sink = through_router(net, v6)
    net["router"].nft(_drop_rule("forward"))
    return Traffic(line.udp(CLOSED), lambda: net["router"].nft_counter("lost"), line.udp(OPEN), sink.received)


@cause("IP_RPFILTER", "ip_rcv_finish_core", "ip_rcv_finish", "ip_sublist_rcv_finish", "ip_list_rcv_finish", at=SERVER)
def reverse_path(net: Net, v6: bool) -> Traffic:
    """A source address that is not reached through the interface it came in by."""
    line, sink = to_server(net, v6)
    net["server"].sysctl(ipv4__conf__eth0__rp_filter=1)
    payload = frames.udp(NOWHERE[v6], line.destination, OPEN)
    spoofed = frames.ip4(NOWHERE[v6], line.destination, frames.UDP, payload)
    return Traffic(
        lose=line.frame(*line.macs, frames.ETH_P_IP, spoofed),
        lost=lambda: net["server"].mib("TcpExtIPReversePathFilter"),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("IPV6DISABLED", "ip6_rcv_core", "ipv6_rcv", at=SERVER, versions=(6,), net_ipv6=False)
def ipv6_off(net: Net, v6: bool) -> Traffic:
    """IPv6 to an interface that has IPv6 switched off."""
    line = Wire(net, True, 0, 1, 2, ipv6(0, 2))
    line4, sink = to_server(net, False)
    return Traffic(line.udp(OPEN), lambda: net["server"].mib("Ip6InDiscards"), line4.udp(OPEN), sink.received)


# --- addresses and routes


@cause("IP_INADDRERRORS", "ip_error", "ip6_forward", "ip6_pkt_drop", "ip6_pkt_discard", at=SERVER, versions=BOTH)
def not_for_us(net: Net, v6: bool) -> Traffic:
    """A packet for another host, at a host that does not forward."""
    line, sink = to_server(net, v6)
    if v6:
        net["server"].ip("-6", "route", "add", "2001:db8::/32", "dev", "eth0")
    return Traffic(
        lose=line.udp(OPEN, destination=NOWHERE[v6]),
        lost=mib(net, "server", "IpInAddrErrors", "Ip6InAddrErrors", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("IP_INNOROUTES", "ip_error", "ip6_pkt_drop", "ip6_pkt_discard", at=ROUTER, versions=BOTH)
def no_route(net: Net, v6: bool) -> Traffic:
    """A packet that a router has no route for."""
    line, sink = through_router(net, v6)
    return Traffic(
        lose=line.udp(OPEN, destination=NOWHERE[v6]),
        lost=mib(net, "router", "IpExtInNoRoutes", "Ip6InNoRoutes", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("OTHERHOST", "ip_rcv_core", "ip6_rcv_core", at=SERVER, versions=BOTH)
def foreign_mac(net: Net, v6: bool) -> Traffic:
    """A frame for another hardware address, as a switch floods it."""
    line, sink = to_server(net, v6)
    right = line.udp(OPEN)
    line.macs = (mac(0, 99), line.macs[1])
    return Traffic(line.udp(OPEN), lambda: net["server"].link("eth0", "rx.otherhost"), right, sink.received)


@cause("UNHANDLED_PROTO", "__netif_receive_skb_core", at=SERVER, protocol=f"{frames.UNKNOWN_ETHERTYPE:#06x}")
def unknown_ethertype(net: Net, v6: bool) -> Traffic:
    """A frame of a protocol that this host does not speak."""
    line, sink = to_server(net, v6)
    return Traffic(
        lose=line.frame(*line.macs, frames.UNKNOWN_ETHERTYPE, b"pktdrop"),
        lost=lambda: net["server"].link("eth0", "rx.dropped"),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause(
    "IP_NOPROTO", "ip_protocol_deliver_rcu", "ip_local_deliver_finish", "ip6_protocol_deliver_rcu", "ip6_input_finish",
    at=SERVER, versions=BOTH,
)  # fmt: skip
def unknown_protocol(net: Net, v6: bool) -> Traffic:
    """An IP packet of a transport protocol that this host does not speak."""
    line, sink = to_server(net, v6)
    return Traffic(
        lose=line.ip(frames.UNKNOWN_PROTOCOL, b"pktdrop!"),
        lost=mib(net, "server", "IpInUnknownProtos", "Ip6InUnknownProtos", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


@cause("PKT_TOO_BIG", "ip_forward", "ip6_forward", at=ROUTER, versions=BOTH, interface6="east")
def too_big_to_forward(net: Net, v6: bool) -> Traffic:
    """A packet that must not be fragmented and is larger than the next link takes.

    ip6_forward() sets skb->dev to that link before it sends the ICMPv6 error; ip_forward() leaves the old one.
    """
    line, sink = through_router(net, v6)
    net["router"].ip("link", "set", "dev", "east", "mtu", "1280")
    how = {} if v6 else {"df": True}
    return Traffic(
        lose=line.udp(OPEN, size=1400, **how),
        lost=mib(net, "router", "IpFragFails", "Ip6InTooBigErrors", v6),
        spare=line.udp(OPEN, size=1000, **how),
        spared=sink.received,
    )


@cause("IP_INHDR", "ip_forward", "ip6_forward", at=ROUTER, versions=BOTH)
def time_to_live_over(net: Net, v6: bool) -> Traffic:
    """A packet whose time to live ends at the router."""
    line, sink = through_router(net, v6)
    hops = "hops" if v6 else "ttl"
    return Traffic(
        lose=line.udp(OPEN, **{hops: 1}),
        lost=mib(net, "router", "IpInHdrErrors", "Ip6InHdrErrors", v6),
        spare=line.udp(OPEN, **{hops: 2}),
        spared=sink.received,
    )


# --- bad packets


@cause("UDP_CSUM", "__udp4_lib_rcv", "__udp6_lib_rcv", "udp_rcv", "udpv6_rcv", at=SERVER, versions=BOTH)
def udp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong UDP checksum, found when no socket wants the packet either."""
    line, sink = to_server(net, v6)
    wrong = line.udp(CLOSED, wrong=1)
    return Traffic(wrong, mib(net, "server", "UdpInCsumErrors", "Udp6InCsumErrors", v6), line.udp(OPEN), sink.received)


@cause("TCP_CSUM", "tcp_v4_rcv", "tcp_v6_rcv", at=SERVER, versions=BOTH)
def tcp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong TCP checksum."""
    line, sink = to_server(net, v6)
    wrong = line.ip(frames.TCP, frames.tcp_syn(line.source, line.destination, CLOSED, wrong=1))
    return Traffic(wrong, lambda: net["server"].mib("TcpInCsumErrors"), line.udp(OPEN), sink.received)


@cause("ICMP_CSUM", "icmp_rcv", "icmpv6_rcv", at=SERVER, versions=BOTH)
def icmp_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong ICMP checksum."""
    line, sink = to_server(net, v6)
    request = frames.echo_request(line.source, line.destination, wrong=1)
    wrong = line.ip(frames.ICMPV6 if v6 else frames.ICMP, request)
    witness = mib(net, "server", "IcmpInCsumErrors", "Icmp6InCsumErrors", v6)
    return Traffic(wrong, witness, line.udp(OPEN), sink.received)


@cause("IP_CSUM", "ip_rcv_core", at=SERVER)
def ip_checksum(net: Net, v6: bool) -> Traffic:
    """A wrong IPv4 header checksum."""
    line, sink = to_server(net, v6)
    wrong = line.ip(frames.UDP, frames.udp(line.source, line.destination, OPEN), wrong=1)
    return Traffic(wrong, lambda: net["server"].mib("IpExtInCsumErrors"), line.udp(OPEN), sink.received)


@cause("PKT_TOO_SMALL", "ip_rcv_core", "ip6_rcv_core", at=SERVER, versions=BOTH)
def truncated(net: Net, v6: bool) -> Traffic:
    """A packet that is shorter than its header says."""
    line, sink = to_server(net, v6)
    payload = frames.udp(line.source, line.destination, OPEN, b"x" * 200)
    packet = (frames.ip6 if v6 else frames.ip4)(line.source, line.destination, frames.UDP, payload)
    return Traffic(
        lose=line.frame(*line.macs, frames.ETH_P_IPV6 if v6 else frames.ETH_P_IP, packet[:-100]),
        lost=mib(net, "server", "IpExtInTruncatedPkts", "Ip6InTruncatedPkts", v6),
        spare=line.udp(OPEN),
        spared=sink.received,
    )


# --- on the way out


def _unresolved(net: Net, v6: bool, **settings: int) -> Traffic:
    """UDP to a neighbour that does not exist; what went to IP and did not come out of the interface is lost."""
    client, sink = net["client"], Sink(net, "server", v6)
    reports = client.mib("Icmp6OutMLDv2Reports") if v6 else 0
    client.ip("link", "set", "dev", "eth0", "arp", "on")  # forgets the neighbours
    if v6:
        # within a second it also tells its multicast groups, net.ipv6.mld_qrv = 2 times, which the server drops
        wait_until(lambda: client.mib("Icmp6OutMLDv2Reports") - reports >= 2, "the multicast reports")
    there = ipv6(0, 2) if v6 else ipv4(0, 2)
    client.ip("neighbour", "replace", there, "lladdr", mac(0, 2), "dev", "eth0", "nud", "permanent")
    family = "ipv6" if v6 else "ipv4"
    client.sysctl(**{f"{family}__neigh__eth0__{name}": value for name, value in settings.items()})
    sender = udp_socket(net, "client", v6)
    requests = mib(net, "client", "IpOutRequests", "Ip6OutRequests", v6)

    def lost() -> int:
        while True:  # another packet (an MLD report) may leave between two readings
            sent = client.link("eth0", "tx.packets")
            requested = requests()
            if sent == client.link("eth0", "tx.packets"):
                return requested - sent

    return Traffic(
        lose=lambda: sender.sendto(b"x", (ipv6(0, 99) if v6 else ipv4(0, 99), CLOSED)),
        lost=lost,
        spare=lambda: sender.sendto(b"x", (there, OPEN)),
        spared=sink.received,
    )


@cause("NEIGH_FAILED", "__neigh_event_send", at=CLIENT, versions=BOTH)
def neighbour_failed(net: Net, v6: bool) -> Traffic:
    """A packet to a neighbour that cannot be asked for."""
    return _unresolved(net, v6, mcast_solicit=0, app_solicit=0)


@cause("NEIGH_QUEUEFULL", "__neigh_event_send", at=CLIENT, versions=BOTH)
def neighbour_queue_full(net: Net, v6: bool) -> Traffic:
    """A packet to a neighbour that is still being asked for, when as many wait already as may."""
    traffic = _unresolved(net, v6, retrans_time_ms=60000, unres_qlen_bytes=4096)
    for _ in range(50):
        traffic.lose()
    return traffic


@cause(
    "QDISC_DROP", "__dev_xmit_skb", "__dev_queue_xmit", "kfree_skb_list_reason", at=CLIENT, layer="qdisc", versions=BOTH
)
def shaper_full(net: Net, v6: bool) -> Traffic:
    """A packet to a token bucket that is out of tokens and whose queue is full."""
    client = net["client"]
    client.run(*["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "3000"])
    sender, back, sink = udp_socket(net, "client", v6), udp_socket(net, "server", v6), Sink(net, "client", v6)
    here, there = (ipv6(0, 1), ipv6(0, 2)) if v6 else (ipv4(0, 1), ipv4(0, 2))

    def lose() -> int:
        return sender.sendto(b"x" * 1000, (there, CLOSED))

    for _ in range(10):
        lose()
    return Traffic(
        lose=lose,
        lost=lambda: client.qdisc_drops("eth0"),
        spare=lambda: back.sendto(b"x" * 1000, (here, OPEN)),
        spared=sink.received,
    )


@cause(
    "FULL_RING", "tun_net_xmit", at=(one_ns, "host", "tap0"), layer="tx", protocol=f"{frames.UNKNOWN_ETHERTYPE:#06x}"
)
def tap_full(net: Net, v6: bool) -> Traffic:
    """A frame to a tap device whose user does not read and whose ring is full."""
    full, free = Tap(net, "tap0", length=4), Tap(net, "tap1", length=1000)
    for _ in range(10):
        full.send()
    return Traffic(full.send, lambda: net["host"].link("tap0", "tx.dropped"), free.send, free.received)


class Tap:
    """A tap device; we are its user, who reads what the kernel sends, or does not."""

    def __init__(self, net: Net, name: str, length: int) -> None:
        """Make it with a ring of `length` frames."""
        with net["host"].entered():
            self._user = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            net.stack.callback(os.close, self._user)
            fcntl.ioctl(self._user, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        net["host"].ip("link", "set", "dev", name, "txqueuelen", str(length), "up")
        self._kernel = wire(net, "host", name)
        self._received = 0

    def send(self) -> int:
        """Let the kernel send one frame to the user."""
        return self._kernel.send(frames.ethernet(mac(0, 2), mac(0, 1), frames.UNKNOWN_ETHERTYPE, b"pktdrop"))

    def received(self) -> int:
        """Read all there is; return how many frames came so far."""
        while True:
            try:
                os.read(self._user, 2000)
            except BlockingIOError:
                return self._received
            self._received += 1


CAUSES = tuple(_registered)
"""All of them."""
