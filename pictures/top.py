# SPDX-License-Identifier: MIT
"""Make pictures/top.svg of a real run: `pktdrop top` beside `pktdrop demo`.

From the root of a checkout: sudo .venv/bin/python -m pictures.top
"""

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from pktdrop.filters import Filters, netns_filter
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from pktdrop.observe.observer import Observer
from pktdrop.top.app import TopApp
from pktdrop.top.panel import Run
from pktdrop.top.reader import Feed, Reader
from pktdrop.top.screen import Screen
from pktdrop.watch import Watch

_SIZE = (104, 28)
_SECONDS = 40
_PICTURE = Path(__file__).with_suffix(".svg")
_DEMO = [sys.executable, "-I", "-m", "pktdrop", "demo", "--duration", str(_SECONDS + 20)]


async def _picture(app: TopApp) -> str:
    async with app.run_test(size=_SIZE) as pilot:
        await pilot.pause(_SECONDS)
        return app.export_screenshot(title="sudo pktdrop top")


def main() -> None:
    """Let both run for a while, and take the picture."""

    def start(stack: ExitStack) -> Feed:
        namespaces = Namespaces()
        return Feed(Watch(Observer(namespaces, stack.enter_context(Tracer(namespaces)))))

    demo = subprocess.Popen(_DEMO, stdout=subprocess.DEVNULL)
    reader = Reader(start, 1.0)
    try:
        watch = reader.started().watch
        rungs = " ".join(watch.kernel.rungs.values())
        # what others lose on this host is not part of the picture
        screen = Screen(Run("host", os.uname().release, rungs), Filters([netns_filter(["demo-*"])]), 1.0)
        screen.limits = watch.limits
        _PICTURE.write_text(asyncio.run(_picture(TopApp(screen, reader))), encoding="utf-8")
    finally:
        reader.close()
        demo.terminate()
        demo.wait()
    print(_PICTURE)


if __name__ == "__main__":
    main()
