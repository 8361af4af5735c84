# SPDX-License-Identifier: MIT
"""The command line, as far as it goes without tracing: help, wrong uses, missing rights."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pktdrop import __version__
from pktdrop.cli import main
from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]
COMMANDS = ("trace", "top", "counters", "diagnose", "demo", "doctor", "packets")
DEADLINE = 60 * PATIENCE
VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAIN = "from pktdrop.start import main; main()"


def _invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="pktdrop")


def _without_rights(*arguments: str, **environment: str) -> list[str]:
    """The command that runs pktdrop as a process that may not load programs."""
    drop = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv (util-linux) is not installed, and root has all rights")
        # a checkout of somebody else may lie where only its owner can read, and a root that may read everything
        drop = [setpriv, "--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search"]
    variables = [f"{name}={value}" for name, value in {"PYTHONPATH": str(ROOT), **environment}.items()]
    return [*drop, "env", *variables, sys.executable, "-c", _MAIN, *arguments]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_80_columns(arguments: tuple[str, ...], flag: str) -> None:
    """Each help text says how to call it, and no line is wider than the smallest usual terminal."""
    result = _invoke(*arguments, flag)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith(" ".join(["Usage: pktdrop", *arguments]))
    assert [line for line in lines if len(line) > 80] == []


def test_help_of_trace() -> None:
    """The synopsis and the public options are there, each with what it does; what is for tests only is not."""
    text = _invoke("trace", "--help").output
    assert text.startswith("Usage: pktdrop trace [OPTIONS] [INTERVAL] [COUNT]\n")
    for option in (
        "-d, --duration SECONDS",
        "--format [table|json]",
        "--reason REASON",
        "--interface NAME",
        "--netns NAME",
        "--container NAME",
        "--cpu N",
        "--protocol NAME",
        "--no-noise",
        "--limit N",
    ):
        line = next(line for line in text.splitlines() if option in line)
        assert len(line.partition(option)[2].split()) >= 3, f"{option} has no help text"
    for hidden in ("--probe", "--map-entries", "tp_btf", "fentry"):
        assert hidden not in text


def test_examples_of_the_help_are_valid() -> None:
    """Each example in the help is a call that the command line takes."""
    context = click.Context(main)
    trace = main.get_command(context, "trace")
    assert trace is not None
    lines = [
        shlex.split(line.partition("#")[0].partition("|")[0])
        for line in (_invoke("trace", "--help").output + _invoke("--help").output).splitlines()
        if "pktdrop trace" in line and "#" in line
    ]
    assert len(lines) >= 7
    for words in lines:
        trace.make_context("trace", words[words.index("trace") + 1 :])


def test_commands_are_listed_whole() -> None:
    """The list of commands says of each what it is for, in a sentence that is not cut off."""
    lines = _invoke("--help").output.partition("Commands:\n")[2].splitlines()
    assert {line.split()[0] for line in lines} == set(COMMANDS)
    assert [line for line in lines if line.endswith("...")] == []


def test_version() -> None:
    """The version is that of the package."""
    result = _invoke("--version")
    assert (result.exit_code, result.output) == (0, f"pktdrop {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-1",), ["-1"]),
        (("--", "-1"), ["INTERVAL", "-1"]),
        (("0",), ["INTERVAL", "0.1"]),
        (("0.01",), ["INTERVAL", "0.1"]),
        (("nan",), ["INTERVAL", "nan"]),
        (("abc",), ["INTERVAL", "'abc'"]),
        (("1", "0"), ["COUNT", "0"]),
        (("1", "1.5"), ["COUNT", "'1.5'"]),
        (("1", "2", "3"), ["argument", "3"]),
        (("-d", "0"), ["--duration", "0"]),
        (("-d", "-5"), ["--duration", "-5"]),
        (("-d", "nan"), ["--duration", "nan"]),
        (("-d", "x"), ["--duration", "'x'"]),
        (("-d",), ["-d"]),
        (("--cpu", "x"), ["--cpu", "'x'"]),
        (("--cpu", "-1"), ["--cpu", "'-1'"]),
        (("--cpu", "²"), ["--cpu", "²"]),
        (("--protocol", "IPv5"), ["--protocol", "'IPv5'", "IPv4", "0x88cc"]),
        (("--protocol", "0x10000"), ["--protocol", "'0x10000'"]),
        (("--format", "xml"), ["--format", "'xml'", "table", "json"]),
        (("--limit", "0"), ["--limit", "0"]),
        (("--nosuch",), ["--nosuch"]),
        (("--intrface", "lo"), ["--intrface", "--interface"]),
        (("--probe", "magic"), ["--probe", "'magic'"]),
    ],
)
def test_wrong_uses_of_trace(arguments: tuple[str, ...], said: list[str]) -> None:
    """A wrong use ends with status 2, before anything is traced, and names the option and what is wrong with it."""
    result = _invoke("trace", *arguments)
    assert result.exit_code == 2, result.output
    lines = result.output.splitlines()
    assert lines[-1].startswith("Error: ")
    assert [text for text in said if text not in lines[-1]] == []


@pytest.mark.parametrize("arguments", [("doctor", "--format", "xml"), ("doctor", "now"), ("nosuch",), ("--nosuch",)])
def test_other_wrong_uses(arguments: tuple[str, ...]) -> None:
    """A command or option that does not exist ends with status 2 and is named."""
    result = _invoke(*arguments)
    assert result.exit_code == 2
    assert arguments[-1] in result.output.splitlines()[-1]


@pytest.mark.skipif(not VMLINUX.exists(), reason="the reasons of this kernel are not in BTF")
@pytest.mark.parametrize(
    ("reason", "near"), [("NO_SOKET", "NO_SOCKET"), ("!netfilter", "NETFILTER_DROP"), ("zzzzzz", "doctor")]
)
def test_an_unknown_reason(reason: str, near: str) -> None:
    """A reason that this kernel does not have ends with status 2, and with one that was perhaps meant."""
    result = _invoke("trace", "--reason", reason)
    assert result.exit_code == 2
    last = result.output.splitlines()[-1]
    assert last.startswith("Error: Invalid value for --reason: ")
    assert repr(reason.removeprefix("!")) in last
    assert near in last


def test_trace_without_rights() -> None:
    """Who may not trace is told what is missing and what to do, in two lines, with status 1 and no results."""
    done = _run(_without_rights("trace"))
    assert (done.returncode, done.stdout) == (1, "")
    what, do = done.stderr.splitlines()
    assert what == "Error: Tracing needs root, or the capabilities CAP_BPF and CAP_PERFMON."
    assert do == "  Start pktdrop with sudo."


def test_json_without_rights_has_no_output() -> None:
    """A program that reads JSON sees nothing on standard output where nothing was measured."""
    done = _run(_without_rights("trace", "--format", "json"))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2


def test_an_interface_that_is_not_there_is_a_warning() -> None:
    """An interface may come later: its absence is said on standard error and stops nothing."""
    done = _run(_without_rights("trace", "--interface", "nosuch0", "--interface", "!lo", "--interface", "l*"))
    warning = " ".join(done.stderr.splitlines()[:-2])
    assert warning.startswith("Warning: ")
    assert "'nosuch0'" in warning
    assert "'l" not in warning
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_an_interface_with_control_characters_is_escaped() -> None:
    """What is repeated to the user cannot move the cursor."""
    done = _run(_without_rights("trace", "--interface", "\x1b[2J"))
    assert "\x1b" not in done.stderr
    assert "x1b[2J" in done.stderr


def test_a_narrow_terminal_is_a_warning() -> None:
    """On a terminal of 20 columns, lines will wrap: that is said, and stops nothing."""
    shows, name = pty.openpty()
    ioctl(name, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        _without_rights("trace"), stdin=name, stdout=name, stderr=subprocess.PIPE, text=True, timeout=DEADLINE,
        env=environment,
    )  # fmt: skip
    os.close(name)
    os.close(shows)
    assert done.stderr.startswith("Warning: the terminal is 20 columns wide")
    assert done.returncode == 1
    assert "Tracing needs root" in done.stderr


def test_doctor_without_rights() -> None:
    """The doctor needs no root to say that root is missing; it ends with status 1, as trace cannot run."""
    done = _run(_without_rights("doctor"))
    assert (done.returncode, done.stderr) == (1, "")
    assert any(line.split()[:2] == ["rights", "missing"] for line in done.stdout.splitlines())
    assert done.stdout.endswith("pktdrop trace cannot run here.\n")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_doctor_without_rights_as_json() -> None:
    """As JSON it is one object on a line, with a list of checks."""
    done = _run(_without_rights("doctor", "--format", "json"))
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert (found["type"], found["version"], found["can_trace"]) == ("doctor", __version__, False)
    rights = next(check for check in found["checks"] if check["name"] == "rights")
    assert set(rights) == {"name", "status", "found", "means", "do"}
    assert rights["status"] == "missing"


@pytest.mark.parametrize("columns", ["20", "40", "200"])
def test_doctor_in_any_width(columns: str) -> None:
    """However wide the terminal, the doctor tells the same: no letter is cut off."""
    usual = _run(_without_rights("doctor")).stdout
    other = _run(_without_rights("doctor", COLUMNS=columns)).stdout
    assert sorted("".join(other.split())) == sorted("".join(usual.split()))
    assert other != usual


@pytest.mark.parametrize("arguments", [("doctor",), ("trace", "--interface", "büro"), ("trace", "--protocol", "büro")])
def test_a_locale_without_utf_8(arguments: tuple[str, ...]) -> None:
    """In a locale that knows ASCII only, nothing fails: what it cannot write is escaped."""
    done = _run(_without_rights(*arguments, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"))
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
    assert (done.stdout + done.stderr).isascii()


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--format", "json")])
def test_a_reader_that_is_gone(arguments: tuple[str, ...]) -> None:
    """Output into a closed pipe ends quietly, without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        _without_rights(*arguments), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=DEADLINE
    )
    os.close(writing)
    assert done.stderr == ""


def test_a_full_disk() -> None:
    """Output that finds no room is an error of two lines with status 1."""
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            _without_rights("doctor"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Standard output cannot be written: ")
    assert len(done.stderr.splitlines()) == 2


def test_the_module_runs() -> None:
    """`python -m pktdrop` is the same command."""
    if not (ROOT / "pktdrop/__main__.py").exists():
        pytest.skip("the package has no __main__.py")
    done = _run(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "pktdrop", "--version"])
    assert done.stdout == f"pktdrop {__version__}\n"
