# SPDX-License-Identifier: MIT
"""Compiled programs in the kernel: their maps made, their references to them filled in."""

import errno
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from pktdrop.errors import PktdropError
from pktdrop.kernel import sysbpf
from pktdrop.kernel.code import Compiled, MapDefinition
from pktdrop.process.faults import sentences

NO_ROOM = (errno.EMFILE, errno.ENFILE)
"""Errors that say nothing of the kernel: this process, or the host, has no descriptor left."""
_INSTRUCTION_SIZE = 8
_IMMEDIATE_OFFSET = 4  # struct bpf_insn, member imm
_CALL_OF_CAST = struct.pack("=BBhi", 0x85, 0, 0, 0x7FFF0001)
"""BPF_JMP | BPF_CALL with CALL_OF_CAST of bpf/samples.h, in place of a call of the kfunc (BPF_PSEUDO_KFUNC_CALL)."""
_CALL_OF_FILTER = struct.pack("=BBhi", 0x85, 0, 0, 0x7FFF0002)
"""The same of bpf/filter.h, in place of a call of what is behind the program (BPF_PSEUDO_CALL)."""


class MapsRefused(PktdropError):
    """The kernel refuses to make a map."""

    def __init__(self, said: str) -> None:
        """Take the kernel's own words."""
        super().__init__(
            f"The kernel refuses to make a BPF map: {said}.",
            "Before Linux 5.11, raise the limit of locked memory: 'ulimit -l unlimited'; else look into dmesg.",
        )


class Programs:
    """The maps of one compilation, and the programs loaded and attached over them. Closing it removes all of it."""

    def __init__(
        self,
        compiled: Compiled,
        entries: Mapping[str, int] | None = None,
        cast_function: int = 0,
        filter_function: bytes = b"",
    ) -> None:
        """Make the maps, with more or fewer entries than compiled where `entries` says so. Raises MapsRefused.

        `cast_function` is the BTF id of the kfunc bpf_rdonly_cast(), and `filter_function` what classic.translate()
        made, if programs call these.
        """
        self._compiled = compiled
        self._cast_function = cast_function
        self._filter_function = filter_function
        self._maps: dict[str, int] = {}
        self._waiting_room: int | None = None
        with ExitStack() as undo:
            self._open = undo
            for name, definition in compiled.maps.items():
                size = (entries or {}).get(name, definition.max_entries)
                self._maps[name] = self._keep(_make_map(name, replace(definition, max_entries=size)))
            self._open = undo.pop_all()

    def close(self) -> None:
        """Detach and unload everything."""
        self._open.close()

    def map(self, name: str) -> tuple[int, MapDefinition]:
        """Return the file descriptor and the definition of a map."""
        return self._maps[name], self._compiled.maps[name]

    def wait(self) -> None:
        """Wait until every run of a program that has begun by now is over, see `banks`. Raises OSError."""
        inner = next(iter(self._maps.values()))
        if self._waiting_room is None:
            kind = sysbpf.MapType.ARRAY_OF_MAPS
            self._waiting_room = self._keep(sysbpf.map_create(kind, 4, 4, 1, "waiting_room", inner))
        sysbpf.map_update(self._waiting_room, struct.pack("=I", 0), struct.pack("=I", inner))

    def typed(self, name: str, attach_type: sysbpf.AttachType, btf_id: int) -> int:
        """Load a BTF-typed program and attach it to the tracepoint or function it is typed by; return the program."""
        program = self._load(name, sysbpf.ProgramType.TRACING, attach_type, btf_id)
        self._keep(sysbpf.raw_tracepoint_open(program))
        return program

    def raw_tracepoint(self, name: str, tracepoint: str) -> int:
        """Load a program and attach it to a raw tracepoint; return the program."""
        program = self._load(name, sysbpf.ProgramType.RAW_TRACEPOINT)
        self._keep(sysbpf.raw_tracepoint_open(program, tracepoint))
        return program

    def kprobe(self, name: str, function: str) -> int:
        """Load a program and attach it to the entry of a kernel function; return the program."""
        program = self._load(name, sysbpf.ProgramType.KPROBE)
        self._keep(sysbpf.kprobe_open(program, function))
        return program

    def _keep(self, descriptor: int) -> int:
        self._open.callback(os.close, descriptor)
        return descriptor

    def _load(
        self,
        name: str,
        program_type: sysbpf.ProgramType,
        attach_type: sysbpf.AttachType = sysbpf.AttachType.NONE,
        btf_id: int = 0,
    ) -> int:
        code = self._compiled.programs[name]
        instructions = bytearray(code.instructions)
        for index, map_name in code.maps.items():
            struct.pack_into("=i", instructions, index * _INSTRUCTION_SIZE + _IMMEDIATE_OFFSET, self._maps[map_name])
        if self._cast_function:
            call = struct.pack("=BBhi", 0x85, 2 << 4, 0, self._cast_function)
            for at in _places(instructions, _CALL_OF_CAST):
                instructions[at : at + _INSTRUCTION_SIZE] = call
        calls = _places(instructions, _CALL_OF_FILTER)
        for at in calls:
            distance = (len(instructions) - at) // _INSTRUCTION_SIZE - 1
            instructions[at : at + _INSTRUCTION_SIZE] = struct.pack("=BBhi", 0x85, 1 << 4, 0, distance)
        instructions += self._filter_function if calls else b""
        return self._keep(sysbpf.program_load(program_type, bytes(instructions), name, attach_type, btf_id))


def _places(instructions: bytearray, wanted: bytes) -> list[int]:
    steps = range(0, len(instructions), _INSTRUCTION_SIZE)
    return [at for at in steps if instructions[at : at + _INSTRUCTION_SIZE] == wanted]


def _make_map(name: str, definition: MapDefinition) -> int:
    kind = sysbpf.MapType(definition.type)
    try:
        return sysbpf.map_create(kind, definition.key_size, definition.value_size, definition.max_entries, name)
    except OSError as refused:
        if refused.errno in NO_ROOM:
            raise PktdropError(*sentences(refused)) from None
        raise MapsRefused(refused.strerror or str(refused)) from None
