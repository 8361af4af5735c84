# SPDX-License-Identifier: MIT
"""Drops of single sockets, equal to ss(8) and to how many packets were sent into them."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from pktdrop.counters import sockets
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, ipv6, one_ns, two_ns
from pktdrop.host import processes
from pktdrop.model.counters import Row, Scope
from tests.kit.process import wait_until

PORT = 4010
LOST = 29


@pytest.fixture
def net() -> Iterator[Net]:
    """One namespace with a loopback interface, IPv4 and IPv6."""
    with one_ns(ipv6=True) as made:
        yield made


def full(net: Net, address: str = "127.0.0.1", reuse: bool = False, interface: str | None = None) -> socket.socket:
    """Open a UDP socket whose buffer has room for nothing more."""
    lazy = net.keep(net["host"].socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM))
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
    if interface:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    lazy.bind((address, PORT))
    return lazy


def fill(net: Net, lazy: socket.socket) -> int:
    """Send to a socket until it drops; return how many it has dropped, by ss(8)."""
    inode = os.fstat(lazy.fileno()).st_ino

    def dropped() -> bool:
        send(net, lazy, 1)
        return by_ss(net["host"])[inode].drops > 0

    wait_until(dropped, "the buffer to be full")
    return by_ss(net["host"])[inode].drops


def send(net: Net, lazy: socket.socket, number: int) -> None:
    """Send packets to the port of a socket."""
    with net["host"].socket(lazy.family, socket.SOCK_DGRAM) as sender:
        for _ in range(number):
            sender.sendto(bytes(200), ("::1" if lazy.family == socket.AF_INET6 else "127.0.0.1", PORT))


class Shown:
    """What ss(8) says of a socket."""

    def __init__(self, line: str) -> None:
        """Take its line."""
        netid, _, recv, send, local, peer = line.split()[:6]
        memory = re.search(r"skmem:\(r(\d+),rb(\d+),.*,d(\d+)\)", line)
        inode = re.search(r" ino:(\d+)", line)
        assert memory is not None, line
        self.inode = int(inode[1]) if inode else 0
        remote = "" if peer.endswith(":*") else f" {peer}"
        self.name = f"{netid} {local}{remote} ino:{self.inode}"
        self.drops = int(memory[3])
        self.gauges = (int(recv), int(send)) if netid == "tcp" else (int(memory[1]), int(memory[2]))


def by_ss(namespace: Namespace) -> dict[int, Shown]:
    """Ask ss(8) for UDP sockets and TCP listeners, by inode."""
    lines = namespace.run("ss", "-O", "-H", "-u", "-t", "-a", "-m", "-n", "-e").splitlines()
    shown = [Shown(line) for line in lines if line.startswith("udp") or line.split()[1] == "LISTEN"]
    return {one.inode: one for one in shown}


class Found(NamedTuple):
    """What was read of the sockets of a namespace."""

    rows: Mapping[Scope, Row]
    gauges: Mapping[Scope, Row]
    inodes: Mapping[Scope, int]


def read(reader: sockets.SocketReader, namespace: Namespace) -> Found:
    """Read the sockets of a namespace."""
    with namespace.entered():
        found, inodes = reader.read(namespace.inode)
    assert found.limits == ()
    assert found.gauges.keys() == found.rows.keys()
    assert {scope.netns for scope in found.rows} <= {namespace.inode}
    return Found(found.rows, found.gauges, inodes)


def drops(found: Found) -> dict[str, int]:
    """Drops by name of the socket."""
    return {str(scope.socket): row.values[0] for scope, row in found.rows.items()}


def assert_equals_ss(found: Found, namespace: Namespace) -> None:
    """Names, drops, queues and buffers are those of ss(8), and no socket that dropped is missing."""
    shown = {one.name: one for one in by_ss(namespace).values() if one.drops}
    assert drops(found) == {name: one.drops for name, one in shown.items()}
    for scope, row in found.gauges.items():
        assert row.values == shown[str(scope.socket)].gauges
        assert found.inodes[scope] == shown[str(scope.socket)].inode


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_full_receive_buffer(net: Net, address: str) -> None:
    """Each packet sent to a full socket is one of its drops; another socket has none."""
    lazy = full(net, address)
    spared = net.keep(net["host"].socket(lazy.family, socket.SOCK_DGRAM))
    spared.bind((address, PORT + 1))
    reader = sockets.SocketReader()
    assert drops(read(reader, net["host"])) == {}
    before = fill(net, lazy)
    send(net, lazy, LOST)
    found = read(reader, net["host"])
    assert_equals_ss(found, net["host"])
    assert list(drops(found).values()) == [before + LOST]
    ((_, gauges),) = found.gauges.items()
    assert gauges.names == ("rmem_alloc", "rcvbuf")
    assert gauges.values[1] == lazy.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def test_names(net: Net) -> None:
    """Sockets bound to an interface, to all addresses of IPv6 only, and connected ones have the names ss gives them."""
    bound = full(net, "0.0.0.0", interface="lo")
    fill(net, bound)
    bound.close()
    own = net.keep(net["host"].socket(socket.AF_INET6, socket.SOCK_DGRAM))
    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    own.bind(("::", PORT))
    fill(net, own)
    bound = full(net, "127.0.0.1", interface="lo")
    fill(net, bound)
    names = sorted(drops(read(sockets.SocketReader(), net["host"])))
    assert_equals_ss(read(sockets.SocketReader(), net["host"]), net["host"])
    assert [name.rpartition(" ")[0] for name in names] == [f"udp 127.0.0.1%lo:{PORT}", f"udp [::]:{PORT}"]


def test_connected(net: Net) -> None:
    """A connected socket has both ends in its name."""
    server = full(net)
    client = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.bind(("127.0.0.1", PORT + 1))
    server.connect(("127.0.0.1", PORT + 1))
    client.connect(("127.0.0.1", PORT))

    def dropped() -> bool:
        client.send(bytes(200))
        return any(one.drops for one in by_ss(net["host"]).values())

    wait_until(dropped, "the buffer to be full")
    found = read(sockets.SocketReader(), net["host"])
    assert_equals_ss(found, net["host"])
    inode = os.fstat(server.fileno()).st_ino
    assert list(drops(found)) == [f"udp 127.0.0.1:{PORT} 127.0.0.1:{PORT + 1} ino:{inode}"]


def test_two_sockets_with_one_port(net: Net) -> None:
    """Sockets that share a port do not fall together."""
    both = [full(net, reuse=True) for _ in range(2)]

    def dropped() -> bool:
        for _ in range(20):  # each from another port: the kernel chooses by it
            send(net, both[0], 1)
        return all(by_ss(net["host"])[os.fstat(one.fileno()).st_ino].drops for one in both)

    wait_until(dropped, "both buffers to be full")
    found = read(sockets.SocketReader(), net["host"])
    assert_equals_ss(found, net["host"])
    assert len(drops(found)) == 2


def test_a_socket_that_follows_another(net: Net) -> None:
    """The next socket with the same port has a name of its own; the one that is gone has no row."""
    first = full(net)
    fill(net, first)
    (old,) = drops(read(sockets.SocketReader(), net["host"]))
    first.close()
    assert drops(read(sockets.SocketReader(), net["host"])) == {}
    fill(net, full(net))
    (new,) = drops(read(sockets.SocketReader(), net["host"]))
    assert old != new
    assert old.rpartition(" ")[0] == new.rpartition(" ")[0]


def test_accept_queue(net: Net) -> None:
    """Connections that a listener has no room for are its drops; queue and limit are those of ss."""
    listener = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.bind(("127.0.0.1", PORT))
    listener.listen(1)
    before = net["host"].mib("TcpExtListenDrops")
    for _ in range(7):
        with net["host"].socket(socket.AF_INET, socket.SOCK_STREAM) as caller:  # closed: it does not try again
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", PORT))
    found = read(sockets.SocketReader(), net["host"])
    assert_equals_ss(found, net["host"])
    ((name, lost),) = drops(found).items()
    assert name.startswith(f"tcp 127.0.0.1:{PORT} ino:")
    assert lost == net["host"].mib("TcpExtListenDrops") - before == 5
    ((_, gauges),) = found.gauges.items()
    assert dict(zip(gauges.names, gauges.values, strict=True)) == {"accept_queue": 2, "accept_limit": 1}


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_raw_socket(v6: bool) -> None:
    """Drops of a raw socket are those of /proc/net/raw, read by awk, and the packets sent."""
    with two_ns(ipv6=v6) as net:
        server = net["server"]
        lazy = net.keep(server.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 253))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sender = net.keep(net["client"].socket(lazy.family, socket.SOCK_RAW, 253))
        file = "/proc/net/raw6" if v6 else "/proc/net/raw"

        def by_awk() -> int:
            return int(server.run("awk", "NR > 1 && $2 ~ /:00FD$/ {print $NF}", file))

        def dropped() -> bool:
            sender.sendto(bytes(200), (ipv6(0, 2) if v6 else ipv4(0, 2), 0))
            return by_awk() > 0

        wait_until(dropped, "the buffer to be full")
        before = by_awk()
        for _ in range(LOST):
            sender.sendto(bytes(200), (ipv6(0, 2) if v6 else ipv4(0, 2), 0))
        wait_until(lambda: by_awk() == before + LOST, "all packets to arrive")
        inode = os.fstat(lazy.fileno()).st_ino
        local = "*" if v6 else "0.0.0.0"
        assert drops(read(sockets.SocketReader(), server)) == {f"raw {local}:253 ino:{inode}": before + LOST}


def test_proc_says_the_same(net: Net) -> None:
    """Without sock_diag, /proc/net gives the same drops for the same names, and what listeners dropped is not known."""
    fill(net, full(net, "127.0.0.1"))
    fill(net, full(net, "::1"))
    with net["host"].entered():
        found, malformed = [], 0
        for kind in sockets.SOCKET_TYPES:
            if kind.file:
                some, bad = sockets.parse_file(kind, Path("/proc/thread-self/net", kind.file).read_bytes())
                found += some
                malformed += bad
    assert malformed == 0
    diag = read(sockets.SocketReader(), net["host"])
    assert {one.name(None): one.drops for one in found} == drops(diag)
    assert {one.name(None): one.gauges.values for one in found} == {
        str(scope.socket): row.values[:1] for scope, row in diag.gauges.items()
    }


def test_other_sockets_are_not_there(net: Net) -> None:
    """TCP connections are not listed, and no socket of another namespace."""
    fill(net, full(net))
    with one_ns() as other:
        assert drops(read(sockets.SocketReader(), other["host"])) == {}


def test_owner(net: Net) -> None:
    """A socket is found to be that of the process that has it; one of nobody is of nobody."""
    lazy = full(net)
    inode = os.fstat(lazy.fileno()).st_ino
    comm = Path("/proc/self/comm").read_text().rstrip("\n")
    assert processes.of_sockets([inode, 1]) == {inode: processes.Process(os.getpid(), comm)}
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lazy.fileno()]) as child:
        assert child.stdout is not None
        child.stdout.readline()
        lazy.close()
        name = Path(f"/proc/{child.pid}/comm").read_text().rstrip("\n")
        assert processes.of_sockets([inode]) == {inode: processes.Process(child.pid, name)}
        child.communicate()
    assert processes.of_sockets([inode]) == {}


def test_nothing_stays_open(net: Net) -> None:
    """A reading leaves no socket behind, which would keep a deleted namespace alive."""
    before = sorted(os.listdir("/proc/self/fd"))
    read(sockets.SocketReader(), net["host"])
    assert sorted(os.listdir("/proc/self/fd")) == before
