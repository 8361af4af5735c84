# SPDX-License-Identifier: MIT
"""The command line: options to settings, the loop, exit codes. Nothing is measured or formatted here."""

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pktdrop import __version__
from pktdrop.clock import Clock
from pktdrop.counters.like import LIKE
from pktdrop.errors import PktdropError, WrongUse
from pktdrop.escaping import safe
from pktdrop.kernel import host, probes
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.tracer import MAP_ENTRIES, Tracer
from pktdrop.messages import complain, say
from pktdrop.namespaces import Namespaces
from pktdrop.output import Output, OutputClosed

if TYPE_CHECKING:
    from pktdrop.filters import Filter

LEAST_WIDTH = 75
"""Narrower than this, the columns that cannot shrink do not fit."""

_FORMAT = click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="Tables, or one JSON object per line.",
)  # fmt: skip
_ALL_NETNS = click.option(
    "--all-netns", is_flag=True, help="Read the counters of all network namespaces each time (root)."
)


_FILTERS = (
    click.option("--reason", "reasons", multiple=True, metavar="REASON",
                 help="Show only this drop reason: NO_SOCKET, 'TCP_*', openvswitch/..."),
    click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Show only this interface."),
    click.option("--netns", "netns", multiple=True, metavar="NAME",
                 help="Show only this namespace: name or inode."),
    click.option("--cpu", "cpus", multiple=True, metavar="N",
                 help="Show only this CPU, dropping or with a full backlog."),
    click.option("--protocol", "protocols", multiple=True, metavar="NAME",
                 help="Show only this ethertype: IPv4, 0x88cc."),
    click.option("--no-noise", is_flag=True, help="Hide frees that are no loss."),
)  # fmt: skip


def _filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose drops."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


class _Seconds(click.FloatRange):
    """A finite number of seconds: "nan" compares with nothing, so no range refuses it."""

    name = "seconds"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> float:
        seconds = float(super().convert(value, parameter, context))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", parameter, context)
        return seconds


class _Command(click.Command):
    """A command whose errors are shown as click's own, and that ends quietly when nobody reads its output any more."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except OutputClosed:
            return None
        except PktdropError as error:
            complain(error.what, error.do)
            context.exit(1)
        except WrongUse as wrong:
            raise click.BadParameter(wrong.why, context, param_hint=wrong.option) from None


class _Group(click.Group):
    """The commands."""

    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Show where this host loses packets, and why.

    \b
    Examples:
      sudo pktdrop top                # the live view, on the whole screen
      sudo pktdrop trace              # live drops by reason and CPU
      sudo pktdrop trace -d 10        # watch for ten seconds, then sum up
      sudo pktdrop diagnose           # where packets are lost, and what to change
      pktdrop counters 1              # the kernel's own counters, each second
      pktdrop doctor                  # what works on this host
      sudo pktdrop demo               # cause drops, to see them shown
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
@_filter_options
@_ALL_NETNS
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Show at most N rows of a table.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Compile the programs anew, and keep nothing.")
@click.option("--probe", "rungs", multiple=True, type=click.Choice([*probes.KFREE_SKB, *probes.BACKLOG]), hidden=True)
@click.option("--map-entries", type=click.IntRange(min=1), default=MAP_ENTRIES, hidden=True)
def trace(
    every: float, count: int | None, duration: float | None, style: str, reasons: tuple[str, ...],
    interfaces: tuple[str, ...], netns: tuple[str, ...], cpus: tuple[str, ...], protocols: tuple[str, ...],
    no_noise: bool, all_netns: bool, limit: int, no_cache: bool, rungs: tuple[str, ...], map_entries: int,
) -> None:  # fmt: skip
    """Show drops as they happen, by reason and CPU, and sum up at the end.

    Looks every INTERVAL seconds (default 1), COUNT times or until Ctrl-C.

    Filters may be given more than once; a leading ! excludes. What they hide is
    still counted, and said.
    """
    host.require_proc()
    wanted = _filters(reasons, interfaces, netns, cpus, protocols)
    output, namespaces = Output(), Namespaces()
    _warn_of_narrow_terminal(output)
    cache = Cache(None if no_cache else default_directory())
    with Tracer(namespaces, rungs, map_entries, cache) as tracer:
        _warn_of_mistrust(cache)
        # nothing that attaching has to wait for
        from pktdrop.filters import Filters
        from pktdrop.protocols import Protocols
        from pktdrop.reports.trace import JsonReport, TableReport
        from pktdrop.run import run
        from pktdrop.views.jsonlines import JsonView
        from pktdrop.views.table import TableView
        from pktdrop.watch import Watch

        names, chosen = Protocols.load(), Filters(wanted, noise=not no_noise)
        watch = Watch(namespaces, tracer, all_netns)
        report = (
            JsonReport(watch, chosen, JsonView(names, namespaces.is_gone), output)
            if style == "json"
            else TableReport(watch, chosen, TableView(names, limit, namespaces.label), output)
        )
        with Clock(every, count, duration, output.descriptor) as clock:
            watch.is_over = clock.is_over
            run(watch, report, clock)


@main.command(
    short_help="Show drops on the whole screen, live.",
    epilog="""\b
Examples:
  pktdrop top                     # every second; ? explains the keys
  pktdrop top 5                   # every 5 seconds
  pktdrop top --interface 'eth*'  # drops of these interfaces only
""",
)
@click.argument("every", metavar="[INTERVAL]", type=_Seconds(min=0.1), default=1.0)
@_filter_options
@_ALL_NETNS
@click.option("--no-cache", is_flag=True, help="Compile the programs anew, and keep nothing.")
@click.option("--format", "style", hidden=True)
@click.pass_context
def top(
    context: click.Context, every: float, reasons: tuple[str, ...], interfaces: tuple[str, ...],
    netns: tuple[str, ...], cpus: tuple[str, ...], protocols: tuple[str, ...], no_noise: bool, all_netns: bool,
    no_cache: bool, style: str | None,
) -> None:  # fmt: skip
    """Show live what is lost, where and why: reasons, CPUs, interfaces, ledger.

    Looks every INTERVAL seconds (default 1). Press ? for the keys, q to end.
    Needs a terminal; for files, pipes and programs there is 'pktdrop trace'.
    """
    if style is not None:
        raise click.UsageError(f"top is a screen and has no --format. Use: pktdrop trace --format {style}")
    from pktdrop.filters import Filters
    from pktdrop.top.command import Settings, require_screen, run

    require_screen(os.environ)
    host.require_proc()
    chosen = Filters(_filters(reasons, interfaces, netns, cpus, protocols))
    cache = Cache(None if no_cache else default_directory())
    context.exit(run(Settings(every, chosen, not no_noise, all_netns, cache)))


def _filters(
    reasons: tuple[str, ...],
    interfaces: tuple[str, ...],
    netns: tuple[str, ...],
    cpus: tuple[str, ...],
    protocols: tuple[str, ...],
) -> "tuple[Filter, ...]":
    """Return the filters that the options mean. Raises WrongUse; warns of what is not there."""
    if not (reasons or interfaces or netns or cpus or protocols):
        return ()
    from pktdrop.options import Options

    return Options(reasons, interfaces, netns, cpus, protocols).filters()


def _warn_of_mistrust(cache: Cache) -> None:
    if cache.mistrusted:
        say(f"Warning: the compiled programs that are kept were not read: {safe(cache.mistrusted)}.")


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
@_ALL_NETNS
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
    from pktdrop.reports.counters import CountersReport, Readings, Settings
    from pktdrop.run import run

    host.require_proc()
    output, namespaces = Output(), Namespaces()
    readings = Readings(namespaces, all_netns)
    settings = Settings(every is not None, everything, all_netns, like, style)
    with Clock(every or 1.0, count if every else 0, None, output.descriptor) as clock:
        run(readings, CountersReport(readings, settings, namespaces, output), clock)


@main.command(
    short_help="Watch, then say where packets are lost and what to change.",
    epilog="""\b
Examples:
  pktdrop diagnose                  # watch for ten seconds, then judge
  pktdrop diagnose -d 60 --all-netns
  pktdrop diagnose --fail-on capacity --fail-on 'TCP_*'  # for CI
""",
)
@click.option("-d", "--duration", type=_Seconds(min=0, min_open=True), default=10.0, show_default=True,
              metavar="SECONDS", help="Watch for so long.")  # fmt: skip
@_ALL_NETNS
@_FORMAT
@click.option("--fail-on", "fail_on", multiple=True, metavar="CONDITION",
              help="Exit with 3 if there was: loss, capacity, unexplained, or this drop reason.")  # fmt: skip
@click.pass_context
def diagnose(context: click.Context, duration: float, all_netns: bool, style: str, fail_on: tuple[str, ...]) -> None:
    """Watch, then say where packets are lost, why, and what to change.

    Works without root or BPF from counters alone, and says what it could not see
    then. Ctrl-C ends it early. Nothing is ever changed.
    """
    from pktdrop.reports.diagnose import Settings, watch_and_judge

    host.require_proc()
    context.exit(watch_and_judge(Settings(duration, all_netns, style, fail_on), Output()))


@main.command(
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
@click.option("-d", "--duration", type=_Seconds(min=0, min_open=True), metavar="SECONDS", help="End after so long.")
@click.option("--list", "only_list", is_flag=True, help="List the causes, and cause nothing.")
@_FORMAT
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
    report = view.JsonReport(output, known) if style == "json" else view.TableReport(output, known)
    with Clock(run.STEP, None, duration, output.descriptor) as clock:
        run.run(chosen, rate, duration, clock, report)


@main.command()
@_FORMAT
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
