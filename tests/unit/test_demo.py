# SPDX-License-Identifier: MIT
"""What `pktdrop demo` offers and says, how it keeps its pace, and whose namespaces it removes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from pktdrop import __version__
from pktdrop.cli import main
from pktdrop.demo import causes, stage
from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import DemoCause, Traffic
from pktdrop.demo.choice import USUAL, choose
from pktdrop.demo.claim import Claim
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, RoleNames
from pktdrop.demo.stage import Performance, set_up
from pktdrop.demo.tools import run, wait_until
from pktdrop.demo.view import DemoJsonReport, DemoReport, DemoTableReport, list_json, list_table
from pktdrop.errors import PktdropError
from pktdrop.model.limits import Limit
from pktdrop.process.output import Output
from pktdrop.views.limits import sentences
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]
LARGEST_PID = 4194304  # PID_MAX_LIMIT, include/linux/threads.h
A_LOT = 1_000_000_000
THEMES = [module for module in vars(causes).values() if isinstance(module, ModuleType) and hasattr(module, "CAUSES")]
_MAIN = "from pktdrop.start import main; main()"


def _run(*arguments: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    variables = [f"{name}={value}" for name, value in {"PYTHONPATH": str(ROOT), **environment}.items()]
    command = [*before, "env", *variables, sys.executable, "-c", _MAIN, "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, stdin=subprocess.DEVNULL)


def _widest(text: str) -> int:
    return max(map(len, text.splitlines()))


# --- the causes


def test_no_cause_is_forgotten() -> None:
    """All that the modules of causes define is in the list, once."""
    assert len(THEMES) == 5
    defined = [
        cause
        for module in THEMES
        for name, value in vars(module).items()
        if isinstance(value, tuple) and name != "CAUSES"
        for cause in value
        if isinstance(cause, DemoCause)
    ]
    assert sorted(cause.name for cause in defined) == sorted(cause.name for cause in CAUSES)
    assert len(CAUSES) >= 43


def test_names_are_unique() -> None:
    """No two causes share a name, nor what their namespaces are called after."""
    assert len({cause.name for cause in CAUSES}) == len({cause.short for cause in CAUSES}) == len(CAUSES)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_a_cause_is_described_in_a_sentence(cause: DemoCause) -> None:
    """It says what gets lost, in one sentence of at most a line; its short name can be part of a namespace's."""
    assert re.fullmatch(r"[A-Z][^.]+\.", cause.description)
    assert len(cause.description) <= 90
    assert re.fullmatch(r"[a-z0-9]{2,9}", cause.short)


# --- which ones


def test_the_usual_ones_are_of_several_layers_and_reasons() -> None:
    """Without a word, a handful of causes shows several layers, and each another reason."""
    chosen = choose(())
    assert {cause.name for cause in chosen} == set(USUAL)
    assert len({cause.reason for cause in chosen}) == len(USUAL)
    assert {"socket", "stack", "qdisc"} <= {cause.layer for cause in chosen}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["no_route"], ["no_route"]),
        (["NO_ROUTE"], ["no_route"]),
        (["no_route*"], ["no_route", "no_route6"]),
        (["no_route", "tap_full", "no_*te"], ["no_route", "tap_full"]),
        (["*"], [cause.name for cause in CAUSES]),
    ],
)
def test_patterns_choose(patterns: list[str], names: list[str]) -> None:
    """A name or a pattern chooses what matches, each cause once."""
    assert [cause.name for cause in choose(patterns)] == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no_rute",), ["CAUSE", "'no_rute'", "'no_route'"]),
        (("zzzz",), ["CAUSE", "'zzzz'", "--list"]),
        (("no_route", "zzzz*"), ["'zzzz*'"]),
        (("--list", "zzzz"), ["'zzzz'"]),
        (("--rate", "0"), ["--rate", "0"]),
        (("--rate", "1.5"), ["--rate", "'1.5'"]),
        (("--rate", "2000000"), ["--rate", "2000000"]),
        (("-d", "0"), ["--duration", "0"]),
        (("-d", "nan"), ["--duration", "nan"]),
        (("--format", "xml"), ["--format", "'xml'"]),
    ],
)
def test_wrong_uses(arguments: tuple[str, ...], said: list[str]) -> None:
    """A wrong use ends with status 2 and names what is wrong, before anything is made."""
    result = CliRunner().invoke(main, ("demo", *arguments), prog_name="pktdrop")
    assert result.exit_code == 2, result.output
    last = result.output.splitlines()[-1]
    assert [text for text in said if text not in last] == []


def test_help() -> None:
    """The help fits a terminal, and its examples are calls that the command line takes."""
    text = CliRunner().invoke(main, ("demo", "--help"), prog_name="pktdrop").output
    assert text.startswith("Usage: pktdrop demo [OPTIONS] [CAUSE]...\n")
    assert _widest(text) <= 80
    command = main.get_command(click.Context(main), "demo")
    assert command is not None
    lines = [line.partition("#")[0].replace("'", "").split() for line in text.splitlines() if " # " in line]
    assert len(lines) == 3
    for words in lines:
        choose(command.make_context("demo", words[2:]).params["patterns"])


# --- the list


def test_the_list_needs_no_root() -> None:
    """Anybody may ask for the list; it names every cause, what is usual, and what is missing and why."""
    done = _run("--list", before=_unprivileged())
    assert (done.returncode, done.stderr) == (0, "")
    assert _widest(done.stdout) <= 80
    words = done.stdout.replace(",", " ").split()
    assert [
        cause.name for cause in CAUSES if cause.name not in words and cause.name.removesuffix("6") not in words
    ] == []
    assert [cause.reason for cause in CAUSES if cause.reason not in words] == []
    assert "CPU_BACKLOG" in done.stdout
    assert all(name in done.stdout.partition("Without CAUSE: ")[2] for name in USUAL)


def test_the_list_can_be_of_some() -> None:
    """With CAUSE the list is of those."""
    lines = _run("--list", "tap_full", "no_route6").stdout.splitlines()
    rows = lines[1 : lines.index("")]
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == ["tap_full", "no_route6"]


def test_the_list_as_json() -> None:
    """As JSON it is one object with what trace says of each cause."""
    (line,) = list_json(CAUSES).splitlines()
    listed = json.loads(line)
    assert (listed["type"], listed["version"]) == ("causes", __version__)
    assert [one["cause"] for one in listed["causes"]] == [cause.name for cause in CAUSES]
    assert {one["cause"] for one in listed["causes"] if one["usual"]} == set(USUAL)
    first = listed["causes"][0]
    assert first == {
        "cause": "udp_closed_port",
        "description": "UDP to a port nobody listens on.",
        "usual": True,
        "reason": "NO_SOCKET",
        "layer": "socket",
        "interface": "lo",
        "protocol": "IPv4",
    }


@pytest.mark.parametrize("width", [75, 80, 200])
def test_the_list_in_any_width(width: int) -> None:
    """No letter of the descriptions is lost in a narrower or wider terminal."""
    text = list_table(CAUSES, width)
    assert _widest(text) <= width
    usual = list_table(CAUSES, 1000)
    assert sorted("".join(text.split())) == sorted("".join(usual.split()))


# --- what it shows


def _performances() -> list[Performance]:
    return [
        Performance(cause, 4026532000 + number, f"demo-{cause.short}-{LARGEST_PID}", A_LOT, A_LOT + number)
        for number, cause in enumerate(CAUSES)
    ]


@contextmanager
def _shown(
    path: Path, style: type[DemoTableReport] | type[DemoJsonReport], known: frozenset[str] | None
) -> Iterator[DemoReport]:
    with path.open("w", encoding="utf-8") as stream:
        yield style(Output(stream), known)


def test_tables_fit_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the longest names and large numbers, start and end fit a terminal, and hold every cause and number."""
    monkeypatch.setenv("COLUMNS", "80")
    with _shown(tmp_path / "shown", DemoTableReport, frozenset()) as report:
        report.start(0, 20, _performances())
        report.interval(0, 1, _performances())
        report.summary(0, 60, _performances())
    text = (tmp_path / "shown").read_text()
    assert _widest(text) <= 80
    start, _, end = text.partition("packets sent.")
    for cause in CAUSES:
        assert f"\n{cause.name} " in start
        assert f" {cause.name} " in end
    assert f"{A_LOT:,}  {A_LOT + 42:,}  {CAUSES[42].name} " in end


def test_a_reason_that_the_kernel_does_not_know_is_marked(tmp_path: Path) -> None:
    """Where the kernel has no reason of a name, or another one, that is said; where it has it, nothing is."""
    for known, mark in (
        (frozenset({"NO_SOCKET"}), "NO_SOCKET "),
        (frozenset({"OTHER"}), "NO_SOCKET?"),
        (None, "NO_SOCKET "),
    ):
        with _shown(tmp_path / "shown", DemoTableReport, known) as report:
            report.start(0, 20, _performances()[:1])
        text = (tmp_path / "shown").read_text()
        assert mark in text
        assert ("this kernel has no reason of that name" in text) == ("?" in mark)
        with _shown(tmp_path / "shown", DemoJsonReport, known) as report:
            report.start(0, 20, _performances()[:1])
        (cause,) = json.loads((tmp_path / "shown").read_text())["causes"]
        assert cause["reason"] == (None if "?" in mark else "NO_SOCKET")


@pytest.mark.parametrize(
    ("lost", "note"),
    [(100, None), (101, "More dropped than sent"), (99, "Fewer dropped than sent"), (None, None)],
)
def test_a_difference_is_explained(tmp_path: Path, lost: int | None, note: str | None) -> None:
    """What differs between sent and dropped has a sentence; a witness that says nothing is no zero."""
    performance = replace(_performances()[0], sent=100, lost=lost)
    with _shown(tmp_path / "shown", DemoTableReport, None) as report:
        report.summary(0, 60, [performance])
    text = (tmp_path / "shown").read_text()
    assert ("than sent" in text) == (note is not None)
    assert (note or "") in text
    row = next(line.split() for line in text.splitlines() if "udp_closed_port" in line)
    assert row[:2] == ["100", "?" if lost is None else str(lost)]


def test_json_intervals_add_up(tmp_path: Path) -> None:
    """Each interval has what was sent in it and begins where the one before ended."""
    performance = _performances()[0]
    with _shown(tmp_path / "shown", DemoJsonReport, None) as report:
        report.start(10, 20, [replace(performance, sent=0)])
        report.interval(10, 11, [replace(performance, sent=20)])
        report.interval(10, 12.5, [replace(performance, sent=50)])
        report.summary(10, 13, [replace(performance, sent=60, lost=61)])
    start, first, second, summary = [json.loads(line) for line in (tmp_path / "shown").read_text().splitlines()]
    assert [line["type"] for line in (start, first, second, summary)] == ["start", "interval", "interval", "summary"]
    assert (first["start"], first["end"], first["causes"]) == (10, 11, [{"cause": "udp_closed_port", "sent": 20}])
    assert (second["start"], second["end"], second["causes"]) == (11, 12.5, [{"cause": "udp_closed_port", "sent": 30}])
    assert (summary["causes"][0]["sent"], summary["causes"][0]["count"]) == (60, 61)


# --- what it cannot do


def _unprivileged() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv (util-linux) is not installed, and root has all rights")
    # a checkout of somebody else may lie where only its owner can read, and a root that may read everything
    return (setpriv, "--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search")


@pytest.mark.parametrize("style", ["table", "json"])
def test_without_rights(style: str) -> None:
    """Who may not make namespaces is told so, and what to do, with status 1 and no results."""
    done = _run("--format", style, before=_unprivileged())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Error: The demo needs root: it makes network namespaces.",
        "  Start pktdrop with sudo.",
    ]


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not there is named, with the package that has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PktdropError) as raised:
        Namespace("nosuch").nft("table ip x { }")
    assert raised.value.what == "The command nft is not installed."
    assert raised.value.do == "Install the package nftables."


def test_what_a_tool_says_is_repeated() -> None:
    """The complaint of a command is part of the error."""
    with pytest.raises(PktdropError, match=r"failed: no such thing\.") as raised:
        run("sh", "-c", "echo no such thing >&2; exit 3")
    assert "\n" not in raised.value.what


def test_waiting_ends() -> None:
    """What never comes is an error that names it."""
    with pytest.raises(TimeoutError, match="for Godot"):
        wait_until(lambda: False, "Godot", 0.01)


# --- pace


class Cellar:
    """A cause without a network: it counts what it is asked to lose."""

    def __init__(self, name: str, loses: int = 1, fails_after: int | None = None) -> None:
        """Lose so many packets for each one sent; fail after some."""
        self.sent = 0
        self._loses, self._fails_after = loses, fails_after
        self.closed = False
        self.cause = replace(CAUSES[0], name=name, topology=self._topology, build=self._build)

    @contextmanager
    def _topology(self, ipv6: bool, names: RoleNames | None) -> Iterator[Net]:
        net = Net()
        net.namespaces["host"] = Namespace("/proc/self/ns/net")  # has an inode, and is not to be changed
        try:
            yield net
        finally:
            self.closed = True

    def _build(self, net: Net) -> Traffic:
        if self._fails_after == 0:
            raise PktdropError("It cannot be.", "Leave it.")

        def lose() -> None:
            if self.sent == self._fails_after:
                raise OSError(19, "No such device")
            self.sent += 1

        return Traffic(lose, lambda: 5 + self.sent * self._loses, lambda: None, lambda: 0, filled=2)


def _names(cause: DemoCause) -> Callable[[str], str]:
    return lambda role: role


def test_each_sends_what_is_due() -> None:
    """Every cause gets as far as the pace says, and the account starts when the traffic does."""
    cellars = [Cellar("one"), Cellar("two")]
    with set_up([cellar.cause for cellar in cellars], _names, lambda: False) as performing:
        for due in (0, 3, 3, 1000):
            performing.send(due)
            assert [cellar.sent for cellar in cellars] == [due, due]
        assert [(one.sent, one.lost) for one in performing.performances()] == [(1000, None)] * 2
        assert [(one.sent, one.lost) for one in performing.settled()] == [(1000, 1002)] * 2
        assert performing.limits == []
    assert [cellar.closed for cellar in cellars] == [True, True]


def test_too_much_to_send_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no time to send is left out, which is said, and not made up for later."""
    cellar = Cellar("one")
    with set_up([cellar.cause], _names, lambda: False) as performing:
        monkeypatch.setattr(stage, "_LONGEST_TURN", 0)
        performing.send(10)
        assert cellar.sent == 0
        assert performing.limits == [Limit("slow-sender")]
        monkeypatch.undo()
        performing.send(13)
        assert cellar.sent == 3


def test_a_cause_that_cannot_be_set_up_is_left_out() -> None:
    """What this host cannot do is said with what to do, taken down at once, and the others go on."""
    bad, good = Cellar("bad", fails_after=0), Cellar("good")
    with set_up([bad.cause, good.cause], _names, lambda: False) as performing:
        assert bad.closed
        assert not good.closed
        assert sentences(performing.limits) == ["bad is left out. It cannot be. Leave it."]
        performing.send(7)
    assert (bad.sent, good.sent) == (0, 7)


def test_a_cause_that_breaks_is_left_alone() -> None:
    """A cause that fails during the run is said; what it did until then still counts."""
    bad, good = Cellar("bad", fails_after=3), Cellar("good")
    with set_up([bad.cause, good.cause], _names, lambda: False) as performing:
        performing.send(7)
        performing.send(9)
        assert sentences(performing.limits) == ["bad works no more. No such device."]
        assert [(one.cause.name, one.sent, one.lost) for one in performing.settled()] == [
            ("bad", 3, 5),
            ("good", 9, 11),
        ]


def test_setting_up_can_be_interrupted() -> None:
    """After Ctrl-C no more is set up, and what is gets taken down."""
    cellars = [Cellar("one"), Cellar("two")]
    ended = iter([False, True])
    with set_up([cellar.cause for cellar in cellars], _names, lambda: next(ended)) as performing:
        assert [one.cause.name for one in performing.performances()] == ["one"]
    assert cellars[0].closed


def test_all_is_taken_down_after_an_error() -> None:
    """Whatever ends the run, every cause's namespaces are taken down."""
    cellars = [Cellar("one"), Cellar("two")]
    with pytest.raises(KeyboardInterrupt), set_up([cellar.cause for cellar in cellars], _names, lambda: False):
        raise KeyboardInterrupt
    assert [cellar.closed for cellar in cellars] == [True, True]


# --- whose namespaces


def test_names_are_on_record_while_it_runs(tmp_path: Path) -> None:
    """A name is written down, readable for others, before it is used; at the end the record is gone."""
    with Claim(tmp_path / "records") as claim:
        names = claim.names(CAUSES[0])
        own, other = names(CAUSES[0].role), names("client")
        assert own == f"demo-closed-{os.getpid()}"
        assert other == f"demo-closed-{os.getpid()}-client"
        (record,) = (tmp_path / "records").glob("[0-9]*")
        assert record.read_text().splitlines() == [own, other]
        with record.open() as opened, pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list((tmp_path / "records").glob("[0-9]*")) == []


def test_records_of_others_that_run_stay(tmp_path: Path) -> None:
    """A record that is locked is somebody's; one that is not is swept away."""
    living, dead = tmp_path / "11", tmp_path / "12"
    for record in (living, dead):
        record.write_text("demo-nosuch-11\ndemo-nosuch-12\n")
    with living.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        with Claim(tmp_path) as claim:
            assert claim.removed == ()  # none of them exists
            assert living.exists()
            assert not dead.exists()


def test_no_record_no_demo(tmp_path: Path) -> None:
    """Where no record can be kept nothing is made: what to do is said."""
    (tmp_path / "records").write_text("a file")
    with pytest.raises(PktdropError, match="No record"), Claim(tmp_path / "records"):
        raise AssertionError("it went on")
