# SPDX-License-Identifier: MIT
"""What every source of counters returns."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pktdrop.model import Netns

#: "does not have it": no such operation, no such device any more, nothing of the kind.
NOT_REPORTED: Final = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL)


class Scope(NamedTuple):
    """What a counter belongs to; None: it is not divided by this."""

    netns: Netns | None = None
    interface: str | None = None
    queue: int | None = None
    cpu: int | None = None
    qdisc: str | None = None
    socket: str | None = None


class Row(NamedTuple):
    """Cumulative counters of one scope. All rows of a kind share one tuple of names."""

    names: tuple[str, ...]
    values: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """One source at one moment."""

    rows: Mapping[Scope, Row]
    limits: tuple[str, ...] = ()
    """A sentence for each thing that could not be read."""
