# SPDX-License-Identifier: MIT
"""Counters of interfaces and CPUs, equal to what other tools show of the same traffic."""

import fcntl
import json
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from pktdrop.counters import like, links, softnet
from pktdrop.demo.frames import ETH_P_IP, UNKNOWN_ETHERTYPE, ethernet, ip4, udp
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from pktdrop.model.counters import Row
from tests.kit.process import need, run, wait_until

# include/uapi/linux/if_tun.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
VXLAN = 4789  # RFC 7348
CONGESTION = 3  # RFC 3168: congestion experienced
SOMEBODY_ELSE = "02:00:00:00:ff:ff"

# Names that `ip -s -s -j link` gives to members of struct rtnl_link_stats64 (iproute2 ip/ipaddress.c print_stats64).
# It leaves compressed, nohandler and otherhost out where they are 0.
IP_NAMES = {
    "rx.bytes": "rx_bytes",
    "rx.packets": "rx_packets",
    "rx.errors": "rx_errors",
    "rx.dropped": "rx_dropped",
    "rx.over_errors": "rx_over_errors",
    "rx.multicast": "multicast",
    "rx.compressed": "rx_compressed",
    "rx.length_errors": "rx_length_errors",
    "rx.crc_errors": "rx_crc_errors",
    "rx.frame_errors": "rx_frame_errors",
    "rx.fifo_errors": "rx_fifo_errors",
    "rx.missed_errors": "rx_missed_errors",
    "rx.nohandler": "rx_nohandler",
    "rx.otherhost": "rx_otherhost_dropped",
    "tx.bytes": "tx_bytes",
    "tx.packets": "tx_packets",
    "tx.errors": "tx_errors",
    "tx.dropped": "tx_dropped",
    "tx.carrier_errors": "tx_carrier_errors",
    "tx.collisions": "collisions",
    "tx.compressed": "tx_compressed",
    "tx.aborted_errors": "tx_aborted_errors",
    "tx.fifo_errors": "tx_fifo_errors",
    "tx.window_errors": "tx_window_errors",
    "tx.heartbeat_errors": "tx_heartbeat_errors",
}


def packet_socket(net: Net, role: str, interface: str) -> socket.socket:
    """Open a socket to send frames from an interface."""
    opened = net.keep(net[role].socket(socket.AF_PACKET, socket.SOCK_RAW))
    opened.bind((interface, 0))
    return opened


def lose_packets(net: Net) -> None:
    """Move as many counters of the server's interfaces as a machine without network hardware lets one move."""
    client = packet_socket(net, "client", "eth0")
    for _ in range(7):  # rx_dropped: nobody handles it
        client.send(ethernet(mac(0, 2), mac(0, 1), UNKNOWN_ETHERTYPE, b"?"))
    packet = ip4(ipv4(0, 1), ipv4(0, 2), socket.IPPROTO_UDP, udp(ipv4(0, 1), ipv4(0, 2), 9))
    for _ in range(5):  # rx_otherhost_dropped
        client.send(ethernet(SOMEBODY_ELSE, mac(0, 1), ETH_P_IP, packet))
    tap_losses(net)
    tunnel_losses(net)


def tap_losses(net: Net) -> None:
    """tx_dropped by a reader who does not read."""
    if not Path("/dev/net/tun").exists():
        return
    with net["server"].entered():
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        net.stack.callback(os.close, tap)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI))
    net["server"].ip("link", "set", "dev", "tap0", "txqueuelen", "3", "up")
    sender = packet_socket(net, "server", "tap0")
    for _ in range(20):
        sender.send(ethernet(mac(0, 9), mac(0, 8), UNKNOWN_ETHERTYPE, b"?"))


def tunnel_losses(net: Net) -> None:
    """tx_carrier_errors by a tunnel to where no route leads, rx_frame_errors by congestion marks that are lies."""
    try:
        vxlan = ("type", "vxlan", "id", "5", "dstport", str(VXLAN), "remote", "192.0.2.1")
        net["server"].ip("link", "add", "name", "vx", *vxlan)
    except RuntimeError:  # this kernel has no VXLAN
        return
    net["server"].ip("link", "set", "dev", "vx", "up")
    sender = packet_socket(net, "server", "vx")
    for _ in range(13):
        sender.send(ethernet(SOMEBODY_ELSE, mac(0, 2), UNKNOWN_ETHERTYPE, b"?"))
    inner = ethernet(SOMEBODY_ELSE, mac(0, 8), ETH_P_IP, ip4("192.0.2.8", "192.0.2.9", 253, b"no ECN"))
    payload = udp(ipv4(0, 1), ipv4(0, 2), VXLAN, struct.pack("!II", 0x08000000, 5 << 8) + inner)
    outer = bytearray(ip4(ipv4(0, 1), ipv4(0, 2), socket.IPPROTO_UDP, payload, wrong=-CONGESTION))
    outer[1] = CONGESTION
    client = packet_socket(net, "client", "eth0")
    for _ in range(11):
        client.send(ethernet(mac(0, 2), mac(0, 1), ETH_P_IP, bytes(outer)))


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """Two namespaces; interfaces of the server have lost packets in several ways, and nothing moves any more."""
    need("netstat", "ifconfig", "sar")
    with two_ns() as made:
        lose_packets(made)
        yield made


@pytest.fixture(scope="module")
def server(net: Net) -> Namespace:
    """The namespace with losses."""
    return net["server"]


def reading(namespace: Namespace) -> dict[str, Row]:
    """Rows by name of interface."""
    with namespace.entered():
        found = links.read(namespace.inode)[0]
    assert found.limits == ()
    assert {scope.netns for scope in found.rows} == {namespace.inode}
    return {str(scope.interface): row for scope, row in found.rows.items()}


def ip_link(namespace: Namespace) -> dict[str, dict[str, int]]:
    """The same by ip(8)."""
    shown = json.loads(namespace.ip("-s", "-s", "-j", "link"))
    return {
        link["ifname"]: {
            name: link["stats64"][direction].get(key, 0)
            for direction, key, name in ((*shown_as.split("."), name) for shown_as, name in IP_NAMES.items())
        }
        for link in shown
    }


def test_every_counter_of_every_interface_equals_ip(server: Namespace) -> None:
    """Each of the 25 counters of each interface is the one that `ip -s -s -j link` shows."""
    rows = reading(server)
    assert {name: dict(zip(row.names, row.values, strict=True)) for name, row in rows.items()} == {
        name: {counter: counters[counter] for counter in rows[name].names} for name, counters in ip_link(server).items()
    }
    assert len({id(row.names) for row in rows.values()}) == 1


def test_losses_moved_the_counters_they_should(server: Namespace) -> None:
    """What was lost on purpose is there in its number: the comparisons of this module are not all of zeros."""
    rows = {name: dict(zip(row.names, row.values, strict=True)) for name, row in reading(server).items()}
    assert rows["eth0"]["rx_dropped"] == 7
    if "rx_otherhost_dropped" in rows["eth0"]:
        assert rows["eth0"]["rx_otherhost_dropped"] == 5
    if "tap0" in rows:
        assert rows["tap0"]["tx_dropped"] > 0
    if "vx" in rows:
        assert rows["vx"]["tx_carrier_errors"] == 13
        assert rows["vx"]["rx_frame_errors"] == 11


def test_fold_equals_proc_net_dev(server: Namespace) -> None:
    """The fold gives every number of /proc/net/dev, in its order."""
    lines = server.run("cat", "/proc/net/dev").splitlines()[2:]
    expected = {line.split(":")[0].strip(): tuple(map(int, line.split(":")[1].split())) for line in lines}
    assert {name: tuple(like.net_dev(row).values()) for name, row in reading(server).items()} == expected


def test_netstat(server: Namespace) -> None:
    """The columns of `netstat -i -a` are ours, title by title."""
    header, *lines = server.run("netstat", "-i", "-a").splitlines()[1:]
    titles = header.split()
    table = like.netstat(reading(server))
    for line in lines:
        shown = dict(zip(titles, line.split(), strict=True))
        ours = next(row for row in table.rows if row[0] == shown["Iface"])
        assert dict(zip(table.titles, ours, strict=True)) == {title: shown[title] for title in table.titles}
    assert len(lines) == len(table.rows)


def test_ifconfig(server: Namespace) -> None:
    """Every counter that `ifconfig -a` shows is ours, by direction and word."""
    shown: dict[tuple[str, str, str], str] = {}
    for block in server.run("ifconfig", "-a").strip().split("\n\n"):
        name = block.split(":")[0]
        for direction, text in re.findall(r"^ +(RX|TX) (.*)$", block, re.MULTILINE):
            shown |= {(name, direction, word): number for word, number in re.findall(r"([a-z]+) (\d+)", text)}
    ours = {
        (row[0], table.titles[0], title): cell
        for table in like.ifconfig(reading(server))
        for row in table.rows
        for title, cell in zip(table.titles[1:], row[1:], strict=True)
    }
    assert ours == shown


def test_ip_text(server: Namespace) -> None:
    """Every number in the text of `ip -s -s link` is ours, under the same title."""
    for name, row in reading(server).items():
        lines = server.ip("-s", "-s", "link", "show", "dev", name).splitlines()
        shown = {}
        for titles, numbers in pairwise(lines):
            match = re.fullmatch(r" +(RX|TX)( errors)?:(.*)", titles)
            if match:
                shown |= dict(
                    zip(
                        ((match[1] + (match[2] or ""), title) for title in match[3].split()),
                        numbers.split(),
                        strict=True,
                    )
                )
        shown.pop(("TX errors", "transns"), None)
        ours = {
            (table.titles[0], title): cell
            for table in like.ip({name: row})
            for title, cell in zip(table.titles[1:], table.rows[0][1:], strict=True)
        }
        assert ours == shown


def test_sar_edev(net: Net, server: Namespace) -> None:
    """Over one interval of sar, in which we cause 1234 losses, all its rates of all interfaces are ours.

    sar does not print how long its interval was; one length in hundredths of a second must give all of its digits.
    """
    sender = packet_socket(net, "client", "eth0")
    before = reading(server)
    command = ("ip", "netns", "exec", server.name, "sar", "-n", "EDEV", "1", "2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}) as sar:
        assert sar.stdout is not None
        first = next(line for line in sar.stdout if " eth0 " in line)  # the second interval has begun
        for _ in range(1234):
            sender.send(ethernet(mac(0, 2), mac(0, 1), UNKNOWN_ETHERTYPE, b"?"))
        output = sar.stdout.read()
    assert sar.returncode == 0, first
    differences = difference(before, reading(server))
    second = output[output.index(" IFACE ") :].split("\n\n")[0]
    titles, *lines = [line.split() for line in second.splitlines()]
    shown = {line[1]: line[1:] for line in lines}
    matching = [
        hundredths
        for hundredths in range(90, 500)
        if {row[0]: list(row) for row in like.sar_edev(differences, hundredths / 100).rows} == shown
    ]
    assert like.sar_edev(differences, 1).titles == tuple(titles)
    assert matching, output
    assert float(shown["eth0"][titles.index("rxdrop/s")]) > 0


def difference(before: Mapping[str, Row], after: Mapping[str, Row]) -> dict[str, Row]:
    """Subtract counters that have not wrapped."""
    return {
        name: Row(row.names, tuple(new - old for new, old in zip(row.values, before[name].values, strict=True)))
        for name, row in after.items()
    }


def test_interfaces_that_come_and_go(server: Namespace) -> None:
    """An interface is there with the next reading after it was made, by its new name once renamed, and then gone."""
    server.ip("link", "add", "name", "a@b~c", "type", "veth", "peer", "name", "peer")
    assert {"a@b~c", "peer"} <= set(reading(server))
    server.ip("link", "set", "dev", "peer", "name", "renamed")
    assert {"a@b~c", "renamed"} <= set(reading(server))
    server.ip("link", "delete", "dev", "renamed")
    assert not {"a@b~c", "renamed", "peer"} & set(reading(server))


def test_nothing_stays_open(server: Namespace) -> None:
    """A reading leaves no file or socket behind, which would keep a deleted namespace alive."""
    before = sorted(os.listdir("/proc/self/fd"))
    reading(server)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_softnet_equals_the_file() -> None:
    """Each counter lies between two readings of its column of /proc/net/softnet_stat by awk."""
    column = {"processed": 1, "dropped": 2, "time_squeeze": 3, "received_rps": 10, "flow_limit_count": 11}

    def by_awk() -> list[list[int]]:
        words = " ".join(f"${number}," for number in column.values())
        shown = run("awk", f"{{print {words.rstrip(',')}}}", "/proc/net/softnet_stat")
        return [[int(word, 16) for word in line.split()] for line in shown.splitlines()]

    first, ours, last = by_awk(), softnet.read(), by_awk()
    assert ours.limits == ()
    assert len(ours.rows) == len(first)
    for row, low, high in zip(ours.rows.values(), first, last, strict=True):
        assert row.names == tuple(column)
        for value, least, most in zip(row.values, low, high, strict=True):
            assert (value - least) % 2**32 <= (most - least) % 2**32


def test_softnet_counts_what_was_received(net: Net) -> None:
    """Frames received in another namespace move `processed` of this machine: the file belongs to no namespace."""
    sender = packet_socket(net, "client", "eth0")
    before = softnet.read().rows

    def processed() -> int:
        after = softnet.read().rows
        return sum((after[scope].values[0] - before[scope].values[0]) % 2**32 for scope in before)

    for _ in range(500):
        sender.send(ethernet(mac(0, 2), mac(0, 1), UNKNOWN_ETHERTYPE, b"?"))
    wait_until(lambda: processed() >= 500, "what was received")  # a busy CPU takes it later
