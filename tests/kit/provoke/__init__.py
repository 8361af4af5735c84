# SPDX-License-Identifier: MIT
"""More ways to provoke a drop than `pktdrop demo` has: those that show one identity of the ledger each."""

from pathlib import Path

from pktdrop.demo.causes.cause import DemoCause
from tests.kit.provoke import connection, devices, fragments, icmp, ip, listening, policy, sockets, vxlan

CAUSES: tuple[DemoCause, ...] = (
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
NEEDED = {
    "wrong_echo": "TSEcrRejected",
    "cookie_queue_full": "TSEcrRejected",  # older ones drop them, too, and name other reasons at other places
    "beyond_window_end": "BeyondWindow",
    "lite_closed_port": "UdpLite:",
    "lite_buffer_full": "UdpLite:",
}
"""A word in /proc/net/snmp or netstat without which a kernel does not drop such packets, by the cause: of IPv6, too."""


def possible(cause: DemoCause) -> bool:
    """Tell whether this kernel drops what the cause provokes."""
    word = NEEDED.get(cause.name.removesuffix("6"))
    return word is None or any(word in Path("/proc/net", name).read_text().split() for name in ("snmp", "netstat"))
