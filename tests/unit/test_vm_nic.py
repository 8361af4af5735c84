# SPDX-License-Identifier: MIT
"""The other end of the cables of emulated NICs, with a socket in QEMU's place."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.vm import nic

FIRST, SECOND = b"\x01" * 60, b"\x02" * 61


@contextmanager
def plugged(files: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Plug in as QEMU does: the port for asking, and the cable of the only NIC."""
    port, cable = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with closing(port), closing(cable):
        cable.bind(f"{files}/cable0")
        port.connect(f"{files}/cables")
        for end in (port, cable):
            end.settimeout(10)
        yield port, cable


def test_frames_come_in_turn_and_are_confirmed(tmp_path: Path) -> None:
    """As many as were asked for, and the answer behind the last."""
    with nic.cables(tmp_path, 1), plugged(tmp_path) as (port, cable):
        for count in (2, 1):
            port.sendall(f"0 {count} {FIRST.hex()} {SECOND.hex()}\n".encode())
            assert [cable.recv(100) for _ in range(2 * count)] == [FIRST, SECOND] * count
            assert port.recv(100) == f"{count}\n".encode()


def test_what_the_guest_sends_is_taken(tmp_path: Path) -> None:
    """More than a socket has room for, and nothing blocks."""
    with nic.cables(tmp_path, 1), plugged(tmp_path) as (_, cable):
        for _ in range(2_000):
            cable.sendto(FIRST, f"{tmp_path}/outside0")


def test_nothing_stays_behind(tmp_path: Path) -> None:
    """Whether QEMU never came, or is gone amid what it asked for."""
    before = threading.active_count()
    with nic.cables(tmp_path, 1):
        pass
    assert threading.active_count() == before
    other = tmp_path / "other"
    other.mkdir()
    with nic.cables(other, 1):
        with plugged(other) as (port, cable):
            port.sendall(f"0 100000 {FIRST.hex()}\n".encode())
            assert cable.recv(100) == FIRST
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_qemu_is_called_for_each(tmp_path: Path) -> None:
    """Each NIC has a cable, an address and no boot ROM; without any there is nothing to ask, either."""
    assert nic.arguments(tmp_path, ()) == []
    called = " ".join(nic.arguments(tmp_path, ("pcnet", "vmxnet3")))
    for number, model in enumerate(("pcnet", "vmxnet3")):
        assert f"-device {model},netdev=cable{number},mac=52:54:00:00:00:0{number},romfile=" in called
        assert f"local.path={tmp_path}/cable{number},remote.type=unix,remote.path={tmp_path}/outside{number}" in called
