# SPDX-License-Identifier: MIT
"""The run of `pktdrop demo`: set up, send at a steady pace, ask the witnesses, take down.

It paces packets, not looks: twenty turns of sending to one result. So it has a loop of its own beside `pktdrop.run`.
"""

import math
import os
import time
from collections.abc import Sequence

from pktdrop.demo.causes.cause import DemoCause
from pktdrop.demo.claim import Claim
from pktdrop.demo.stage import Stage, set_up
from pktdrop.demo.view import DemoReport
from pktdrop.errors import PktdropError
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.host import own_capabilities
from pktdrop.process.clock import Clock
from pktdrop.process.messages import say
from pktdrop.run import Limits
from pktdrop.text.wording import counted

STEP = 0.05
"""Seconds between two turns of sending."""
_INTERVAL = 1.0
"""Seconds between two results."""


def known_reasons() -> frozenset[str] | None:
    """Return the drop reasons that this kernel names; None where it names none."""
    try:
        return frozenset(KernelFacts.read().reasons.names())
    except PktdropError:
        return None


def require_rights() -> None:
    """Raise PktdropError where this process may not make network namespaces."""
    if os.geteuid() != 0 or "CAP_SYS_ADMIN" not in own_capabilities():
        raise PktdropError("The demo needs root: it makes network namespaces.", "Start pktdrop with sudo.")


def run(causes: Sequence[DemoCause], rate: int, duration: float | None, clock: Clock, report: DemoReport) -> None:
    """Let each cause lose `rate` packets per second until the clock ends.

    Raises PktdropError where no cause can be set up, or none is left; OutputClosed when nobody reads the results.
    """
    with Claim() as claim:
        if claim.removed:
            say(f"Removed {counted(len(claim.removed), 'namespace')} that a killed demo had left.")
        with set_up(causes, claim.names, lambda: clock.interrupted) as stage:
            limits = Limits()
            limits.now(stage.limits)
            if not clock.interrupted:
                _perform(stage, rate, duration, clock, report, limits)


def _perform(stage: Stage, rate: int, duration: float | None, clock: Clock, report: DemoReport, limits: Limits) -> None:
    if not stage.able:
        raise PktdropError("None of the causes works on this host.", "See the limits above.")
    began = time.time()
    report.start(began, rate, stage.performances())
    say(f"Causing drops ({counted(len(stage.able), 'cause')}, {rate:,}/s each). Ctrl-C to end.")
    start = time.monotonic()
    shown = 0.0
    for _ in clock.ticks():
        elapsed = min(time.monotonic() - start, math.inf if duration is None else duration)
        stage.send(int(rate * elapsed))
        if elapsed - shown >= _INTERVAL:
            report.interval(began, began + elapsed, stage.performances())
            shown += _INTERVAL
        limits.now(stage.limits)
        if not stage.able:
            break
    report.summary(began, time.time(), stage.settled())
    limits.now(stage.limits)
    if not stage.able:
        raise PktdropError("None of the causes works any more.", "See the limits above.")
