# SPDX-License-Identifier: MIT
"""What is on the screen, as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pktdrop.errors import PktdropError
from pktdrop.model.counters import Scope
from pktdrop.process import files
from pktdrop.text.escaping import json_line
from pktdrop.top.lines import ScreenLine, plain
from pktdrop.top.screen import Screen
from pktdrop.top.series import Series
from pktdrop.views.limits import sentences
from pktdrop.views.scope import as_object


def save(screen: Screen, lines: Sequence[ScreenLine], name: str) -> list[Path]:
    """Write the screen to name.txt and name.json, or to the one of them that `name` is; return what was written.

    Never writes over a file that is there, nor where a link of another user leads. Raises PktdropError.
    """
    given = Path(name).expanduser()
    paths = [given] if given.suffix in (".txt", ".json") else [Path(f"{given}.txt"), Path(f"{given}.json")]
    for path in paths:
        text = json_line(record(screen)) if path.suffix == ".json" else text_of(lines)
        try:
            files.create(path, text.encode("utf-8", "backslashreplace"))
        except (OSError, files.Refused) as failed:
            why = failed.strerror if isinstance(failed, OSError) else failed
            raise PktdropError(f"{path} cannot be written: {why}.", "Give another name.") from failed
    return paths


def text_of(lines: Sequence[ScreenLine]) -> str:
    """Return lines as text, without blanks at their ends."""
    return "".join(plain(line).rstrip() + "\n" for line in lines)


def record(screen: Screen) -> Mapping[str, Any]:
    """Return the table that is on the screen, whole, for a JSON file: values as they are."""
    history = screen.history
    return {
        "type": "top",
        "time": history.end,
        "host": screen.run.host,
        "kernel": screen.run.kernel,
        "elapsed": history.elapsed,
        "since": history.since,
        "interval": screen.mode.interval,
        "view": screen.view,
        "filter": screen.mode.search,
        "packets": history.loss.packets,
        "layers": {layer: tally.packets for layer, tally in history.layers.items()},
        "unexplained": history.unexplained,
        "lost": history.uncounted._asdict(),
        "filtered": history.filtered,
        "limits": sentences(screen.limits),
        "rows": [
            {
                column.title: _plain_value(value, history.elapsed)
                for column, value in zip(screen.columns, row.values, strict=True)
            }
            for row in screen.rows()
        ],
    }


def _plain_value(value: Any, now: float) -> Any:
    if isinstance(value, Series):
        return value.cells(now, Series.BINS)
    if isinstance(value, Scope):
        return as_object(value)
    return value
