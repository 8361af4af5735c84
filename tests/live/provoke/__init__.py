# SPDX-License-Identifier: MIT
"""More ways to provoke a drop than `pktdrop demo` has: those that show one identity of the ledger each."""

from pktdrop.demo.causes.cause import Cause
from tests.live.provoke import connection, devices, fragments, icmp, ip, listening, policy, sockets, vxlan

CAUSES: tuple[Cause, ...] = (
    *listening.CAUSES,
    *connection.CAUSES,
    *fragments.CAUSES,
    *sockets.CAUSES,
    *devices.CAUSES,
    *policy.CAUSES,
    *ip.CAUSES,
    *icmp.CAUSES,
    *vxlan.CAUSES,
)
"""Each exactly as its module defines it."""
