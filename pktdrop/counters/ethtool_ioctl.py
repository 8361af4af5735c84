# SPDX-License-Identifier: MIT
"""The ``ethtool`` ioctl (``include/uapi/linux/ethtool.h``): asking a driver, and nothing of what it means."""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
from typing import Final

#: Longest name of a statistic, in bytes: ETH_GSTRING_LEN.
NAME_BYTES: Final = 32

_SIOCETHTOOL: Final = 0x8946  # include/uapi/linux/sockios.h
# include/uapi/linux/ethtool.h
_GDRVINFO: Final = 0x03
GRINGPARAM: Final = 0x10
GPAUSEPARAM: Final = 0x12
_GSTRINGS: Final = 0x1B
_GSTATS: Final = 0x1D
_GSSET_INFO: Final = 0x37
GCHANNELS: Final = 0x3C
_SS_STATS: Final = 1
_IFNAMSIZ: Final = 16
_IFREQ: Final = struct.Struct("@16sP16x")  # struct ifreq: ifr_name, ifr_data, rest of its union
_STATISTICS: Final = struct.Struct("=II")  # struct ethtool_stats: cmd, n_stats
_DRVINFO_BYTES: Final = 196
_DRIVER_NAME: Final = slice(4, 36)
# How often a statistics set that changes size between two questions is asked for again.
_ATTEMPTS: Final = 3
# Room for an answer, in bytes of address space: a million statistics, and no driver has a tenth of that.
_ROOM: Final = 8 << 20


class Ioctl:
    """The ethtool ioctl on interfaces of the namespace the thread is in."""

    def __init__(self) -> None:
        """Open a socket. Raises OSError."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # by itself: kernels before the one that compares the sizes (net/ethtool/ioctl.c, ethtool_get_stats) write as
        # many statistics as there are by then, however many they were asked for
        self._memory = mmap.mmap(-1, _ROOM)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._answer = memoryview(self._memory)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, interface: str, request: bytes, size: int) -> memoryview:
        """Return the ``size`` bytes that answer the request; valid until the next question. Raises OSError."""
        name = os.fsencode(interface)
        if len(name) >= _IFNAMSIZ:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if size > _ROOM // 2:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._answer[: len(request)] = request
        fcntl.ioctl(self._socket, _SIOCETHTOOL, _IFREQ.pack(name, self._address))
        return self._answer[:size]

    def driver(self, interface: str) -> str:
        """Return the name of the driver. Raises OSError."""
        info = bytes(self.ask(interface, struct.pack("=I", _GDRVINFO).ljust(_DRVINFO_BYTES, b"\0"), _DRVINFO_BYTES))
        return info[_DRIVER_NAME].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")

    def numbers(self, interface: str, command: int, count: int) -> tuple[int, ...]:
        """Return the ``count`` u32 that follow the command in the answer."""
        size = 4 * (count + 1)
        answer = self.ask(interface, struct.pack("=I", command).ljust(size, b"\0"), size)
        return struct.unpack_from(f"={count}I", answer, 4)

    def statistics(self, interface: str) -> tuple[bytes, bytes] | None:
        """Strings and values of the statistics; None if their number kept changing."""
        for _ in range(_ATTEMPTS):
            answer = self.ask(interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_STATS, 0), 20)
            mask, count = struct.unpack_from("=QI", answer, 8)
            if not mask or not count:
                return b"", b""
            strings, values = self.strings(interface, count), self.values(interface, count)
            if strings is not None and values is not None:
                return strings, values
        return None

    def strings(self, interface: str, count: int) -> bytes | None:
        """Return the names of ``count`` statistics; None if there are more or fewer."""
        answer = self.ask(interface, struct.pack("=III", _GSTRINGS, _SS_STATS, count), 12 + NAME_BYTES * count)
        return bytes(answer[12:]) if struct.unpack_from("=I", answer, 8) == (count,) else None

    def values(self, interface: str, count: int) -> bytes | None:
        """Return the values of ``count`` statistics; None if there are more or fewer."""
        answer = self.ask(interface, _STATISTICS.pack(_GSTATS, count), 8 + 8 * count)
        return bytes(answer[8:]) if _STATISTICS.unpack_from(answer) == (_GSTATS, count) else None
