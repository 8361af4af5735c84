# SPDX-License-Identifier: MIT
"""What the options of several commands are made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

import click

from pktdrop.errors import PktdropError, WrongUse
from pktdrop.process.clock import Clock
from pktdrop.process.messages import complain
from pktdrop.process.output import Output, OutputClosed

_Function = Callable[..., None]


class Command(click.Command):
    """A command whose errors are shown as click's own, and that ends quietly when nobody reads its output any more."""

    def invoke(self, context: click.Context) -> object:
        """Run the command; turn pktdrop's errors into messages and exit statuses."""
        try:
            return super().invoke(context)
        except OutputClosed:
            return None
        except PktdropError as error:
            complain(error.what, error.do)
            context.exit(1)
        except WrongUse as wrong:
            raise click.BadParameter(wrong.why, context, param_hint=wrong.option) from None


class Seconds(click.FloatRange):
    """A finite number of seconds: "nan" compares with nothing, so no range refuses it."""

    name = "seconds"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """Return the number of seconds that an argument says."""
        seconds = float(super().convert(value, parameter, context))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", parameter, context)
        return seconds


def family(kind: type, *options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Give a command options whose values it takes as one, a dataclass with their names: Pace as "pace"."""

    def decorate(command: _Function) -> _Function:
        @wraps(command)
        def gathered(*arguments: Any, **values: Any) -> None:
            own = {field.name: values.pop(field.name) for field in fields(kind)}
            command(*arguments, **values, **{kind.__name__.lower(): kind(**own)})

        result: _Function = gathered
        for option in reversed(options):
            result = option(result)
        return result

    return decorate


@dataclass(frozen=True)
class Pace:
    """How often to look, and when to end."""

    every: float
    """Seconds."""
    count: int | None
    duration: float | None
    """Seconds."""

    def clock(self, output: Output) -> Clock:
        """Return what ticks so, until nobody reads the output any more."""
        return Clock(self.every, self.count, self.duration, output.descriptor)


FORMAT = click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True,
    help="Tables, or one JSON object per line.",
)  # fmt: skip
ALL_NETNS = click.option(
    "--all-netns", is_flag=True, help="Read the counters of all network namespaces each time (root)."
)
CAPTURE = click.option(
    "-w", "--write", "capture", metavar="FILE", help="Write packets to a new file, for Wireshark (pcapng)."
)
INTERVAL = click.argument("every", metavar="[INTERVAL]", type=Seconds(min=0.1), default=1.0)
COUNT = click.argument("count", metavar="[COUNT]", type=click.IntRange(min=1), required=False)
DURATION = click.option(
    "-d", "--duration", type=Seconds(min=0, min_open=True), metavar="SECONDS", help="End after so long."
)
