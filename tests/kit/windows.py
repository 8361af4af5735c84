# SPDX-License-Identifier: MIT
"""Windows of events that a test makes up."""

from typing import NamedTuple

from pktdrop.ledger.events import DropCounts


class FixedWindows(NamedTuple):
    """Events that surely happened between two readings of the counters, and that may have."""

    inner: DropCounts
    outer: DropCounts
