# SPDX-License-Identifier: MIT
"""Names of interfaces by their index."""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from fcntl import ioctl

_SIOCGIFNAME = 0x8910  # include/uapi/linux/sockios.h
_IFREQ = struct.Struct("=16si20x")  # struct ifreq: name, ifindex, the rest of its union


def names(indexes: Iterable[int]) -> tuple[dict[int, str], list[str]]:
    """Return names in the network namespace this thread is in, and what went wrong, in a few words each.

    Interfaces that are gone are left out. Raises OSError if no name at all can be asked for.
    """
    named: dict[int, str] = {}
    faults: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        number = control.fileno()
        for index in indexes:
            try:
                answer = ioctl(number, _SIOCGIFNAME, _IFREQ.pack(b"", index))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    faults.append(f"the name of interface {index} cannot be read: {error.strerror}")
                continue
            named[index] = os.fsdecode(answer.partition(b"\0")[0])
    return named, faults
