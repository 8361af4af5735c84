# SPDX-License-Identifier: MIT
"""Counters of connection tracking, neighbours and routes: the files of /proc/net/stat.

All have the form that lnstat(8) reads: a line of titles, and for each CPU that there may be a line of numbers in
hexadecimal (ct_cpu_seq_show in net/netfilter/nf_conntrack_standalone.c, neigh_stat_seq_show in net/core/neighbour.c,
rt_cpu_seq_show in net/ipv4/route.c). They are summed over the CPUs. The first column, entries, is no counter and the
same in each line: it is left out.

A file in which anything is malformed is left out whole: a sum that lacks one CPU would be a counter that falls and then
rises by what nobody lost.
"""

from pathlib import Path
from typing import Final

from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit, refused

#: Columns that are no counters.
GAUGES: Final = frozenset(("entries",))

# Numbers have 32 bits, those of neighbours as many as a long of the kernel. Where one of a CPU wraps the sum does, too.
_WRAP = {"nf_conntrack": 1 << 32, "rt_cache": 1 << 32, "arp_cache": 1 << 64, "ndisc_cache": 1 << 64}
_HEXADECIMAL = b"0123456789abcdef \t\n"
_DIRECTORY = "/proc/thread-self/net/stat/"  # /proc/net is that of the process; this thread may be somewhere else


def conntrack(netns: Netns) -> Reading:
    """Read the counters of connection tracking in the network namespace this thread is in.

    Empty where the kernel tracks no connections.
    """
    return _reading(Scope(netns=netns), "nf_conntrack")


def neighbours() -> Reading:
    """Read the counters of the neighbour tables of IPv4 and IPv6 together, over all network namespaces.

    The kernel shows them in its first namespace only (neigh_table_init in net/core/neighbour.c): be there, else the
    reading is empty, and says so.
    """
    reading = _reading(Scope(), "arp_cache", "ndisc_cache")
    if reading.rows or reading.limits:
        return reading
    return Reading({}, (Limit("neighbours-elsewhere"),))


def rt_cache() -> Reading:
    """Read the counters of IPv4 routing: over all network namespaces, and the same in each."""
    return _reading(Scope(), "rt_cache")


def parse(data: bytes, wrap: int = 1 << 64) -> Row:
    """Sum the counters of a file over its CPUs, modulo `wrap`. Raises ValueError if anything in it is malformed."""
    title, *lines = data.split(b"\n")
    if lines[-1:] != [b""] or not title.strip():
        raise ValueError("it is cut off")
    if data[len(title) :].translate(None, _HEXADECIMAL):
        raise ValueError("not all is numbers")
    names = title.split()
    rows = [line.split() for line in lines[:-1]]
    if not rows or any(len(row) != len(names) for row in rows):
        raise ValueError("its lines have more or fewer columns than its title")
    columns = zip(*rows, strict=True)
    sums = {
        name: sum([int(number, 16) for number in column]) % wrap for name, column in zip(names, columns, strict=True)
    }
    shown = {name.decode(errors="backslashreplace"): number for name, number in sums.items()}
    return Row(
        tuple(name for name in shown if name not in GAUGES),
        tuple(number for name, number in shown.items() if name not in GAUGES),
    )


def _reading(scope: Scope, *files: str) -> Reading:
    """Add up the files that there are."""
    total: dict[str, int] = {}
    for file in files:
        try:
            row = parse(Path(_DIRECTORY, file).read_bytes(), _WRAP[file])
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return Reading({}, (refused(error, "unreadable", f"/proc/net/stat/{file}"),))
        for name, number in zip(row.names, row.values, strict=True):
            total[name] = total.get(name, 0) + number
    return Reading({scope: Row(tuple(total), tuple(total.values()))} if total else {})
