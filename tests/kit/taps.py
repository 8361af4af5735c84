# SPDX-License-Identifier: MIT
"""Drops of many kinds: taps.py CPU INTERFACES ROUNDS; prints what was sent and what the kernel dropped.

Run as a program of its own. In a network namespace of its own it makes as many tap devices, and ROUNDS times it lets
each receive a frame of each ethertype in PROTOCOLS, which Linux handles none of: so many drops at one call site. It
waits for a line on standard input before it sends, and before it ends.
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path

PROTOCOLS = (0x88CC, 0x8847, 0x8863, 0x8864, 0x888E, 0x88E5, 0x88F7, 0x8906, 0x4305, 0x9000)
"""Of pktdrop/data/ethertypes.tsv, those without a handler (/proc/net/ptype) on a usual host."""
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # include/uapi/linux/if_tun.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # include/uapi/linux/sockios.h, if.h


def tap(name: str) -> int:
    """Make a tap device that is up; return the descriptor whose writes it receives."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP))
    return descriptor


def dropped() -> int:
    """Return how many received packets the devices of this namespace dropped: column 4 of /proc/net/dev."""
    lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    return sum(int(line.split(":", 1)[1].split()[3]) for line in lines)


def main() -> None:
    """Do what the arguments say."""
    cpu, interfaces, rounds = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {cpu})
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for which in ("default", "all"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")
    taps = [tap(f"tap{number}") for number in range(interfaces)]
    frames = [bytes(12) + struct.pack("!H", protocol) + bytes(46) for protocol in PROTOCOLS]
    print(json.dumps({"netns": os.stat("/proc/thread-self/ns/net").st_ino}), flush=True)
    sys.stdin.readline()
    for _ in range(rounds):
        for descriptor in taps:
            for frame in frames:
                os.write(descriptor, frame)
    sent = rounds * len(taps) * len(frames)
    print(json.dumps({"sent": sent, "dropped": dropped()}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
