# SPDX-License-Identifier: MIT
"""What a compilation yields, as plain data."""

import base64
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MapDefinition:
    """A map as bcc derived it from the C source: enum bpf_map_type, sizes in bytes."""

    type: int
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True)
class Code:
    """The instructions of one program, and by index the map that each listed instruction loads."""

    instructions: bytes
    maps: Mapping[int, str]


@dataclass(frozen=True)
class Compiled:
    """Everything that bcc made of the sources: instructions and maps."""

    maps: Mapping[str, MapDefinition]
    programs: Mapping[str, Code]
    bcc_version: str
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The files it was made from and by besides pktdrop's own: installed headers, the compiler. See identity()."""

    def is_current(self) -> bool:
        """Whether the files that it was made from and by are still the same."""
        with suppress(OSError):
            return all(identity(path) == list(known) for path, known in self.inputs.items())
        return False

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "maps": {name: vars(definition) for name, definition in self.maps.items()},
            "programs": {
                name: {"instructions": base64.b64encode(code.instructions).decode(), "maps": dict(code.maps)}
                for name, code in self.programs.items()
            },
            "bcc_version": self.bcc_version,
            "inputs": dict(self.inputs),
        }

    @classmethod
    def from_json(cls, data: Any) -> "Compiled":
        """Return what as_json() or the compiler's process wrote."""
        return cls(
            maps={name: MapDefinition(**definition) for name, definition in data["maps"].items()},
            programs={
                name: Code(
                    base64.b64decode(code["instructions"]),
                    {int(index): map_name for index, map_name in code["maps"].items()},
                )
                for name, code in data["programs"].items()
            },
            bcc_version=data["bcc_version"],
            inputs=data["inputs"],
        )


def identity(path: str) -> list[int]:
    """Return what changes with a file: its size in bytes, and when it was written, in ns."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def source_directory() -> Path:
    """Return the directory of the BPF C sources: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "bpf"
    return inside if inside.is_dir() else package.parent / "bpf"
