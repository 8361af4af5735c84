# SPDX-License-Identifier: MIT
"""Two hosts on a link, and what hosts do all day without a loss."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, unlike_others
from tests.kit.process import run, wait_until

N = 20
PORT = 5000
NOBODY = 5399
"""A port that nobody listens on."""
FIN_WAIT2 = 5  # include/net/tcp_states.h
LLDP = bytes.fromhex("0180c200000e020000000001") + b"\x88\xcc" + bytes(50)
WHO_HAS_99 = bytes.fromhex("ffffffffffff020000000001 0806 0001080006040001 020000000001 0a090001 000000000000 0a090063")


@contextmanager
def lan() -> Iterator[tuple[Namespace, Namespace]]:
    """Two hosts that do what hosts do by default: ARP, neighbour discovery, duplicate addresses, routers sought."""
    net = Net(unlike_others())
    with net.stack:
        left, right = net.add("left"), net.add("right")
        for one in (left, right):
            one.sysctl(
                ipv6__conf__all__disable_ipv6=0,
                ipv6__conf__default__disable_ipv6=0,
                ipv6__conf__default__accept_dad=1,
                ipv6__conf__default__dad_transmits=1,
                ipv6__conf__default__accept_ra=1,
                ipv6__conf__default__router_solicitations=2,
                ipv6__conf__default__addr_gen_mode=0,
            )
        run("ip", "-n", left.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name)
        _settle(left, right)
        yield left, right


def _settle(*hosts: Namespace) -> None:
    """Bring links up and give addresses; return when neither is tentative any more.

    Multicast of the other end that comes before an interface has IPv6 finds no route.
    """
    for one in hosts:
        one.ip("link", "set", "eth0", "up")
    for number, one in enumerate(hosts, 1):
        one.ip("address", "add", f"10.9.0.{number}/24", "brd", "+", "dev", "eth0")
        one.ip("address", "add", f"fd00:9::{number}/64", "dev", "eth0")
        one.ip("route", "add", "default", "dev", "eth0")
    for one in hosts:
        wait_until(lambda: "tentative" not in one.ip("-6", "address", "show", "dev", "eth0"), "IPv6 addresses")  # noqa: B023


def listen(host: Namespace, family: socket.AddressFamily, kind: socket.SocketKind, stack: ExitStack) -> socket.socket:
    """Open a socket on PORT for all addresses of a family."""
    opened = stack.enter_context(host.socket(family, kind))
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(("", PORT))
    return opened


def _state(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def converse(client: Namespace, server: Namespace, family: socket.AddressFamily, address: str) -> None:
    """Open and close N connections, the client first, so that its end goes through TIME_WAIT; ask N questions."""
    with ExitStack() as stack:
        listener = listen(server, family, socket.SOCK_STREAM, stack)
        listener.listen(N)
        for _ in range(N):
            with client.socket(family, socket.SOCK_STREAM) as asking:
                asking.connect((address, PORT))
                answering, _ = listener.accept()
                with answering:
                    asking.sendall(b"question")
                    assert answering.recv(100) == b"question"
                    asking.shutdown(socket.SHUT_WR)
                    assert answering.recv(100) == b""
                    wait_until(lambda: _state(asking) == FIN_WAIT2, "the end to be acknowledged")
                    asking.close()  # from here on a TIME_WAIT socket waits for the other end (tcp_close)
        answering = listen(server, family, socket.SOCK_DGRAM, stack)
        asking = stack.enter_context(client.socket(family, socket.SOCK_DGRAM))
        for _ in range(N):
            asking.sendto(b"question", (address, PORT))
            answering.sendto(b"answer", answering.recvfrom(100)[1])
            assert asking.recv(100) == b"answer"


def call_out(caller: Namespace) -> None:
    """Send what goes to everybody and nobody wants: broadcast, multicast, LLDP, a question for somebody else."""
    with (
        caller.socket(socket.AF_INET, socket.SOCK_DGRAM) as v4,
        caller.socket(socket.AF_INET6, socket.SOCK_DGRAM) as v6,
        caller.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
    ):
        v4.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        v4.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.1"))
        with caller.entered():
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
        wire.bind(("eth0", 0))
        for _ in range(N):
            for address in ("10.9.0.255", "255.255.255.255", "224.0.0.1", "224.0.0.251", "239.1.2.3"):
                v4.sendto(b"anybody", (address, NOBODY))
            for address in ("ff02::1", "ff02::fb"):
                v6.sendto(b"anybody", (address, NOBODY))
            wire.send(LLDP)
            wire.send(WHO_HAS_99)


def live_a_while(left: Namespace, right: Namespace) -> None:
    """Do all of it, and let the neighbours be asked for once more."""
    left.ip("address", "add", "fd00:9::11/64", "dev", "eth0")  # is it a duplicate, and who joins its group
    wait_until(lambda: "tentative" not in left.ip("-6", "address", "show", "dev", "eth0"), "a new address")
    converse(left, right, socket.AF_INET, "10.9.0.2")
    converse(left, right, socket.AF_INET6, "fd00:9::2")
    call_out(left)
    for one in (left, right):
        one.ip("neighbour", "flush", "dev", "eth0")
    converse(left, right, socket.AF_INET, "10.9.0.2")
