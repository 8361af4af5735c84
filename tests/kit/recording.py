# SPDX-License-Identifier: MIT
"""Runs that are written down as they go, and run again from what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from pktdrop.account import Account
from pktdrop.counters.collect import since
from pktdrop.filters import Filters
from pktdrop.model.look import Answer, Look, Question
from pktdrop.model.lookfile import from_json, to_json
from pktdrop.process.output import Output
from pktdrop.reports.counters import CountersReport, Rise
from pktdrop.reports.diagnose import DiagnoseReport, DiagnoseSettings
from pktdrop.reports.trace import JsonReport, TableReport
from pktdrop.rules.protocols import Protocols
from pktdrop.top.advice import advised
from pktdrop.top.lines import plain
from pktdrop.top.panel import Run
from pktdrop.top.reader import Shown
from pktdrop.top.screen import Screen
from pktdrop.top.views import VIEWS
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.limits import sentences
from pktdrop.views.table import TableView
from pktdrop.watch import Looks, Watch


class Observing(Looks, Protocol):
    """What can tell, in the end, what it was asked for."""

    @property
    def asked(self) -> Look:
        """Return the last Look, with all answers."""


class Recorder:
    """Writes each Look down when the next one is made."""

    def __init__(self, observer: Observing) -> None:
        """Take what makes them."""
        self._observer = observer
        self._written: list[str] = []
        self.ask = observer.ask

    @property
    def last(self) -> Look:
        """The last one."""
        return self._observer.last

    def look(self, is_last: bool = False) -> Look:
        """Make the next one."""
        self._written.append(to_json(self._observer.asked))
        return self._observer.look(is_last)

    @property
    def asked(self) -> Look:
        """The last one, with all answers."""
        return self._observer.asked

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [*self._written, to_json(self._observer.asked)]


class Recorded:
    """Looks that were made elsewhere."""

    def __init__(self, looks: Iterable[Look]) -> None:
        """Take them."""
        self._looks = iter(looks)
        self.last = next(self._looks)

    @property
    def asked(self) -> Look:
        """The last one."""
        return self.last

    def look(self, is_last: bool = False) -> Look:
        """Go on to the next one."""
        self.last = next(self._looks)
        return self.last

    def ask(self, question: Question) -> Answer:
        """Return the answer; whatever was not asked is an error."""
        return self.last.answers[question]


def read_back(lines: Iterable[str], file: Path) -> Recorded:
    """Write lines to a file, and return the Looks in it."""
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Recorded([from_json(line) for line in file.read_text(encoding="utf-8").splitlines()])


def outputs(looks: Looks, steps: int, file: Path, between: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Let a run of so many steps be shown in all ways at once; return what each wrote."""
    watch = Watch(looks)
    written = {name: file.with_suffix(f".{name}").open("w", encoding="utf-8") for name in NAMES}
    reports = _reports(watch, {name: Output(stream) for name, stream in written.items()})
    screen = Screen(Run("box", watch.kernel.release, ""), Filters(()), 1.0)
    said, drawn, before = [str(tuple(sentences(watch.limits)))], [], watch.look.counters
    said += [str(report.start()) for report in reports]
    counters = CountersReport(_Named(watch), Output(written["counters"]), True, True, True, None, "json")  # type: ignore[arg-type]
    for number in range(steps):
        between()
        account = watch.step(number == steps - 1)
        for report in reports:
            report.step(account)
        counters.step(Rise(since(before, account.counters), before))
        before = account.counters
        losses = advised(watch) if number % 2 else None
        screen.take(Shown(account, watch.limits, losses))
        drawn += _pictures(screen)
        said.append(str(tuple(sentences(watch.limits))))
    for report in reports:
        report.end()
    for report in reports:
        if isinstance(report, DiagnoseReport):
            report.show()
    for stream in written.values():
        stream.close()
    texts = {name: Path(stream.name).read_text(encoding="utf-8") for name, stream in written.items()}
    return {**texts, "said": "\n".join(said), "top": "\n".join(drawn)}


NAMES = ("table", "json", "diagnosis", "diagnosis_json", "counters")


class _Named:
    """Names of namespaces for the report of counters."""

    def __init__(self, watch: Watch) -> None:
        self.label = watch.label


class _Report(Protocol):
    def start(self) -> str | None: ...
    def step(self, step: Account) -> None: ...
    def end(self) -> None: ...


def _reports(watch: Watch, to: dict[str, Output]) -> list[_Report]:
    names, everything = Protocols.load(), Filters(())
    return [
        TableReport(watch, everything, TableView(names, 20, watch.label), to["table"]),
        JsonReport(watch, everything, JsonView(names, watch.is_gone, container=watch.container), to["json"]),
        DiagnoseReport(watch, None, DiagnoseSettings(10.0, True, "table", ()), to["diagnosis"]),
        DiagnoseReport(watch, None, DiagnoseSettings(10.0, True, "json", ()), to["diagnosis_json"]),
    ]


def _pictures(screen: Screen) -> Iterable[str]:
    for view in VIEWS:
        screen.choose_view(view.name)
        yield from (plain(line) for line in screen.lines(120, 40))
