# SPDX-License-Identifier: MIT
"""What a filter of packets costs: kernel time per drop with one, of that without, each attached alone, in turn."""

from collections.abc import Mapping

from benchmarks.kernel_time import pktdrop, statistics
from benchmarks.processes import sender
from benchmarks.report import Row, ratio_row

_DROPS = 100_000
_ROUNDS = 5
_FILTERS: Mapping[str, str] = {
    "of another host": "udp port 53 and host 10.0.0.9",
    "of another port": "host 127.0.0.1 and udp port 53",
    "that matches": "udp and dst net 127.0.0.0/8 and not port 53",
    "of fifty hosts": " or ".join(f"host 10.0.0.{number}" for number in range(50)),
}
"""By what becomes of a datagram to a closed port of 127.0.0.1."""


def measure() -> list[Row]:
    """Compare filters on both ways to trace kfree_skb: the least of all rounds, as other load only ever adds."""
    calls = [(rung, name) for rung in ("tp_btf", "raw") for name in ("", *_FILTERS)]
    cost: dict[tuple[str, str], list[float]] = {call: [] for call in calls}
    with sender(0) as source, statistics():
        for _ in range(_ROUNDS):
            for rung, name in calls:
                with pktdrop(rung, *(("--filter", _FILTERS[name]) if name else ())) as read:
                    source.send("calls", _DROPS // 10)
                    before = read()
                    source.send("calls", _DROPS)
                    now = read()
                cost[rung, name].append((now.nanoseconds - before.nanoseconds) / (now.runs - before.runs))
    rows = []
    for rung, name in calls:
        if name:
            budget = "filter.time" if (rung, name) == ("tp_btf", "of another host") else ""
            what = f"kernel time per drop, {rung}, a filter {name}"
            rows.append(ratio_row(what, "ns", min(cost[rung, name]), "without", min(cost[rung, ""]), budget))
    return rows
