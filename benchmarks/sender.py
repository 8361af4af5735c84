# SPDX-License-Identifier: MIT
"""The process that makes packets drop, in a network namespace of its own, which ends with it.

    python -I -m benchmarks.sender CPU

Stays on that CPU. Reads commands (JSON, a line each) on standard input and answers each with a
line; ends with its input, so it never outlives the benchmark.

    {"do": "calls", "count": N}                   the same as udp, a system call for each, as most programs send
    {"do": "udp", "count": N}                     UDP datagrams to a closed port on loopback: NO_SOCKET
    {"do": "kinds", "keys": K, "count": N}        frames on veth pairs that are dropped as K kinds, in turn
"""

import ctypes
import json
import os
import re
import socket
import struct
import sys
import time
from functools import cache, partial
from pathlib import Path

from benchmarks import netns
from pktdrop.rules.protocols import Protocols

_CLOSED_PORT = 9
_BATCH = 64
_FIRST_ETHERTYPE = 0x0600  # below, the field is a length (ETH_P_802_3_MIN)
_VLAN_TAGS = {0x8100, 0x88A8}  # taken off before a handler is looked for
_MAC = bytes.fromhex("020000000002")
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


class _Batch:
    """Messages that one sendmmsg(2) sends."""

    def __init__(self, payloads: list[bytes], address: bytes = b"") -> None:
        self._kept = [ctypes.create_string_buffer(payload, len(payload)) for payload in payloads]
        self._vectors = [_Vector(ctypes.addressof(buffer), len(buffer)) for buffer in self._kept]
        self._address = ctypes.create_string_buffer(address, len(address)) if address else None
        where = ctypes.addressof(self._address) if self._address is not None else None
        self._messages = (_Message * len(payloads))(
            *(_Message((where, len(address), ctypes.pointer(vector), 1, None, 0, 0)) for vector in self._vectors)
        )

    def send(self, descriptor: int, limit: int) -> int:
        """Send up to `limit` of them; return how many were."""
        sent = int(_LIBC.sendmmsg(descriptor, self._messages, min(limit, len(self._kept)), 0))
        if sent < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sent


def _enter_own_namespace() -> None:
    os.close(netns.make())
    netns.route(netns.link_up(1))
    netns.without_ipv6()


def _udp(count: int) -> int:
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", _CLOSED_PORT, socket.inet_aton("127.0.0.1"))
    batch = _Batch([b"pktdrop!"] * _BATCH, address)
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while sent < count:
            sent += batch.send(sender.fileno(), count - sent)
    return sent


def _calls(count: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            sender.sendto(b"pktdrop!", ("127.0.0.1", _CLOSED_PORT))
    return count


def _frames() -> list[bytes]:
    """Return frames of which each is dropped as another kind: of known protocols, so that none are counted together."""
    handled = set(_VLAN_TAGS)
    for line in Path("/proc/thread-self/net/ptype").read_text(encoding="ascii").splitlines():
        if re.match(r"[0-9a-f]{4} ", line):
            handled.add(int(line[:4], 16))
    protocols = Protocols.load()
    numbers = [protocols.number(name) for name in protocols.names()]
    known = [number for number in numbers if number and number >= _FIRST_ETHERTYPE and number not in handled]
    frames = [bytes(12) + struct.pack("!H", number) + bytes(46) for number in known]
    whole = netns.frame(_MAC, "10.7.0.1", "10.7.0.2", _CLOSED_PORT)
    no_checksum = whole[:24] + bytes(2) + whole[26:]
    no_version = whole[:14] + b"\x55" + whole[15:]
    return [*frames, bytes(12) + whole[12:], whole, no_checksum, no_version, _MAC * 2 + b"\x86\xdd" + bytes(40)]


@cache
def _interfaces(pairs: int) -> list[int]:
    """Make veth pairs; return the indexes of all ends."""
    here = netns.own()
    for pair in range(pairs):
        netns.route(netns.veth(f"a{pair}", _MAC, f"b{pair}", here, _MAC))
        netns.route(netns.link_up(socket.if_nametoindex(f"b{pair}")))
    os.close(here)
    return [index for index, name in socket.if_nameindex() if name != "lo"]


def _kinds(keys: int, count: int) -> int:
    """Send each frame to each interface from each CPU, in turn, with so many interfaces that these are `keys` kinds."""
    frames, cpus, home = _frames(), sorted(os.sched_getaffinity(os.getppid())), os.sched_getaffinity(0)
    pairs = -(-keys // (2 * len(frames) * len(cpus)))
    batches = [_Batch(frames, _link_address(index)) for index in _interfaces(pairs)]
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        while sent < count:
            left = keys
            for cpu in cpus:
                os.sched_setaffinity(0, {cpu})
                for batch in batches:
                    if left and sent < count:
                        now = batch.send(sender.fileno(), min(left, count - sent))
                        left, sent = left - now, sent + now
    os.sched_setaffinity(0, home)
    return sent


def _link_address(index: int) -> bytes:
    """Return struct sockaddr_ll: the interface alone counts."""
    return struct.pack("=HHiHBB8s", socket.AF_PACKET, 0, index, 0, 0, 0, b"")


def _no_ports() -> int:
    """Return the counter Udp: NoPorts of this namespace: the witness of what `udp` made drop."""
    lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


def _answer(command: dict[str, object]) -> dict[str, object]:
    count, keys = int(str(command["count"])), int(str(command.get("keys", 0)))
    start, cpu = time.monotonic(), time.process_time()
    senders = {"calls": _calls, "udp": _udp, "kinds": partial(_kinds, keys)}
    sent = senders[str(command["do"])](count)
    spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
    return {"sent": sent, "no_ports": _no_ports(), **spent}


def main() -> None:
    """Say which namespace this is, then answer commands."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    _enter_own_namespace()
    print(json.dumps({"netns": os.stat("/proc/thread-self/ns/net").st_ino}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
