# SPDX-License-Identifier: MIT
"""Counters of every interface in a network namespace: struct rtnl_link_stats64, all of it.

One RTM_GETSTATS dump (Linux 4.7 and later) gives them by ifindex; SIOCGIFNAME gives the names. With 300 interfaces the
dump takes 0.2 ms, and asking for each name 0.4 ms, where RTM_GETLINK without statistics takes 1.2 ms and
if_nameindex(3) 2.1 ms.
"""

import socket
import struct
from contextlib import closing
from typing import Final, NamedTuple

from pktdrop.counters import interfaces
from pktdrop.counters.netlink import Netlink, NetlinkAnswer, attributes
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused

#: Members of struct rtnl_link_stats64 in their order (include/uapi/linux/if_link.h). The kernel only appends to it:
#: rx_nohandler came in Linux 4.6, rx_otherhost_dropped in 5.19.
NAMES: Final = tuple(
    """
    rx_packets tx_packets rx_bytes tx_bytes rx_errors tx_errors rx_dropped tx_dropped multicast collisions
    rx_length_errors rx_over_errors rx_crc_errors rx_frame_errors rx_fifo_errors rx_missed_errors
    tx_aborted_errors tx_carrier_errors tx_fifo_errors tx_heartbeat_errors tx_window_errors
    rx_compressed tx_compressed rx_nohandler rx_otherhost_dropped
    """.split()
)

# include/uapi/linux/rtnetlink.h, if_link.h
_RTM_NEWSTATS, _RTM_GETSTATS = 92, 94
_IFLA_STATS_LINK_64 = 1
_FILTER_LINK_64 = 1 << (_IFLA_STATS_LINK_64 - 1)

_STATS = struct.Struct("=B3xII")  # struct if_stats_msg: family, ifindex, filter

# By the number of members that a kernel has.
_NAMES = tuple(NAMES[:width] for width in range(len(NAMES) + 1))
_VALUES = tuple(struct.Struct(f"={width}Q") for width in range(len(NAMES) + 1))


class LinkDump(NamedTuple):
    """What the kernel answered to one RTM_GETSTATS."""

    rows: dict[int, Row]
    """Counters of each interface, by ifindex."""
    interrupted: bool = False
    """Interfaces came or went meanwhile: one may be missing."""
    faults: tuple[Limit, ...] = ()
    """What could not be read."""


def read(netns: Netns) -> tuple[Reading, dict[int, str]]:
    """Read the counters of all interfaces, and the names of those that have counters, by ifindex."""
    try:
        dump = _dump()
        if dump.interrupted:
            dump = _dump()
        names, faults = interfaces.names(dump.rows)
    except OSError as error:
        return Reading({}, of_source("links", netns, [refused(error)])), {}
    if dump.interrupted:
        faults.append(Limit("list-changed"))
    # interfaces that are gone meanwhile have no name, and are left out
    rows = {Scope(netns=netns, interface=name): dump.rows[ifindex] for ifindex, name in names.items()}
    return Reading(rows, of_source("links", netns, (*dump.faults, *faults))), names


def parse(answer: NetlinkAnswer) -> LinkDump:
    """Take one RTM_GETSTATS dump apart.

    Malformed messages are left out and counted in the faults. A kernel may have fewer members of the struct than are
    known here (its rows are shorter) or more (left out, and said so).
    """
    rows: dict[int, Row] = {}
    unknown = 0
    for message in answer.messages(_RTM_NEWSTATS):
        try:
            ifindex, row, more = _row(*message)
        except ValueError:
            answer.malformed += 1
            continue
        rows[ifindex] = row
        unknown = max(unknown, more)
    faults = answer.faults()
    if unknown:
        faults.append(Limit("more-counters", number=unknown))
    return LinkDump(dict(sorted(rows.items())), answer.interrupted, tuple(faults))


def _row(data: bytes, start: int, end: int) -> tuple[int, Row, int]:
    """Ifindex, counters, and how many more counters there are. Raises ValueError if the message is malformed."""
    if end - start < _STATS.size:
        raise ValueError("no struct if_stats_msg")
    _, ifindex, _ = _STATS.unpack_from(data, start)
    for kind, begin, behind in attributes(data, start + _STATS.size, end):
        if kind == _IFLA_STATS_LINK_64:  # others: padding
            there, rest = divmod(behind - begin, 8)
            if rest or not there:
                break
            width = min(there, len(NAMES))
            return ifindex, Row(_NAMES[width], _VALUES[width].unpack_from(data, begin)), there - width
    raise ValueError("no struct rtnl_link_stats64")


def _dump() -> LinkDump:
    with closing(Netlink(socket.NETLINK_ROUTE)) as netlink:
        return parse(netlink.ask(_RTM_GETSTATS, _STATS.pack(socket.AF_UNSPEC, 0, _FILTER_LINK_64)))
