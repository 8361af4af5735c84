# SPDX-License-Identifier: MIT
"""The run of `pktdrop top`, from the options to the end of the screen."""

import asyncio
import locale
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pktdrop.errors import PktdropError
from pktdrop.filters import Filters
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from pktdrop.observe.observer import Observer
from pktdrop.top.panel import Run
from pktdrop.top.reader import Feed, Reader
from pktdrop.top.screen import Screen
from pktdrop.top.series import BLOCKS, PLAIN
from pktdrop.watch import Watch

if TYPE_CHECKING:
    from pktdrop.top.app import TopApp

_USE_TRACE = "Use 'pktdrop trace', which writes lines."
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FEW_CHARACTERS = ("linux", "vt100", "vt102", "vt220")
"""Terminals without block characters."""


def require_screen(environment: Mapping[str, str], is_terminal: Callable[[int], bool] = os.isatty) -> None:
    """Raise PktdropError where no full-screen view is possible, or textual is missing."""
    if not all(is_terminal(descriptor) for descriptor in (0, 1)):
        raise PktdropError("'pktdrop top' needs a terminal, for input and for output.", _USE_TRACE)
    if environment.get("TERM", "dumb") in ("dumb", "", "unknown"):
        raise PktdropError("This terminal cannot move its cursor (TERM is dumb, or not set).", _USE_TRACE)
    if find_spec("textual") is None:
        raise PktdropError(
            "The Python package textual, which draws the live view, is not installed.",
            "Run './bootstrap top' in a clone of pktdrop once; as root that installs it for the command pktdrop, too. "
            "'pktdrop trace' does without.",
        )


def marks(environment: Mapping[str, str], codeset: str) -> str:
    """Return the characters of sparklines, for this terminal."""
    plain = codeset.upper().replace("-", "") not in ("UTF8", "ANSI_X3.41968", "USASCII")
    return PLAIN if plain or environment.get("TERM") in _FEW_CHARACTERS else BLOCKS


def run(
    interval: float,
    filters: Filters,
    noise: bool,
    all_netns: bool,
    namespaces: Namespaces,
    attach: Callable[[Namespaces], Tracer],
) -> int:
    """Show the live view, at first with noise or without, until it is left; return the exit status.

    Raises PktdropError.
    """
    for variable in ("COLUMNS", "LINES"):  # the terminal has a size; what started pktdrop may have left another one
        os.environ.pop(variable, None)

    def start(stack: ExitStack) -> Feed:
        tracer = stack.enter_context(attach(namespaces))
        observer = Observer(namespaces, tracer, all_netns, is_over=lambda: reader.pace.is_over)
        return Feed(Watch(observer))

    reader = Reader(start, interval)
    try:
        from pktdrop.top.app import TopApp  # textual, while the probes are attached

        watch = reader.started().watch
        about = Run(socket.gethostname(), watch.kernel.release, " ".join(watch.kernel.rungs.values()))
        screen = Screen(about, filters, interval, marks(os.environ, locale.nl_langinfo(locale.CODESET)))
        screen.limits = watch.limits
        if not noise:
            screen.toggle_noise()
        app = TopApp(screen, reader)
        asyncio.run(_until_left(app))
        return app.return_code or 0
    finally:
        # asyncio leaves Python's handler, which raises wherever it strikes
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        reader.close()


async def _until_left(app: "TopApp") -> None:
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, app.exit)
    await app.run_async()
