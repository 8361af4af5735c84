# SPDX-License-Identifier: MIT
"""A named network namespace: being in it, changing it, and reading its counters with other tools than pktdrop."""

import fcntl
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pktdrop.demo.tools import need, run, wait_until
from pktdrop.host.netns import inside

_SIOCGIFFLAGS = 0x8913  # include/uapi/linux/sockios.h
_IFF_RUNNING = 0x40  # include/uapi/linux/if.h
RUN = Path("/run/netns")
"""Where ip-netns(8) keeps the names."""


@dataclass(frozen=True)
class Namespace:
    """One network namespace, known to ip-netns(8) by its name."""

    name: str

    @property
    def inode(self) -> int:
        """The number that identifies the namespace in the kernel."""
        return (RUN / self.name).stat().st_ino

    @property
    def exists(self) -> bool:
        """Whether /run/netns has a namespace of this name."""
        return (RUN / self.name).exists()

    def delete(self) -> None:
        """Take the namespace's name away; the namespace ends with the last process and socket in it."""
        run("ip", "netns", "delete", self.name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace. Sockets and files opened here stay in it."""
        with inside(RUN / self.name):
            yield

    def run(self, *command: str) -> str:
        """Run a command inside the namespace."""
        need(command[0])
        return run("ip", "netns", "exec", self.name, *command)

    def read(self, *command: str) -> str:
        """Run a command that asks the kernel of the namespace and needs no /sys of it: run() takes twice as long."""
        with self.entered():
            return run(*command)

    def ip(self, *arguments: str) -> str:
        """Run ip-link(8), ip-address(8) and the like on the namespace."""
        return run("ip", "-n", self.name, *arguments)

    def ip_batch(self, *commands: Sequence[str]) -> None:
        """Run several commands of ip(8) on the namespace, in one process."""
        run("ip", "-n", self.name, "-batch", "-", stdin="".join(f"{' '.join(words)}\n" for words in commands))

    def wait_for_link(self, interface: str) -> None:
        """Wait until an interface sends. Raises TimeoutError.

        Once both ends are up that takes a worker of the kernel (linkwatch_do_dev, net/core/link_watch.c): on a busy
        host packets before that are dropped.
        """

        def is_running() -> bool:
            request = fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("16sH22x", interface.encode(), 0))
            return bool(struct.unpack("16xH22x", request)[0] & _IFF_RUNNING)

        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            wait_until(is_running, f"{interface} of {self.name} to be up")

    def wait_for_ipv6(self, address: str) -> None:
        """Wait until packets to an address of the namespace are its own. Raises TimeoutError.

        That takes another worker, even where no duplicates are looked for (addrconf_dad_work, which has the local route
        made, net/ipv6/addrconf.c).
        """
        local = f"{socket.inet_pton(socket.AF_INET6, address).hex()} 80 "

        def is_there() -> bool:
            routes = Path("/proc/thread-self/net/ipv6_route").read_text()
            return any(route.startswith(local) for route in routes.splitlines())

        with self.entered():
            wait_until(is_there, f"{address} to be an address of {self.name}")

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
        return int(json.loads(self.read("nstat", "-asz", "--json", name))["kernel"].get(name, 0))

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
        self.run("nft", rules)

    def nft_counter(self, name: str) -> int:
        """Read the packets of a named nftables counter."""
        listed = json.loads(self.read("nft", "-j", "list", "counters"))["nftables"]
        return sum(entry["counter"]["packets"] for entry in listed if entry.get("counter", {}).get("name") == name)
