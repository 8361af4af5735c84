# SPDX-License-Identifier: MIT
"""The process that makes packets drop, in a network namespace of its own, which ends with it.

Run by path, with the CPU to stay on. Reads commands (JSON, a line each) on standard input and answers each with a
line; ends with its input, so it never outlives the benchmark.

    {"do": "calls", "count": N}                   the same as udp, a system call for each, as most programs send
    {"do": "udp", "count": N}                     UDP datagrams to a closed port on loopback: NO_SOCKET
    {"do": "ethertypes", "keys": K, "count": N}   frames on loopback with K ethertypes nobody receives, in turn:
                                                  UNHANDLED_PROTO
"""

import ctypes
import fcntl
import json
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 1
_CLOSED_PORT = 9
_BATCH = 64
_FIRST_ETHERTYPE = 0x0600  # below, the field is a length (ETH_P_802_3_MIN)
_VLAN_TAGS = {0x8100, 0x88A8}  # taken off before a handler is looked for
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
    if _LIBC.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


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


def _unhandled() -> Iterator[int]:
    """Yield the ethertypes that no handler is registered for (/proc/net/ptype)."""
    handled = set(_VLAN_TAGS)
    for line in Path("/proc/thread-self/net/ptype").read_text(encoding="ascii").splitlines():
        if re.match(r"[0-9a-f]{4} ", line):
            handled.add(int(line[:4], 16))
    return (ethertype for ethertype in range(_FIRST_ETHERTYPE, 0x10000) if ethertype not in handled)


def _ethertypes(keys: int, count: int) -> int:
    frames = [bytes(12) + struct.pack("!H", ethertype) + bytes(46) for ethertype in islice(_unhandled(), keys)]
    batches = [_Batch(frames[at : at + _BATCH]) for at in range(0, len(frames), _BATCH)]
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("lo", 0))
        while sent < count:
            for batch in batches:
                if sent < count:
                    sent += batch.send(sender.fileno(), count - sent)
    return sent


def _no_ports() -> int:
    """Return the counter Udp: NoPorts of this namespace: the witness of what `udp` made drop."""
    lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


def _answer(command: dict[str, object]) -> dict[str, object]:
    count, keys = int(str(command["count"])), int(str(command.get("keys", 0)))
    start, cpu = time.monotonic(), time.process_time()
    senders = {"calls": _calls, "udp": _udp, "ethertypes": partial(_ethertypes, keys)}
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
