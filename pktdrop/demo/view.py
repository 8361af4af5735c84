# SPDX-License-Identifier: MIT
"""What the demo does as tables and as JSON."""

import textwrap
import time
from collections.abc import Sequence, Set
from typing import Protocol

from pktdrop import __version__
from pktdrop.demo.causes.cause import DemoCause
from pktdrop.demo.choice import USUAL
from pktdrop.demo.stage import Performance
from pktdrop.process.output import Output
from pktdrop.text.escaping import json_line
from pktdrop.text.table import Column, table
from pktdrop.text.wording import number

NOT_HERE = (
    "Not among them: a full CPU backlog (CPU_BACKLOG). Its queue is one for the whole host: to fill it would lose "
    "packets of others."
)
_LIST = (
    Column("cause"),
    Column("IP"),
    Column("reason"),
    Column("layer"),
    Column("what gets lost", least=20, wrap=True),
)
_START = (Column("cause"), Column("reason", least=12), Column("layer"), Column("iface"), Column("netns", least=6))
_SUMMARY = (
    Column("sent", "right"),
    Column("dropped", "right"),
    Column("cause"),
    Column("reason", least=12),
    Column("netns", least=6),
)


_VERSIONS = {"IPv4": "4", "IPv6": "6"}


class DemoReport(Protocol):
    """What becomes of the results. Times are seconds since the epoch."""

    def start(self, moment: float, rate: int, performances: Sequence[Performance]) -> None:
        """Tell what will be lost, and where."""

    def interval(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Tell what was sent so far."""

    def summary(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Tell what was lost in the end."""


def list_table(causes: Sequence[DemoCause], width: int) -> str:
    """Return causes for people, those that differ by the version of IP in one row."""
    versions: dict[tuple[str, ...], list[DemoCause]] = {}
    for cause in causes:
        versions.setdefault((cause.reason, cause.layer, cause.description), []).append(cause)
    rows = [
        (same[0].name, ", ".join(_VERSIONS.get(cause.protocol, "-") for cause in same), *told)
        for told, same in versions.items()
    ]
    notes = (
        "IP 4, 6: there is another for IPv6, whose name ends in 6.",
        f"Without CAUSE: {', '.join(USUAL)}.",
        NOT_HERE,
    )
    return "\n\n".join([table(_LIST, rows, width), *(textwrap.fill(note, width) for note in notes)]) + "\n"


def list_json(causes: Sequence[DemoCause]) -> str:
    """Return all causes as one line."""
    listed = [
        {"cause": cause.name, "description": cause.description, "usual": cause.name in USUAL, **_tracer_says(cause)}
        for cause in causes
    ]
    return json_line({"type": "causes", "version": __version__, "causes": listed})


class DemoTableReport:
    """Results as tables: what will be lost, a status line each second, and what was lost."""

    def __init__(self, output: Output, known: Set[str] | None) -> None:
        """Take what writes, and the drop reasons that this kernel has, if that is known."""
        self._output = output
        self._known = known

    def start(self, moment: float, rate: int, performances: Sequence[Performance]) -> None:
        """Show what `pktdrop trace` is about to show."""
        rows = [
            (one.cause.name, self._reason(one.cause), one.cause.layer, one.cause.interface, one.netns_name)
            for one in performances
        ]
        self._output.write(table(_START, rows, self._output.width) + "\n" + self._unknown(performances) + "\n")

    def interval(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Show how many packets were sent so far, in the status line."""
        sent = sum(one.sent for one in performances)
        self._output.status(f"{end - start:.0f} s, {number(sent)} packets sent"[: self._output.width - 1])

    def summary(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Show what the witnesses counted, the most first."""
        ranked = sorted(performances, key=lambda one: -(one.lost or 0))
        rows = [
            (
                number(one.sent),
                "?" if one.lost is None else number(one.lost),
                one.cause.name,
                self._reason(one.cause),
                one.netns_name,
            )
            for one in ranked
        ]
        clock = [time.strftime("%H:%M:%S", time.localtime(moment)) for moment in (start, end)]
        sent = number(sum(one.sent for one in performances))
        title = f"{clock[0]} to {clock[1]}, {end - start:.1f} s: {sent} packets sent."
        notes = "\n".join(textwrap.fill(note, self._output.width) for note in _notes(performances))
        self._output.write(f"{title}\n\n{table(_SUMMARY, rows, self._output.width)}\n\n{notes}\n")

    def _reason(self, cause: DemoCause) -> str:
        return cause.reason + "?" * (self._known is not None and cause.reason not in self._known)

    def _unknown(self, performances: Sequence[Performance]) -> str:
        if all(self._reason(one.cause) == one.cause.reason for one in performances):
            return ""
        note = "?: this kernel has no reason of that name; trace shows it under another one."
        return "\n" + textwrap.fill(note, self._output.width) + "\n"


def _notes(performances: Sequence[Performance]) -> list[str]:
    notes = ["dropped: as the kernel's own counters have it, read with nstat, ip, tc and nft."]
    if any(one.lost is not None and one.lost > one.sent for one in performances):
        notes.append("More dropped than sent: some to fill a buffer or queue first.")
    if any(one.lost is not None and one.lost < one.sent for one in performances):
        notes.append("Fewer dropped than sent: some got through.")
    return [*notes, "What still waits in a queue is dropped at the end, for other reasons."]


class DemoJsonReport:
    """The results of a demo as JSON lines."""

    def __init__(self, output: Output, known: Set[str] | None) -> None:
        """Take what writes, and the drop reasons that this kernel has, if that is known."""
        self._output = output
        self._known = known
        self._end = 0.0
        self._sent: dict[str, int] = {}

    def start(self, moment: float, rate: int, performances: Sequence[Performance]) -> None:
        """Write the line "start"."""
        self._end = moment
        causes = [self._object(one) for one in performances]
        self._output.write(
            json_line({"type": "start", "time": moment, "version": __version__, "rate": rate, "causes": causes})
        )

    def interval(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Write a line "interval": what was sent since the last one."""
        causes = [
            {"cause": one.cause.name, "sent": one.sent - self._sent.get(one.cause.name, 0)} for one in performances
        ]
        self._output.write(json_line({"type": "interval", "start": self._end, "end": end, "causes": causes}))
        self._end, self._sent = end, {one.cause.name: one.sent for one in performances}

    def summary(self, start: float, end: float, performances: Sequence[Performance]) -> None:
        """Write the line "summary"."""
        causes = [{**self._object(one), "sent": one.sent, "count": one.lost} for one in performances]
        self._output.write(json_line({"type": "summary", "start": start, "end": end, "causes": causes}))

    def _object(self, one: Performance) -> dict[str, object]:
        said = _tracer_says(one.cause)
        if self._known is not None and one.cause.reason not in self._known:
            said["reason"] = None
        return {"cause": one.cause.name, **said, "netns": one.netns, "netns_name": one.netns_name}


def _tracer_says(cause: DemoCause) -> dict[str, object]:
    """Return what the drops of a cause have in `pktdrop trace --format json`."""
    return {
        "reason": cause.reason,
        "layer": cause.layer,
        "interface": cause.interface,
        "protocol": cause.protocol,
    }
