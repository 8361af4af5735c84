# SPDX-License-Identifier: MIT
"""The command `pktdrop demo`."""

import click

from pktdrop.cli.options import DURATION, FORMAT, Command, Pace
from pktdrop.kernel import host
from pktdrop.process.output import Output


@click.command(
    cls=Command,
    short_help="Cause drops of all kinds, to see the others at work.",
    epilog="""\b
Examples:
  pktdrop demo                        # six causes until Ctrl-C
  pktdrop demo no_route 'tcp_*' -d 60 # these, for a minute
  pktdrop demo --list                 # all causes there are
""",
)
@click.argument("patterns", metavar="[CAUSE]...", nargs=-1)
@click.option("--rate", type=click.IntRange(1, 1_000_000), default=20, show_default=True, metavar="PPS",
              help="Packets per second of each cause.")  # fmt: skip
@DURATION
@click.option("--list", "only_list", is_flag=True, help="List the causes, and cause nothing.")
@FORMAT
def demo(patterns: tuple[str, ...], rate: int, duration: float | None, only_list: bool, style: str) -> None:
    """Cause real drops, of kinds that CAUSE names (patterns), until Ctrl-C.

    In network namespaces of its own, which are gone afterwards; nothing else on
    this host is touched. At the end it tells what was lost, by the kernel's own
    counters.
    """
    from pktdrop.demo import run, view
    from pktdrop.demo.causes import CAUSES
    from pktdrop.demo.choice import choose

    chosen = choose(patterns)
    output = Output()
    if only_list:
        listed = chosen if patterns else CAUSES
        output.write(view.list_json(listed) if style == "json" else view.list_table(listed, output.width))
        return
    host.require_proc()
    run.require_rights()
    known = run.known_reasons()
    report = view.DemoJsonReport(output, known) if style == "json" else view.DemoTableReport(output, known)
    with Pace(run.STEP, None, duration).clock(output) as clock:
        run.run(chosen, rate, duration, clock, report)
