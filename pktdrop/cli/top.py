# SPDX-License-Identifier: MIT
"""The command `pktdrop top`."""

import os
from functools import partial

import click

from pktdrop.cli.options import ALL_NETNS, INTERVAL, Command
from pktdrop.cli.tracing import ATTACHING, CHOICE, MATCHING, Attaching, Choice, Matching
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host
from pktdrop.kernel.extras import Extras


@click.command(
    cls=Command,
    short_help="Show drops on the whole screen, live.",
    epilog="""\b
Examples:
  pktdrop top                     # every second; ? explains the keys
  pktdrop top 5                   # every 5 seconds
  pktdrop top --interface 'eth*'  # drops of these interfaces only
""",
)
@INTERVAL
@CHOICE
@MATCHING
@ALL_NETNS
@ATTACHING
@click.option("--format", "style", hidden=True)
@click.pass_context
def top(
    context: click.Context, every: float, choice: Choice, matching: Matching, all_netns: bool, attaching: Attaching,
    style: str | None,
) -> None:  # fmt: skip
    """Show live what is lost, where, why and whose: reasons, CPUs, ledger, flows.

    Looks every INTERVAL seconds (default 1). Press ? for the keys, q to end.
    Needs a terminal; for files, pipes and programs there is 'pktdrop trace'.
    """
    if style is not None:
        raise click.UsageError(f"top is a screen and has no --format. Use: pktdrop trace --format {style}")
    from pktdrop.filters import Filters, packet_filter
    from pktdrop.top.command import require_screen, run

    require_screen(os.environ)
    host.require_proc()
    namespaces = Namespaces()
    wanted, program = choice.filters(namespaces), matching.program
    chosen = Filters((*wanted, *([packet_filter()] if program else [])))
    attach = partial(attaching.tracer, extras=Extras(program=program))
    context.exit(run(every, chosen, not choice.no_noise, all_netns, namespaces, attach))
