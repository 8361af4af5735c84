# SPDX-License-Identifier: MIT
"""Emulated NICs, and the other end of their cables: frames come from outside the guest, as many as it asks for.

The guest asks through a port of virtio-serial: "NUMBER COUNT FRAME..." is COUNT times these frames (hexadecimal), in
turn, for the NIC of that number, as fast as can be. The answer is a line with COUNT, once QEMU took them all.
Between here and the device is a datagram socket on which a writer waits until there is room: nothing is lost there.
Whether a frame finds the guest's ring full, and what then becomes of it, is the emulated device's own business.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

MAC = "52:54:00:00:00:{:02x}"
"""Address of the NIC of a number."""
PORT = 4
"""Number of the port of virtio-serial; machine.py has those before it."""


def arguments(files: Path, models: Sequence[str]) -> list[str]:
    """Return what QEMU is to be called with for NICs of these models, and the port to ask for frames."""
    if not models:
        return []
    found = ["-chardev", f"socket,id=cables,path={files}/cables", "-device", f"virtserialport,chardev=cables,nr={PORT}"]
    for number, model in enumerate(models):
        ends = f"local.type=unix,local.path={_qemu(files, number)},remote.type=unix,remote.path={_ours(files, number)}"
        found += ["-netdev", f"dgram,id=cable{number},{ends}"]
        found += ["-device", f"{model},netdev=cable{number},mac={MAC.format(number)},romfile="]
    return found


@contextmanager
def cables(files: Path, count: int) -> Iterator[None]:
    """Hold the other ends of so many cables while a guest runs; it connects when it starts."""
    if not count:
        yield
        return
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"{files}/cables")
        listener.listen()
        ends = []
        for number in range(count):
            end = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            end.bind(_ours(files, number))
            ends.append(end)
        # what the guest sends is of no interest, but must not fill the socket: QEMU would send no more
        threads = [Thread(target=_empty, args=(end,), daemon=True) for end in ends]
        threads.append(Thread(target=_serve, args=(listener, ends, files), daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for one in (listener, *ends):
                one.shutdown(socket.SHUT_RDWR)  # which ends a call that waits; close() alone would not
            for thread in threads:
                thread.join()


def _qemu(files: Path, number: int) -> str:
    return f"{files}/cable{number}"


def _ours(files: Path, number: int) -> str:
    return f"{files}/outside{number}"


def _empty(end: socket.socket) -> None:
    while end.recv(1 << 16):
        pass


def _serve(listener: socket.socket, ends: Sequence[socket.socket], files: Path) -> None:
    """Send what the guest asks for, until it is gone."""
    try:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as port:
            for line in port:
                number, count, *frames = line.split()
                turn = [bytes.fromhex(frame) for frame in frames]
                for _ in range(int(count)):
                    for frame in turn:
                        ends[int(number)].sendto(frame, _qemu(files, int(number)))
                port.write(f"{count}\n")
                port.flush()
    except OSError:
        return  # the guest is gone, or the block around it ends: there is nobody left to tell
