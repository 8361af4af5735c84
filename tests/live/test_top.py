# SPDX-License-Identifier: MIT
"""`pktdrop top` in a real terminal: tmux(1) shows it, types, and is asked what is on the screen."""

import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.net import two_ns
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from tests.kit.process import DEADLINE, command, need, run, wait_until
from tests.kit.provoked import send_udp

N = 23
SHOWN = ("udp_closed_port", "nftables_input", "udp_checksum", "no_route")
SANE = "0 0 1"
"""No alternate screen, no mouse reports, a cursor."""


@pytest.fixture(autouse=True)
def _tmux() -> None:
    need("tmux")


class Terminal:
    """A terminal with a shell that runs `pktdrop top` once, and then says with which status it ended."""

    def __init__(self, directory: Path, *arguments: str, width: int = 120, height: int = 40, **variables: str) -> None:
        """Start it; be sure to call `close`."""
        self._name = f"pktdrop-{os.getpid()}-{secrets.token_hex(4)}"
        self._directory = directory
        line = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), *command(), "top"])
        script = f"stty -g > before; {line} {shlex.join(arguments)}; echo ended with $?; stty -g > after; exec cat\n"
        (directory / "script").write_text(script)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(directory),
                  "sh script")  # fmt: skip

    def tmux(self, *arguments: str) -> str:
        """Give tmux a command."""
        return run("tmux", "-L", self._name, *arguments)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return self.tmux("capture-pane", "-p")

    def becomes(self, condition: Callable[[str], bool], what: str) -> None:
        """Wait until the screen is as it should be; say how it is where it does not become so."""
        try:
            wait_until(lambda: condition(self.text), what, DEADLINE)
        except TimeoutError as missed:
            raise AssertionError(f"{missed}, and the screen is:\n{self.text}") from None

    def shows(self, text: str) -> None:
        """Wait until something is on the screen."""
        self.becomes(lambda screen: text in screen, f"{text!r}")

    def press(self, *keys: str) -> None:
        """Press keys, as tmux names them."""
        self.tmux("send-keys", *keys)

    def ready(self) -> "Terminal":
        """Wait until drops are counted and shown."""
        self.becomes(lambda screen: "nic-fifo" in screen and "--:--:--" not in screen, "the first look")
        return self

    def painted(self) -> str:
        """Wait until a screen is complete, and return it: it comes in pieces, the last line at the end."""
        seen: list[str] = []

        def is_complete(screen: str) -> bool:
            seen.append(screen)
            return "? help" in screen.splitlines()[-1] and screen in seen[:-1]

        self.becomes(is_complete, "a whole screen")
        return seen[-1]

    def process(self) -> int:
        """Return the process of pktdrop."""
        (shell,) = self.tmux("list-panes", "-F", "#{pane_pid}").split()
        return int(run("ps", "-o", "pid=", "--ppid", shell).split()[0])

    def is_sane(self) -> bool:
        """Tell whether the terminal is as before: its modes, its screen, its cursor."""
        modes = [(self._directory / name).read_text() for name in ("before", "after")]
        state = self.tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}").strip()
        return modes[0] == modes[1] and state == SANE

    def close(self) -> None:
        """End all of it."""
        subprocess.run(["tmux", "-L", self._name, "kill-server"], capture_output=True, timeout=DEADLINE)


@contextmanager
def terminal(
    directory: Path, *arguments: str, width: int = 120, height: int = 40, **variables: str
) -> Iterator[Terminal]:
    """Run `pktdrop top` in a terminal of its own."""
    shown = Terminal(directory, *arguments, width=width, height=height, **variables)
    try:
        yield shown
    finally:
        shown.close()


def figures(text: str, name: str) -> list[str]:
    """Return the words of the line of a table that has a name."""
    return next(
        (line.lstrip(">").split() for line in text.splitlines() if f" {name} " in line and line[:1] in " >"), []
    )


def test_numbers_on_the_screen_are_what_was_caused(tmp_path: Path, kernel_reasons: frozenset[str]) -> None:
    """Each cause has its row: reason, layer, and exactly as many packets as were lost, by another tool's count."""
    wanted = [cause for cause in CAUSES if cause.name in SHOWN]
    assert len(wanted) == len(SHOWN)
    with ExitStack() as stack:
        nets = [stack.enter_context(cause.net()) for cause in wanted]
        all_traffic = [cause.build(net) for cause, net in zip(wanted, nets, strict=True)]
        places = [net[cause.role].name for cause, net in zip(wanted, nets, strict=True)]
        options = [part for place in places for part in ("--netns", place)]
        shown = stack.enter_context(terminal(tmp_path, "0.5", *options, width=200)).ready()
        for number, traffic in enumerate(all_traffic):
            before = traffic.lost()
            for _ in range(N + number):
                traffic.lose()
            traffic.spare()
            wait_until(lambda: traffic.lost() - before == N + number, "the kernel to count")  # noqa: B023
        for number, cause in enumerate(wanted):
            if cause.reason not in kernel_reasons:
                continue  # then causes share a row; by namespace each has its own
            shown.becomes(lambda screen: str(N + number) in figures(screen, cause.reason), cause.reason)  # noqa: B023
            row = figures(shown.text, cause.reason)
            assert (cause.layer in row, str(N + number) in row) == (True, True)
        shown.press("4")
        for number, place in enumerate(places):
            shown.becomes(lambda screen: str(N + number) in figures(screen, place), place)  # noqa: B023


def delivered(receiver: socket.socket) -> int:
    """Return how many datagrams wait at a socket; takes them."""
    receiver.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while receiver.recv(1):
            count += 1
    return count


def test_whose_packets_they_were(tmp_path: Path) -> None:
    """Flows have the addresses and ports that were used, processes that which has the full socket, details packets."""
    with Tracer(Namespaces()) as tracer:
        if any(limit.kind == "no-samples" for limit in tracer.limits):
            pytest.skip("this kernel lets no program read packets")
    me = f"{Path('/proc/self/comm').read_text().rstrip()}[{os.getpid()}]"
    with ExitStack() as stack:
        net = stack.enter_context(two_ns())
        full = net.keep(net["server"].socket(socket.AF_INET, socket.SOCK_DGRAM))
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        full.bind(("10.7.0.2", 4008))
        shown = stack.enter_context(terminal(tmp_path, "0.5", "--netns", net["server"].name, width=180)).ready()
        port = send_udp(net, "client", N, ("10.7.0.2", 4008), bytes(1000))
        flow = f"10.7.0.1:{port} > 10.7.0.2:4008"
        shown.press("6")
        lost = N - delivered(full)
        assert lost > 0
        shown.becomes(lambda screen: bool(re.search(rf" of {lost} {flow} +UDP 1000 B +{re.escape(me)} ", screen)), flow)
        assert f"of {lost} packets dropped in the same looks" in shown.text
        shown.press("7")
        shown.becomes(lambda screen: bool(re.search(rf" of {lost} .* {re.escape(me)} ", screen)), me)
        shown.press("1")
        shown.becomes(lambda screen: f"{flow} UDP 1000 B for {me}, " in screen, "the samples of a reason")


@pytest.mark.parametrize("how", ["q", "C-c", signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=str)
def test_every_end_leaves_the_terminal_as_it_was(how: str | signal.Signals, tmp_path: Path) -> None:
    """Keys and signals end with status 0, and the shell has its terminal back."""
    with terminal(tmp_path) as shown:
        shown.ready()
        if isinstance(how, signal.Signals):
            os.kill(shown.process(), how)
        else:
            shown.press(how)
        shown.shows("ended with 0")
        wait_until(lambda: (tmp_path / "after").exists() and shown.is_sane(), "a sane terminal", DEADLINE)


def test_closed_terminal_ends_it(tmp_path: Path) -> None:
    """When the window is closed, the process ends."""
    with terminal(tmp_path) as shown:
        shown.ready()
        process = shown.process()
        shown.close()
        wait_until(lambda: not Path(f"/proc/{process}").exists(), "pktdrop to end", DEADLINE)


def test_stopped_and_continued(tmp_path: Path) -> None:
    """Ctrl-Z gives the terminal back to the shell, fg shows the screen again."""
    with terminal(tmp_path) as shown:
        shown.ready()
        process = shown.process()
        shown.press("C-z")

        def state() -> str:
            return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]

        wait_until(lambda: state() == "T", "pktdrop to stop", DEADLINE)
        # tmux reads on its own time what was written before the stop
        wait_until(lambda: shown.tmux("display-message", "-p", "#{alternate_on}").strip() == "0", "the shell's screen")
        os.kill(process, signal.SIGCONT)
        shown.shows("nic-fifo")
        shown.press("q")
        shown.shows("ended with 0")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (300, 60), (40, 10)])
def test_sizes_and_resize(width: int, height: int, tmp_path: Path) -> None:
    """The screen fits the terminal, also after that has changed."""
    with terminal(tmp_path, width=100, height=30) as shown:
        shown.ready()
        shown.tmux("resize-window", "-x", str(width), "-y", str(height))

        def fits(screen: str) -> bool:
            # painted anew from top to bottom; the last line is the help, or something new to say
            lines = screen.splitlines()
            begun = re.match(r"pktdrop top  \d\d:\d\d:\d\d", screen)
            return bool(begun) and len(lines) == height and bool(lines[-1].strip()) and max(map(len, lines)) <= width

        shown.becomes(fits, "the new size")


def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    """With NO_COLOR the screen has no colours; its marks say the same."""
    with terminal(tmp_path, NO_COLOR="1") as shown:
        shown.ready()
        painted = shown.tmux("capture-pane", "-p", "-e")
        assert re.findall(r"\x1b\[[0-9;]*(?:3[0-7]|38|4[0-7]|48)[;m]", painted) == []


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}], ids=str)
def test_dumb_terminal_is_told_to_use_trace(variables: dict[str, str], tmp_path: Path) -> None:
    """A terminal that cannot move its cursor gets two sentences."""
    with terminal(tmp_path, **variables) as shown:
        shown.shows("ended with 1")
        assert "pktdrop trace" in shown.text


def test_pipe_is_told_to_use_trace() -> None:
    """Neither a screen in a file nor a hanging process: two sentences, exit 1."""
    done = subprocess.run(
        [*command(), "top"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "pktdrop trace" in done.stderr


def test_saved_file_has_what_is_on_the_screen(tmp_path: Path) -> None:
    """w and a name write the text that the terminal shows."""
    with terminal(tmp_path, "3600") as shown:
        before = shown.painted()
        shown.press("w")
        shown.shows("Save to")
        shown.press("C-u")
        shown.press("-l", "now.txt")
        shown.press("Enter")
        shown.shows("Saved now.txt")
        saved = (tmp_path / "now.txt").read_text()
        assert [line.rstrip() for line in saved.splitlines()] == [line.rstrip() for line in before.splitlines()]
