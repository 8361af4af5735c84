# SPDX-License-Identifier: MIT
"""Answers of sock_diag and files of /proc/net about sockets, real ones and such as there should not be."""

import errno
import os
import re
import socket
import struct
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import netlink, sockets
from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.counters.sockets import SOCKET_TYPES, DroppingSocket, parse, parse_file
from pktdrop.host.processes import Process, of_sockets
from pktdrop.model.counters import Reading, Row
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters/sockets-6.18.44"
NETNS = Netns(4026531840, 1)
# include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h
ERROR, DONE, BY_FAMILY = 2, 3, 20
SKMEMINFO, V6ONLY = 7, 11
UDP, UDP6, RAW = SOCKET_TYPES[0], SOCKET_TYPES[1], SOCKET_TYPES[2]
TITLE = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    b"   uid  timeout inode ref pointer drops\n"
)
LINE = b" 8555: 0100007F:0FAA 00000000:0000 07 00000000:00000500 00:00000000 00000000 0 0 77 2 0000000000000000 8\n"


def message(kind: int, payload: bytes) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 2, 1, 0) + payload


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


END = message(DONE, struct.pack("=i", 0))


def memory(drops: int) -> bytes:
    """SK_MEMINFO with 11 bytes in a buffer of 22."""
    return attribute(SKMEMINFO, struct.pack("=9I", 11, 22, 3, 4, 5, 6, 7, 8, drops))


def told(
    attributes: bytes,
    source: str = "127.0.0.1",
    destination: str = "0.0.0.0",
    ports: tuple[int, int] = (53, 0),
    ifindex: int = 0,
    inode: int = 77,
    family: int | None = None,
) -> bytes:
    """One socket as the kernel tells of it; its queues are 33 and 44 long."""
    v6 = ":" in source
    packed = [socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, one) for one in (source, destination)]
    kind = family if family is not None else socket.AF_INET6 if v6 else socket.AF_INET
    head = struct.pack("=4B", kind, 7, 0, 0) + struct.pack("!HH", *ports)
    addresses = b"".join(one.ljust(16, b"\0") for one in packed)
    rest = struct.pack("=I8s5I", ifindex, struct.pack("=Q", 0xABC), 0, 33, 44, 0, inode)
    return message(BY_FAMILY, head + addresses + rest + attributes)


def name(*arguments: bytes, interface: str | None = None, **how: object) -> str:
    """Name of a socket told of."""
    (one,) = parse(NetlinkAnswer([told(*(arguments or (memory(1),)), **how) + END], 1), "udp").sockets  # type: ignore[arg-type]
    return one.name(interface)


def of_ss() -> Mapping[str, tuple[int, int, int, int, int]]:
    """What ss(8) showed: lengths of the queues, memory, buffer and drops by name, of sockets that dropped."""
    shown = {}
    for line in (DATA / "ss.txt").read_text().splitlines()[1:]:
        state, receive, send, local = line.split()[:4]
        inode = re.search(r"ino:(\d+)", line)
        numbers = re.search(r"skmem:\(r(\d+),rb(\d+),.*,d(\d+)\)", line)
        assert inode is not None
        assert numbers is not None
        protocol = "tcp" if state == "LISTEN" else "udp"
        found = (int(receive), int(send), int(numbers[1]), int(numbers[2]), int(numbers[3]))
        if found[-1]:
            shown[f"{protocol} {local} ino:{inode[1]}"] = found
    return shown


def test_real_answers_equal_ss() -> None:
    """Of real answers, each socket that dropped has name, drops, queue and buffer as ss(8) showed them."""
    found: dict[str, DroppingSocket] = {}
    for file in ("udp", "udp6", "tcp", "tcp6"):
        dump = parse(NetlinkAnswer([(DATA / f"{file}.diag").read_bytes()], 1), file.rstrip("6"))
        assert dump.faults == ()
        found.update({one.name(None): one for one in dump.sockets})
    assert {one: it.drops for one, it in found.items()} == {one: numbers[4] for one, numbers in of_ss().items()}
    for one, (receive, send, waiting, buffer, _) in of_ss().items():
        expected = (receive, send) if one.startswith("tcp") else (waiting, buffer)
        assert found[one].gauges.values == expected


@pytest.mark.parametrize(("kind", "file"), [(UDP, "udp"), (UDP6, "udp6")])
def test_real_files_equal_ss(kind: sockets.SocketType, file: str) -> None:
    """The files of the same moment give the same drops and queues; they do not tell IPv6 alone from both."""
    found, malformed = parse_file(kind, (DATA / file).read_bytes())
    assert malformed == 0
    shown = {one.replace("[::]", "*"): numbers for one, numbers in of_ss().items() if one.startswith("udp")}
    expected = {one: numbers for one, numbers in shown.items() if ("*" in one) == (file == "udp6")}
    assert {one.name(None): (one.drops, one.gauges.values) for one in found} == {
        one: (drops, (waiting,)) for one, (_, _, waiting, _, drops) in expected.items()
    }


def test_names() -> None:
    """Names are in the notation of ss: brackets, asterisks, the interface behind the address."""
    assert name() == "udp 127.0.0.1:53 ino:77"
    assert name(interface="eth0") == "udp 127.0.0.1%eth0:53 ino:77"
    assert name(source="::1", destination="::") == "udp [::1]:53 ino:77"
    assert name(source="::", destination="::") == "udp *:53 ino:77"
    assert name(attribute(V6ONLY, b"\0") + memory(1), source="::", destination="::") == "udp *:53 ino:77"
    assert name(attribute(V6ONLY, b"\1") + memory(1), source="::", destination="::") == "udp [::]:53 ino:77"
    assert name(source="fe80::1", destination="::", interface="eth0") == "udp [fe80::1]%eth0:53 ino:77"
    assert name(destination="192.0.2.1", ports=(53, 99)) == "udp 127.0.0.1:53 192.0.2.1:99 ino:77"
    assert name(ports=(0, 0)) == "udp 127.0.0.1:* ino:77"
    assert name(inode=0) == "udp 127.0.0.1:53 sk:abc"


def test_sockets_that_dropped_nothing() -> None:
    """They are left out, wherever SK_MEMINFO stands."""
    idle = told(memory(0)) + told(memory(0) + attribute(99, b"new")) + told(attribute(8, b"\0") + memory(0))
    dump = parse(NetlinkAnswer([idle + told(memory(2**32 - 1)) + END], 1), "udp")
    assert [one.drops for one in dump.sockets] == [2**32 - 1]
    assert dump.faults == ()


def test_longer_meminfo() -> None:
    """A kernel may append numbers to SK_MEMINFO."""
    longer = attribute(SKMEMINFO, struct.pack("=10I", 11, 22, 0, 0, 0, 0, 0, 0, 6, 0))
    (one,) = parse(NetlinkAnswer([told(longer) + END], 1), "udp").sockets
    assert one.drops == 6
    assert one.gauges == Row(("rmem_alloc", "rcvbuf"), (11, 22))


def test_listeners() -> None:
    """Of a listener the queue of connections is told."""
    (one,) = parse(NetlinkAnswer([told(memory(6)) + END], 1), "tcp").sockets
    assert one.gauges == Row(("accept_queue", "accept_limit"), (33, 44))


@pytest.mark.parametrize(
    "bad",
    [
        message(BY_FAMILY, b""),
        told(b""),
        told(attribute(SKMEMINFO, bytes(32))),
        told(memory(1)[:-4]),
        told(memory(1), family=1),
        told(struct.pack("=HH", 2, 1)),
    ],
)
def test_malformed_messages(bad: bytes) -> None:
    """A malformed message is left out and counted; the next one is there."""
    dump = parse(NetlinkAnswer([bad + told(memory(3)) + END], 1), "udp")
    assert [one.drops for one in dump.sockets] == [3]
    assert dump.faults == (Limit("malformed-parts", number=1),)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_garbage(datagrams: list[bytes]) -> None:
    """Any bytes at all give no exception, and are not taken for a whole list."""
    assert parse(NetlinkAnswer(datagrams, 1), "udp").faults


@given(st.data())
def test_damaged(data: st.DataObject) -> None:
    """A real answer with some bytes changed gives no exception."""
    answer = bytearray((DATA / "udp6.diag").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    for one in parse(NetlinkAnswer([bytes(answer)], 1), "udp").sockets:
        assert one.name("lo").startswith("udp ")


def test_a_raw_socket_in_proc() -> None:
    """The place of the port has the protocol."""
    (one,), malformed = parse_file(RAW, TITLE + LINE.replace(b"0FAA", b"0001"))
    assert (one.name(None), one.drops, malformed) == ("raw 127.0.0.1:1 ino:77", 8, 0)


def test_a_connected_socket_in_proc() -> None:
    """The remote end is there if there is one, and its numbers are in the order of the machine."""
    (one,), _ = parse_file(UDP, TITLE + LINE.replace(b"00000000:0000", b"0A0200C0:0035"))
    remote = struct.unpack("=I", socket.inet_aton("192.0.2.10"))[0]
    assert remote == 0x0A0200C0
    assert one.name(None) == "udp 127.0.0.1:4010 192.0.2.10:53 ino:77"


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        LINE.replace(b"0100007F", b"0100007"),
        LINE.replace(b"0100007F:0FAA", b"0100007F0FAA"),
        LINE.replace(b"0100007F", b"0100007F" * 4),
        LINE.replace(b" 8\n", b" x\n"),
        LINE.replace(b" 8\n", b"\n"),
        LINE.replace(b" 77 ", b" -77 "),
        LINE.replace(b"00000500", b"zzz"),
        LINE.replace(b" 8\n", b" " + b"9" * 9000 + b"\n"),
    ],
)
def test_malformed_lines(bad: bytes) -> None:
    """A malformed line is left out and counted; the others are there."""
    found, malformed = parse_file(UDP, TITLE + LINE + bad + LINE)
    assert [one.drops for one in found] == [8, 8]
    assert malformed == 1


def test_lines_of_another_kernel() -> None:
    """New columns at the end do not hide the drops; without a column of drops nothing is known."""
    found, malformed = parse_file(UDP, TITLE.replace(b"drops", b"new drops") + LINE)
    assert (found, malformed) == (parse_file(UDP, TITLE + LINE)[0], 0)
    (one,), _ = parse_file(UDP, TITLE + LINE.replace(b" 8\n", b" 8 999\n"))
    assert one.drops == 8
    assert parse_file(UDP, TITLE.replace(b"drops", b"") + LINE) == ([], 2)
    assert parse_file(UDP, b"") == ([], 1)


def test_truncated() -> None:
    """A file cut anywhere gives no number but those of the whole file, and a malformed line."""
    for cut in range(len(TITLE + LINE)):
        found, malformed = parse_file(UDP, (TITLE + LINE)[:cut])
        assert found == []
        assert malformed or cut == len(TITLE)


@given(st.one_of(st.binary(max_size=300), st.text("0123456789ABCDEF: \n", max_size=300).map(str.encode)))
def test_garbage_in_proc(data: bytes) -> None:
    """Any bytes at all give no exception, and do not hide the line before them."""
    found, malformed = parse_file(UDP, TITLE + LINE + data)
    assert [one.drops for one in found][:1] == [8]
    assert malformed or not data.strip()


class Kernel:
    """Has sock_diag for some protocols, as a socket of netlink shows it."""

    def __init__(self, *protocols: str, error: int = errno.ENOENT) -> None:
        """Take the protocols it has; `error` is what it says of others."""
        self.asked: list[str] = []
        self._protocols = protocols
        self._error = error

    def close(self) -> None:
        """Be closed."""

    def ask(self, _: int, body: bytes) -> NetlinkAnswer:
        """Answer: one socket with five drops, or an error."""
        (protocol,) = [kind.protocol for kind in SOCKET_TYPES if (kind.family, kind.number) == tuple(body[:2])]
        self.asked.append(protocol)
        if protocol in self._protocols:
            return NetlinkAnswer([told(memory(5), inode=5) + END if body[0] == socket.AF_INET else END], 1)
        return NetlinkAnswer([message(ERROR, struct.pack("=i", -self._error))], 1)


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory in the place of /proc/net, with one UDP socket and a raw one; no IPv6."""
    (tmp_path / "udp").write_bytes(TITLE + LINE)
    (tmp_path / "raw").write_bytes(TITLE + LINE.replace(b" 77 ", b" 78 "))
    monkeypatch.setattr(sockets, "_PROC", f"{tmp_path}/")
    return tmp_path


def names(found: Reading) -> dict[str | None, int]:
    """Drops by name."""
    return {scope.socket: row.values[0] for scope, row in found.rows.items()}


def test_what_the_kernel_does_not_have(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Without raw_diag the file is read, and no second time is it asked for: the kernel would look for a module."""
    kernel = Kernel("udp", "tcp")
    monkeypatch.setattr(sockets, "Netlink", lambda _: kernel)
    reader = sockets.SocketReader()
    for _ in range(2):
        found, inodes = reader.read(NETNS)
        assert names(found) == {
            "udp 127.0.0.1:53 ino:5": 5,
            "tcp 127.0.0.1:53 ino:5": 5,
            "raw 127.0.0.1:4010 ino:78": 8,
        }
        assert found.limits == ()
        assert sorted(inodes.values()) == [5, 5, 78]
    assert kernel.asked.count("raw") == 2  # IPv4 and IPv6
    assert kernel.asked.count("udp") == 4


def test_a_crowd_of_sockets(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Of more than can be told apart it is said how many are left out; the counters of the others are whole."""
    monkeypatch.setattr("pktdrop.counters.crowd.MOST", 0)
    monkeypatch.setattr(sockets, "Netlink", lambda _: Kernel("udp", "tcp"))
    found, inodes = sockets.SocketReader().read(NETNS)
    assert (found.rows, found.gauges, inodes, found.limits) == ({}, {}, {}, ())
    assert sentences(found.left_out) == [
        f"Sockets of network namespace {NETNS}: 2 more dropped packets than the 8192 that are told apart: those are "
        "counted by protocol alone."
    ]


def test_no_tcp_diag(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """What listeners dropped stands nowhere else: that is said, once."""
    monkeypatch.setattr(sockets, "Netlink", lambda _: Kernel("udp"))
    found, _ = sockets.SocketReader().read(NETNS)
    assert sentences(found.limits) == [
        f"Sockets of network namespace {NETNS}: this kernel has no tcp_diag, so what listeners dropped is not known."
    ]


def test_no_sock_diag(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Without sock_diag at all the files are read."""

    def refuse(_: int) -> netlink.Netlink:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr(sockets, "Netlink", refuse)
    (proc / "udp6").write_bytes(b"?\n")
    found, _ = sockets.SocketReader().read(NETNS)
    assert names(found) == {"udp 127.0.0.1:4010 ino:77": 8, "raw 127.0.0.1:4010 ino:78": 8}
    assert [limit.split(": ", 1)[1] for limit in sentences(found.limits)] == [
        "1 malformed lines of udp6 are left out.",
        "this kernel has no tcp_diag, so what listeners dropped is not known.",
    ]


def test_a_passing_error(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Where it fails for another reason that is said, no other names appear, and it is asked again."""
    kernel = Kernel("udp", "tcp", error=errno.ENOMEM)
    monkeypatch.setattr(sockets, "Netlink", lambda _: kernel)
    reader = sockets.SocketReader()
    for _ in range(2):
        found, _ = reader.read(NETNS)
        assert set(names(found)) == {"udp 127.0.0.1:53 ino:5", "tcp 127.0.0.1:53 ino:5"}
        assert (
            sentences(found.limits) == [f"Sockets of network namespace {NETNS}: raw: {os.strerror(errno.ENOMEM)}."] * 2
        )
    assert kernel.asked.count("raw") == 4


def test_no_netlink(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Where no socket can be had, or the answer breaks off, the reading is empty and says why."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    limit = Limit("refused", why="Operation not permitted", source="socket", netns=NETNS)
    assert sockets.SocketReader().read(NETNS)[0] == Reading({}, (limit,))
    kernel = Kernel("udp", "tcp")
    monkeypatch.setattr(kernel, "ask", refuse)
    monkeypatch.setattr(sockets, "Netlink", lambda _: kernel)
    assert sockets.SocketReader().read(NETNS)[0] == Reading({}, (limit,))


def test_a_socket_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected to somebody else or unbound from an interface that is gone, it is the same socket, and no new one."""
    told_of: list[bytes] = []

    class Changing(Kernel):
        def ask(self, _: int, body: bytes) -> NetlinkAnswer:
            return NetlinkAnswer(
                [told_of[0] + END if tuple(body[:2]) == (socket.AF_INET, socket.IPPROTO_UDP) else END], 1
            )

    monkeypatch.setattr(sockets, "Netlink", lambda _: Changing())
    reader = sockets.SocketReader()
    loopback = socket.if_nametoindex("lo")
    told_of[:] = [told(memory(5), ifindex=loopback)]
    assert names(reader.read(NETNS)[0]) == {"udp 127.0.0.1%lo:53 ino:77": 5}
    told_of[:] = [told(memory(6), ifindex=2**31 - 1, destination="192.0.2.1", ports=(53, 9))]
    assert names(reader.read(NETNS)[0]) == {"udp 127.0.0.1%lo:53 ino:77": 6}
    told_of[:] = [told(memory(7), ifindex=2**31 - 1)]
    assert names(sockets.SocketReader().read(NETNS)[0]) == {f"udp 127.0.0.1%{2**31 - 1}:53 ino:77": 7}
    told_of[:] = [told(memory(1), inode=78)]
    assert names(reader.read(NETNS)[0]) == {"udp 127.0.0.1:53 ino:78": 1}
    reader.forget(NETNS)
    told_of[:] = [told(memory(1), inode=78, ports=(54, 0))]
    assert names(reader.read(NETNS)[0]) == {"udp 127.0.0.1:54 ino:78": 1}


def test_unreadable_file(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """A file that is there and cannot be read is said."""
    monkeypatch.setattr(sockets, "Netlink", lambda _: Kernel("udp", "tcp"))
    (proc / "raw").unlink()
    (proc / "raw").mkdir()
    assert sentences(sockets.SocketReader().read(NETNS)[0].limits) == [
        f"Sockets of network namespace {NETNS}: raw cannot be read: {os.strerror(errno.EISDIR)}."
    ]


def test_sockets_without_inode_in_proc(monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
    """Those that look the same are counted together, and nobody is asked for."""
    monkeypatch.setattr(sockets, "Netlink", lambda _: Kernel("udp", "tcp"))
    (proc / "raw").write_bytes(TITLE + LINE.replace(b" 77 ", b" 0 ") * 2)
    found, inodes = sockets.SocketReader().read(NETNS)
    assert names(found)["raw 127.0.0.1:4010 sk:0"] == 16
    assert 0 not in inodes.values()


def process(proc: Path, pid: int, comm: bytes, *links: str) -> None:
    """Make a process with files."""
    files = proc / str(pid) / "fd"
    files.mkdir(parents=True)
    (proc / str(pid) / "comm").write_bytes(comm + b"\n")
    for number, link in enumerate(links):
        (files / str(number)).symlink_to(link)


def test_owners(tmp_path: Path) -> None:
    """The first process that has a socket is its owner; what is no process is passed over."""
    process(tmp_path, 30, b"child", "socket:[7]", "socket:[8]")
    process(tmp_path, 4, b"\xffnamed:", "/dev/null", "pipe:[9]", "socket:[7]")
    (tmp_path / "self").mkdir()
    (tmp_path / "5").mkdir()  # a process whose files may not be seen
    assert of_sockets([7, 8, 9, 10], tmp_path) == {7: Process(4, "\\xffnamed:"), 8: Process(30, "child")}
    assert of_sockets([], tmp_path) == {}


def test_a_search_for_owners_ends(tmp_path: Path) -> None:
    """A process may have any number of files open: what is not found in a second is left out, and what was found stays.

    The clock goes on by 0.3 s each time that it is looked at.
    """
    process(tmp_path, 4, b"named", "socket:[7]")
    process(tmp_path, 5, b"crowd", *["/dev/null"] * 2000)
    process(tmp_path, 6, b"late", "socket:[8]")
    steps = count(0.0, 0.3)
    assert of_sockets([7, 8], tmp_path, lambda: next(steps)) == {7: Process(4, "named")}
    assert of_sockets([7, 8], tmp_path) == {7: Process(4, "named"), 8: Process(6, "late")}
