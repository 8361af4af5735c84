# SPDX-License-Identifier: MIT
"""Errors of IPsec: /proc/net/xfrm_stat, a name and a decimal number in each line (net/xfrm/xfrm_proc.c)."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, of_source, refused

_FILE = Path("/proc/thread-self/net/xfrm_stat")  # /proc/net is that of the process; this thread may be somewhere else
_LARGEST = 2**64 - 1


class Errors(NamedTuple):
    """The counters, and how many lines are malformed."""

    row: Row
    malformed: int


def read(netns: Netns) -> Reading:
    """Read the counters of the network namespace this thread is in.

    Empty where the kernel has no IPsec, or does not count its errors (CONFIG_XFRM_STATISTICS).
    """
    try:
        errors = parse(_FILE.read_bytes())
    except FileNotFoundError:
        return Reading({})
    except OSError as error:
        return Reading({}, of_source("xfrm", netns, [refused(error, "unreadable", _FILE.name)]))
    malformed = [Limit("malformed-lines", (_FILE.name,), number=errors.malformed)] if errors.malformed else []
    return Reading({Scope(netns=netns): errors.row} if errors.row.names else {}, of_source("xfrm", netns, malformed))


@lru_cache(maxsize=8)  # in nearly all namespaces all are 0
def parse(data: bytes) -> Errors:
    """Parse the file; malformed lines are left out and counted."""
    whole, _, cut = data.rpartition(b"\n")
    found: dict[str, int] = {}
    malformed = int(bool(cut))
    for line in whole.splitlines():
        words = line.split()
        number = _number(words[1]) if len(words) == len(("name", "number")) else None
        if number is None:
            malformed += 1
        else:
            found.setdefault(words[0].decode(errors="backslashreplace"), number)
    return Errors(Row(tuple(found), tuple(found.values())), malformed)


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > len(str(_LARGEST)):
        return None
    number = int(text)
    return number if number <= _LARGEST else None
