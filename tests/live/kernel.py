# SPDX-License-Identifier: MIT
"""What a kernel tells of the packets that it drops, decided by what it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pktdrop.demo.causes.cause import Cause

Place = Literal["here", "nowhere", "none"]


@dataclass(frozen=True)
class Kernel:
    """What the kernel has, as other tools than pktdrop say."""

    reasons: frozenset[str]
    names: frozenset[str]
    """Of types, their members and constants."""
    has_socket: bool
    """Whether the event says which socket the packet was for (rx_sk)."""
    drops_latest: bool
    """Whether TCP, out of room, drops data further ahead than all that waits; or it makes room by dropping that."""

    def name(self, reason: str) -> str:
        """Return what it gives for a reason that it may not have."""
        return reason if reason in self.reasons else "NOT_SPECIFIED"

    def place(self, cause: Cause) -> Place:
        """Where the drop is: in its network namespace, in none that is known, or there is no event at all.

        TCP forgets the device of a packet before it looks at it (tcp_v4_rcv, net/ipv4/tcp_ipv4.c), so that only the
        socket tells the namespace; data that waited in a queue belong to one (tcp_data_queue_ofo). Without reasons
        tcp_drop() frees with __kfree_skb(), which raises no event (net/ipv4/tcp_input.c, v5.10).
        """
        of_connection = "tcp_rcv_established" in cause.functions
        if of_connection and not self.reasons:
            return "none"
        forgotten = (of_connection and cause.reason != "TCP_OFO_DROP") or "tcp_v4_do_rcv" in cause.functions
        return "nowhere" if forgotten and not self.has_socket else "here"
