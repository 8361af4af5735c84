# SPDX-License-Identifier: MIT
"""The command `pktdrop counters`."""

import click

from pktdrop.cli.options import ALL_NETNS, COUNT, FORMAT, Command, Pace, Seconds
from pktdrop.counters.like import LIKE
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host
from pktdrop.process.output import Output


@click.command(
    cls=Command,
    short_help="Show the loss counters themselves.",
    epilog="""\b
Examples:
  pktdrop counters                # what was lost since boot, as counted
  pktdrop counters 1              # what moves, each second
  pktdrop counters --like netstat # in the columns of netstat -i
""",
)
@click.argument("every", metavar="[INTERVAL]", type=Seconds(min=0.1), required=False)
@COUNT
@click.option("--all", "everything", is_flag=True, help="Show all counters, also those of traffic and those at 0.")
@ALL_NETNS
@click.option("--like", type=click.Choice(LIKE), help="Show the columns of that tool.")
@FORMAT
def counters(
    every: float | None, count: int | None, everything: bool, all_netns: bool, like: str | None, style: str
) -> None:
    """Show the counters of lost packets: of interfaces, drivers, CPUs, protocols.

    Since boot, or with INTERVAL what they rise by, COUNT times or until Ctrl-C.
    Needs neither root nor BPF.
    """
    if like == "sar" and every is None:
        raise click.UsageError("sar shows rates: give an INTERVAL.")
    if like and style == "json":
        raise click.UsageError("--like is for tables: leave out --format json.")
    from pktdrop.observe.observer import Observer
    from pktdrop.reports.counters import CountersReport, Rises
    from pktdrop.run import run

    host.require_proc()
    output, rises = Output(), Rises(Observer(Namespaces(), all_netns=all_netns, at_start=0))
    report = CountersReport(rises, output, all_netns, every is not None, everything, like, style)
    with Pace(every or 1.0, count if every else 0, None).clock(output) as clock:
        run(rises, report, clock)
