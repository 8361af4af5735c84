# SPDX-License-Identifier: MIT
"""Statistics of devices and their queues by names that the kernel defines, the same for all drivers.

They are the ``qstats`` of the generic netlink family ``netdev`` (``include/uapi/linux/netdev.h``), which any user may
read, in the network namespace of the calling thread.
"""

import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from pktdrop.counters.netlink import Netlink, NetlinkAnswer, NetlinkPiece, attributes
from pktdrop.model.counters import NOT_REPORTED, Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused

_NETLINK_GENERIC: Final = 16  # include/uapi/linux/netlink.h
# include/uapi/linux/genetlink.h
_GENL: Final = struct.Struct("=BBH")
_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID: Final = 1
_CTRL_ATTR_FAMILY_NAME: Final = 2
# include/uapi/linux/netdev.h
_QSTATS_GET: Final = 12
_QSTATS_IFINDEX: Final = 1
_QSTATS_QUEUE_ID: Final = 3
_BY_QUEUE: Final = struct.pack("=HHI", 8, 4, 1)  # the attribute NETDEV_A_QSTATS_SCOPE: NETDEV_QSTATS_SCOPE_QUEUE
_NAMES: Final = (
    "rx_packets rx_bytes tx_packets tx_bytes rx_alloc_fail rx_hw_drops rx_hw_drop_overruns rx_csum_complete "
    "rx_csum_unnecessary rx_csum_none rx_csum_bad rx_hw_gro_packets rx_hw_gro_bytes rx_hw_gro_wire_packets "
    "rx_hw_gro_wire_bytes rx_hw_drop_ratelimits tx_hw_drops tx_hw_drop_errors tx_csum_none tx_needs_csum "
    "tx_hw_gso_packets tx_hw_gso_bytes tx_hw_gso_wire_packets tx_hw_gso_wire_bytes tx_hw_drop_ratelimits "
    "tx_stop tx_wake"
).split()
_FIRST: Final = 8

QueueStats = tuple[int, int | None, dict[str, int]]
"""Interface index, queue (None: all of the device) and counters."""


class Incomplete(OSError):
    """The kernel did not answer whole."""

    def __init__(self, limits: list[Limit]) -> None:
        """Take what was wrong with the answer."""
        super().__init__()
        self.limits = limits


def family() -> int | None:
    """Return the number of the family "netdev"; None: the kernel has none. Raises OSError, which may be Incomplete."""
    with closing(Netlink(_NETLINK_GENERIC)) as netlink:
        answer = netlink.ask(_GENL_ID_CTRL, _GENL.pack(_CTRL_CMD_GETFAMILY, 1, 0))
        for data, start, end in answer.messages(_GENL_ID_CTRL):
            try:
                found = {kind: data[begin:behind] for kind, begin, behind in attributes(data, start + _GENL.size, end)}
            except ValueError:
                answer.malformed += 1
                continue
            if found.get(_CTRL_ATTR_FAMILY_NAME) == b"netdev\0" and _CTRL_ATTR_FAMILY_ID in found:
                return int.from_bytes(found[_CTRL_ATTR_FAMILY_ID], sys.byteorder)
        if faults := answer.faults():
            raise Incomplete(faults)
    return None


def read(number: int, netns: Netns | None, interfaces: Iterable[str]) -> Reading:
    """Read the statistics of these interfaces, by the number of the family."""
    told: list[QueueStats] = []
    faults: list[Limit] = []
    try:
        with closing(Netlink(_NETLINK_GENERIC)) as netlink:
            for scope in (b"", _BY_QUEUE):
                answer = netlink.ask(number, _GENL.pack(_QSTATS_GET, 1, 0) + scope)
                told += parse(answer, number)
                if answer.error in NOT_REPORTED:
                    break
                faults += answer.faults()
    except OSError as error:
        faults.append(refused(error))
    found: dict[Scope, dict[str, int]] = {}
    wanted = frozenset(interfaces)
    names = dict(socket.if_nameindex()) if told else {}  # few drivers tell anything
    for ifindex, queue, counters in told:
        if names.get(ifindex) in wanted:
            # RX queue 3 and TX queue 3 have no name in common
            found.setdefault(Scope(netns=netns, interface=names[ifindex], queue=queue), {}).update(counters)
    rows = {scope: Row(tuple(counters), tuple(counters.values())) for scope, counters in found.items()}
    return Reading(rows, of_source("qstats", None, dict.fromkeys(faults)))


def parse(answer: NetlinkAnswer, number: int) -> list[QueueStats]:
    """Take the answer to NETDEV_CMD_QSTATS_GET apart, by the number of the family."""
    told = []
    for message in answer.messages(number):
        try:
            one = _queue_stats(message)
        except ValueError:
            answer.malformed += 1
            continue
        if one is not None:
            told.append(one)
    return told


def _queue_stats(message: NetlinkPiece) -> QueueStats | None:
    """None: no interface, or nothing of it. Attributes newer than the table are named by number, "attribute_36"."""
    data, start, end = message
    ifindex = queue = None
    counters: dict[str, int] = {}
    for kind, begin, behind in attributes(data, start + _GENL.size, end):
        if behind - begin not in (4, 8):
            continue
        value = int.from_bytes(data[begin:behind], sys.byteorder)
        if kind == _QSTATS_IFINDEX:
            ifindex = value
        elif kind == _QSTATS_QUEUE_ID:
            queue = value
        elif kind >= _FIRST:
            at = kind - _FIRST
            counters[f"qstats.{_NAMES[at] if at < len(_NAMES) else f'attribute_{kind}'}"] = value
    return None if ifindex is None or not counters else (ifindex, queue, counters)
