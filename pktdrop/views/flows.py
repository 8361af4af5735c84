# SPDX-License-Identifier: MIT
"""Drops counted by port, address, flow or process, in words and as JSON."""

from typing import Any

from pktdrop.model.flow import CountedFlow
from pktdrop.model.protocols import protocol_name
from pktdrop.samples.words import endpoint

OTHER = "other"
"""Those that found no room."""


def name(flow: CountedFlow, by: str) -> str:
    """Return what a flow is, of what it is counted by: "UDP 53", "10.0.0.5", "for statsd[812]"; "-": not known."""
    if flow.is_other:
        return OTHER
    if by == "process":
        inside = f" ({flow.container})" if flow.container is not None and flow.container.tells else ""
        return "-" if flow.owner is None else f"{flow.owner}{inside}"
    if by in ("source", "destination"):
        return (flow.source if by == "source" else flow.destination) or "-"
    protocol = "" if flow.protocol is None else protocol_name(flow.protocol)
    if by == "port":
        return f"{protocol} {'-' if flow.destination_port is None else flow.destination_port}".lstrip()
    if flow.source is None or flow.destination is None:
        return "-"
    ends = endpoint(flow.source, flow.source_port), endpoint(flow.destination, flow.destination_port)
    return f"{' > '.join(ends)} {protocol}".rstrip()


def as_object(flow: CountedFlow) -> dict[str, Any]:
    """Return what a flow is counted by, besides its kind, as JSON has it."""
    return {
        "source": flow.source,
        "destination": flow.destination,
        "source_port": flow.source_port,
        "destination_port": flow.destination_port,
        "ip_protocol": None if flow.protocol is None else protocol_name(flow.protocol),
        "inode": flow.inode,
        "pid": None if flow.owner is None else flow.owner.pid,
        "comm": None if flow.owner is None else flow.owner.comm,
        "other": flow.is_other,
    }
