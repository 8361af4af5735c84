# SPDX-License-Identifier: MIT
"""Packets that single sockets dropped: UDP and raw sockets, and those of TCP that listen.

sock_diag(7) lists them, each with its counter of drops, its buffer and its queue (SK_MEMINFO). The kernel loads its
modules udp_diag and raw_diag for it, as it does for ss(8); where there are none, /proc/net tells the drops, but not how
large the buffer is. TCP sockets that do not listen are not asked for: there may be very many, and SNMP counters have
what they drop.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from pktdrop.counters import interfaces
from pktdrop.counters.crowd import MOST, Admits, Crowd, any_socket
from pktdrop.counters.netlink import Netlink, NetlinkAnswer, attributes
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused

#: The counter of each socket. TCP adds the segments of a large packet, the others one for each packet.
NAMES: Final = ("drops",)
#: Bytes that wait in the socket and may wait there, as the kernel counts them: with what it needs itself.
BUFFER_GAUGES: Final = ("rmem_alloc", "rcvbuf")
#: The same of /proc/net.
PROC_GAUGES: Final = ("rmem_alloc",)
#: Connections that wait to be accepted, and how many may.
LISTENER_GAUGES: Final = ("accept_queue", "accept_limit")

_NETLINK_SOCK_DIAG = 4  # include/uapi/linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # include/uapi/linux/sock_diag.h
# include/uapi/linux/inet_diag.h
_INET_DIAG_SKMEMINFO, _INET_DIAG_SKV6ONLY = 7, 11
_EXTENSIONS = 1 << (_INET_DIAG_SKMEMINFO - 1)
_TCP_LISTEN = 10  # include/net/tcp_states.h
_ALL_STATES = 0xFFFFFFFF

_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states, socket id
# struct inet_diag_msg: family; ports, addresses, interface and cookie; lengths of the queues; inode
_MESSAGE = struct.Struct("=B3x 2s2s16s16sI8s 4xII 4xI")
_COOKIE = struct.Struct("=Q")
_COOKIE_AT = struct.calcsize("=B3x 2s2s16s16sI")
_MEMINFO = struct.Struct("=I I 24x I")  # SK_MEMINFO_RMEM_ALLOC, _RCVBUF and _DROPS of include/uapi/linux/sock_diag.h
# The last attribute of a UDP socket (inet_sk_diag_fill in net/ipv4/inet_diag.c), where it has dropped nothing.
_IDLE_SIZE = 4 + _MEMINFO.size
_MEMINFO_HEADER = struct.pack("=HH", _IDLE_SIZE, _INET_DIAG_SKMEMINFO)
_IDLE = re.compile(re.escape(_MEMINFO_HEADER) + rb".{32}\0{4}", re.DOTALL)

_PROC = "/proc/thread-self/net/"
_PROC_COLUMNS, _PORT_DIGITS = 13, 4


class SocketType(NamedTuple):
    """What the kernel is asked for at once."""

    protocol: str
    number: int
    family: socket.AddressFamily
    states: int
    file: str | None
    """File in /proc/net with the drops of such sockets; None: there is none."""


SOCKET_TYPES: Final = (
    SocketType("udp", socket.IPPROTO_UDP, socket.AF_INET, _ALL_STATES, "udp"),
    SocketType("udp", socket.IPPROTO_UDP, socket.AF_INET6, _ALL_STATES, "udp6"),
    SocketType("raw", socket.IPPROTO_RAW, socket.AF_INET, _ALL_STATES, "raw"),
    SocketType("raw", socket.IPPROTO_RAW, socket.AF_INET6, _ALL_STATES, "raw6"),
    SocketType("tcp", socket.IPPROTO_TCP, socket.AF_INET, 1 << _TCP_LISTEN, None),
    SocketType("tcp", socket.IPPROTO_TCP, socket.AF_INET6, 1 << _TCP_LISTEN, None),
)


class DroppingSocket(NamedTuple):
    """A socket that dropped packets."""

    protocol: str
    local: tuple[str, int]
    """Address and port; of a raw socket its protocol. "*": any address of IPv6 and IPv4."""
    remote: tuple[str, int]
    ifindex: int
    """Interface that the socket is bound to; 0: to none."""
    inode: int
    cookie: int
    drops: int
    gauges: Row

    @property
    def identity(self) -> tuple[str, int, int]:
        """Protocol, inode and cookie: these stay the same as long as the socket is there."""
        return self.protocol, self.inode, self.cookie

    def name(self, interface: str | None) -> str:
        """Return protocol, address and port as ss(8) writes them, the remote end if there is one, and the inode.

        The inode tells apart sockets that share a port, and one that is closed from the next one with its port.
        """
        where = "" if interface is None else f"%{interface}"
        words = [self.protocol, _end(self.local, where)]
        if self.remote[1] or self.remote[0] not in ("*", "0.0.0.0", "::"):
            words.append(_end(self.remote, ""))
        words.append(f"ino:{self.inode}" if self.inode else f"sk:{self.cookie:x}")
        return " ".join(words)


class SocketDump(NamedTuple):
    """What the kernel answered to one request of sock_diag."""

    sockets: tuple[DroppingSocket, ...]
    error: int
    """Why the kernel refused: an errno, or 0."""
    faults: tuple[Limit, ...]


class SocketReader:
    """Reads the sockets of any number of namespaces; remembers their names and what the kernel does not have."""

    def __init__(self) -> None:
        self._refused: set[SocketType] = set()  # each question for what is not there makes the kernel look for a module
        # A socket keeps the name it had first: connected anew or bound to an interface that is renamed, it is the same.
        self._scopes: dict[Netns, dict[tuple[str, int, int], Scope]] = {}
        self._crowds: dict[Netns, Crowd] = {}

    def read(self, netns: Netns) -> tuple[Reading, Mapping[Scope, int]]:
        """Read sockets that have dropped packets: drops, what waits in queues and buffers, and inodes."""
        sockets: list[DroppingSocket] = []
        faults: list[Limit] = []
        crowd = self._crowds.setdefault(netns, Crowd())
        self._ask(sockets, faults, crowd)
        for socket_type in filter(self._refused.__contains__, SOCKET_TYPES):
            _read_file(socket_type, sockets, faults, crowd)
        left_out = crowd.end(is_whole=not faults)
        scopes = self._name(netns, sockets, faults)
        drops: dict[Scope, int] = {}
        for scope, one in zip(scopes, sockets, strict=True):
            drops[scope] = drops.get(scope, 0) + one.drops  # in /proc/net, sockets without inode may look the same
        rows = {scope: Row(NAMES, (dropped,)) for scope, dropped in drops.items()}
        gauges = {scope: one.gauges for scope, one in zip(scopes, sockets, strict=True)}
        inodes = {scope: one.inode for scope, one in zip(scopes, sockets, strict=True) if one.inode}
        others = [Limit("sockets-left-out", number=left_out, of=MOST)] if left_out else []
        limits, of_others = of_source("socket", netns, faults), of_source("socket", netns, others)
        return Reading(rows, limits, gauges, of_others), inodes

    def forget(self, netns: Netns) -> None:
        """Drop what is remembered of a namespace that is gone."""
        self._scopes.pop(netns, None)
        self._crowds.pop(netns, None)

    def _ask(self, sockets: list[DroppingSocket], faults: list[Limit], crowd: Crowd) -> None:
        asked = [socket_type for socket_type in SOCKET_TYPES if socket_type not in self._refused]
        try:
            with closing(Netlink(_NETLINK_SOCK_DIAG)) as netlink:
                for socket_type in asked:
                    request = _REQUEST.pack(socket_type.family, socket_type.number, _EXTENSIONS, socket_type.states)
                    dump = parse(netlink.ask(_SOCK_DIAG_BY_FAMILY, request), socket_type.protocol, crowd.admits)
                    if dump.error == errno.ENOENT:
                        self._refused.add(socket_type)
                    else:
                        sockets += dump.sockets
                        faults += [fault._replace(names=(socket_type.protocol,)) for fault in dump.faults]
        except OSError as error:
            if error.errno == errno.EPROTONOSUPPORT:  # the kernel has no sock_diag at all
                self._refused.update(asked)
            else:
                faults.append(refused(error))

    def _name(self, netns: Netns, sockets: list[DroppingSocket], faults: list[Limit]) -> list[Scope]:
        """Give the scope of each socket."""
        known = self._scopes.get(netns, {})
        bound = {one.ifindex for one in sockets if one.ifindex and one.identity not in known}
        names, nameless = _interfaces(bound) if bound else ({}, [])
        faults += nameless
        scopes = []
        for one in sockets:
            interface = names.get(one.ifindex, str(one.ifindex)) if one.ifindex else None
            scopes.append(known.get(one.identity) or Scope(netns=netns, socket=one.name(interface)))
        now = {one.identity: scope for one, scope in zip(sockets, scopes, strict=True) if one.inode or one.cookie}
        self._scopes[netns] = {**known, **now} if faults else now
        return scopes


def parse_file(socket_type: SocketType, data: bytes, admits: Admits = any_socket) -> tuple[list[DroppingSocket], int]:
    """Parse a file of /proc/net; return the sockets that dropped packets, and how many lines are malformed."""
    whole, _, cut = data.rpartition(b"\n")
    title, *lines = whole.splitlines() or [b""]
    if title.split()[-1:] != [b"drops"]:
        return [], 1 + len(lines)
    sockets: list[DroppingSocket] = []
    malformed = int(bool(cut))
    for line in lines:
        columns = line.split()
        if len(columns) == _PROC_COLUMNS and columns[-1] == b"0":
            continue
        try:
            found = _of_line(socket_type, columns)
        except ValueError:
            malformed += 1
            continue
        if found.drops and admits(b"inode " + columns[9]):
            sockets.append(found)
    return sockets, malformed


def parse(answer: NetlinkAnswer, protocol: str, admits: Admits = any_socket) -> SocketDump:
    """Take one answer of sock_diag apart; malformed messages are left out, and counted in the faults."""
    sockets = []
    for message in answer.messages(_SOCK_DIAG_BY_FAMILY):
        try:
            found = _socket(protocol, admits, *message)
        except (ValueError, struct.error):
            answer.malformed += 1
            continue
        if found is not None:
            sockets.append(found)
    return SocketDump(tuple(sockets), answer.error, tuple(answer.faults()))


def _socket(protocol: str, admits: Admits, data: bytes, start: int, end: int) -> DroppingSocket | None:
    """Return the socket if it dropped packets and is told apart. Raises ValueError or struct.error if malformed."""
    body = start + _MESSAGE.size
    if body > end:
        raise ValueError("no struct inet_diag_msg")
    if _IDLE.match(data, max(body, end - _IDLE_SIZE), end):  # by far the most: it is worth to look there first
        return None
    memory, v6only = end, False
    cookie = data[start + _COOKIE_AT : start + _COOKIE_AT + _COOKIE.size]
    if data.startswith(_MEMINFO_HEADER, max(body, end - _IDLE_SIZE)) and not admits(cookie):
        return None  # of a crowd these are the most
    for attribute, begin, behind in attributes(data, body, end):
        if attribute == _INET_DIAG_SKMEMINFO and behind - begin >= _MEMINFO.size:
            memory = begin
            break  # whatever else is needed comes before it
        if attribute == _INET_DIAG_SKV6ONLY:
            v6only = data[begin:behind] == b"\1"
    if memory == end:
        raise ValueError("no SK_MEMINFO")
    waiting, buffer, drops = _MEMINFO.unpack_from(data, memory)
    if not drops or not admits(cookie):
        return None
    family, *ports, source, destination, ifindex, _, rqueue, wqueue, inode = _MESSAGE.unpack_from(data, start)
    sport, dport = (int.from_bytes(port, "big") for port in ports)
    gauges = Row(LISTENER_GAUGES, (rqueue, wqueue)) if protocol == "tcp" else Row(BUFFER_GAUGES, (waiting, buffer))
    return DroppingSocket(
        protocol=protocol,
        local=(_address(family, source, v6only), sport),
        remote=(_address(family, destination, v6only), dport),
        ifindex=ifindex,
        inode=inode,
        cookie=_COOKIE.unpack(cookie)[0],
        drops=drops,
        gauges=gauges,
    )


def _address(family: int, packed: bytes, v6only: bool) -> str:
    """Write an address. Raises ValueError for a family that is neither IPv4 nor IPv6."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, packed[:4])
    if family != socket.AF_INET6:
        raise ValueError("neither IPv4 nor IPv6")
    return socket.inet_ntop(socket.AF_INET6, packed) if v6only or any(packed) else "*"


def _end(end: tuple[str, int], interface: str) -> str:
    address, port = end
    bracketed = f"[{address}]" if ":" in address else address
    return f"{bracketed}{interface}:{port or '*'}"


def _interfaces(indexes: Collection[int]) -> tuple[dict[int, str], list[Limit]]:
    """Names of interfaces, and what went wrong."""
    try:
        return interfaces.names(indexes)
    except OSError as error:
        return {}, [refused(error, "interfaces-unnamed")]


def _read_file(socket_type: SocketType, sockets: list[DroppingSocket], faults: list[Limit], crowd: Crowd) -> None:
    if socket_type.file is None:
        if socket_type.family == socket.AF_INET:
            faults.append(Limit("no-diag", (socket_type.protocol,)))
        return
    try:
        data = Path(_PROC, socket_type.file).read_bytes()
    except FileNotFoundError:  # no IPv6
        return
    except OSError as error:
        faults.append(refused(error, "unreadable", socket_type.file))
        return
    found, malformed = parse_file(socket_type, data, crowd.admits)
    sockets += found
    if malformed:
        faults.append(Limit("malformed-lines", (socket_type.file,), number=malformed))


def _of_line(socket_type: SocketType, columns: list[bytes]) -> DroppingSocket:
    """Make a socket of a line of /proc/net. Raises ValueError if it is malformed.

    Columns: number, local and remote end, state, queues, timer, retransmits, user, timeout, inode, references, pointer,
    drops (udp4_format_sock in net/ipv4/udp.c, raw_sock_seq_show in net/ipv4/raw.c).
    """
    if len(columns) < _PROC_COLUMNS:
        raise ValueError("columns are missing")
    waiting = columns[4].partition(b":")[2]
    return DroppingSocket(
        protocol=socket_type.protocol,
        local=_hexadecimal_end(socket_type.family, columns[1]),
        remote=_hexadecimal_end(socket_type.family, columns[2]),
        ifindex=0,
        inode=_number(columns[9]),
        cookie=0,
        drops=_number(columns[12]),
        gauges=Row(PROC_GAUGES, (int(waiting, 16),)),
    )


def _hexadecimal_end(family: int, text: bytes) -> tuple[str, int]:
    address, _, port = text.partition(b":")
    words = bytes.fromhex(address.decode("ascii"))
    if len(words) != (4 if family == socket.AF_INET else 16) or len(port) != _PORT_DIGITS:
        raise ValueError("no address and port")
    # each word of the address is a number of this machine
    packed = struct.pack(f"={len(words) // 4}I", *struct.unpack(f">{len(words) // 4}I", words))
    return _address(family, packed, v6only=False), int(port, 16)


def _number(text: bytes) -> int:
    if not text.isdigit():
        raise ValueError("no number")
    return int(text)
