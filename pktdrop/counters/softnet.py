# SPDX-License-Identifier: MIT
"""Receive work of each CPU: /proc/net/softnet_stat.

The file has one line for each CPU that is online, in hexadecimal and without titles (softnet_seq_show in
net/core/net-procfs.c). It grew: 9 columns at first, then received_rps, then flow_limit_count, then the length of the
backlog and the CPU itself (in Linux 5.10), then the two parts of the backlog (in 6.4). It is the same in every network
namespace. What a CPU counted stays when it goes offline, and is shown again when it comes back.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.limits import Limit, refused

#: Bits of a counter: differences are to be taken modulo 2**WIDTH.
WIDTH: Final = 32
#: Number of the CPU, in the file of a kernel that says it there.
CPU_COLUMN: Final = 12
#: Counters by column, from 0. time_squeeze is a warning and no loss.
COUNTERS: Final[Mapping[str, int]] = MappingProxyType(
    {"processed": 0, "dropped": 1, "time_squeeze": 2, "received_rps": 9, "flow_limit_count": 10}
)
#: Packets waiting at this moment, by column.
GAUGES: Final[Mapping[str, int]] = MappingProxyType({"backlog_len": 11, "input_qlen": 13, "process_qlen": 14})

_KNOWN_COLUMNS = 15
_LINE = re.compile(rb"[0-9a-f]{8}(?: [0-9a-f]{8}){8,} ?")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_STAT = Path("/proc/net/softnet_stat")
_ONLINE = Path("/sys/devices/system/cpu/online")


def read() -> Reading:
    """Read the counters of all CPUs that are online, and how many packets wait in their backlogs."""
    try:
        data = _STAT.read_bytes()
        online = () if _names_cpus(data) else parse_cpus(_ONLINE.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        return Reading({}, (refused(error, "no-softnet"),))
    return parse(data, online)


def parse(data: bytes, online: Sequence[int]) -> Reading:
    """Parse softnet_stat; `online` are the CPUs that are online, used where the file does not name them."""
    lines = [_columns(line) for line in data.splitlines()]
    width = next((len(line) for line in lines if line), 0)
    lines = [line if line and len(line) == width else None for line in lines]
    limits = _limits(lines, width)
    if 0 < width <= CPU_COLUMN and len(lines) != len(online):
        limits.append(Limit("lines-without-cpu", (_STAT.name,), number=len(lines), of=len(online)))
        lines = []
    counters: dict[Scope, Row] = {}
    gauges: dict[Scope, Row] = {}
    counter_names, gauge_names = _names(COUNTERS, width), _names(GAUGES, width)
    for position, line in enumerate(lines):
        if line is None:
            continue
        scope = Scope(cpu=line[CPU_COLUMN] if width > CPU_COLUMN else online[position])
        counters[scope] = Row(counter_names, tuple(line[COUNTERS[name]] for name in counter_names))
        if gauge_names:
            gauges[scope] = Row(gauge_names, tuple(line[GAUGES[name]] for name in gauge_names))
    return Reading(counters, tuple(limits), gauges)


def parse_cpus(text: str) -> tuple[int, ...]:
    """Parse a list of CPUs as sysfs writes it: (0, 1, 2, 3, 6) for "0-3,6". Raises ValueError if it is malformed."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:20]!r} is no range of CPUs")
        first, last = match[1], match[2] or match[1]
        cpus.extend(range(int(first), int(last) + 1))
    return tuple(cpus)


def _names(columns: Mapping[str, int], width: int) -> tuple[str, ...]:
    return tuple(name for name, column in columns.items() if column < width)


def _names_cpus(data: bytes) -> bool:
    return len(data.partition(b"\n")[0].split()) > CPU_COLUMN


def _columns(line: bytes) -> tuple[int, ...] | None:
    """Give the numbers in a line; None if it is malformed."""
    if _LINE.fullmatch(line) is None:
        return None
    packed = bytes.fromhex(line.decode("ascii"))
    return struct.unpack(f">{len(packed) // 4}I", packed)


def _limits(lines: Sequence[tuple[int, ...] | None], width: int) -> list[Limit]:
    limits = []
    malformed = lines.count(None)
    if malformed:
        limits.append(Limit("malformed-lines", (_STAT.name,), number=malformed))
    if not lines:
        limits.append(Limit("empty", (_STAT.name,)))
    if width > _KNOWN_COLUMNS:
        limits.append(Limit("more-columns", (_STAT.name,), number=width - _KNOWN_COLUMNS))
    return limits
