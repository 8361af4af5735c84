# SPDX-License-Identifier: MIT
"""Network namespaces that come and go while they are watched, and interfaces that are renamed or move in them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo.frames import UNKNOWN_ETHERTYPE, ethernet
from pktdrop.demo.namespace import RUN
from pktdrop.demo.net import Net, mac, two_ns
from pktdrop.errors import PktdropError
from pktdrop.host.netns import identify, inside
from tests.kit.process import DEADLINE, command, run, wait_until
from tests.kit.trace import Trace, tracing
from tests.kit.trace import inside as drops_inside

_TRIES = 3000
"""Inodes are given again in turn: some hundreds of them are in use, or were, on a host."""


@contextmanager
def namespace(name: str) -> Iterator[Path]:
    """Make a namespace with a name and lo up; delete it at the end, if it is still there."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "dev", "lo", "up")
        yield RUN / name
    finally:
        delete(name)


def delete(name: str) -> None:
    """Delete a namespace, if it is there."""
    with suppress(PktdropError):
        run("ip", "netns", "delete", name)


def lose(path: Path, packets: int) -> None:
    """Send to a port that nobody listens on."""
    with inside(path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(packets):
            sender.sendto(b"x", ("127.0.0.1", 9))


def again(inode: int) -> Iterator[str]:
    """Make and delete namespaces until one has an inode; yield its name."""
    for number in range(_TRIES):
        name = f"pktdrop-{os.getpid()}-again{number}"
        run("ip", "netns", "add", name)
        if (RUN / name).stat().st_ino == inode:
            yield name
            return
        delete(name)


def of_inode(line: dict[str, Any], inode: int) -> dict[int, tuple[str | None, int]]:
    """Return name and packets of the drops in namespaces with an inode, by cookie."""
    found: dict[int, tuple[str | None, int]] = {}
    for drop in line["drops"]:
        if drop["netns"] == inode and drop["reason"] == "NO_SOCKET":
            name, packets = found.get(drop["netns_cookie"], (drop["netns_name"], 0))
            assert name == drop["netns_name"]
            found[drop["netns_cookie"]] = name, packets + drop["count"]
    return found


@pytest.mark.parametrize("pace", ["0.2", "600"], ids=["each was shown", "both between two looks"])
def test_an_inode_that_is_given_again(pace: str) -> None:
    """Two namespaces, one after the other, with one inode: each has its own drops, counters and name."""
    first = f"pktdrop-{os.getpid()}-first"
    with ExitStack() as stack:
        trace = stack.enter_context(tracing(pace))
        path = stack.enter_context(namespace(first))
        one = identify(path)
        if one.cookie is None:
            pytest.skip("this kernel does not tell the cookies of namespaces")
        lose(path, 7)
        if pace != "600":
            wait_until(lambda: any(of_inode(line, one.inode) for line in trace.intervals), "an interval")
        delete(first)
        for second in again(one.inode):
            stack.callback(delete, second)
            two = identify(RUN / second)
            run("ip", "-n", second, "link", "set", "dev", "lo", "up")
            lose(RUN / second, 4)
            trace.stop()
            assert one.cookie != two.cookie
            gone = first if pace != "600" else None
            assert of_inode(trace.summary, one.inode) == {one.cookie: (gone, 7), two.cookie: (second, 4)}
            ledger = {
                entry["scope"]["netns_cookie"]: (entry["delta"], entry["explained"])
                for entry in trace.summary["ledger"]
                if entry["counter"] == "mib.UdpNoPorts" and entry["scope"].get("netns") == one.inode
            }
            assert ledger.get(two.cookie) == (4, 4)
            assert ledger.get(one.cookie) == ((7, 7) if pace != "600" else None)
            return
    pytest.skip(f"no namespace of {_TRIES} got the inode again")


def test_a_namespace_that_is_gone_is_marked() -> None:
    """What was never found has no name: a table shows its inode with a mark, JSON says that it is gone."""
    name = f"pktdrop-{os.getpid()}-short"
    with tracing("600") as trace, tracing("600", style="table") as table:
        with namespace(name) as path:
            netns = identify(path)
            lose(path, 3)
        trace.stop()
        table.stop()
        (drop,) = [one for one in trace.summary["drops"] if one["netns"] == netns.inode]
        assert (drop["count"], drop["netns_name"], drop["netns_gone"]) == (3, None, True)
        assert f"gone:{netns.inode}" in table.stdout.replace("\n", " ")


def rows(trace: Trace, counter: str) -> dict[str, int]:
    """By how much a counter of interfaces rose in the whole run, by interface."""
    return {
        entry["scope"]["interface"]: entry["delta"]
        for entry in trace.summary["ledger"]
        if entry["counter"] == counter and entry["scope"]["interface"].startswith("moving")
    }


def frames(net: Net, interface: str, count: int) -> None:
    """Send frames that nobody handles: the other end counts them in rx_dropped."""
    with net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        for _ in range(count):
            sender.send(ethernet(mac(0, 2), mac(0, 1), UNKNOWN_ETHERTYPE, b"?"))


@pytest.mark.parametrize("how", ["renamed", "moved", "name taken over"])
def test_interfaces_that_change(how: str) -> None:
    """Of an interface that is renamed or moves only what it loses from then on is shown, in all and to the packet."""
    with two_ns() as net:
        client, server = net["client"], net["server"]
        client.ip("link", "add", "far0", "type", "veth", "peer", "moving0", "netns", server.name)
        client.ip("link", "set", "far0", "up")
        server.ip("link", "set", "moving0", "up")
        frames(net, "far0", 50)
        with tracing("0.2", "--all-netns") as trace:
            frames(net, "far0", 3)
            wait_until(lambda: any(drops_inside(line["drops"], [server]) for line in trace.intervals), "an interval")
            if how == "renamed":
                server.ip("link", "set", "moving0", "down")
                server.ip("link", "set", "moving0", "name", "moving1")
                server.ip("link", "set", "moving1", "up")
                expected = {"moving0", "moving1"}  # by the name that it had when a look began
            elif how == "moved":
                server.ip("link", "set", "moving0", "netns", client.name)
                client.ip("link", "set", "moving0", "up")
                expected = {"moving0"}
            else:
                client.ip("link", "delete", "far0")
                client.ip("link", "add", "far0", "type", "veth", "peer", "moving0", "netns", server.name)
                client.ip("link", "set", "far0", "up")
                server.ip("link", "set", "moving0", "up")
                expected = {"moving0"}
            frames(net, "far0", 5)
            trace.stop()
            deltas: dict[str, int] = {}
            for entry in trace.summary["ledger"]:
                name = entry["scope"].get("interface") or ""
                if entry["counter"] == "links.rx_dropped" and name.startswith("moving"):
                    deltas[name] = deltas.get(name, 0) + entry["delta"]
                    assert entry["status"] in ("exact", "bound")
            assert sum(deltas.values()) == 8
            assert deltas.keys() <= expected


def test_a_plain_file_is_no_namespace() -> None:
    """A file, and another kind of namespace, in /run/netns: neither is entered, and nothing is said of them."""
    file = RUN / f"pktdrop-{os.getpid()}-file"
    with namespace(f"pktdrop-{os.getpid()}-real"):
        file.touch()
        try:
            done = subprocess.run(
                [*command(), "counters", "--all-netns", "--format", "json"], capture_output=True, text=True, check=True,
                timeout=60,
            )  # fmt: skip
        finally:
            file.unlink()
    assert "cannot be entered" not in done.stderr
    assert file.name not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("inside_of", "why"),
    [
        (("unshare", "-p", "--fork", "--mount-proc"), "this is a PID namespace"),
        (
            ("unshare", "-p", "--fork", "--mount-proc", sys.executable, "-I", "-c",
             "import os, sys; os.fork() or os._exit(0); os.execv(sys.argv[1], sys.argv[1:])"),
            "this is a PID namespace",
        ),
        (
            ("unshare", "-m", "sh", "-c", "mount -t proc -o hidepid=2 proc /proc && exec setpriv --regid 65534 "
             "--clear-groups --bounding-set -sys_ptrace --inh-caps -sys_ptrace \"$@\"", "sh"),
            "/proc hides those of others (hidepid)",
        ),
    ],
    ids=["PID namespace", "PID namespace whose process 2 has ended", "hidepid"],
)  # fmt: skip
def test_a_host_that_cannot_be_seen(inside_of: tuple[str, ...], why: str) -> None:
    """Where processes of the host are hidden, `limits` says that its namespaces are, too."""
    done = subprocess.run(
        [*inside_of, *command(), "trace", "-d", "0.2", "--format", "json"], capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    limits = json.loads(done.stdout.splitlines()[0])["limits"]
    (limit,) = [one for one in limits if "of the host cannot be seen" in one]
    assert why in limit


HOSTILE_PROCESS = b"\x1b[31m\xff\nA\xfe\"'\x9b"
HOSTILE_INTERFACES = (b"a\x1b[31m\xffb", "\u00e9\u009bx\u202e".encode(), b"$(reboot);`id`")
"""Linux takes any bytes but '/', ':' and white space (dev_valid_name() in net/core/dev.c)."""
_LOSING = r"""
import ctypes, os, socket, sys
ctypes.CDLL(None).prctl(15, os.fsencode(sys.argv[1]), 0, 0, 0)
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print(flush=True)
while sys.stdin.read(1):
    for index, _ in socket.if_nameindex()[1:]:
        address = (17).to_bytes(2, sys.byteorder) + b"\0\0" + index.to_bytes(4, sys.byteorder) + bytes(12)
        frame = b"\xff" * 12 + b"\x66\x66" + bytes(50)
        ctypes.CDLL(None).sendto(sender.fileno(), frame, len(frame), 0, address, len(address))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.sendto(b"?", ("127.0.0.1", 9))
    print(flush=True)
"""
"""Takes a name that only the kernel keeps, and at each byte that it gets sends what is lost on each interface."""


@contextmanager
def hostile() -> Iterator[subprocess.Popen[bytes]]:
    """Have an ordinary user make a namespace, without root, whose process and interfaces have names of any bytes."""
    first, second, third = map(os.fsdecode, HOSTILE_INTERFACES)
    made = (
        'ip link set lo up && ip link add "$1" type veth peer name "$2" && ip link add "$3" type veth peer name eth0 &&'
        ' for each in "$1" "$2" "$3" eth0; do ip link set "$each" up || exit; done && exec "$4" -I -c "$5" "$6"'
    )
    process = subprocess.Popen(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "unshare", "-Urn", "sh", "-c", made, "sh",
         first, second, third, "/usr/bin/python3", _LOSING, HOSTILE_PROCESS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
    )  # fmt: skip
    try:
        if process.stdout is None or not process.stdout.readline():
            pytest.skip("an ordinary user may not make namespaces here")
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("style", ["table", "json"])
@pytest.mark.parametrize("called", [("trace", "-d", "0.5"), ("diagnose", "-d", "0.5"), ("counters", "0.5", "1")])
def test_names_of_any_bytes(called: tuple[str, ...], style: str) -> None:
    """Whatever others call their interfaces and processes, a terminal gets characters, and a parser strict JSON."""
    with hostile() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        where = [] if called[0] == "trace" else [f"--net=/proc/{process.pid}/ns/net"]
        enter = ["nsenter", *where, "--"] if where else []
        made = subprocess.Popen(
            [*enter, *command(), *called, "--format", style], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
        )
        while made.poll() is None:
            process.stdin.write(b"?")
            process.stdin.flush()
            process.stdout.readline()
        output, errors = (text.decode() for text in made.communicate(timeout=DEADLINE))  # UTF-8, or it raises
    assert made.returncode == 0, errors
    assert all(char.isprintable() or char == "\n" for char in output + errors)
    if style == "json":
        texts = [text for line in output.splitlines() for text in strings(json.loads(line))]
        assert "".join(texts).encode()  # no half of a character, which other parsers refuse
        if called[0] != "diagnose":
            assert {"a\x1b[31m\\xffb", "\u00e9\u009bx\u202e", "$(reboot);`id`"} <= set(texts)


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for one in pair for text in strings(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in strings(one))


def test_a_signal_ends_a_run_at_once() -> None:
    """Ctrl-C ends a trace of all namespaces within two seconds, whatever it is reading."""
    with tracing("60", "--all-netns") as trace:
        begun = os.times().elapsed
        assert trace.stop() == 0
        assert os.times().elapsed - begun < 2
