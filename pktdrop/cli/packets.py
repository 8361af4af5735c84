# SPDX-License-Identifier: MIT
"""The command `pktdrop packets`."""

from contextlib import ExitStack

import click

from pktdrop.cli.options import CAPTURE, DURATION, FORMAT, Command
from pktdrop.cli.tracing import ATTACHING, CHOICE, MATCHING, Attaching, Choice, Matching
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host
from pktdrop.kernel.extras import Extras
from pktdrop.process.clock import Clock
from pktdrop.process.output import Output

_OF_A_KIND = 64
"""Packets of each kind that are looked at between two looks."""


@click.command(
    cls=Command,
    short_help="Show dropped packets one by one, like tcpdump.",
    epilog="""\b
Examples:
  pktdrop packets                     # a line each, until Ctrl-C
  pktdrop packets -c 10 --netns blue  # the first ten of a namespace
  pktdrop packets -d 60 -w drops.pcapng --reason 'TCP_*'
""",
)
@DURATION
@click.option("-c", "--count", "most", type=click.IntRange(min=1), metavar="N", help="End after N packets.")
@click.option("--rate", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N",
              help="Show at most N packets a second.")  # fmt: skip
@click.option("--process", "processes", multiple=True, metavar="NAME",
              help="Show only packets of this process: name or number.")  # fmt: skip
@click.option("--stack", is_flag=True, help="Show how the kernel came to where it dropped each packet.")
@FORMAT
@CAPTURE
@CHOICE
@MATCHING
@ATTACHING
def packets(
    duration: float | None, most: int | None, rate: int, processes: tuple[str, ...], stack: bool, style: str,
    capture: str | None, choice: Choice, matching: Matching, attaching: Attaching,
) -> None:  # fmt: skip
    """Show dropped packets one by one: when, why, where, and whose they were.

    Of a storm of one kind, some are shown, and all are counted. With -w, nothing
    is shown, but written to a file.
    """
    host.require_proc()
    namespaces = Namespaces()
    wanted, program = choice.filters(namespaces), matching.program
    output = Output()
    with attaching.tracer(namespaces, Extras(_OF_A_KIND, stack, program=program)) as tracer, ExitStack() as opened:
        # nothing that attaching has to wait for
        from pktdrop.filters import Filters, packet_filter
        from pktdrop.reports.capture import Capture
        from pktdrop.reports.packets import INTERVAL, PacketsReport, PacketsSettings, PacketsSource
        from pktdrop.rules.protocols import Protocols
        from pktdrop.run import run
        from pktdrop.views.jsonlines import JsonView

        names, source = Protocols.load(), PacketsSource(namespaces, tracer)
        file = None if capture is None else opened.enter_context(Capture(capture))
        view = None
        if style == "json":
            view = JsonView(names, lambda netns: namespaces.known.is_gone(netns), container=namespaces.container)
        if program:
            wanted = (*wanted, packet_filter())
        settings = PacketsSettings(most, rate, processes)
        filters = Filters(wanted, noise=not choice.no_noise)
        with Clock(INTERVAL, None, duration, output.descriptor) as clock:
            report = PacketsReport(source, filters, settings, names, view, file, output, clock)
            run(source, report, clock)
