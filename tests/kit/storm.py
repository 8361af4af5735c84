# SPDX-License-Identifier: MIT
"""Send many frames fast: storm.py CPU INTERFACE COUNT FRAME DISTINCT BUFFER; prints how many the kernel took.

Run as a program of its own, inside a namespace. FRAME is hexadecimal. The frames go straight to the device, past its
queueing discipline. Their ethertypes are the FRAME's and those that follow it, DISTINCT of them, in turn. BUFFER is
the size of the socket's send buffer, 0 for the default: so few frames under way that they fill no backlog.
"""

import ctypes
import os
import socket
import struct
import sys

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # include/linux/socket.h, include/uapi/linux/if_packet.h
SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h
BATCH = 1000


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Message(ctypes.Structure):
    """struct mmsghdr: a message and how much of it was sent."""

    _fields_ = (("header", Header), ("sent", ctypes.c_uint))


def frames(first: bytes, distinct: int) -> list[bytes]:
    """Return the frame with each of its ethertypes."""
    (ethertype,) = struct.unpack("!H", first[12:14])
    return [first[:12] + struct.pack("!H", ethertype + step) + first[14:] for step in range(distinct)]


def send(raw: socket.socket, count: int, payloads: list[bytes]) -> int:
    """Send `count` frames; return how many the kernel took."""
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    buffers = [ctypes.create_string_buffer(payload, len(payload)) for payload in payloads]
    vectors = [Vector(ctypes.addressof(buffer), len(buffer)) for buffer in buffers]
    messages = (Message * BATCH)()
    sent = 0
    for start in range(0, count, BATCH):
        if start == 0 or len(vectors) > 1:
            for index in range(BATCH):
                messages[index].header.vectors = ctypes.pointer(vectors[(start + index) % len(vectors)])
                messages[index].header.vector_count = 1
        # a frame that the receiver's full queue refuses ends the call: it is gone, go on behind it
        done, batch = 0, min(BATCH, count - start)
        while done < batch:
            taken = sendmmsg(raw.fileno(), ctypes.byref(messages, done * ctypes.sizeof(Message)), batch - done, 0)
            sent += max(taken, 0)
            done += max(taken, 1)
    return sent


def main() -> None:
    """Do what the arguments say."""
    cpu, interface, count, frame, distinct, buffer = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((interface, 0))
        raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        if int(buffer):
            raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, int(buffer))
        print(send(raw, int(count), frames(bytes.fromhex(frame), int(distinct))))


if __name__ == "__main__":
    main()
