# SPDX-License-Identifier: MIT
"""Network namespaces joined by veth pairs, quiet enough that every drop in them was caused on purpose.

Nothing outside the namespaces is touched, and all of them are gone at the end, whatever happens. In each one IPv6 is
off unless the case is about IPv6; then there are no link-local addresses, no duplicate address detection and no
router solicitations. The veth ends neither ask for neighbours nor announce multicast groups (NOARP); the neighbours
they need are permanent entries.

Address plan (IPv4; the same numbers under fd00:7:NET:: for IPv6, so 10.7.1.2 is fd00:7:1::2):

    one_ns     host: lo 127.0.0.1
    two_ns     client: eth0 10.7.0.1/24 -- server: eth0 10.7.0.2/24
    three_ns   client: eth0 10.7.1.2/24 -- router: west 10.7.1.1/24, east 10.7.2.1/24 -- server: eth0 10.7.2.2/24

Hardware addresses: 02:00:00:00:NET:HOST.
"""

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pktdrop.demo.namespace import Namespace
from pktdrop.demo.tools import run
from pktdrop.errors import PktdropError

RoleNames = Callable[[str], str]
"""What to call the namespace of a role."""


_IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf/default")


def unlike_others() -> RoleNames:
    """Return names for namespaces that no other topology has."""
    token = f"pktdrop-{os.getpid()}-{secrets.token_hex(4)}"
    return lambda role: f"{token}-{role}"


@dataclass
class Net:
    """A topology: its namespaces by role, and what has to be undone at its end."""

    names: RoleNames = field(default_factory=unlike_others)
    ipv6: bool = False
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def __getitem__(self, role: str) -> Namespace:
        return self.namespaces[role]

    def add(self, role: str, name: str | None = None) -> Namespace:
        """Make a namespace; it is deleted with the topology."""
        made = Namespace(name or self.names(role))
        run("ip", "netns", "add", made.name)
        self.stack.callback(self._delete, made)
        self.namespaces[role] = made
        made.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        with made.entered():
            has_ipv6 = _IPV6_SETTINGS.exists()
        if has_ipv6:
            self._settle_ipv6(made)
        elif self.ipv6:
            raise PktdropError("This kernel has no IPv6.", "Leave out what needs it.")
        made.ip("link", "set", "lo", "up")
        return made

    def _settle_ipv6(self, namespace: Namespace) -> None:
        """Let IPv6 say nothing on its own, and be there only where the topology has it."""
        namespace.sysctl(
            ipv6__conf__default__accept_dad=0,
            ipv6__conf__default__dad_transmits=0,
            ipv6__conf__default__accept_ra=0,
            ipv6__conf__default__router_solicitations=0,
            ipv6__conf__default__addr_gen_mode=1,  # no link-local address
            ipv6__conf__default__mldv2_unsolicited_report_interval=1,  # ms: over before any trace starts
            ipv6__conf__all__disable_ipv6=int(not self.ipv6),
            ipv6__conf__default__disable_ipv6=int(not self.ipv6),
        )

    @staticmethod
    def _delete(namespace: Namespace) -> None:
        if namespace.exists:  # somebody else may have deleted it: a test, an administrator
            namespace.delete()

    def keep(self, opened: socket.socket) -> socket.socket:
        """Close a socket only when all is over: closing one with unread data drops packets."""
        return self.stack.enter_context(opened)

    def cable(self, net: int, left: tuple[str, str, int], right: tuple[str, str, int]) -> None:
        """Join two namespaces by veth; each end is (role, interface, host number)."""
        ends = (left, right)
        run(
            # kernels before 6.18 look for a link of that name in the namespace that ip(8) is in: so be in the right one
            *("ip", "-n", self[left[0]].name, "link", "add", "name", left[1], "address", mac(net, left[2])),
            *("type", "veth"),
            *("peer", "name", right[1], "netns", self[right[0]].name, "address", mac(net, right[2])),
        )
        for (role, interface, host), (_, _, other) in zip(ends, reversed(ends), strict=True):
            commands = [["link", "set", "dev", interface, "arp", "off", "up"]]
            addresses = [(ipv4(net, host), ipv4(net, other), "24")]
            if self.ipv6:
                addresses.append((ipv6(net, host), ipv6(net, other), "64"))
            for own, neighbour, prefix in addresses:
                permanent = ["lladdr", mac(net, other), "dev", interface, "nud", "permanent"]
                commands.append(["address", "add", f"{own}/{prefix}", "dev", interface])
                commands.append(["neighbour", "replace", neighbour, *permanent])
            self[role].ip_batch(*commands)
        for role, interface, host in ends:
            self[role].wait_for_link(interface)
            if self.ipv6:
                self[role].wait_for_ipv6(ipv6(net, host))


def mac(net: int, host: int) -> str:
    """Hardware address by the plan above."""
    return f"02:00:00:00:{net:02x}:{host:02x}"


def ipv4(net: int, host: int) -> str:
    """IPv4 address by the plan above."""
    return f"10.7.{net}.{host}"


def ipv6(net: int, host: int) -> str:
    """IPv6 address by the plan above."""
    return f"fd00:7:{net:x}::{host:x}"


@contextmanager
def _topology(ipv6: bool, names: RoleNames | None) -> Iterator[Net]:
    net = Net(names or unlike_others(), ipv6)
    with net.stack:
        yield net


@contextmanager
def one_ns(ipv6: bool = False, names: RoleNames | None = None) -> Iterator[Net]:
    """host: lo."""
    with _topology(ipv6, names) as net:
        net.add("host")
        yield net


@contextmanager
def two_ns(ipv6: bool = False, names: RoleNames | None = None) -> Iterator[Net]:
    """Client eth0 -- eth0 server."""
    with _topology(ipv6, names) as net:
        net.add("client")
        net.add("server")
        net.cable(0, ("client", "eth0", 1), ("server", "eth0", 2))
        yield net


@contextmanager
def three_ns(ipv6: bool = False, names: RoleNames | None = None) -> Iterator[Net]:
    """Client eth0 -- west router east -- eth0 server; the router forwards, the others route all through it."""
    with _topology(ipv6, names) as net:
        for role in ("client", "router", "server"):
            net.add(role)
        net["router"].sysctl(ipv4__ip_forward=1, **({"ipv6__conf__all__forwarding": 1} if ipv6 else {}))
        net.cable(1, ("client", "eth0", 2), ("router", "west", 1))
        net.cable(2, ("server", "eth0", 2), ("router", "east", 1))
        for role, subnet in (("client", 1), ("server", 2)):
            net[role].ip("route", "add", "default", "via", ipv4(subnet, 1))
            if ipv6:
                net[role].ip("-6", "route", "add", "default", "via", _ipv6(subnet, 1))
        yield net


_ipv6 = ipv6  # three_ns() has an argument of that name
