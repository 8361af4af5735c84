# SPDX-License-Identifier: MIT
"""Compile the BPF C sources, in a process of its own (`compile_worker`).

clang and LLVM come with bcc and take some 100 MB; they end with that process. What comes back is plain data. Nothing
that another user can write goes in: that process knows neither the working directory nor the environment of this one,
and what it has read is checked.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pktdrop.errors import PktdropError
from pktdrop.kernel import compile_worker
from pktdrop.kernel.code import Compiled, identity, source_directory
from pktdrop.kernel.programs import MapsRefused
from pktdrop.process import files
from pktdrop.process.faults import sentences

_REPORT = "Run 'pktdrop doctor' and report what it shows."
_NEWER = "The kernel's headers may be newer than bcc: install a newer bcc, or run a kernel with BTF."
"""bcc has a copy of include/uapi/linux/bpf.h, which must know all that the kernel's headers use (iovisor/bcc#5444)."""
_NO_MAP = "could not open bpf map: "
"""So begins what bcc says where the kernel refuses a map: it makes them while it compiles."""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_DIRECTORIES = ("/run", "/tmp", "/var/tmp")
"""Where the directory can be made that the compiler is in. No variable chooses it."""


class Compiler:
    """A compiler process, good for one compilation.

    It imports bcc as soon as it is started, so one that is started early works while its owner does.
    """

    def __init__(self) -> None:
        """Start the process."""
        worker = Path(compile_worker.__file__).resolve()
        self._directory = _empty_directory()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(worker)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._directory,
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C on the terminal is for pktdrop alone
            )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def __enter__(self) -> "Compiler":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)

    def compile(
        self, layout: str, definitions: Mapping[str, str], own_headers: bool = True, hide_symbols: bool = False
    ) -> Compiled:
        """Compile drops.c behind the given struct layouts, with the given macros defined.

        The headers that bcc asks for are pktdrop's own few, or the installed ones of the running kernel. Programs that
        do not call bpf_probe_read_kernel() come out the same, and sooner, with the kernel's symbols hidden from bcc.
        Raises PktdropError where bcc is missing or refuses the source, and MapsRefused.
        """
        request = {
            "source": str(source_directory()),
            "own_headers": own_headers,
            "hide_symbols": hide_symbols,
            "layout": layout,
            "definitions": dict(definitions),
        }
        output, messages = self._process.communicate(json.dumps(request).encode())
        if self._process.returncode == compile_worker.BCC_IS_MISSING:
            raise PktdropError(
                f"bcc is missing: {sys.executable} cannot import the module bcc.",
                "Install it from the distribution: 'apt install python3-bpfcc' or 'dnf install python3-bcc'.",
            )
        if self._process.returncode == compile_worker.DENIED:
            number = int(output)
            raise PktdropError(*sentences(OSError(number, os.strerror(number))))
        if self._process.returncode != 0:
            said = messages.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            first = next((line for line in said if "error:" in line), said[-1])
            if self._process.returncode < 0:
                first = f"the compiler was killed by {_signal(-self._process.returncode)}"
            if first.startswith(_NO_MAP):
                raise MapsRefused(first.rpartition("error: ")[2])
            raise PktdropError(
                f"bcc could not compile pktdrop's BPF programs: {first}",
                _REPORT if own_headers else _NEWER,
            )
        answer = json.loads(output)
        headers = _headers(answer["files"], source_directory(), own_headers)
        inputs = {path: identity(path) for path in (*headers, *answer["libraries"])}
        return Compiled.from_json({**answer["compiled"], "inputs": inputs})


def _empty_directory() -> str:
    """Make a directory that nobody else can write, or put another in place of. Raises PktdropError."""
    for directory_above in _DIRECTORIES:
        try:
            descriptor, real = files.open_directory(Path(directory_above, "."), files.own())
            os.close(descriptor)
            return tempfile.mkdtemp(prefix="pktdrop-", dir=real)
        except (OSError, files.Refused):
            continue
    raise PktdropError(
        f"There is no place to compile in: no directory can be made in {', '.join(_DIRECTORIES)}.",
        "Let one of them be writable, with mode 1777 if others may write it.",
    )


def _headers(read: Iterable[str], source: Path, own_headers: bool) -> list[str]:
    """Return which of the files that were read are no source of pktdrop's: installed headers, where those are used.

    Raises PktdropError where others than root can write one, or where there should be none.
    """
    found = [path for path in read if not Path(path).is_relative_to(source)]
    for path in found:
        try:
            if own_headers:
                raise files.Refused(f"{path} is no source of pktdrop's")
            files.judge_way(Path(path), (0,))
        except (OSError, files.Refused) as reason:
            raise PktdropError(
                f"What bcc compiled cannot be trusted: {reason}.", "Let it be root's, and writable for root only."
            ) from None
    return found


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
