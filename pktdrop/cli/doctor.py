# SPDX-License-Identifier: MIT
"""The command `pktdrop doctor`."""

import click

from pktdrop import __version__
from pktdrop.cli.options import FORMAT, Command
from pktdrop.process.output import Output


@click.command(cls=Command)
@FORMAT
@click.pass_context
def doctor(context: click.Context, style: str) -> None:
    """Check what works on this host, what does not, and what that means.

    Every way of attaching each probe is tried for real. Exit status 0 if
    'pktdrop trace' can run, else 1.
    """
    from pktdrop.doctor import check
    from pktdrop.views.doctor import as_json, as_table

    output = Output()
    checked = check()
    output.write(as_json(checked, __version__) if style == "json" else as_table(checked, output.width))
    context.exit(0 if checked.can_trace else 1)
