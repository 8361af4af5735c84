# SPDX-License-Identifier: MIT
"""The command line: options to settings, errors to exits. Nothing is measured or formatted here.

Each command is a module of its own, which is imported when it is called: none waits for what another one needs.
"""

from importlib import import_module

import click

from pktdrop import __version__

_COMMANDS = ("counters", "demo", "diagnose", "doctor", "packets", "top", "trace")
"""Modules, and in each a command of the same name."""


class _Group(click.Group):
    """The commands."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"pktdrop.cli.{name}"), name)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Show where this host loses packets, and why.

    \b
    Examples:
      sudo pktdrop top                # the live view, on the whole screen
      sudo pktdrop trace              # live drops by reason and CPU
      sudo pktdrop trace -d 10        # watch for ten seconds, then sum up
      sudo pktdrop packets            # each dropped packet, like tcpdump
      sudo pktdrop diagnose           # where packets are lost, and what to change
      pktdrop counters 1              # the kernel's own counters, each second
      pktdrop doctor                  # what works on this host
      sudo pktdrop demo               # cause drops, to see them shown
    """
