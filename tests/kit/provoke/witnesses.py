# SPDX-License-Identifier: MIT
"""What shows that packets were lost: counters, as other tools and /proc tell of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from pktdrop.demo.causes.parts import Sink, mib
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net
from pktdrop.demo.tools import run

_DROPS = re.compile(r"skmem:\([^)]*,d([0-9]+)\)")


def socket_drops(net: Net, role: str) -> Callable[[], int]:
    """Return a function that reads what the sockets of a namespace dropped: with ss(8), raw ones from /proc/net."""

    def read() -> int:
        shown = net[role].read("ss", "-Htlnm") + net[role].read("ss", "-Huanm")
        with net[role].entered():
            raw = [Path("/proc/thread-self/net", name) for name in ("raw", "raw6", "icmp", "icmp6")]
            lines = [line for path in raw if path.exists() for line in path.read_text().splitlines()[1:]]
        return sum(map(int, _DROPS.findall(shown))) + sum(int(line.split()[-1]) for line in lines)

    return read


def qdisc_drops(net: Net, role: str) -> Callable[[], int]:
    """Return a function that reads with tc(8) what the queueing disciplines of a namespace dropped, without parents.

    A qdisc with others below it counts their drops once more.
    """

    def read() -> int:
        shown = json.loads(run("tc", "-n", net[role].name, "-s", "-j", "qdisc", "show"))
        drops = {(qdisc["dev"], qdisc["handle"]): int(qdisc["drops"]) for qdisc in shown}
        below = [qdisc for qdisc in shown if not qdisc.get("root") and ":" in qdisc.get("parent", "")]
        inner = sum(int(qdisc["drops"]) for qdisc in below if not qdisc["parent"].startswith("ffff:"))
        return sum(drops.values()) - inner

    return read


def counts(namespace: Namespace, name: str) -> bool:
    """Tell whether the kernel has an SNMP counter, by nstat(8), which shows those that are 0, too."""
    return name in json.loads(namespace.read("nstat", "-asz", "--json"))["kernel"]


def xfrm(net: Net, role: str, name: str) -> Callable[[], int]:
    """Return a function that reads a counter of IPsec, which only /proc shows."""

    def read() -> int:
        with net[role].entered():
            lines = Path("/proc/thread-self/net/xfrm_stat").read_text().splitlines()
        return {key: int(value) for key, value in map(str.split, lines)}[name]

    return read


def swallowed(net: Net, role: str, sink: Sink, v6: bool) -> Callable[[], int]:
    """Return a function that tells how many packets came in by IP and did not come out of the open port."""
    received = mib(net, role, "IpInReceives", "Ip6InReceives", v6)
    return lambda: received() - sink.received()
