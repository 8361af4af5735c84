# SPDX-License-Identifier: MIT
"""Counters of /proc/net/stat and xfrm_stat, equal to lnstat(8), conntrack(8) and awk, and moved by what they count."""

import json
import re
import socket
import subprocess
from collections.abc import Callable

import pytest

from pktdrop.counters import procstat, xfrm
from pktdrop.demo.frames import ETH_P_IP, ethernet, ip4, udp
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.views.limits import sentences
from tests.kit.process import DEADLINE, need, wait_until

LOST = 31
# Names that `conntrack -S` gives to columns of /proc/net/stat/nf_conntrack.
CONNTRACK_NAMES = {"error": "icmp_error", "clash_resolve": "clashres", "chaintoolong": "chainlength"}


def values(reading: Reading, scope: Scope) -> dict[str, int]:
    """Counters by name; there must be one row and nothing that could not be read."""
    assert reading.limits == ()
    assert list(reading.rows) == [scope]
    row: Row = reading.rows[scope]
    return dict(zip(row.names, row.values, strict=True))


def lnstat(file: str) -> dict[str, int]:
    """Give the sums over all CPUs that lnstat(8) makes (and divides by the interval). Its exit status is always 1."""
    command = ["lnstat", "-j", "-i", "1", "-c", "1", "-f", file]
    shown: dict[str, int] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=DEADLINE).stdout
    )
    del shown["entries"]
    return shown


@pytest.mark.parametrize(
    ("read", "files"),
    [(procstat.neighbours, ["arp_cache", "ndisc_cache"]), (procstat.rt_cache, ["rt_cache"])],
    ids=["neigh", "rt_cache"],
)
def test_equals_lnstat(read: Callable[[], Reading], files: list[str]) -> None:
    """Each counter lies between two readings of it by lnstat, which are equal where nothing moves."""
    need("lnstat")

    def by_lnstat() -> dict[str, int]:
        total: dict[str, int] = {}
        for file in files:
            total = {name: total.get(name, 0) + number for name, number in lnstat(file).items()}
        return total

    before, ours, after = by_lnstat(), values(read(), Scope()), by_lnstat()
    assert ours.keys() == before.keys()
    for name, number in ours.items():
        assert before[name] <= number <= after[name]


def test_neighbours_of_another_namespace() -> None:
    """In a namespace that is not the first the files are not there, and that is said."""
    with two_ns() as net, net["client"].entered():
        reading = procstat.neighbours()
    assert reading.rows == {}
    (limit,) = sentences(reading.limits)
    assert "first network namespace" in limit


def test_full_queue_of_a_neighbour() -> None:
    """Packets that wait for a neighbour who does not answer are discarded one by one, in any namespace."""
    with two_ns() as net:
        client = net["client"]
        client.ip("link", "set", "dev", "eth0", "arp", "on")
        client.sysctl(ipv4__neigh__eth0__unres_qlen=1, ipv4__neigh__eth0__mcast_solicit=60)
        before = values(procstat.neighbours(), Scope())
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(LOST + 1):
                sender.sendto(bytes(2000), (ipv4(0, 77), 9))  # two fragments
        after = values(procstat.neighbours(), Scope())
    assert after["unresolved_discards"] - before["unresolved_discards"] >= LOST


def test_martian_sources() -> None:
    """Packets from an impossible source count, in whatever namespace they arrive, and show in the first one."""
    with two_ns() as net:
        sender = net.keep(net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW))
        sender.bind(("eth0", 0))
        packet = ip4(ipv4(0, 2), ipv4(0, 2), socket.IPPROTO_UDP, udp(ipv4(0, 2), ipv4(0, 2), 9))
        before = values(procstat.rt_cache(), Scope())
        for _ in range(LOST):
            sender.send(ethernet(mac(0, 2), mac(0, 1), ETH_P_IP, packet))
        wait_until(lambda: net["server"].link("eth0", "rx.packets") == LOST, "all packets to arrive")
        after = values(procstat.rt_cache(), Scope())
        with net["server"].entered():
            inside = values(procstat.rt_cache(), Scope())
    assert after["in_martian_src"] - before["in_martian_src"] >= LOST
    assert inside["in_martian_src"] >= after["in_martian_src"]


RULES = """table inet pktdrop {
    counter invalid { }
    chain input {
        type filter hook input priority 0; policy accept;
        ct state invalid counter name invalid
    }
}"""


def test_conntrack() -> None:
    """Packets that fit no connection count as invalid in their namespace, as nftables and `conntrack -S` see them."""
    need("conntrack")
    with two_ns() as net:
        server = net["server"]
        server.nft(RULES)
        reading = conntrack(net, "server")
        if not reading.rows:
            pytest.skip("this kernel does not show the counters of connection tracking in /proc")
        lose_invalid(net)
        wait_until(lambda: server.nft_counter("invalid") == LOST, "all packets to arrive")
        ours = values(conntrack(net, "server"), Scope(netns=server.inode))
        shown: dict[str, int] = {}
        for name, number in re.findall(r"(\w+)=(\d+)", server.run("conntrack", "-S")):
            if name != "cpu":
                column = CONNTRACK_NAMES.get(name, name)
                shown[column] = shown.get(column, 0) + int(number)
        assert ours["invalid"] == LOST
        assert {name: ours[name] for name in shown} == shown
        other = values(conntrack(net, "client"), Scope(netns=net["client"].inode))
        assert other["invalid"] == 0


def conntrack(net: Net, role: str) -> Reading:
    """Read the counters of a namespace."""
    with net[role].entered():
        return procstat.conntrack(net[role].inode)


def lose_invalid(net: Net) -> None:
    """Send TCP segments whose header is shorter than any."""
    sender = net.keep(net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW))
    sender.bind(("eth0", 0))
    packet = ip4(ipv4(0, 1), ipv4(0, 2), socket.IPPROTO_TCP, bytes(20))
    for _ in range(LOST):
        sender.send(ethernet(mac(0, 2), mac(0, 1), ETH_P_IP, packet))


def test_xfrm() -> None:
    """Packets that a policy blocks count by their reason in their namespace, and the file read by awk says the same."""
    with two_ns() as net:
        server = net["server"]
        with server.entered():
            if not xfrm.read(server.inode).rows:
                pytest.skip("this kernel does not count errors of IPsec")
        server.ip("xfrm", "policy", "add", "src", ipv4(0, 1), "dst", ipv4(0, 2), "dir", "in", "action", "block")
        with net["client"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(LOST):
                sender.sendto(b"x", (ipv4(0, 2), 9))
        wait_until(lambda: server.link("eth0", "rx.packets") == LOST, "all packets to arrive")
        with server.entered():
            ours = values(xfrm.read(server.inode), Scope(netns=server.inode))
        shown = server.run("awk", "{print $1, $2}", "/proc/net/xfrm_stat").splitlines()
        assert ours == {line.split()[0]: int(line.split()[1]) for line in shown}
        assert {name: number for name, number in ours.items() if number} == {"XfrmInPolBlock": LOST}
        with net["client"].entered():
            other = values(xfrm.read(net["client"].inode), Scope(netns=net["client"].inode))
        assert set(other.values()) == {0}
