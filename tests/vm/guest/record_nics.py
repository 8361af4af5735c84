# SPDX-License-Identifier: MIT
"""Write down what tools print of emulated NICs, quiet and after a flood: the fixtures tests/data/counters/*-<kernel>.

Run in a guest that has the NICs, as "record_nics.py DIRECTORY DRIVER...": it makes a directory for each.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.vm.guest.nics import Cable, Nic, Receiver, bring_up, slow

FRAMES = 3_000
_PATIENCE = 60.0
_QUIET = 5.0
"""Seconds without a frame, after which no more are expected: longer than any driver's timer."""
_PRINTED = {
    "ethtool-S": ("ethtool", "-S", "{}"),
    "ip.json": ("ip", "-s", "-s", "-j", "link", "show", "dev", "{}"),
}
_PRINTED_ONCE = {"ethtool-i": ("ethtool", "-i", "{}"), "ethtool-g": ("ethtool", "-g", "{}")}


def main(target: Path, drivers: list[str]) -> None:
    """Record all of them."""
    with Cable() as cable:
        nics = bring_up({driver: driver for driver in drivers})
        for driver, nic in nics.items():
            directory = target / f"{driver}-{os.uname().release}"
            (directory / "quiet").mkdir(parents=True)
            (directory / "flooded").mkdir()
            _print(directory, nic, _PRINTED_ONCE)
            _await_link(nic, cable)
            _print(directory / "quiet", nic, _PRINTED)
            with slow({driver: nic}), Receiver(nic) as receiver:
                cable.send(nic, FRAMES, nic.frame())
                received = _all_received(receiver)
            (directory / "frames.json").write_text(json.dumps({"sent": FRAMES, "received": received}) + "\n")
            _print(directory / "flooded", nic, _PRINTED)
            print(driver, received, flush=True)


def _await_link(nic: Nic, cable: Cable) -> None:
    """Send frames until one arrives, if one ever does, and nothing comes any more."""
    deadline = time.monotonic() + _PATIENCE
    with Receiver(nic) as receiver:
        while not receiver.received() and time.monotonic() < deadline:
            cable.send(nic, 1, nic.frame())
            time.sleep(1)
        _all_received(receiver)


def _all_received(receiver: Receiver) -> int:
    """Wait until no more frames come; return how many came."""
    count, since = -1, 0.0
    while receiver.received() != count or time.monotonic() - since < _QUIET:
        if receiver.received() != count:
            count, since = receiver.received(), time.monotonic()
        time.sleep(0.1)
    return count


def _print(directory: Path, nic: Nic, printed: dict[str, tuple[str, ...]]) -> None:
    for name, command in printed.items():
        words = [word.format(nic.interface) for word in command]
        said = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
        (directory / name).write_text(said)
    if printed is _PRINTED:
        first, second, *rows = Path("/proc/net/dev").read_text().splitlines()
        (row,) = (row for row in rows if row.lstrip().startswith(f"{nic.interface}:"))
        (directory / "dev").write_text("\n".join([first, second, row, ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
