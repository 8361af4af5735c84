# SPDX-License-Identifier: MIT
"""A storm from two processes at once: whether every drop is counted, and how fast they may come."""

import json
import subprocess
import time
from contextlib import ExitStack
from signal import SIGINT
from typing import Any

from benchmarks.processes import Sender, sender, tracing
from benchmarks.report import Row, limit_row

_EACH = 400_000


def _blow(senders: list[Sender]) -> tuple[int, int, float]:
    """Let all send at once; return packets sent, drops by the kernel's own counter, and drops per second."""
    start = time.monotonic()
    for one in senders:
        one.start("udp", _EACH)
    answers = [one.answer() for one in senders]
    sent = sum(answer["sent"] for answer in answers)
    return sent, sum(answer["no_ports"] for answer in answers), sent / (time.monotonic() - start)


def _summary(process: "subprocess.Popen[str]") -> dict[str, Any]:
    process.send_signal(SIGINT)
    assert process.stdout is not None
    summary: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return summary


def measure() -> list[Row]:
    """Compare what was counted with what was sent, and the pace with that of the same storm untraced."""
    with ExitStack() as stack:
        senders = [stack.enter_context(sender(cpu)) for cpu in (0, 1)]
        sent_before, _, untraced = _blow(senders)
        with tracing("60", "--format", "json", stdout=subprocess.PIPE) as process:
            sent, witness, traced = _blow(senders)
            summary = _summary(process)
    netns = {one.netns for one in senders}
    counted = sum(
        drop["count"] for drop in summary["drops"] if drop["netns"] in netns and drop["reason"] == "NO_SOCKET"
    )
    lost = sum(summary["lost"].values())
    exact = counted == sent == witness - sent_before
    return [
        Row("storm: counted", f"{counted:,}", f"sent: {sent:,}; NoPorts: {witness - sent_before:,}",
            counted / sent, "storm.counted", counted / sent if exact else 0.0),
        limit_row("storm: lost", "drops", lost, "storm.lost"),
        Row("storm: drops per second", f"{traced:,.0f}", f"untraced: {untraced:,.0f}", traced / untraced),
    ]  # fmt: skip
