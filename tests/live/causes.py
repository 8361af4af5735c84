# SPDX-License-Identifier: MIT
"""How to provoke a drop: what `pktdrop demo` does."""

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import Cause, Traffic
from pktdrop.demo.causes.kit import Sink, Wire, mib, through_router, to_server, udp_socket, wire

__all__ = ["CAUSES", "Cause", "Sink", "Traffic", "Wire", "mib", "through_router", "to_server", "udp_socket", "wire"]
