# SPDX-License-Identifier: MIT
"""Whose dropped packets are: the processes that have their sockets open.

A packet comes with its socket where the kernel had found it. Where it had not, or does not say (before Linux 6.11, of
what it received), sock_diag(7) tells which socket such a packet is for in that namespace now.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from pktdrop.counters.netlink import Netlink
from pktdrop.host import processes
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.container import Container
from pktdrop.model.drops import Netns
from pktdrop.model.flow import CountedFlow
from pktdrop.model.sample import Owner, Sample

_NETLINK_SOCK_DIAG = 4  # include/uapi/linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # include/uapi/linux/sock_diag.h
# struct inet_diag_req_v2: family, protocol, extensions, states; ports, addresses, interface and cookie (none known)
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
_ANY_COOKIE = 0xFFFFFFFF  # INET_DIAG_NOCOOKIE
_ALL_STATES = 0xFFFFFFFF
_INODE = struct.Struct("=68xI")  # struct inet_diag_msg
_IP: Final = (0x0800, 0x86DD)  # include/uapi/linux/if_ether.h
"""Ethertypes of packets that sockets get: others need not be taken apart."""
_PROTOCOLS: Final = {"UDP": socket.IPPROTO_UDP, "TCP": socket.IPPROTO_TCP}
_MOST_ASKED = 64
"""Ends of connections that are asked for in each look: senders can choose any number of ports."""
_REMEMBERED = 4096
_SHARE = 20
"""Part of the time that looking for processes may take at most: there may be very many."""
NO_SOCKET = "NO_SOCKET"
"""Reason of packets that no socket would get."""


class _End(NamedTuple):
    """Where a packet goes: what is asked for a socket."""

    netns: Netns
    family: int
    protocol: int
    local: tuple[str, int]
    remote: tuple[str, int]


class Owners:
    """Finds the processes of sampled packets, and remembers them."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._of_inode: dict[int, tuple[processes.Process, Container | None] | None] = {}
        self._next_search = 0.0
        """By the monotonic clock."""

    def find(self, samples: Sequence[Sample]) -> None:
        """Set owner and container of each sample of which they can be found."""
        wanted: list[tuple[Sample, int, bool]] = []
        ends: dict[_End, list[Sample]] = {}
        for sample in samples:
            if sample.socket is not None and sample.socket.inode is not None:
                wanted.append((sample, sample.socket.inode, sample.is_for_socket))
            elif (end := _end(sample)) is not None and (end in ends or len(ends) < _MOST_ASKED):
                ends.setdefault(end, []).append(sample)
        for end, inode in self._bound(ends).items():
            wanted += [(sample, inode, True) for sample in ends[end]]
        self._search({inode for _, inode, _ in wanted})
        for sample, inode, is_receiver in wanted:
            found = self._of_inode.get(inode)
            if found is not None:
                owner, sample.container = found
                sample.owner = Owner(owner.pid, owner.comm, is_receiver)
        for sample in samples:
            if sample.owner is None and sample.socket is not None and sample.socket.cgroup is not None:
                sample.container = self._namespaces.containers.of_cgroup(sample.socket.cgroup)

    def of_flows(self, flows: Sequence[CountedFlow]) -> list[CountedFlow]:
        """Return flows with the processes that have their sockets open, as far as they can be found."""
        ends = [None if flow.inode else _end_of(flow) for flow in flows]
        some = [*dict.fromkeys(end for end in ends if end is not None)][:_MOST_ASKED]
        bound = self._bound(dict.fromkeys(some))
        inodes = [flow.inode or (end and bound.get(end)) or 0 for flow, end in zip(flows, ends, strict=True)]
        self._search({inode for inode in inodes if inode})
        found = []
        for flow, inode in zip(flows, inodes, strict=True):
            known = self._of_inode.get(inode)
            if known is not None:
                process, container = known
                owner = Owner(process.pid, process.comm, flow.is_for_socket or not flow.inode)
                flow = flow._replace(owner=owner, container=container)
            found.append(flow)
        return found

    def _search(self, inodes: set[int]) -> None:
        """Look for processes, if there is a socket of which nothing is known, and it was not just done."""
        unknown = inodes - self._of_inode.keys()
        began = time.monotonic()
        if not unknown or began < self._next_search:
            return
        found = processes.of_sockets(unknown)
        now = time.monotonic()
        self._next_search = now + _SHARE * (now - began)
        of_process = {owner.pid: self._namespaces.containers.of_process(owner.pid) for owner in found.values()}
        self._of_inode |= dict.fromkeys(unknown)
        self._of_inode |= {inode: (owner, of_process[owner.pid]) for inode, owner in found.items()}
        if len(self._of_inode) > _REMEMBERED:
            self._of_inode = dict([*self._of_inode.items()][-_REMEMBERED // 2 :])

    def _bound(self, ends: Mapping[_End, object]) -> dict[_End, int]:
        """Return the inodes of the sockets that packets to these ends would go to."""
        found: dict[_End, int] = {}
        for netns in dict.fromkeys(end.netns for end in ends):
            try:
                with self._namespaces.entered(netns), closing(Netlink(_NETLINK_SOCK_DIAG)) as netlink:
                    for end in ends:
                        if end.netns == netns and (inode := _ask(netlink, end)):
                            found[end] = inode
            except OSError:  # the namespace is gone, or may not be entered, or the kernel has no sock_diag
                continue
        return found


def _end(sample: Sample) -> _End | None:
    """Return where a packet that was received goes, if a socket may be there."""
    key = sample.key
    if key.netns is None or not sample.received or key.reason == NO_SOCKET or key.protocol not in _IP:
        return None
    packet = sample.packet
    protocol = _PROTOCOLS.get(packet.protocol or "")
    if protocol is None or packet.source is None or packet.destination is None or packet.source_port is None:
        return None
    if packet.destination_port is None:
        return None
    family = socket.AF_INET6 if ":" in packet.destination else socket.AF_INET
    local, remote = (packet.destination, packet.destination_port), (packet.source, packet.source_port)
    return _End(key.netns, family, protocol, local, remote)


def _end_of(flow: CountedFlow) -> _End | None:
    """Return where packets go that are counted by process, and of which the kernel knew no socket."""
    key, local = flow.key, flow.destination
    if key.netns is None or key.reason == NO_SOCKET or flow.protocol is None:
        return None
    if (
        local is None
        or flow.protocol not in _PROTOCOLS.values()
        or flow.source is not None
        or flow.destination_port is None
    ):
        return None
    family, anybody = (socket.AF_INET6, "::") if ":" in local else (socket.AF_INET, "0.0.0.0")
    return _End(key.netns, family, flow.protocol, (local, flow.destination_port), (anybody, 0))


def _ask(netlink: Netlink, end: _End) -> int:
    """Return the inode of the socket at an end; 0: there is none, or nobody has it open.

    Of UDP, the kernel has always taken what it is asked for the other way round: udp_dump_one() in net/ipv4/udp_diag.c.
    """
    first, second = (end.remote, end.local) if end.protocol == socket.IPPROTO_UDP else (end.local, end.remote)
    addresses = (socket.inet_pton(end.family, address).ljust(16, b"\0") for address in (first[0], second[0]))
    ports = (port.to_bytes(2, "big") for port in (first[1], second[1]))
    body = _REQUEST.pack(
        end.family, end.protocol, 0, _ALL_STATES, *ports, *addresses, 0, _ANY_COOKIE, _ANY_COOKIE
    )  # fmt: skip
    for data, start, stop in netlink.ask_one(_SOCK_DIAG_BY_FAMILY, body).messages(_SOCK_DIAG_BY_FAMILY):
        if stop - start >= _INODE.size:
            return int(_INODE.unpack_from(data, start)[0])
    return 0
