# SPDX-License-Identifier: MIT
"""Network namespaces by system calls: hundreds are made where ip(8), a process for each step, makes a few.

Message layouts: include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h and linux/netfilter/{nfnetlink,nf_tables}.h.
"""

import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, from 5.14 on
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000  # include/uapi/linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18  # include/uapi/linux/mount.h
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_OWN = "/proc/thread-self/ns/net"
_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12  # include/uapi/linux/netlink.h
_NLM_REQUEST, _NLM_ACK, _NLM_EXCL, _NLM_CREATE = 0x1, 0x4, 0x200, 0x400
_NLMSG_ERROR = 2
_RTM_NEWLINK, _RTM_NEWADDR = 16, 20
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 18, 28
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NESTED = 0x8000
_LIBC = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    """Raise OSError for what a function of libc returned."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_mounts() -> None:
    """Enter a mount namespace of our own: what is mounted in it ends with the process and its children."""
    call(_LIBC.unshare(_CLONE_NEWNS))
    call(_LIBC.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))


def mount(kind: str, where: str) -> None:
    """Mount a file system that needs no device."""
    call(_LIBC.mount(kind.encode(), where.encode(), kind.encode(), ctypes.c_ulong(0), None))


def end_with_parent() -> None:
    """Have this process killed when its parent ends."""
    call(_LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))


def own() -> int:
    """Open the namespace of this thread."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def make() -> int:
    """Move this thread into a new namespace; return a descriptor of it, by which it lives."""
    call(_LIBC.unshare(_CLONE_NEWNET))
    return own()


def enter(descriptor: int) -> None:
    """Move this thread into a namespace."""
    call(_LIBC.setns(descriptor, _CLONE_NEWNET))


@contextmanager
def entered(descriptor: int) -> Iterator[None]:
    """Move this thread into a namespace, and back at the end."""
    home = own()
    try:
        enter(descriptor)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def bind(path: Path) -> None:
    """Name the namespace of this thread, as ip-netns(8) does."""
    path.touch()
    call(_LIBC.mount(_OWN.encode(), bytes(path), None, ctypes.c_ulong(_MS_BIND), None))


def unbind(path: Path) -> None:
    """Take the name away."""
    call(_LIBC.umount2(bytes(path), _MNT_DETACH))
    path.unlink()


def cookie() -> int | None:
    """Return what identifies the namespace of this thread for as long as the kernel runs; None before 5.14."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        except OSError:
            return None


def without_ipv6() -> None:
    """Keep IPv6 from sending anything in this thread's namespace."""
    for where in ("all", "default"):
        setting = Path("/proc/sys/net/ipv6/conf", where, "disable_ipv6")
        if setting.exists():
            setting.write_text("1", encoding="ascii")


def counters() -> dict[str, int]:
    """Return the counters of this thread's namespace that /proc/net/snmp and netstat show, by nstat(8)'s names."""
    found = {}
    for file in ("snmp", "netstat"):
        lines = Path("/proc/thread-self/net", file).read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            protocol, *fields = names.split()
            found.update({protocol[:-1] + name: int(value) for name, value in zip(fields, values.split()[1:])})  # noqa: B905
    return found


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a netlink attribute (struct nlattr), padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def message(kind: int, flags: int, body: bytes) -> bytes:
    """Return a netlink message (struct nlmsghdr) that is a request."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags | _NLM_REQUEST, 0, 0) + body


def link_up(index: int) -> bytes:
    """Return the message that sets a link up."""
    return message(_RTM_NEWLINK, _NLM_ACK, struct.pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP))


def veth(name: str, address: bytes, peer: str, peer_netns: int, peer_address: bytes | None = None) -> bytes:
    """Return the message that makes a veth pair that asks for no neighbours, this end up.

    The other end cannot be set up before it has a peer (veth_open, drivers/net/veth.c).
    """
    flags = struct.pack("=BxHiII", 0, 0, 0, _IFF_UP | _IFF_NOARP, _IFF_UP | _IFF_NOARP)
    end = struct.pack("=BxHiII", 0, 0, 0, _IFF_NOARP, _IFF_NOARP) + attribute(_IFLA_IFNAME, peer.encode() + b"\0")
    end += attribute(_IFLA_NET_NS_FD, struct.pack("=i", peer_netns))
    if peer_address is not None:
        end += attribute(_IFLA_ADDRESS, peer_address)
    info = nest(_IFLA_LINKINFO, attribute(1, b"veth"), nest(2, attribute(1, end)))  # INFO_KIND, INFO_DATA, INFO_PEER
    body = flags + attribute(_IFLA_IFNAME, name.encode() + b"\0") + attribute(_IFLA_ADDRESS, address) + info
    return message(_RTM_NEWLINK, _NLM_ACK | _NLM_CREATE | _NLM_EXCL, body)


def ipv4(index: int, address: str, prefix: int) -> bytes:
    """Return the message that gives an interface an address."""
    packed = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return message(_RTM_NEWADDR, _NLM_ACK | _NLM_CREATE | _NLM_EXCL, body)


def ask(family: int, *messages: bytes, answers: int | None = None) -> list[bytes]:
    """Send messages at once and return the bodies of so many answers, by default one a message. Raises OSError."""
    found: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as netlink:
        netlink.settimeout(10.0)
        netlink.send(b"".join(messages))
        while len(found) < (len(messages) if answers is None else answers):
            data = netlink.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _NLMSG_ERROR and (error := struct.unpack_from("=i", data, 16)[0]):
                    raise OSError(-error, os.strerror(-error))
                found.append(data[16:length])
                data = data[(length + 3) // 4 * 4 :]
    return found


def route(*messages: bytes) -> None:
    """Send messages of rtnetlink(7). Raises OSError."""
    ask(_NETLINK_ROUTE, *messages)


# nf_tables: subsystem 10 of nfnetlink; NFPROTO_IPV4
_NFT = 10 << 8
_NEWTABLE, _NEWCHAIN, _NEWRULE, _NEWOBJ, _GETOBJ = 0, 3, 6, 18, 19
_IPV4 = struct.pack("=BBH", 2, 0, 0)
_TABLE, _CHAIN, _COUNTER = b"churn\0", b"input\0", b"dropped\0"


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nest(1, attribute(1, name.encode() + b"\0"), nest(2, *attributes))


def _firewall_messages(port: int) -> Iterator[bytes]:
    """Yield a batch that makes: table ip churn { counter dropped; chain input { udp dport PORT counter drop } }."""
    edge = struct.pack("!BBH", 0, 0, 10)
    yield message(0x10, 0, edge)
    yield message(_NFT | _NEWTABLE, _NLM_CREATE, _IPV4 + attribute(1, _TABLE))
    yield message(
        _NFT | _NEWOBJ, _NLM_CREATE, _IPV4 + attribute(1, _TABLE) + attribute(2, _COUNTER) + _number(3, 1) + nest(4)
    )
    hook = nest(4, _number(1, 1), _number(2, 0))  # NF_INET_LOCAL_IN, priority 0
    chain = attribute(1, _TABLE) + attribute(3, _CHAIN) + hook + attribute(7, b"filter\0")
    yield message(_NFT | _NEWCHAIN, _NLM_CREATE, _IPV4 + chain)
    expressions = (
        _expression("payload", _number(1, 1), _number(2, 2), _number(3, 2), _number(4, 2)),  # bytes 2, 3 of transport
        _expression("cmp", _number(1, 1), _number(2, 0), nest(3, attribute(1, struct.pack("!H", port)))),
        _expression("objref", _number(1, 1), attribute(2, _COUNTER)),
        _expression("immediate", _number(1, 0), nest(2, nest(2, _number(1, 0)))),  # verdict NF_DROP
    )
    rule = attribute(1, _TABLE) + attribute(2, _CHAIN) + nest(4, *expressions)
    yield message(_NFT | _NEWRULE, _NLM_CREATE | _NLM_ACK, _IPV4 + rule)
    yield message(0x11, 0, edge)


def firewall(port: int) -> None:
    """Let the namespace of this thread drop UDP to a port, and count that."""
    ask(_NETLINK_NETFILTER, *_firewall_messages(port), answers=1)


def firewall_count() -> int:
    """Return how many packets the firewall has dropped."""
    body = _IPV4 + attribute(1, _TABLE) + attribute(2, _COUNTER) + _number(3, 1)
    (answer,) = ask(_NETLINK_NETFILTER, message(_NFT | _GETOBJ, 0, body))
    data = _attributes(_attributes(answer[4:])[4])
    return int(struct.unpack("!Q", data[2])[0])  # NFTA_COUNTER_PACKETS


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) // 4 * 4 :]
    return found


def frame(to: bytes, source: str, destination: str, port: int) -> bytes:
    """Return an Ethernet frame with a UDP datagram, without a UDP checksum."""
    udp = struct.pack("!HHHH", 1000, port, 8 + 8, 0) + b"pktdrop!"
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    ip += socket.inet_aton(source) + socket.inet_aton(destination)
    return to + to + b"\x08\x00" + ip[:10] + _checksum(ip) + ip[12:] + udp


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
