# SPDX-License-Identifier: MIT
"""A packet in words: addresses, protocol, flags, size."""

from collections.abc import Callable

from pktdrop.model.packet import Packet

Ethertype = Callable[[int], str]
"""Gives the name of an ethertype."""


def endpoint(address: str, port: int | None) -> str:
    """Write an address with its port: "10.0.0.5:53", "[fe80::1]:53"."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def peers(packet: "Packet") -> str | None:
    """Write from where to where a packet is: "10.0.0.5:43210 > 10.0.0.9:8125"; by MAC addresses if it has no others."""
    if packet.source is not None and packet.destination is not None:
        source = endpoint(packet.source, packet.source_port)
        return f"{source} > {endpoint(packet.destination, packet.destination_port)}"
    if packet.link_source is not None and packet.link_destination is not None:
        return f"{packet.link_source} > {packet.link_destination}"
    return None


def describe(packet: "Packet", ethertype: Ethertype) -> str:
    """Write a packet in a line: "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B"."""
    return _known(packet, ethertype) or "no network packet"


def _known(packet: "Packet", ethertype: Ethertype) -> str:
    return " ".join(part for part in (peers(packet), content(packet, ethertype)) if part)


def content(packet: "Packet", ethertype: Ethertype) -> str:
    """Write what a packet is, whoever it is from and for: "TCP SYN 0 B"; nothing where that is not known."""
    parts = _kind(packet, ethertype)
    if packet.fragment is not None:
        parts.append(f"fragment at {packet.fragment}")
    if packet.payload is not None:
        parts.append(f"{packet.payload} B")
    if packet.vlans:
        parts.append("VLAN " + ".".join(map(str, packet.vlans)))
    text = " ".join(part for part in parts if part)
    if packet.inner is not None and (inner := _known(packet.inner, ethertype)):
        text += f" ({inner})"
    return text


def _kind(packet: "Packet", ethertype: Ethertype) -> list[str]:
    if packet.protocol is None:
        return [] if packet.ethertype is None else [ethertype(packet.ethertype)]
    what = packet.what if packet.what != packet.protocol else None
    return [packet.protocol, *(["+".join(packet.flags)] if packet.flags else []), *([what] if what else [])]
