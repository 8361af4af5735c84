# SPDX-License-Identifier: MIT
"""The command `pktdrop diagnose`."""

import click

from pktdrop.cli.options import ALL_NETNS, FORMAT, Command, Seconds
from pktdrop.cli.tracing import MATCHING, Matching
from pktdrop.kernel import host
from pktdrop.process.output import Output


@click.command(
    cls=Command,
    short_help="Watch, then say where packets are lost and what to change.",
    epilog="""\b
Examples:
  pktdrop diagnose                  # watch for ten seconds, then judge
  pktdrop diagnose -d 60 --all-netns
  pktdrop diagnose --port 8443      # of losses with packets of that port
  pktdrop diagnose --fail-on capacity --fail-on 'TCP_*'  # for CI
""",
)
@click.option("-d", "--duration", type=Seconds(min=0, min_open=True), default=10.0, show_default=True,
              metavar="SECONDS", help="Watch for so long.")  # fmt: skip
@MATCHING
@ALL_NETNS
@FORMAT
@click.option("--fail-on", "fail_on", multiple=True, metavar="CONDITION",
              help="Exit with 3 if there was: loss, capacity, unexplained, or this drop reason.")  # fmt: skip
@click.pass_context
def diagnose(
    context: click.Context, duration: float, matching: Matching, all_netns: bool, style: str, fail_on: tuple[str, ...]
) -> None:
    """Watch, then say where packets are lost, why, and what to change.

    Works without root or BPF from counters alone, and says what it could not see
    then. Ctrl-C ends it early. Nothing is ever changed.
    """
    from pktdrop.reports.diagnose import DiagnoseSettings, watch_and_judge

    host.require_proc()
    settings = DiagnoseSettings(duration, all_netns, style, fail_on, matching.program)
    context.exit(watch_and_judge(settings, Output()))
