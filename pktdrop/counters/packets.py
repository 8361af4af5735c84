# SPDX-License-Identifier: MIT
"""Copies that packet sockets (captures: tcpdump and the like) had no room for; the packets themselves went on.

sock_diag(7) lists such sockets with their memory (net/packet/diag.c). PACKET_STATISTICS would reset what the capture
itself reads, and is not asked for. A ring (PACKET_RX_RING) counts where only its own program reads (tpacket_rcv).
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import closing
from typing import Final

from pktdrop.counters import interfaces
from pktdrop.counters.netlink import Netlink, NetlinkAnswer, attributes
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import of_source, refused

NAMES: Final = ("drops",)
"""Names of the counters: copies that a packet socket dropped, one for each packet (packet_rcv in
net/packet/af_packet.c)."""

_NETLINK_SOCK_DIAG = 4  # include/uapi/linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # include/uapi/linux/sock_diag.h
# include/uapi/linux/packet_diag.h: PACKET_SHOW_INFO and PACKET_SHOW_MEMINFO; attributes
_SHOW, _INFO, _MEMINFO = 0x01 | 0x10, 0, 6
_REQUEST = struct.Struct("=BBHIIII")  # struct packet_diag_req
_MESSAGE = struct.Struct("=BBHIII")  # struct packet_diag_msg
_INDEX = struct.Struct("=I")  # the first of struct packet_diag_info
_DROPS = struct.Struct("=32xI")  # SK_MEMINFO_DROPS of include/uapi/linux/sock_diag.h


class PacketSocketReader:
    """Reads the packet sockets of any number of namespaces; remembers that the kernel cannot list them."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._refused = False  # each question for what is not there makes the kernel look for a module

    def read(self, netns: Netns) -> Reading:
        """Read the sockets of the network namespace this thread is in that dropped copies."""
        if self._refused:
            return Reading({})
        try:
            with closing(Netlink(_NETLINK_SOCK_DIAG)) as netlink:
                request = _REQUEST.pack(socket.AF_PACKET, 0, 0, 0, _SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
                answer = netlink.ask(_SOCK_DIAG_BY_FAMILY, request)
                found = parse(answer)
        except OSError as error:
            self._refused = error.errno == errno.EPROTONOSUPPORT
            return Reading({}, () if self._refused else of_source("packet_socket", netns, [refused(error)]))
        if answer.error in (errno.ENOENT, errno.EINVAL):
            self._refused = True
            return Reading({})
        limits = of_source("packet_socket", netns, answer.faults())
        names = interfaces.names({index for index, _, _ in found if index}) if found else ({}, [])
        rows = {
            Scope(netns=netns, socket=f"packet {names[0].get(index, index) if index else '*'} ino:{inode}"): Row(
                NAMES, (drops,)
            )
            for index, inode, drops in found
        }
        return Reading(rows, limits)


def parse(answer: NetlinkAnswer) -> list[tuple[int, int, int]]:
    """Return interface (0: all), inode and drops of each socket that dropped; what is malformed is counted there."""
    found = []
    for data, start, end in answer.messages(_SOCK_DIAG_BY_FAMILY):
        index = drops = 0
        try:
            inode = _MESSAGE.unpack_from(data, start)[3]
            for kind, begin, behind in attributes(data, start + _MESSAGE.size, end):
                if kind == _INFO and behind - begin >= _INDEX.size:
                    (index,) = _INDEX.unpack_from(data, begin)
                if kind == _MEMINFO and behind - begin >= _DROPS.size:
                    (drops,) = _DROPS.unpack_from(data, begin)
        except (ValueError, struct.error):
            answer.malformed += 1
            continue
        if drops:
            found.append((index, inode, drops))
    return found
