# SPDX-License-Identifier: MIT
"""The command `pktdrop trace`."""

from contextlib import ExitStack

import click

from pktdrop.cli.options import ALL_NETNS, CAPTURE, COUNT, DURATION, FORMAT, INTERVAL, Command, Pace, family
from pktdrop.cli.tracing import ATTACHING, CHOICE, MATCHING, Attaching, Choice, Matching
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host
from pktdrop.kernel.extras import PACKETS, Extras
from pktdrop.model.flow import BY, FOLDED
from pktdrop.process.messages import say
from pktdrop.process.output import Output

MOST_PACKETS = 64
_ROW_PACKETS = 1
"""Lines of packets below a row, if not asked for more."""
LEAST_WIDTH = 75
"""Characters that the columns of trace need which cannot shrink."""


@click.command(
    cls=Command,
    short_help="Show drops as they happen, and sum up at the end.",
    epilog="""\b
Examples:
  pktdrop trace                          # every second until Ctrl-C
  pktdrop trace 5 12                     # every 5 seconds, 12 times
  pktdrop trace --reason 'TCP_*' -d 60   # TCP drops, for a minute
  pktdrop trace --interface '!lo'        # all but the loopback device
  pktdrop trace --filter 'udp port 53'   # packets that match, as in tcpdump
  pktdrop trace --format json | jq .     # for programs
""",
)
@family(Pace, INTERVAL, COUNT, DURATION)
@FORMAT
@CHOICE
@MATCHING
@ALL_NETNS
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Show at most N rows of a table.")  # fmt: skip
@click.option("--by", type=click.Choice([*FOLDED, *BY]),
              help="Sum rows that are alike in this; say of all else how many there are.")  # fmt: skip
@click.option("--packets", type=click.IntRange(0, MOST_PACKETS), metavar="N",
              help="Look at the first N packets of each kind, 4 if not given; 0: at none.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Show no packets in the table's rows.")
@CAPTURE
@ATTACHING
def trace(
    pace: Pace, style: str, choice: Choice, matching: Matching, all_netns: bool, limit: int, by: str | None,
    packets: int | None, quiet: bool, capture: str | None, attaching: Attaching,
) -> None:  # fmt: skip
    """Show drops as they happen, by reason and CPU, and sum up at the end.

    Looks every INTERVAL seconds (default 1), COUNT times or until Ctrl-C.

    Filters may be given more than once; a leading ! excludes. What they hide is
    still counted, and said.
    """
    host.require_proc()
    namespaces = Namespaces()
    wanted, program = choice.filters(namespaces), matching.program
    output = Output()
    _warn_of_narrow_terminal(output)
    extras = Extras(PACKETS if packets is None else packets, by=by if by in BY else None, program=program)
    with attaching.tracer(namespaces, extras) as tracer:
        # nothing that attaching has to wait for
        from pktdrop.account import Account
        from pktdrop.filters import Filters, packet_filter
        from pktdrop.observe.observer import Observer
        from pktdrop.reports.trace import Capturing, JsonReport, TableReport
        from pktdrop.rules.protocols import Protocols
        from pktdrop.run import Report, run
        from pktdrop.views.jsonlines import JsonView
        from pktdrop.views.table import TableView
        from pktdrop.watch import Watch

        if program:
            wanted = (*wanted, packet_filter())
        names, chosen = Protocols.load(), Filters(wanted, noise=not choice.no_noise)
        observer = Observer(namespaces, tracer, all_netns)
        watch = Watch(observer)
        shown = 0 if quiet else _ROW_PACKETS if packets is None else packets
        report: Report[Account] = (
            JsonReport(watch, chosen, JsonView(names, watch.is_gone, by, watch.container), output)
            if style == "json"
            else TableReport(watch, chosen, TableView(names, limit, watch.label, shown, by), output)
        )
        with pace.clock(output) as clock, ExitStack() as stack:
            observer.is_over = clock.is_over
            if capture is not None:
                from pktdrop.reports.capture import Capture

                report = Capturing(report, chosen, stack.enter_context(Capture(capture)))
            run(watch, report, clock)


def _warn_of_narrow_terminal(output: Output) -> None:
    if output.is_terminal and output.width < LEAST_WIDTH:
        say(
            f"Warning: the terminal is {output.width} columns wide, tables need {LEAST_WIDTH}: their lines will wrap. "
            "Widen it, or use --format json."
        )
