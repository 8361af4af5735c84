# SPDX-License-Identifier: MIT
"""SNMP counters of namespaces, equal to what nstat(8) shows of the same traffic."""

import json
import os
import socket
from collections.abc import Iterator

import pytest

from pktdrop.counters.mib import GAUGES, Mibs
from pktdrop.demo.frames import ETH_P_IP, ethernet, ip4, udp
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, ipv6, mac, one_ns, two_ns
from pktdrop.model.counters import Reading

CLOSED_PORT = 9


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """Two namespaces that have exchanged packets and lost some, and where nothing moves any more."""
    with two_ns(ipv6=True) as made:
        exchange(made)
        yield made


def exchange(net: Net) -> None:
    """Cause errors that move counters of all three files in the server."""
    client = net.keep(net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW))
    client.bind(("eth0", 0))

    def send(packet: bytes) -> None:
        client.send(ethernet(mac(0, 2), mac(0, 1), ETH_P_IP, packet))

    ends = ipv4(0, 1), ipv4(0, 2)
    for _ in range(3):  # UdpNoPorts, and IcmpMsgOutType3
        send(ip4(*ends, socket.IPPROTO_UDP, udp(*ends, CLOSED_PORT)))
    for _ in range(4):  # IpExtInCsumErrors
        send(ip4(*ends, socket.IPPROTO_UDP, udp(*ends, CLOSED_PORT), wrong=1))
    for _ in range(5):  # Udp6NoPorts
        with net["client"].socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", (ipv6(0, 2), CLOSED_PORT))


def counters(reading: Reading, namespace: Namespace) -> dict[str, int]:
    """Values by name."""
    assert reading.limits == ()
    ((scope, row),) = reading.rows.items()
    assert scope.netns == namespace.inode
    return dict(zip(row.names, row.values, strict=True))


def nstat(namespace: Namespace) -> dict[str, int]:
    """All that nstat(8) shows, zeros too."""
    shown = json.loads(namespace.run("nstat", "-asz", "--json"))["kernel"]
    return {name: int(value) for name, value in shown.items()}


def test_every_counter_equals_nstat(net: Net) -> None:
    """Names and values are those of nstat, in every namespace, but for gauges that nstat takes for counters."""
    for namespace in net.namespaces.values():
        with namespace.entered():
            found = counters(Mibs().read(namespace.inode), namespace)
        # SCTP has a file of its own.
        shown = {name: value for name, value in nstat(namespace).items() if not name.startswith("Sctp")}
        assert found == {name: value for name, value in shown.items() if name not in GAUGES}


def test_losses_moved_the_counters_they_should(net: Net) -> None:
    """What was lost on purpose is there in its number, from all three files."""
    server = net["server"]
    with server.entered():
        found = counters(Mibs().read(server.inode), server)
    assert found["UdpNoPorts"] == found["IcmpMsgOutType3"] == 3
    assert found["IpExtInCsumErrors"] == 4
    assert found["Udp6NoPorts"] == 5


def test_unchanged_rows_are_the_same_object(net: Net) -> None:
    """Where nothing moved, the next reading gives the same Row; where something did, another one."""
    server = net["server"]
    mibs = Mibs()
    with server.entered():
        (before,) = mibs.read(server.inode).rows.values()
        (again,) = mibs.read(server.inode).rows.values()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", ("127.0.0.1", CLOSED_PORT))
        (moved,) = mibs.read(server.inode).rows.values()
    assert again is before
    assert moved.values != before.values


def test_namespaces_share_their_names() -> None:
    """Two namespaces in which the same types of packets were seen share one tuple of names."""
    mibs = Mibs()
    rows = []
    with one_ns() as first, one_ns() as second:
        for namespace in (first["host"], second["host"]):
            with namespace.entered():
                rows += mibs.read(namespace.inode).rows.values()
    assert rows[0].names is rows[1].names


def test_nothing_stays_open(net: Net) -> None:
    """A reading leaves no file behind, which would keep a deleted namespace alive."""
    server = net["server"]
    before = sorted(os.listdir("/proc/self/fd"))
    with server.entered():
        Mibs().read(server.inode)
    assert sorted(os.listdir("/proc/self/fd")) == before
