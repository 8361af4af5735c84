# SPDX-License-Identifier: MIT
"""Dropped packets one by one, on the screen and in a file."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pktdrop.demo.causes.parts import CLOSED
from pktdrop.demo.net import Net, one_ns
from tests.kit.process import DEADLINE, error, launch, wait_until
from tests.kit.provoked import send_udp
from tests.kit.trace import tracing


@contextmanager
def packets(net: Net, tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """Run `pktdrop packets` on one namespace around a block, from its start line on; give it, and its two outputs."""
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = launch("packets", "--netns", net["host"].name, *arguments, stdout=out, stderr=err)
        try:
            wait_until(
                lambda: process.poll() is not None or "Showing" in stderr.read_text(), "the start line", DEADLINE
            )
            yield process, stdout, stderr
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE)


def test_a_line_each(tmp_path: Path) -> None:
    """Each packet has a line with why, where and whose; it ends after as many as asked for, and says of how many."""
    with one_ns() as net, packets(net, tmp_path, "-c", "5") as (process, stdout, stderr):
        port = send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
        assert process.wait(DEADLINE) == 0
        lines = stdout.read_text().splitlines()
        assert len(lines) == 5
        form = (
            r"\d\d:\d\d:\d\d\.\d{6} \S+ \S+\+0x[0-9a-f]+( \[\w+\])? CPU \d+ lo "
            rf"{net['host'].name} 127\.0\.0\.1:{port} > 127\.0\.0\.1:{CLOSED} UDP 5 B"
        )
        assert [line for line in lines if not re.fullmatch(form, line)] == []
        assert lines == sorted(lines)
        assert "5 packets shown, of 23 dropped" in stderr.read_text()


def test_json(tmp_path: Path) -> None:
    """As JSON, each packet is an object with what it was counted by."""
    with one_ns() as net, packets(net, tmp_path, "--format", "json", "-c", "2") as (process, stdout, _):
        send_udp(net, "host", 2, ("127.0.0.1", CLOSED))
        assert process.wait(DEADLINE) == 0
        start, *found = map(json.loads, stdout.read_text().splitlines())
        assert start["type"] == "start"
        assert [one["type"] for one in found] == ["packet"] * 2
        assert {one["drop"]["netns"] for one in found} == {net["host"].inode}
        assert {(one["destination_port"], one["protocol"], one["payload"]) for one in found} == {(CLOSED, "UDP", 5)}


def test_held_back(tmp_path: Path) -> None:
    """No more are shown in a second than asked for; how many were held back is said."""
    with one_ns() as net, packets(net, tmp_path, "--rate", "3") as (process, stdout, stderr):
        send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
        wait_until(lambda: len(stdout.read_text().splitlines()) >= 3, "three lines", DEADLINE)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        shown = len(stdout.read_text().splitlines())
        (counts,) = re.findall(r"(\d+) packets shown, (\d+) held back \(--rate\), of (\d+) dropped", stderr.read_text())
        assert counts[0] == str(shown)
        assert int(counts[0]) + int(counts[1]) <= int(counts[2]) == 23


@pytest.mark.parametrize("by", ["packets", "trace"])
def test_a_capture_file(by: str, tmp_path: Path) -> None:
    """tshark reads each packet with its comment and interface, and how many were dropped besides."""
    if shutil.which("tshark") is None:
        pytest.skip("there is no tshark to read with")
    path = tmp_path / "drops.pcapng"
    with one_ns() as net:
        if by == "packets":
            with packets(net, tmp_path, "-w", str(path), "-c", "23") as (process, stdout, _):
                port = send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
                assert process.wait(DEADLINE) == 0
                assert stdout.read_text() == ""
            seen = 23
        else:
            with tracing("60", "--netns", net["host"].name, "-w", str(path)) as trace:
                port = send_udp(net, "host", 23, ("127.0.0.1", CLOSED))
                assert trace.stop() == 0
            seen = 4
        name = net["host"].name
    fields = ["udp.srcport", "udp.dstport", "frame.comment", "frame.interface_name", "frame.drop_count"]
    wanted = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, "-T", "fields", *wanted], capture_output=True, text=True, check=True,
        timeout=4 * DEADLINE,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == seen
    assert {tuple(row[:2]) for row in rows} == {(str(port), str(CLOSED))}
    assert {row[3] for row in rows} == {f"lo ({name})"}
    assert all("CPU " in row[2] and "+0x" in row[2] for row in rows)
    assert [row[4] for row in rows] == [""] * (seen - 1) + ["" if seen == 23 else str(23 - seen)]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    path = tmp_path / "there"
    path.write_text("mine")
    process = launch("packets", "-w", str(path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, stderr = process.communicate(timeout=4 * DEADLINE)
    assert process.returncode == 1
    assert error(stderr.decode())[0].startswith(f"{path} cannot be written")
    assert path.read_text() == "mine"


def test_what_gets_through_has_no_line(tmp_path: Path) -> None:
    """Packets that a socket takes are no drops."""
    with one_ns() as net:
        sink = net.keep(net["host"].socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind(("127.0.0.1", 4007))
        with packets(net, tmp_path, "-c", "1") as (process, stdout, _):
            send_udp(net, "host", 23, ("127.0.0.1", 4007))
            send_udp(net, "host", 1, ("127.0.0.1", CLOSED))
            assert process.wait(DEADLINE) == 0
            (line,) = stdout.read_text().splitlines()
            assert f":{CLOSED} UDP" in line


def _functions(frames: list[str]) -> list[str]:
    return [frame.split("+")[0].split(".")[0] for frame in frames]


def test_the_way_that_the_kernel_took(tmp_path: Path) -> None:
    """With --stack, each packet has the calls from its call site outwards, the innermost first."""
    with one_ns() as net, packets(net, tmp_path, "--stack", "--format", "json", "-c", "2") as (process, stdout, _):
        send_udp(net, "host", 2, ("127.0.0.1", CLOSED))
        assert process.wait(DEADLINE) == 0
        found = [json.loads(line) for line in stdout.read_text().splitlines()][1:]
        assert len(found) == 2
        for one in found:
            assert one["stack"][0] == one["drop"]["location"]
            calls = _functions(one["stack"])
            # loopback: received from the CPU's backlog, in its softirq (net/core/dev.c)
            way = ["process_backlog", "net_rx_action"]
            assert [call for call in calls if call in way] == way


def test_stacks_are_lines_below_their_packet(tmp_path: Path) -> None:
    """As text, each call has a line; without --stack there is none, nor in JSON."""
    with one_ns() as net, packets(net, tmp_path, "--stack", "-c", "1") as (process, stdout, _):
        send_udp(net, "host", 1, ("127.0.0.1", CLOSED))
        assert process.wait(DEADLINE) == 0
        first, *lines = stdout.read_text().splitlines()
        assert f":{CLOSED} UDP" in first
        assert "process_backlog" in _functions([line.strip() for line in lines])
        assert all(line.startswith("    ") for line in lines)
    with one_ns() as net, packets(net, tmp_path, "--format", "json", "-c", "1") as (process, stdout, _):
        send_udp(net, "host", 1, ("127.0.0.1", CLOSED))
        assert process.wait(DEADLINE) == 0
        assert json.loads(stdout.read_text().splitlines()[1])["stack"] == []
