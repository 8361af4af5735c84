# SPDX-License-Identifier: MIT
"""What the rows of all tables hold for: patterns over names, the first row that matches, conditions on values.

In a pattern, ``*`` is anything. In one of a reason or function, ``[46]`` is one of these characters, ``[!_]`` any other
than these; in one of a driver's statistic, whose names have brackets, ``{n}`` is a number, ``{queue}`` that of a queue.
All else is as written.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, NamedTuple, TypeVar

from pktdrop.model.drops import full_reason
from pktdrop.rules.tables import Cells

#: Matches everything.
ANY: Final = "*"
#: Stands for the ethertype of a frame that was sent to a group or to all; known for some reasons only.
GROUP: Final = -1
#: What the column `protocol` says of ethertypes (include/uapi/linux/if_ether.h); none: the skb has none.
PROTOCOLS: Final[Mapping[str, frozenset[int]]] = MappingProxyType(
    {
        "none": frozenset((0,)),
        "IPv4": frozenset((0x0800,)),
        "IPv6": frozenset((0x86DD,)),
        "IP": frozenset((0x0800, 0x86DD, 0x0806)),  # every kernel has receivers for these
        "group": frozenset((GROUP,)),
    }
)
_KNOWN: Final = frozenset().union(*PROTOCOLS.values())
_OTHER: Final = -2

_PIECE: Final = re.compile(r"(\*|\[!?\w+\])")
_PIECE_OF_STATISTIC: Final = re.compile(r"(\*|\{queue\}|\{n\})")
_PIECES: Final = MappingProxyType({"*": ".*", "{queue}": "(?P<queue>[0-9]{1,9})", "{n}": "[0-9]+"})
# GCC names the copies it makes of a function after the function: f.isra.0, f.constprop.0, f.part.0, f.cold.
# LLVM adds f.llvm.<hash>.
_COPY: Final = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")
_BARE: Final = re.compile(r"[+ ].*")
_CONDITION: Final = re.compile(r"(\w+)(<=|>=|!=|<|>|=)(\w+)")
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)
_UNKNOWN: Final = "unknown"

_Row = TypeVar("_Row")
Value = int | str
Values = Callable[[str], Value | None]
"""Gives a value by its name; None: the value is not known."""


def function_of(call_site: str) -> str:
    """Return the function a call site is in: "tcp_v4_rcv" for "tcp_v4_rcv.isra.0+0x1c [module]"."""
    return _COPY.sub("", _BARE.sub("", call_site))


def known(protocol: int) -> int:
    """Return an ethertype, or one for all that no table knows: senders choose them, and what is kept could grow."""
    return protocol if protocol in _KNOWN else _OTHER


def is_nameless(call_site: str) -> bool:
    """Tell whether a call site is an address: kernel symbols are hidden, or its code is of no symbol."""
    return call_site.startswith("0x")


def statistic(text: str, ignore_case: bool = False) -> re.Pattern[str]:
    """Compile a pattern of a statistic, for fullmatch(): its group "queue" is the number of a queue, if it has one."""
    return _compiled(_PIECE_OF_STATISTIC.split(text), re.IGNORECASE if ignore_case else 0)


def _compiled(pieces: list[str], flags: int = 0) -> re.Pattern[str]:
    """Compile a pattern in pieces, every second one of which stands for something."""
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = (_PIECES.get(piece, piece.replace("[!", "[^")) for piece in pieces[1::2])
    return re.compile("".join(pieces), re.DOTALL | flags)


class Event(NamedTuple):
    """What tables say of an event depends on."""

    name: str
    """Reason of the event: "REASON" (core) or "subsystem/REASON"."""
    function: str
    """Function that freed the packet, or an address."""
    protocol: int
    """Ethertype of the packet, as known() returns it."""

    @classmethod
    def of(cls, subsystem: str, reason: str, call_site: str, protocol: int) -> Event:
        """Take an event as the kernel tells of it.

        `subsystem` is "core" or the subsystem's name; `reason` the kernel's name without its prefix, or a number as
        text; `call_site` the symbol that freed the packet, with or without an offset; `protocol` the ethertype, 0 if
        the packet has none (AF_UNIX, netlink), or GROUP.
        """
        return cls(full_reason(subsystem, reason), function_of(call_site), known(protocol))


@dataclass(frozen=True)
class Pattern(Generic[_Row]):
    """The events that a row of a table holds for."""

    row: _Row
    name: Callable[[str], object]
    function: Callable[[str], object]
    protocols: frozenset[int] | None
    is_of_any_function: bool

    @classmethod
    def of(cls, row: _Row, name: str, function: str = ANY, protocol: str = ANY) -> Pattern[_Row]:
        """Take a row, and its patterns: of the name, and of the function; and a key of PROTOCOLS or ANY."""
        return cls(row, _test(name), _test(function), PROTOCOLS.get(protocol), function == ANY)


class Patterns(Generic[_Row]):
    """The rows of a table in their order, to be asked."""

    def __init__(self, patterns: Iterable[Pattern[_Row]]) -> None:
        """Take them; which hold for a name is worked out once: there are as many as the kernel has reasons."""
        self._patterns = tuple(patterns)
        self._fitting: dict[tuple[int, tuple[str, ...]], tuple[Pattern[_Row], ...]] = {}

    def fitting(self, *names: str, protocol: int = _OTHER) -> tuple[Pattern[_Row], ...]:
        """Return the patterns that hold for one of these names and a protocol, in some function."""
        question = protocol, names
        found = self._fitting.get(question)
        if found is None:
            found = self._fitting[question] = tuple(
                one
                for one in self._patterns
                if (one.protocols is None or protocol in one.protocols) and any(map(one.name, names))
            )
        return found

    def first(self, *names: str, function: str = "", protocol: int = _OTHER) -> _Row | None:
        """Return the first row whose pattern holds; None if none does."""
        return next((one.row for one in self.fitting(*names, protocol=protocol) if one.function(function)), None)


class Condition(NamedTuple):
    """A comparison of a value with another, a number or a word: "combined<combined_more", "rps=off"."""

    left: str
    comparison: str
    right: str

    @classmethod
    def parse(cls, text: str, cells: Cells, names: frozenset[str]) -> Condition:
        """Take a condition on one of the names. Raises ValueError that names the line."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise cells.wrong(f"{text!r} is no condition")
        cells.one_of("value", names, found[1])
        return cls(*found.groups())

    def holds(self, values: Values, names: frozenset[str]) -> bool:
        """Tell whether it is fulfilled; what is not known fulfils nothing but "name=unknown"."""
        value = values(self.left)
        if self.right == _UNKNOWN:
            return (value is None) == (self.comparison == "=")
        other = values(self.right) if self.right in names else self.right
        if value is None or other is None:
            return False
        if self.comparison in ("=", "!="):
            return (str(value) == str(other)) == (self.comparison == "=")
        try:
            return _OPERATORS[self.comparison](int(value), int(other))
        except ValueError:
            return False


def _test(text: str) -> Callable[[str], object]:
    """Return what tells whether a name fits a pattern: most are one name, and need no expression."""
    if text == ANY:
        return lambda _: True
    pieces = _PIECE.split(text)
    return _compiled(pieces).fullmatch if len(pieces) > 1 else text.__eq__
