# SPDX-License-Identifier: MIT
"""CPUs of a guest: which sends and which receives, what they count, and how their backlogs are set."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SENDS, RECEIVES = 0, 1
"""CPUs: every packet is sent on the first and steered to the second."""


def softnet(column: int) -> dict[int, int]:
    """Read one column of /proc/net/softnet_stat by CPU (net/core/net-procfs.c): 1 dropped, 10 flow_limit_count."""
    rows = [line.split() for line in Path("/proc/net/softnet_stat").read_text().splitlines()]
    return {int(row[12], 16): int(row[column], 16) for row in rows}


def rise(before: dict[int, int], after: dict[int, int]) -> dict[int, int]:
    """Return by how much each CPU's count rose, where it did."""
    return {cpu: count - before[cpu] for cpu, count in after.items() if count != before[cpu]}


@contextmanager
def settings(**values: object) -> Iterator[None]:
    """Write settings below /proc/sys/net/core around a block, and write back what was there."""
    paths = {name: Path("/proc/sys/net/core", name) for name in values}
    before = {name: path.read_text() for name, path in paths.items()}
    try:
        for name, path in paths.items():
            path.write_text(str(values[name]))
        yield
    finally:
        for name, path in paths.items():
            path.write_text(before[name])
