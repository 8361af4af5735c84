# SPDX-License-Identifier: MIT
"""Compile the BPF C sources, in a process of its own (`compile_worker`).

clang and LLVM come with bcc and take some 100 MB; they end with that process. What comes back is plain data.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pktdrop.errors import PktdropError
from pktdrop.kernel import compile_worker
from pktdrop.kernel.code import Compiled, source_directory
from pktdrop.kernel.programs import MapsRefused

_REPORT = "Run 'pktdrop doctor' and report what it shows."
_NEWER = "The kernel's headers may be newer than bcc: install a newer bcc, or run a kernel with BTF."
"""bcc has a copy of include/uapi/linux/bpf.h, which must know all that the kernel's headers use (iovisor/bcc#5444)."""
_NO_MAP = "could not open bpf map: "
"""So begins what bcc says where the kernel refuses a map: it makes them while it compiles."""


class Compiler:
    """A compiler process, good for one compilation.

    It imports bcc as soon as it is started, so one that is started early works while its owner does.
    """

    def __init__(self) -> None:
        """Start the process."""
        worker = Path(compile_worker.__file__).resolve()
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for pktdrop alone
        )

    def __enter__(self) -> "Compiler":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

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
        if self._process.returncode != 0:
            said = messages.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            first = next((line for line in said if "error:" in line), said[-1])
            if first.startswith(_NO_MAP):
                raise MapsRefused(first.rpartition("error: ")[2])
            raise PktdropError(
                f"bcc could not compile pktdrop's BPF programs: {first}",
                _REPORT if own_headers else _NEWER,
            )
        return Compiled.from_json(json.loads(output))
