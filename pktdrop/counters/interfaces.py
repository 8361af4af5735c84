# SPDX-License-Identifier: MIT
"""Names and addresses of interfaces by their index."""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from fcntl import ioctl

from pktdrop.model.limits import Limit, refused

_SIOCGIFNAME = 0x8910  # include/uapi/linux/sockios.h
_SIOCGIFHWADDR = 0x8927
_ADDRESS = slice(18, 32)  # struct ifreq: behind the name, and the family of its struct sockaddr
_IFREQ = struct.Struct("=16si20x")  # struct ifreq: name, ifindex, the rest of its union


def addresses(named: Iterable[str]) -> dict[str, bytes]:
    """Return hardware addresses in the network namespace this thread is in, of those that have one of their own."""
    found = {}
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        for name in named:
            with suppress(OSError):  # it is gone
                answer = ioctl(control.fileno(), _SIOCGIFHWADDR, os.fsencode(name).ljust(_IFREQ.size, b"\0"))
                if any(answer[_ADDRESS]):
                    found[name] = answer[_ADDRESS]
    return found


def names(indexes: Iterable[int]) -> tuple[dict[int, str], list[Limit]]:
    """Return names in the network namespace this thread is in, and what went wrong.

    Interfaces that are gone are left out. Raises OSError if no name at all can be asked for.
    """
    named: dict[int, str] = {}
    faults: list[Limit] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        number = control.fileno()
        for index in indexes:
            try:
                answer = ioctl(number, _SIOCGIFNAME, _IFREQ.pack(b"", index))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    faults.append(refused(error, "interface-unnamed")._replace(number=index))
                continue
            named[index] = os.fsdecode(answer.partition(b"\0")[0])
    return named, faults
