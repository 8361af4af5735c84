# SPDX-License-Identifier: MIT
"""Whose namespaces are whose: a record of each running demo's, so that what a killed one leaves can be removed.

Each demo keeps a file in /run/pktdrop/demo, called after its pid and locked for as long as it lives (flock(2): the
kernel unlocks it however it ends). A name is on record before its namespace is made. The next demo deletes what is on
record in files that nobody has locked. Only names of the pattern below, with the pid of the record, are ever deleted.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pktdrop.demo.causes.cause import DemoCause
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import RoleNames
from pktdrop.errors import PktdropError

RECORDS = Path("/run/pktdrop/demo")
_GATE = "lock"
"""Held while records are made or removed."""
_NAME = re.compile(r"demo-[a-z0-9]+-(?P<pid>[0-9]+)(-[a-z]+)?")


class Claim:
    """The record of this demo's namespaces. To be used as a context manager, around all that it makes.

    Raises PktdropError where no record can be kept.
    """

    def __init__(self, records: Path = RECORDS) -> None:
        """Take the directory of records."""
        self._records = records
        self._path = records / str(os.getpid())
        self._stack = ExitStack()
        self._names: list[str] = []
        self.removed: tuple[str, ...] = ()
        """Names of the namespaces that killed demos had left."""

    def __enter__(self) -> "Claim":
        """Remove what is left of demos that are gone, and open a record."""
        try:
            self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._gate():
                self.removed = tuple(name for record in self._left() for name in _remove(record))
                self._file = self._stack.enter_context(self._path.open("x", encoding="ascii"))
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stack.close()
            raise PktdropError(
                f"No record of the namespaces can be kept in {self._records}: {error.strerror}.",
                "See to it that root can write there.",
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close the record; it stays where a namespace does, for the next demo."""
        with self._stack, self._gate():
            if not any(Namespace(name).exists for name in self._names):
                self._path.unlink(missing_ok=True)

    def names(self, cause: DemoCause) -> RoleNames:
        """Return names for a cause's namespaces; the losing one has no role in its name: there is little room."""

        def name(role: str) -> str:
            own = f"demo-{cause.short}-{os.getpid()}" + (f"-{role}" if role != cause.role else "")
            if Namespace(own).exists:  # not made by this demo: it must not get on its record
                raise PktdropError(f"There is a namespace {own} already.", f"Delete it: 'ip netns delete {own}'.")
            self._names.append(own)
            print(own, file=self._file, flush=True)
            return own

        return name

    @contextmanager
    def _gate(self) -> Iterator[None]:
        with (self._records / _GATE).open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield

    def _left(self) -> Iterator[Path]:
        """Yield the records that nobody has locked."""
        for path in sorted(self._records.glob("[0-9]*")):
            with path.open(encoding="ascii") as record:
                try:
                    fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # it is running
                    continue
                yield path


def _remove(record: Path) -> Iterator[str]:
    """Delete the namespaces on a record, and the record; yield those that were there."""
    for name in record.read_text(encoding="ascii", errors="replace").splitlines():
        match = _NAME.fullmatch(name)
        if match and match["pid"] == record.name and Namespace(name).exists:
            Namespace(name).delete()
            yield name
    record.unlink()
