# SPDX-License-Identifier: MIT
"""Sampled packets in a file that Wireshark opens."""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from pktdrop import __version__
from pktdrop.errors import PktdropError
from pktdrop.model.drops import Count, DropKey, Judge, Netns
from pktdrop.model.sample import Sample
from pktdrop.process import files
from pktdrop.samples.gather import ByKind, by_time
from pktdrop.samples.pcapng import Pcapng
from pktdrop.views.kinds import interface_of, netns_of
from pktdrop.views.packets import comment

_REMEMBERED = 4096
"""Interfaces without a sample in the file whose drops are remembered: there may be any number of interfaces."""
_Wire = tuple[Netns | None, str]


class Capture:
    """A new file with the packets of one run. A context manager, that closes it."""

    def __init__(self, path: str) -> None:
        """Make the file. Raises PktdropError where it is there already, or cannot be made."""
        self._path = path
        self._pcapng = Pcapng()
        self._file: BinaryIO
        self._unseen: dict[_Wire, int] = {}
        """Packets that were dropped and not sampled, since the last one of that interface in the file."""
        try:
            self._file = files.create_stream(Path(path))
        except (OSError, files.Refused) as failed:
            why = failed.strerror if isinstance(failed, OSError) else failed
            raise PktdropError(f"{path} cannot be written: {why}.", "Give the name of a new file to -w.") from None
        self._write(self._pcapng.header(f"pktdrop {__version__}"))

    def __enter__(self) -> "Capture":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def add(self, drops: Mapping[DropKey, Count], samples: ByKind, judge: Judge) -> None:
        """Write the samples of a look in their order; the last of each interface says how many others were dropped."""
        ordered = by_time(samples, drops)
        for key, count in drops.items():
            wire = _wire(key)
            self._unseen[wire] = self._unseen.get(wire, 0) + count.packets - len(samples.get(key, ()))
        last: dict[_Wire, Sample] = {_wire(sample.key): sample for sample in ordered}
        for sample in ordered:
            wire = _wire(sample.key)
            unseen = self._unseen.pop(wire, 0) if last[wire] is sample else 0
            text = comment(sample, judge(sample.key))
            self._write(b"".join(self._pcapng.packet(sample, wire[1], netns_of(sample.key), text, unseen)))
        self._unseen = dict([*self._unseen.items()][-_REMEMBERED:])

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as failed:
            raise PktdropError(f"{self._path} cannot be written: {failed.strerror}.", "Make room for it.") from None


def _wire(key: DropKey) -> _Wire:
    return key.netns, interface_of(key)
