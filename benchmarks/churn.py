# SPDX-License-Identifier: MIT
"""Network namespaces that come and go: whether each drop has the name of its own, and whether the totals hold.

What is expected comes from the process that made the namespaces and read the kernel's own counters in each (see
churning.py); what was shown is what `pktdrop trace 1 --format json` wrote meanwhile.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, median_low
from typing import Any

from benchmarks.churning import COUNTERS, QUIET, Life, Sample
from benchmarks.processes import ROOT, pktdrop
from benchmarks.report import Row, limit_row, ratio_row

RATE = 20
LONG, SHORT = 600.0, 30.0
"""Seconds of churn."""
_WAYS = {
    "__udp4_lib_rcv": "closed",
    "udp_unicast_rcv_skb": "closed",
    "nft_do_chain": "firewall",
    "nf_hook_slow": "firewall",
}
"""Ways of losing packets that raise an event, by the function that frees them: older kernels give no reasons."""
_SLACK = 0.25
"""Seconds: a look is somewhere around the end of its interval."""


@dataclass(frozen=True)
class Names:
    """Drops in the namespaces that came and went."""

    shown: int
    wrong: int
    """Shown under a name that was not their namespace's at that moment, or of which more are shown than it lost."""
    nameless: int
    """Shown with the number alone, though it had a name."""
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """One counter, over all those namespaces."""

    counted: int
    """Sum of what each has counted while it lived."""
    readable: int
    """The part of it that stood there while a look was made, of namespaces that have a name to be entered by."""
    ledger: int
    """Sum of the ledger's rows."""
    unexplained: int


@dataclass(frozen=True)
class Result:
    """What one churn showed."""

    lives: Sequence[Life]
    names: Names
    sent: int
    """Packets that were lost in ways that raise an event, by the kernel's counters."""
    events: int
    """The same as shown."""
    totals: Mapping[str, Total]
    """By counter."""
    lost: int
    """Drops that were not counted, as it said itself."""
    said: str
    """What it wrote on standard error."""
    samples: Sequence[Sample]
    quiet_look: float
    """Milliseconds of CPU per look before the churn."""
    busy_look: float
    """The same meanwhile."""
    ended: float
    """Seconds from SIGINT to the end."""
    status: int

    @property
    def inodes(self) -> int:
        """How many different inodes the namespaces had."""
        return len({life.inode for life in self.lives})

    @property
    def descriptors(self) -> tuple[int, int]:
        """Open files in the first and in the second half, medians: more are open for moments."""
        first, second = ([sample.descriptors for sample in half] for half in self._halves())
        return median_low(first), median_low(second)

    @property
    def resident(self) -> tuple[float, float]:
        """Median resident set around the middle and at the end, MB."""
        first, second = self._halves()
        part = max(len(second) // 5, 1)
        return median(s.resident for s in first[-part:]), median(s.resident for s in second[-part:])

    def _halves(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        churned = [sample for sample in self.samples if sample.born > 1]
        return churned[: len(churned) // 2], churned[len(churned) // 2 :]


class _Lives:
    """Finds whose drop it was that is shown."""

    def __init__(self, lives: Iterable[Life]) -> None:
        self._by_inode: dict[int, list[Life]] = defaultdict(list)
        self._by_cookie: dict[int, Life] = {}
        for life in lives:
            self._by_inode[life.inode].append(life)
            if life.cookie is not None:
                self._by_cookie[life.cookie] = life

    def may_be(self, drop: Mapping[str, Any]) -> list[Life]:
        """Return the namespaces that a row may mean: one by its cookie, else all that had its inode."""
        cookie = drop.get("netns_cookie")
        if cookie is None:
            return self._by_inode.get(drop.get("netns", 0), [])
        return [self._by_cookie[cookie]] if cookie in self._by_cookie else []


def judge_names(lives: Sequence[Life], intervals: Iterable[Mapping[str, Any]]) -> Names:
    """Compare each drop that was shown with who lived then."""
    known = _Lives(lives)
    shown = wrong = nameless = 0
    of_life: Counter[tuple[int, str]] = Counter()
    examples = []
    for interval in intervals:
        for drop in interval["drops"]:
            candidates = known.may_be(drop)
            if not candidates:
                continue
            shown += drop["count"]
            then = [life for life in candidates if _lived(life, interval)]
            name = drop["netns_name"]
            if name is None or str(drop["netns"]) in name:
                nameless += drop["count"] if all(life.name for life in then) else 0
                owners = then if "netns_cookie" in drop else []
            else:
                owners = [life for life in then if life.name == name]
                if not owners:
                    wrong += drop["count"]
                    examples.append(
                        f"{drop['count']} of {drop['location']} as {name}: it was {[life.name for life in then]}"
                    )
            if owners and (way := _way(drop)):
                of_life[id(owners[0]), way] += drop["count"]
    for life in lives:
        for way, lost in life.lost.items():
            more = of_life[id(life), way] - lost
            if more > 0:
                wrong += more
                examples.append(f"{more} ({way}) more as {life.name} than it lost")
    return Names(shown, wrong, nameless, tuple(examples))


def _way(drop: Mapping[str, Any]) -> str | None:
    """Return by which way packets were lost; None if by none that raises an event and is known here."""
    return _WAYS.get(drop["location"].split("+")[0].split(".")[0])


def _lived(life: Life, interval: Mapping[str, Any]) -> bool:
    """Return whether it lived in an interval. Its last packets may be freed a moment after its name was taken away."""
    return life.born <= interval["end"] + _SLACK and life.died >= interval["start"] - _SLACK


def judge_total(
    way: str,
    lives: Sequence[Life],
    intervals: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    slowness: float = 1.0,
) -> Total:
    """Compare the ledger's rows for one counter with what the namespaces counted."""
    slack = slowness * _SLACK
    known, counter = _Lives(lives), f"mib.{COUNTERS[way]}"
    rows = [
        row
        for row in summary["ledger"]
        if row["counter"] == counter and (row["scope"].get("netns_gone") or known.may_be(row["scope"]))
    ]
    # each loses the first half of its packets at its birth, so that this half stands there at any look while it lives
    looks = [interval["end"] for interval in intervals]
    readable = sum(
        life.sent[way] // 2
        for life in lives
        if life.name is not None and any(life.born + slack < look < life.died - slack for look in looks)
    )  # fmt: skip
    return Total(
        counted=sum(life.lost[way] for life in lives),
        readable=readable,
        ledger=sum(row["delta"] for row in rows),
        unexplained=sum(abs(row["unexplained"]) for row in rows if row["status"] != "no-event"),
    )


def judge(found: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], slowness: float = 1.0) -> Result:
    """Compare what was shown with what was so."""
    lives = [Life(**life) for life in found["lives"]]
    samples = [Sample(**sample) for sample in found["samples"]]
    intervals, summary = [line for line in lines if line["type"] == "interval"], lines[-1]
    known = _Lives(lives)
    # those that came first go on by reason and call site alone
    events = sum(
        drop["count"] for drop in summary["drops"] if _way(drop) and (drop["other_places"] or known.may_be(drop))
    )
    churn = samples[0].time + QUIET
    return Result(
        lives=lives,
        names=judge_names(lives, intervals),
        sent=sum(life.lost[way] for life in lives for way in set(_WAYS.values())),
        events=events,
        totals={COUNTERS[way]: judge_total(way, lives, intervals, summary, slowness) for way in COUNTERS},
        lost=sum(summary["lost"].values()),
        said=found["stderr"],
        samples=samples,
        quiet_look=_look_ms([sample for sample in samples if sample.time < churn], intervals),
        busy_look=_look_ms([sample for sample in samples if sample.time > churn], intervals),
        ended=found["ended"],
        status=found["status"],
    )


def _look_ms(samples: Sequence[Sample], intervals: Iterable[Mapping[str, Any]]) -> float:
    """Return the CPU time per look between the first and the last of some samples."""
    first, last = samples[0], samples[-1]
    looks = sum(first.time < interval["end"] <= last.time for interval in intervals)
    return 1000 * (last.cpu - first.cpu) / max(looks, 1)


def run(seconds: float, rate: float = RATE, command: Sequence[str] | None = None, slowness: float = 1.0) -> Result:
    """Let namespaces come and go for a while beside a trace. Raises RuntimeError with what went wrong.

    On a slow machine, where a look takes longer than many would live, all of them live so many times as long.
    """
    trace = [*(command or pktdrop()), "trace", "1", "--format", "json"]
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "output")
        numbers = map(str, (seconds, rate / slowness, slowness))
        churning = [sys.executable, "-I", "-m", "benchmarks.churning", *numbers, str(output), *trace]
        done = subprocess.run(churning, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return judge(json.loads(done.stdout), lines, slowness)


def rows(result: Result) -> list[Row]:
    """Return the figures of one churn."""
    names, (few, many), (middle, end) = result.names, result.descriptors, result.resident
    wrong = limit_row("drops under a wrong name", "drops", names.wrong, "churn.wrong", f"shown: {names.shown:,}")
    found = [
        Row("namespaces that came and went", f"{len(result.lives):,}", f"inodes: {result.inodes:,}"),
        replace(wrong, ratio=names.wrong / max(names.shown, 1)),
        Row("  with a number in place of their name", f"{names.nameless:,}", f"shown: {names.shown:,}"),
        ratio_row("  drops shown", "drops", result.events, "counted there", result.sent, "churn.events"),
    ]
    for counter, total in result.totals.items():
        found += [
            ratio_row(f"  {counter} in the ledger", "", total.ledger, "read alive", total.readable, "churn.low"),
            ratio_row("  the same", "", total.ledger, "counted there", total.counted, "churn.high"),
        ]
    more = result.busy_look - result.quiet_look
    return [
        *found,
        limit_row("  open files", "more", many - few, "churn.descriptors", f"{few}, then {many}"),
        ratio_row("  resident at the end", "MB", end, "in the middle", middle, "churn.resident"),
        limit_row("  CPU of a look, more than before", "ms", more, "churn.look", f"before: {result.quiet_look:.3g} ms"),
    ]


def measure() -> list[Row]:
    """Let them come and go for ten minutes."""
    return rows(run(LONG))


def measure_short() -> list[Row]:
    """Let them come and go for half a minute."""
    return rows(run(SHORT))
