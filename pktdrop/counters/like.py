# SPDX-License-Identifier: MIT
"""Counters in the columns of other tools, equal to theirs digit for digit.

All functions are pure. They take rows by the label of an interface (or by CPU), cumulative ones or differences alike,
and give tables in the order of the rows. Counters that the kernel does not have are 0, as in those tools.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pktdrop.model.counters import Row

LIKE: Final = ("netstat", "ifconfig", "sar", "ip", "softnet")
"""The tools, by what `pktdrop counters --like` calls them."""
_U32, _U64 = 2**32 - 1, 2**64 - 1

#: Columns of softnet_stat that say something, by their position from 0 there; the others are always 0.
SOFTNET_COLUMNS: Final = (
    "processed",
    "dropped",
    "time_squeeze",
    "received_rps",
    "flow_limit_count",
    "backlog_len",
    "input_qlen",
    "process_qlen",
)


#: Columns of /proc/net/dev, and the counters whose sum in 64 bits each is: dev_seq_printf_stats in
#: net/core/net-procfs.c.
_NET_DEV: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "rx_bytes": ("rx_bytes",),
        "rx_packets": ("rx_packets",),
        "rx_errs": ("rx_errors",),
        "rx_drop": ("rx_dropped", "rx_missed_errors"),
        "rx_fifo": ("rx_fifo_errors",),
        "rx_frame": ("rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"),
        "rx_compressed": ("rx_compressed",),
        "rx_multicast": ("multicast",),
        "tx_bytes": ("tx_bytes",),
        "tx_packets": ("tx_packets",),
        "tx_errs": ("tx_errors",),
        "tx_drop": ("tx_dropped",),
        "tx_fifo": ("tx_fifo_errors",),
        "tx_colls": ("collisions",),
        "tx_carrier": ("tx_carrier_errors", "tx_aborted_errors", "tx_window_errors", "tx_heartbeat_errors"),
        "tx_compressed": ("tx_compressed",),
    }
)


class LikeTable(NamedTuple):
    """Titles of the columns, and rows of as many cells. The first cell of a row names the interface or the CPU."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def net_dev(row: Row) -> dict[str, int]:
    """Fold the counters of an interface as the kernel does for /proc/net/dev, in the order of that file."""
    get = _getter(row)
    return {title: sum(map(get, names)) & _U64 for title, names in _NET_DEV.items()}


def netstat(rows: Mapping[str, Row]) -> LikeTable:
    """Columns of `netstat -i` (net-tools up to 2.10), without MTU and flags, which count nothing.

    Later net-tools add frame, which is part of errs already, to RX-ERR (ife_print_short in lib/interface.c).
    """
    titles = ("Iface", "RX-OK", "RX-ERR", "RX-DRP", "RX-OVR", "TX-OK", "TX-ERR", "TX-DRP", "TX-OVR")
    fields = "rx_packets rx_errs rx_drop rx_fifo tx_packets tx_errs tx_drop tx_fifo"
    return _folded(rows, titles, fields)


def ifconfig(rows: Mapping[str, Row]) -> tuple[LikeTable, LikeTable]:
    """Give what `ifconfig` (net-tools 2.10) shows of received and of sent packets, on anything but serial lines."""
    rx_titles = ("RX", "packets", "bytes", "errors", "dropped", "overruns", "frame")
    tx_titles = ("TX", "packets", "bytes", "errors", "dropped", "overruns", "carrier", "collisions")
    return (
        _folded(rows, rx_titles, "rx_packets rx_bytes rx_errs rx_drop rx_fifo rx_frame"),
        _folded(rows, tx_titles, "tx_packets tx_bytes tx_errs tx_drop tx_fifo tx_carrier tx_colls"),
    )


def sar_edev(differences: Mapping[str, Row], seconds: float) -> LikeTable:
    """Columns of `sar -n EDEV` (sysstat 11 and 12): differences of two readings by the seconds between them."""
    titles = "IFACE rxerr/s txerr/s coll/s rxdrop/s txdrop/s txcarr/s rxfram/s rxfifo/s txfifo/s"
    fields = "rx_errs tx_errs tx_colls rx_drop tx_drop tx_carrier rx_frame rx_fifo tx_fifo"
    rate = _rate(seconds)
    return _folded(differences, tuple(titles.split()), fields, rate)


def sar_soft(differences: Mapping[int, Row], gauges: Mapping[int, Row], seconds: float) -> LikeTable:
    """Columns of `sar -P ALL -n SOFT` (sysstat 12): a row for all CPUs together, and one for each.

    `gauges` are the lengths of the backlogs at the end; kernels that do not tell them have 0, as in sar.
    """
    titles = "CPU total/s dropd/s squeezd/s rx_rps/s flw_lim/s blg_len"
    counters = ("processed", "dropped", "time_squeeze", "received_rps", "flow_limit_count")
    rate = _rate(seconds)
    table = []
    everything = [0] * (len(counters) + 1)
    for cpu, row in differences.items():
        numbers = [*map(_getter(row), counters), _getter(gauges.get(cpu))("backlog_len")]
        everything = [(one + another) & _U32 for one, another in zip(everything, numbers, strict=True)]
        table.append((str(cpu), *map(rate, numbers[:-1]), str(numbers[-1])))
    total = ("all", *map(rate, everything[:-1]), str(everything[-1]))
    return LikeTable(tuple(titles.split()), (total, *table))


def softnet_stat(counters: Mapping[int, Row], gauges: Mapping[int, Row]) -> LikeTable:
    """Columns of /proc/net/softnet_stat in its own hexadecimal, without those that are always 0, and the CPU first.

    Columns that the kernel does not have are left out.
    """
    present = {name for row in (*counters.values(), *gauges.values()) for name in row.names}
    names = tuple(name for name in SOFTNET_COLUMNS if name in present)

    def cells(cpu: int) -> tuple[str, ...]:
        counter, gauge = _getter(counters[cpu]), _getter(gauges.get(cpu))
        return (f"{cpu:08x}", *(f"{counter(name) or gauge(name):08x}" for name in names))

    return LikeTable(("cpu", *names), tuple(cells(cpu) for cpu in counters))


def ip(rows: Mapping[str, Row]) -> tuple[LikeTable, LikeTable, LikeTable, LikeTable]:
    """Give what `ip -s -s link` (iproute2 5.14 and later) shows: RX, RX errors, TX, TX errors.

    As there, the columns compressed, nohandler and otherhost are left out where they have nothing to show. How often
    the carrier changed (transns) is missing: it is no counter of packets.
    """
    return (
        _plain(
            rows,
            ("RX", "bytes", "packets", "errors", "dropped", "missed", "mcast"),
            ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_missed_errors", "multicast"),
            {"compressed": "rx_compressed"},
        ),
        _plain(
            rows,
            ("RX errors", "length", "crc", "frame", "fifo", "overrun"),
            ("rx_length_errors", "rx_crc_errors", "rx_frame_errors", "rx_fifo_errors", "rx_over_errors"),
            {"nohandler": "rx_nohandler", "otherhost": "rx_otherhost_dropped"},
        ),
        _plain(
            rows,
            ("TX", "bytes", "packets", "errors", "dropped", "carrier", "collsns"),
            ("tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_carrier_errors", "collisions"),
            {"compressed": "tx_compressed"},
        ),
        _plain(
            rows,
            ("TX errors", "aborted", "fifo", "window", "heartbt"),
            ("tx_aborted_errors", "tx_fifo_errors", "tx_window_errors", "tx_heartbeat_errors"),
            {},
        ),
    )


def _getter(row: Row | None) -> Callable[[str], int]:
    """Give a function from the name of a counter to its value, 0 for one that is not there."""
    values = {} if row is None else dict(zip(row.names, row.values, strict=True))
    return lambda name: values.get(name, 0)


def _rate(seconds: float) -> Callable[[int], str]:
    """How sar writes a difference by time: it knows time in hundredths of a second, and never 0 of them."""
    hundredths = max(1, round(seconds * 100))
    return lambda difference: f"{float(difference) / hundredths * 100:.2f}"


def _folded(
    rows: Mapping[str, Row], titles: tuple[str, ...], fields: str, write: Callable[[int], str] = str
) -> LikeTable:
    names = fields.split()
    folded = {label: net_dev(row) for label, row in rows.items()}
    cells = ((label, *(write(counters[name]) for name in names)) for label, counters in folded.items())
    return LikeTable(titles, tuple(cells))


def _plain(
    rows: Mapping[str, Row], titles: tuple[str, ...], names: tuple[str, ...], optional: Mapping[str, str]
) -> LikeTable:
    getters = {label: _getter(row) for label, row in rows.items()}
    for title, name in optional.items():
        if any(get(name) for get in getters.values()):
            titles, names = (*titles, title), (*names, name)
    return LikeTable(titles, tuple((label, *(str(get(name)) for name in names)) for label, get in getters.items()))
