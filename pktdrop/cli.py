# SPDX-License-Identifier: MIT
"""The command line: options to settings, the loop, exit codes. Nothing is measured or formatted here."""

import fnmatch
import math
from collections.abc import Sequence

import click

from pktdrop import __version__, filters
from pktdrop.clock import Clock
from pktdrop.kernel import probes
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.facts import KernelFacts
from pktdrop.kernel.tracer import MAP_ENTRIES, Tracer
from pktdrop.namespaces import Namespaces
from pktdrop.output import Output, OutputClosed
from pktdrop.protocols import Protocols
from pktdrop.trace import JsonReport, Report, TableReport, run, say
from pktdrop.views.counters import LIKE
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.table import TableView
from pktdrop.views.text import safe

LEAST_WIDTH = 75
"""Narrower than this, the columns that cannot shrink do not fit."""

_FORMAT = click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="Tables, or one JSON object per line.",
)  # fmt: skip


class _Seconds(click.FloatRange):
    """A finite number of seconds: "nan" compares with nothing, so no range refuses it."""

    name = "seconds"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> float:
        seconds = float(super().convert(value, parameter, context))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", parameter, context)
        return seconds


class _Group(click.Group):
    """Commands that end quietly when nobody reads their output any more."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except OutputClosed:
            return None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Show where this host loses packets, and why.

    \b
    Examples:
      sudo pktdrop trace              # live drops by reason and CPU
      sudo pktdrop trace -d 10        # watch for ten seconds, then sum up
      pktdrop counters 1              # the kernel's own counters, each second
      pktdrop doctor                  # what works on this host
    """


@main.command(
    short_help="Show drops as they happen, and sum up at the end.",
    epilog="""\b
Examples:
  pktdrop trace                          # every second until Ctrl-C
  pktdrop trace 5 12                     # every 5 seconds, 12 times
  pktdrop trace --reason 'TCP_*' -d 60   # TCP drops, for a minute
  pktdrop trace --interface '!lo'        # all but the loopback device
  pktdrop trace --format json | jq .     # for programs
""",
)
@click.argument("every", metavar="[INTERVAL]", type=_Seconds(min=0.1), default=1.0)
@click.argument("count", metavar="[COUNT]", type=click.IntRange(min=1), required=False)
@click.option("-d", "--duration", type=_Seconds(min=0, min_open=True), metavar="SECONDS",
              help="End after so long.")  # fmt: skip
@_FORMAT
@click.option("--reason", "reasons", multiple=True, metavar="REASON",
              help="Show only this drop reason: NO_SOCKET, 'TCP_*', openvswitch/...")  # fmt: skip
@click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Show only this interface.")
@click.option("--netns", "netns", multiple=True, metavar="NAME", help="Show only this namespace: name or inode.")
@click.option("--cpu", "cpus", multiple=True, metavar="N", help="Show only this CPU, dropping or with a full backlog.")
@click.option("--protocol", "protocols", multiple=True, metavar="NAME", help="Show only this ethertype: IPv4, 0x88cc.")
@click.option("--no-noise", is_flag=True, help="Hide frees that are no loss.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Show at most N rows of a table.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Compile the programs anew, and keep nothing.")
@click.option("--probe", "rungs", multiple=True, type=click.Choice([*probes.KFREE_SKB, *probes.BACKLOG]), hidden=True)
@click.option("--map-entries", type=click.IntRange(min=1), default=MAP_ENTRIES, hidden=True)
def trace(
    every: float, count: int | None, duration: float | None, style: str, reasons: tuple[str, ...],
    interfaces: tuple[str, ...], netns: tuple[str, ...], cpus: tuple[str, ...], protocols: tuple[str, ...],
    no_noise: bool, limit: int, no_cache: bool, rungs: tuple[str, ...], map_entries: int,
) -> None:  # fmt: skip
    """Show drops as they happen, by reason and CPU, and sum up at the end.

    Looks every INTERVAL seconds (default 1), COUNT times or until Ctrl-C.

    Filters may be given more than once; a leading ! excludes. What they hide is
    still counted, and said.
    """
    names = Protocols.load()
    if reasons:
        filters.check_reasons(reasons, KernelFacts.read().reasons)
    chosen = filters.Filters(
        [
            filters.reason_filter(reasons),
            filters.interface_filter(interfaces),
            filters.netns_filter(netns),
            filters.cpu_filter(cpus),
            filters.protocol_filter(protocols, names),
        ],
        noise=not no_noise,
    )
    _warn_of_unknown_interfaces(interfaces)
    output = Output()
    _warn_of_narrow_terminal(output)
    report: Report = (
        JsonReport(JsonView(names), output) if style == "json" else TableReport(TableView(names, limit), output)
    )
    cache = Cache(None if no_cache else default_directory())
    with Clock(every, count, duration, output.descriptor) as clock, Tracer(rungs, map_entries, cache) as tracer:
        run(tracer, clock, chosen, report)


def _warn_of_unknown_interfaces(values: Sequence[str]) -> None:
    """Warn of names that no interface has; it is no error, as one may come later."""
    wanted = [value.removeprefix("!") for value in values]
    present = Namespaces().interfaces() if wanted else set()
    for name in wanted:
        if not fnmatch.filter(present, name):
            say(f"Warning: no namespace has an interface {safe(name)!r} now; waiting for it to come.")


def _warn_of_narrow_terminal(output: Output) -> None:
    if output.is_terminal and output.width < LEAST_WIDTH:
        say(
            f"Warning: the terminal is {output.width} columns wide, tables need {LEAST_WIDTH}: their lines will wrap. "
            "Widen it, or use --format json."
        )


@main.command(
    short_help="Show the loss counters themselves.",
    epilog="""\b
Examples:
  pktdrop counters                # what was lost since boot, as counted
  pktdrop counters 1              # what moves, each second
  pktdrop counters --like netstat # in the columns of netstat -i
""",
)
@click.argument("every", metavar="[INTERVAL]", type=_Seconds(min=0.1), required=False)
@click.argument("count", metavar="[COUNT]", type=click.IntRange(min=1), required=False)
@click.option("--all", "everything", is_flag=True, help="Show all counters, also those of traffic and those at 0.")
@click.option("--all-netns", is_flag=True, help="Look into all network namespaces (root).")
@click.option("--like", type=click.Choice(LIKE), help="Show the columns of that tool.")
@_FORMAT
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
    from pktdrop.counting import Settings, run

    output = Output()
    with Clock(every or 1.0, count if every else 0, None, output.descriptor) as clock:
        run(Settings(every is not None, everything, all_netns, like, style), clock, output)


@main.command()
@_FORMAT
@click.pass_context
def doctor(context: click.Context, style: str) -> None:
    """Check what works on this host, what does not, and what that means.

    Every way of attaching each probe is tried for real. Exit status 0 if
    'pktdrop trace' can run, else 1.
    """
    from pktdrop.doctor import diagnose
    from pktdrop.views.doctor import as_json, as_table

    output = Output()
    diagnosis = diagnose()
    output.write(as_json(diagnosis, __version__) if style == "json" else as_table(diagnosis, output.width))
    context.exit(0 if diagnosis.can_trace else 1)
