# SPDX-License-Identifier: MIT
"""CPU time of reading all counters, how it grows, and what other tools take to read fewer of them."""

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.report import Row, limit_row, ratio_row
from pktdrop.counters.collect import Collector, kernel_width
from pktdrop.counters.increments import CounterKeeper
from pktdrop.host.namespaces import Namespaces
from pktdrop.host.netns import identify, inside
from pktdrop.model.drops import Netns

_ROUNDS = 15
_INTERFACES, _NAMESPACES = 300, 20


@contextmanager
def populated(interfaces: int) -> Iterator[Path]:
    """Make a network namespace with lo and so many interfaces; a process that sleeps keeps it."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip -batch - && echo && exec sleep 600"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as keeper:  # fmt: skip
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        pairs = range(interfaces // 2)
        keeper.stdin.write("".join(f"link add a{pair} up type veth peer name b{pair}\n" for pair in pairs))
        keeper.stdin.close()
        try:
            if not keeper.stdout.readline():
                raise RuntimeError("a network namespace could not be made")
            yield Path(f"/proc/{keeper.pid}/ns/net")
        finally:
            keeper.kill()


@contextmanager
def _namespaces(count: int, interfaces: int) -> Iterator[list[Netns]]:
    """Make so many namespaces that have so many interfaces together; give which they are."""
    with ExitStack() as stack:
        paths = [stack.enter_context(populated(interfaces // count)) for _ in range(count)]
        yield [identify(path) for path in paths]


def _ms(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1000


def _reading(netns: Sequence[Netns]) -> float:
    """Return the CPU time of one look at all counters and of subtracting the look before, in ms."""
    namespaces = Namespaces()
    namespaces.paths()
    collector = Collector(namespaces)
    first = collector.read(netns)
    if not first.netns.issuperset(netns):
        raise RuntimeError("a network namespace was not read")
    keeper = CounterKeeper(first)
    return median(_ms(lambda: keeper.add(collector.read(netns), kernel_width)) for _ in range(_ROUNDS))


def _of(count: int, interfaces: int) -> float:
    with _namespaces(count, interfaces) as netns:
        return _reading(netns)


def _children(command: Sequence[str]) -> float:
    """Return the CPU time of a command and its children, in ms."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (usage.ru_utime + usage.ru_stime)

    before = used()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return used() - before


def _others() -> list[Row]:
    """Compare a refresh in one namespace with 300 interfaces: `ip -s link` once, and one more second of sar."""
    with populated(_INTERFACES) as path, inside(path):
        ours = _reading(())
        rows = []
        if shutil.which("ip"):
            ip = median(_children(["ip", "-s", "link"]) for _ in range(_ROUNDS))
            rows.append(
                ratio_row(
                    f"all counters of {_INTERFACES} interfaces, CPU", "ms", ours, "ip -s link", ip, "counters.links"
                )
            )
        if shutil.which("sar"):
            three, one = (median(_children(["sar", "-n", "EDEV", "1", n]) for _ in range(3)) for n in ("3", "1"))
            sar = max((three - one) / 2, 0.1)
            rows.append(ratio_row("  the same", "ms", ours, "a second of sar -n EDEV 1", sar))
    return rows


def measure() -> list[Row]:
    """Measure the whole reading, its growth, and the others."""
    whole = _of(_NAMESPACES, _INTERFACES)
    growth = [(1, 0), (1, 100), (1, 300), (10, 0), (10, 300), (_NAMESPACES, 0)]
    grown = ", ".join(f"{count}/{interfaces}: {_of(count, interfaces):.1f}" for count, interfaces in growth)
    return [
        limit_row(
            f"all counters, {_NAMESPACES} namespaces, {_INTERFACES} interfaces, CPU", "ms", whole, "counters.all"
        ),
        Row("  namespaces/interfaces beside the own", f"{grown} ms", f"{os.cpu_count()} CPUs"),
        *_others(),
    ]
