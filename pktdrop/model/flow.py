# SPDX-License-Identifier: MIT
"""Drops counted by more than their kind: by port, address, flow or process."""

from typing import Final, NamedTuple

from pktdrop.model.container import Container
from pktdrop.model.drops import DropKey
from pktdrop.model.sample import Owner

BY: Final = ("port", "source", "destination", "flow", "process")
"""What drops can be counted by in the kernel, besides their kind."""
FOLDED: Final = ("reason", "layer", "interface", "netns", "cpu")
"""What kinds can be summed by where they are shown."""


class CountedFlow(NamedTuple):
    """Packets of one kind of drop that are alike in what they are counted by. None: not counted by, or not known."""

    key: DropKey
    packets: int
    bytes: int
    source: str | None = None
    destination: str | None = None
    source_port: int | None = None
    destination_port: int | None = None
    protocol: int | None = None
    """IPPROTO_*."""
    inode: int | None = None
    """Of the socket that the packets were for, or came from."""
    is_for_socket: bool = False
    """The kernel says that they were for it."""
    owner: Owner | None = None
    container: Container | None = None
    """That the owner is in."""
    is_other: bool = False
    """Those that came when there was no room for one more."""
