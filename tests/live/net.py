# SPDX-License-Identifier: MIT
"""Network namespaces joined by veth pairs, quiet enough that every drop in them was caused by the test.

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

import ctypes
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SERIAL = count(1)
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    """Run a command and return what it printed; what it complained about is part of the error it raises."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Poll until the condition holds; fail with `what` was awaited after a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.005)  # the pause between two looks, no guess at how long things take


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _setns(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


@dataclass(frozen=True)
class Namespace:
    """One network namespace, known to ip-netns(8) by its name."""

    name: str

    @property
    def inode(self) -> int:
        """The number that identifies the namespace in the kernel."""
        return (RUN / self.name).stat().st_ino

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace. What is opened here stays in it."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(RUN / self.name, "rb") as target:
            _setns(target.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def run(self, *command: str) -> str:
        """Run a command inside the namespace."""
        return run("ip", "netns", "exec", self.name, *command)

    def ip(self, *arguments: str) -> str:
        """Run ip(8) on the namespace."""
        return run("ip", "-n", self.name, *arguments)

    def sysctl(self, **settings: object) -> None:
        """Write settings below /proc/sys/net of this namespace; "__" in a name stands for "/"."""
        with self.entered():
            for name, value in settings.items():
                Path("/proc/sys/net", name.replace("__", "/")).write_text(str(value))

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in the namespace; it may be used from anywhere."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def mib(self, name: str) -> int:
        """Read one SNMP counter, as nstat(8) names it; 0 where the kernel does not show it yet."""
        return int(json.loads(self.run("nstat", "-asz", "--json", name))["kernel"].get(name, 0))

    def link(self, interface: str, counter: str) -> int:
        """Read one counter of an interface with ip(8): ("eth0", "rx.dropped")."""
        direction, name = counter.split(".")
        (shown,) = json.loads(self.ip("-s", "-s", "-j", "link", "show", "dev", interface))
        return int(shown["stats64"][direction].get(name, 0))

    def qdisc_drops(self, interface: str) -> int:
        """Read with tc(8) what the root queueing discipline of an interface has dropped."""
        shown = json.loads(run("tc", "-n", self.name, "-s", "-j", "qdisc", "show", "dev", interface))
        return sum(int(qdisc["drops"]) for qdisc in shown if qdisc.get("root"))

    def nft(self, rules: str) -> None:
        """Load an nftables ruleset."""
        run("ip", "netns", "exec", self.name, "nft", rules)

    def nft_counter(self, name: str) -> int:
        """Read the packets of a named nftables counter."""
        listed = json.loads(self.run("nft", "-j", "list", "counters"))["nftables"]
        return sum(entry["counter"]["packets"] for entry in listed if entry.get("counter", {}).get("name") == name)


@dataclass
class Net:
    """A topology: its namespaces by role, and what has to be undone at its end."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    ipv6: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    def __getitem__(self, role: str) -> Namespace:
        return self.namespaces[role]

    def add(self, role: str, name: str | None = None) -> Namespace:
        """Make a namespace; it is deleted with the topology."""
        made = Namespace(name or f"pktdrop-{os.getpid()}-{next(_SERIAL)}-{role}")
        run("ip", "netns", "add", made.name)
        self.stack.callback(self._delete, made)
        self.namespaces[role] = made
        made.sysctl(
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
            ipv6__conf__default__accept_dad=0,
            ipv6__conf__default__dad_transmits=0,
            ipv6__conf__default__accept_ra=0,
            ipv6__conf__default__router_solicitations=0,
            ipv6__conf__default__addr_gen_mode=1,  # no link-local address
            ipv6__conf__default__mldv2_unsolicited_report_interval=1,  # ms: over before any trace starts
            ipv6__conf__all__disable_ipv6=int(not self.ipv6),
            ipv6__conf__default__disable_ipv6=int(not self.ipv6),
        )
        made.ip("link", "set", "lo", "up")
        return made

    @staticmethod
    def _delete(namespace: Namespace) -> None:
        if (RUN / namespace.name).exists():  # unless the test itself has deleted it
            run("ip", "netns", "delete", namespace.name)

    def keep(self, opened: socket.socket) -> socket.socket:
        """Close a socket only when all is over: closing one with unread data drops packets."""
        return self.stack.enter_context(opened)

    def cable(self, net: int, left: tuple[str, str, int], right: tuple[str, str, int]) -> None:
        """Join two namespaces by veth; each end is (role, interface, host number)."""
        ends = (left, right)
        run(
            *("ip", "link", "add", "name", left[1], "netns", self[left[0]].name, "address", mac(net, left[2])),
            *("type", "veth"),
            *("peer", "name", right[1], "netns", self[right[0]].name, "address", mac(net, right[2])),
        )
        for (role, interface, host), (_, _, other) in zip(ends, reversed(ends), strict=True):
            namespace = self[role]
            namespace.ip("link", "set", "dev", interface, "arp", "off", "up")
            addresses = [(ipv4(net, host), ipv4(net, other), "24")]
            if self.ipv6:
                addresses.append((ipv6(net, host), ipv6(net, other), "64"))
            for own, neighbour, prefix in addresses:
                namespace.ip("address", "add", f"{own}/{prefix}", "dev", interface)
                permanent = ("lladdr", mac(net, other), "dev", interface, "nud", "permanent")
                namespace.ip("neighbour", "replace", neighbour, *permanent)


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
def _topology(ipv6: bool) -> Iterator[Net]:
    net = Net(ipv6=ipv6)
    with net.stack:
        yield net


@contextmanager
def one_ns(ipv6: bool = False) -> Iterator[Net]:
    """host: lo."""
    with _topology(ipv6) as net:
        net.add("host")
        yield net


@contextmanager
def two_ns(ipv6: bool = False) -> Iterator[Net]:
    """Client eth0 -- eth0 server."""
    with _topology(ipv6) as net:
        net.add("client")
        net.add("server")
        net.cable(0, ("client", "eth0", 1), ("server", "eth0", 2))
        yield net


@contextmanager
def three_ns(ipv6: bool = False) -> Iterator[Net]:
    """Client eth0 -- west router east -- eth0 server; the router forwards, the others route all through it."""
    with _topology(ipv6) as net:
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
