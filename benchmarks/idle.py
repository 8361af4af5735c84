# SPDX-License-Identifier: MIT
"""What `pktdrop trace` costs where nothing is dropped, at one look a second."""

import json
import tempfile
import time
from signal import SIGINT

from benchmarks.processes import cpu_seconds, sender, tracing
from benchmarks.report import Row, limit_row

_SECONDS = 10


def measure() -> list[Row]:
    """Watch its CPU time, after a first drop: that one reads the kernel's symbols, once (some 0.2 s of CPU)."""
    with (
        sender(0) as source,
        tempfile.TemporaryFile("w+") as shown,
        tracing("1", "--format", "json", stdout=shown) as process,
    ):
        source.send("udp", 1)
        time.sleep(2.5)
        start, before = time.monotonic(), cpu_seconds(process.pid)
        time.sleep(_SECONDS)
        used = cpu_seconds(process.pid) - before
        percent = 100 * used / (time.monotonic() - start)
        process.send_signal(SIGINT)
        process.wait()
        shown.seek(0)
        drops = json.loads(shown.readlines()[-1])["drops"]
    others = f"others' drops meanwhile: {sum(drop['count'] for drop in drops) - 1}"
    return [limit_row("idle at one look a second", "% of a CPU", percent, "idle", others)]
