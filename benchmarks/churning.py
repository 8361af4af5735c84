# SPDX-License-Identifier: MIT
"""The process that lets network namespaces come and go beside a running pktdrop, and knows which one lived when.

    python -I -m benchmarks.churning SECONDS RATE SLOWNESS OUTPUT COMMAND...

Runs COMMAND with its standard output in the file OUTPUT, and RATE namespaces a second meanwhile; each lives SLOWNESS
times as long as it would on an ordinary machine. Each has lo, one end
of a veth pair, a listener with a full queue, and a firewall; it loses packets in three ways right after its birth and
again right before its end, and says by the kernel's own counters how many. Every fifth has no name, and none has a
process: what has neither cannot be entered from outside.

All is in a mount namespace and in network namespaces of this process, so nothing is left however it ends. Prints one
JSON object: {"lives": [LIFE...], "samples": [SAMPLE...], "ended": SECONDS, "status": N, "stderr": TEXT}.
"""

import heapq
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks import netns
from benchmarks.processes import wait_until

RUN = Path("/run/netns")
QUIET = 4.0
"""Seconds without namespaces before the churn, to compare a look with."""
SPANS = (0.1, 0.6, 1.0, 2.3)
"""Seconds that namespaces live, in turn: one second on average, so that RATE of them are there at once."""
HUB = "churn-hub"
COUNTERS = {"closed": "UdpNoPorts", "listen": "TcpExtListenOverflows"}
"""Which counter of the namespace is the witness of a way to lose packets; the firewall has its own."""
_NAMELESS = 5
_FIREWALL_PORT, _LISTEN_PORT, _CLOSED_PORT = 4242, 4343, 9
_LOOPBACK, _NEAR, _FAR = "127.0.0.1", "10.7.0.2", "10.7.0.1"
_MAC = bytes.fromhex("020000000002")
_FRAME = netns.frame(_MAC, _FAR, _NEAR, _FIREWALL_PORT)
_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # include/linux/socket.h, include/uapi/linux/if_packet.h
_SAMPLE_SECONDS = 0.5


class Sample(NamedTuple):
    """The traced process at one moment."""

    time: float
    """Wall clock, seconds since the epoch."""
    cpu: float
    """CPU time so far, seconds."""
    resident: float
    """MB."""
    descriptors: int
    born: int
    """Namespaces so far."""


@dataclass
class Life:
    """One namespace, from its birth to its end."""

    name: str | None
    inode: int = 0
    cookie: int | None = None
    born: float = 0.0
    died: float = 0.0
    """Wall clock, when its name was taken away."""
    lost: dict[str, int] = field(default_factory=dict)
    """Packets by the way they were lost, as the kernel counted them there."""
    sent: dict[str, int] = field(default_factory=dict)
    """Packets that were sent to be lost so."""


class Living:
    """A namespace that exists."""

    def __init__(self, number: int, hub: "Hub") -> None:
        """Make it, name it, and fill its listen queue."""
        self.life = Life(
            None if number % _NAMELESS == 2 else f"churn-{number}", sent={"closed": 0, "firewall": 0, "listen": 0}
        )
        self._amounts = {"closed": 1 + number % 7, "firewall": 1 + number % 5, "listen": 1 + number % 3}
        self._link = f"v{number}"
        self._hub = hub
        self._kept = ExitStack()
        with at_home(hub.home):
            self._descriptor = netns.make()
            self._kept.callback(os.close, self._descriptor)
            self.life.inode, self.life.cookie = os.fstat(self._descriptor).st_ino, netns.cookie()
            self.life.born = time.time()
            if self.life.name is not None:
                netns.bind(RUN / self.life.name)
            netns.without_ipv6()
            netns.route(netns.link_up(1), netns.veth("eth0", _MAC, self._link, hub.descriptor))
            netns.route(netns.ipv4(socket.if_nametoindex("eth0"), _NEAR, 24))
            netns.firewall(_FIREWALL_PORT)
            self._udp = self._kept.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            listener = self._kept.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.bind((_LOOPBACK, _LISTEN_PORT))
            listener.listen(0)  # room for one that nobody accepts
            self._kept.enter_context(socket.create_connection((_LOOPBACK, _LISTEN_PORT), timeout=10.0))
        hub.set_up(self._link)

    def lose(self) -> None:
        """Lose packets in all three ways."""
        for _ in range(self._amounts["firewall"]):
            self._hub.raw.sendto(_FRAME, (self._link, 0))
        for _ in range(self._amounts["closed"]):
            self._udp.sendto(b"pktdrop!", (_LOOPBACK, _CLOSED_PORT))
        with at_home(self._hub.home):
            netns.enter(self._descriptor)
            for _ in range(self._amounts["listen"]):  # closed at once: none is sent again
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
                    client.connect_ex((_LOOPBACK, _LISTEN_PORT))
        for way, amount in self._amounts.items():
            self.life.sent[way] += amount

    def end(self) -> None:
        """Read what it has counted, and let it go."""
        with at_home(self._hub.home):
            netns.enter(self._descriptor)
            wait_until(self._all_counted, f"the counters of {self.life}")
        self.life.died = time.time()
        if self.life.name is not None:
            netns.unbind(RUN / self.life.name)
        self._kept.close()

    def _all_counted(self) -> bool:
        """Read the witnesses: the last packets may still be under way, in another thread of the kernel."""
        found = netns.counters()
        self.life.lost = {way: found[counter] for way, counter in COUNTERS.items()}
        self.life.lost["firewall"] = netns.firewall_count()
        return all(self.life.lost[way] >= sent for way, sent in self.life.sent.items())


class Hub:
    """The namespace at the other ends of all veth pairs."""

    def __init__(self, home: int) -> None:
        """Make it, with a socket that sends frames to any of its interfaces."""
        self.home = home
        with at_home(home):
            self.descriptor = netns.make()
            netns.bind(RUN / HUB)
            netns.without_ipv6()
            self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            # what a queueing discipline does that a worker of the kernel has not attached yet: not sending
            self.raw.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)

    def set_up(self, link: str) -> None:
        """Set one of its interfaces up."""
        with at_home(self.home):
            netns.enter(self.descriptor)
            netns.route(netns.link_up(socket.if_nametoindex(link)))


@contextmanager
def at_home(home: int) -> Iterator[None]:
    """Come back to the first namespace at the end of a block."""
    try:
        yield
    finally:
        netns.enter(home)


class Traced:
    """The command, watched."""

    def __init__(self, command: Sequence[str], output: Path, errors: IO[str], slowness: float) -> None:
        """Start it and wait for its start line, so many times as long as usual."""
        self._output, self._errors = output, errors
        with output.open("w", encoding="utf-8") as stdout:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors, preexec_fn=netns.end_with_parent
            )
        wait_until(lambda: self.process.poll() is not None or "Tracing" in self.said(), "the start line", slowness)
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended instead of tracing: {self.said()}")

    def said(self) -> str:
        """Return what it has complained of."""
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode(errors="replace")

    def sample(self, born: int) -> Sample:
        """Look at it through /proc."""
        place = Path("/proc", str(self.process.pid))
        cpu = sum(int((task / "schedstat").read_text().split()[0]) for task in (place / "task").iterdir()) / 1e9
        resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return Sample(time.time(), cpu, resident, len(os.listdir(place / "fd")), born)

    def looked_after(self, moment: float) -> bool:
        """Return whether it has shown an interval that ended after a moment."""
        with self._output.open("rb") as shown:
            shown.seek(max(0, self._output.stat().st_size - (1 << 22)))
            whole = shown.read().split(b"\n")[1:-1]  # the first may be cut, and is none of interest
        return bool(whole) and float(json.loads(whole[-1]).get("start", 0.0)) > moment

    def stop(self) -> float:
        """Interrupt it; return how many seconds it takes to end."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)
        return time.monotonic() - start


@dataclass(order=True)
class Event:
    """Something to do at a time of the monotonic clock."""

    when: float
    number: int
    act: Callable[[], None] = field(compare=False)


class Churn:
    """Namespaces that come and go by a plan."""

    def __init__(self, hub: Hub, traced: Traced, slowness: float) -> None:
        """Take where they are joined, what watches them, and how many times as long as usual they live."""
        self._hub, self._traced, self._slowness = hub, traced, slowness
        self.lives: list[Life] = []
        self.samples: list[Sample] = []
        self._events: list[Event] = []
        self._numbers = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Plan something."""
        self._numbers += 1
        heapq.heappush(self._events, Event(when, self._numbers, act))

    def run(self) -> None:
        """Do what is planned, each when it is due."""
        while self._events:
            event = heapq.heappop(self._events)
            time.sleep(max(0.0, event.when - time.monotonic()))
            event.act()

    def birth(self, number: int) -> None:
        """Let one be born, and plan its end."""
        living = Living(number, self._hub)
        self.lives.append(living.life)
        living.lose()
        self.at(time.monotonic() + self._slowness * SPANS[number % len(SPANS)], lambda: self._end(living))

    def sample(self) -> None:
        """Look at the watching process."""
        self.samples.append(self._traced.sample(len(self.lives)))

    @staticmethod
    def _end(living: Living) -> None:
        living.lose()
        living.end()


def _churn(seconds: float, rate: float, slowness: float, hub: Hub, traced: Traced) -> Churn:
    churn = Churn(hub, traced, slowness)
    churn.at(time.monotonic(), lambda: churn.birth(0))  # the first drop has the kernel's symbols read, once
    churn.run()
    died = churn.lives[0].died
    wait_until(lambda: traced.looked_after(died), "a look after the first namespace", slowness)
    start = time.monotonic() + QUIET
    for number in range(int(seconds * rate)):
        churn.at(start + number / rate, lambda number=number: churn.birth(number + 1))  # type: ignore[misc]
    for number in range(int((seconds + QUIET) / _SAMPLE_SECONDS)):
        churn.at(start - QUIET + number * _SAMPLE_SECONDS, churn.sample)
    churn.run()
    churn.sample()
    ended = time.time()
    wait_until(lambda: traced.looked_after(ended), "a look after the last namespace", slowness)
    return churn


def main() -> None:
    """Do what the arguments say."""
    seconds, rate, slowness, output, *command = sys.argv[1:]
    netns.own_mounts()
    RUN.mkdir(exist_ok=True)
    netns.mount("tmpfs", str(RUN))
    with tempfile.TemporaryFile("w+") as errors:
        hub = Hub(netns.own())
        traced = Traced(command, Path(output), errors, float(slowness))
        try:
            # in a thread: a process counts as being where its first thread is, and this one is to be in none of them
            with ThreadPoolExecutor(1) as thread:
                churn = thread.submit(_churn, float(seconds), float(rate), float(slowness), hub, traced).result()
            ended = traced.stop()
        finally:
            traced.process.kill()
            traced.process.wait()
        found: dict[str, Any] = {
            "lives": [vars(life) for life in churn.lives],
            "samples": [sample._asdict() for sample in churn.samples],
            "ended": ended,
            "status": traced.process.returncode,
            "stderr": traced.said(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
