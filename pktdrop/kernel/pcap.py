# SPDX-License-Identifier: MIT
"""Filters of packets in the words of pcap-filter(7), which libpcap understands: asked for only when there is one.

libpcap makes a program for the classic BPF machine of an expression (pcap_compile(3)); `classic` translates that for
the kernel. It is compiled for Ethernet frames alone: what has no such header gets one, see struct frame of
bpf/filter.h and samples.frame.
"""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

from pktdrop.errors import PktdropError, WrongUse
from pktdrop.text.escaping import safe

LONGEST: Final = 2000
"""Characters of an expression: libpcap takes seconds for one of 200 terms, and minutes for one of 10,000."""
MOST_INSTRUCTIONS: Final = 700
"""Of the program: the kernel's has up to 45 for each, and jumps no further than 32,767."""
LIBRARIES: Final = ("libpcap.so.0.8", "libpcap.so.1")
"""Names of the library: of Debian and Ubuntu, and of all others."""
_ETHERNET: Final = 1  # DLT_EN10MB
_SNAPSHOT: Final = 262144
_NETMASK_UNKNOWN: Final = 0xFFFFFFFF
_ANCILLARY: Final = 0xFFFFF000
"""From here on offsets mean what is in no packet's bytes: SKF_AD_OFF, include/uapi/linux/filter.h."""
_LOADS: Final = (0x00, 0x01)  # BPF_LD, BPF_LDX
_ABSOLUTE: Final = 0x20  # BPF_ABS


class Instruction(NamedTuple):
    """struct bpf_insn of pcap/bpf.h."""

    code: int
    jump_true: int
    jump_false: int
    number: int


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("number", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


class _Header(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


# pcap_lib_version(3), pcap_open_dead(3), pcap_compile(3), pcap_geterr(3), pcap_freecode(3), pcap_close(3),
# pcap_offline_filter(3)
_VERSION = ctypes.CFUNCTYPE(ctypes.c_char_p)
_OPEN_DEAD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
_COMPILE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32
)
_ERROR = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_OFFLINE_FILTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


class Library:
    """libpcap, as far as it is used here."""

    def __init__(self, name: str) -> None:
        """Load it. Raises OSError where it is not there, AttributeError where it is something else."""
        shared = ctypes.CDLL(name)
        self.version = _VERSION(("pcap_lib_version", shared))
        self.open_dead = _OPEN_DEAD(("pcap_open_dead", shared))
        self.compile = _COMPILE(("pcap_compile", shared))
        self.error = _ERROR(("pcap_geterr", shared))
        self.free = _RELEASE(("pcap_freecode", shared))
        self.close = _RELEASE(("pcap_close", shared))
        self.matches = _OFFLINE_FILTER(("pcap_offline_filter", shared))


@cache
def libpcap() -> Library | None:
    """Load libpcap once; return None where it is not there."""
    for name in LIBRARIES:
        with suppress(OSError, AttributeError):
            return Library(name)
    return None


def require_libpcap() -> Library:
    """Return libpcap. Raises PktdropError where it is not there."""
    found = libpcap()
    if found is None:
        raise PktdropError(
            "Filters of packets need libpcap, which is not installed.",
            "Install it: 'apt install libpcap0.8' or 'dnf install libpcap'.",
        )
    return found


def compile_expression(text: str, option: str = "--filter") -> tuple[Instruction, ...]:
    """Return the program of an expression. `option` is named where it is wrong.

    Raises WrongUse for what libpcap, or the kernel, would refuse, and PktdropError where libpcap is missing. As libpcap
    does, it asks the resolver for names of hosts.
    """
    if not text.strip():
        raise WrongUse("an empty filter matches every packet: leave it out.", option)
    if len(text) > LONGEST:
        raise WrongUse(f"the filter is {len(text):,} characters long; at most {LONGEST:,} are allowed.", option)
    if "\0" in text:
        raise WrongUse("the filter has a NUL character.", option)
    found = _compiled(require_libpcap(), text, option)
    if len(found) > MOST_INSTRUCTIONS:
        raise WrongUse(
            f"the filter takes {len(found):,} instructions; at most {MOST_INSTRUCTIONS:,} are allowed. Ask for less, "
            "or for a range or network in place of many terms.",
            option,
        )
    _check(found, option)
    return found


def _compiled(pcap: Library, text: str, option: str) -> tuple[Instruction, ...]:
    handle = pcap.open_dead(_ETHERNET, _SNAPSHOT)
    if not handle:
        raise MemoryError
    program = _Program()
    try:
        if pcap.compile(handle, ctypes.addressof(program), text.encode(errors="replace"), 1, _NETMASK_UNKNOWN):
            said = safe((pcap.error(handle) or b"it gave no reason").decode(errors="replace").strip())
            raise WrongUse(f"libpcap refuses {shortened(text)}: {said.rstrip('.')}. See pcap-filter(7).", option)
        found = tuple(
            Instruction(one.code, one.jump_true, one.jump_false, one.number)
            for one in program.instructions[: program.length]
        )
        pcap.free(ctypes.addressof(program))
        return found
    finally:
        pcap.close(handle)


def shortened(text: str) -> str:
    """Return a user's expression for a message: escaped, and not longer than a line."""
    return repr(safe(text if len(text) <= 40 else f"{text[:37]}..."))


def _check(program: Sequence[Instruction], option: str) -> None:
    """Raise WrongUse for what cannot be told from the bytes of a packet, or takes a loop."""
    for at, one in enumerate(program):
        if one.code == 0x05 and at + 1 + one.number >= len(program):  # BPF_JMP | BPF_JA, backwards
            raise WrongUse("'protochain' takes a loop, which the kernel does not allow. Name the protocol.", option)
        if one.code & 0x07 in _LOADS and one.code & 0xE0 == _ABSOLUTE and one.number >= _ANCILLARY:
            raise WrongUse(
                "the filter asks for what is not in a packet's bytes, as 'inbound', 'outbound' and negative "
                "offsets do.",
                option,
            )


class Matcher:
    """Tells by libpcap which packets match: for those that user space has."""

    def __init__(self, program: Sequence[Instruction]) -> None:
        """Take the program of an expression. Raises PktdropError where libpcap is missing."""
        self._matches = require_libpcap().matches
        self._instructions = (_Instruction * len(program))(*(_Instruction(*one) for one in program))
        self._program = _Program(len(program), self._instructions)

    def __call__(self, content: bytes, length: int | None = None) -> bool:
        """Tell whether a frame matches, of which `content` is there, and `length` bytes were."""
        header = _Header(0, 0, len(content), len(content) if length is None else length)
        matched: int = self._matches(ctypes.addressof(self._program), ctypes.addressof(header), content)
        return matched != 0
