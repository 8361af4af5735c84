# SPDX-License-Identifier: MIT
"""Place each freed packet in the one layer that lost it, and tell losses from frees that lose nothing.

The rules are data: ``data/layers.tsv``, one row per rule with the kernel function it was read in.  The first row
that matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Final

from pktdrop import tables

#: The stations of a packet: the receive path from the wire to the socket, then the transmit path.
LAYERS: Final = ("nic-fifo", "nic-ring", "driver", "backlog", "stack", "socket", "qdisc", "tx")

#: What kind of event a free is: the column ``class`` of the data file.
KINDS: Final = ("capacity", "policy", "routing", "malformed", "protocol", "teardown", "unspecified")

#: Longest text that explains why a free is no loss, in characters.
NOISE_WIDTH: Final = 40

_COLUMNS: Final = ("reason", "site", "protocol", "layer", "class", "noise", "source")
# GCC names the copies it makes of a function after the function: f.isra.0, f.constprop.0, f.part.0, f.cold.
# LLVM adds f.llvm.<hash>.
_COPY: Final = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")
_BARE: Final = re.compile(r"[+ ].*")


@dataclass(frozen=True)
class Verdict:
    """Where a packet was freed, what kind of event that was, and why it is no loss (None: it may be one)."""

    layer: str
    kind: str
    noise: str | None


#: What is said of a free that no rule knows: it counts as a loss in the stack.
UNKNOWN: Final = Verdict("stack", "unspecified", None)


@dataclass(frozen=True)
class Rule:
    """One row of the data file; ``line`` is its number there, counted from 1."""

    reason: str
    where: str
    """A core reason: the rule is of kernels that have it. Empty: of all."""
    site: str
    protocol: str
    verdict: Verdict
    source: str
    line: int


def function_of(site: str) -> str:
    """Return the function a site is in: "tcp_v4_rcv" for "tcp_v4_rcv.isra.0+0x1c [module]"."""
    return _COPY.sub("", _BARE.sub("", site))


def parse(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules in the text of a layers.tsv.  Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _rule)


def _rule(cells: list[str], number: int) -> Rule:
    name, site, protocol, layer, kind, noise, source = cells
    reason, _, where = name.partition(" where ")
    if protocol not in ("*", "none"):
        raise ValueError(f"line {number}: protocol {protocol!r} is neither * nor none")
    if len(noise) > NOISE_WIDTH:
        raise ValueError(f"line {number}: noise text is longer than {NOISE_WIDTH} characters")
    verdict = Verdict(
        tables.one_of("layer", layer, LAYERS, number),
        tables.one_of("class", kind, KINDS, number),
        None if noise == "-" else noise,
    )
    return Rule(reason, where, site, protocol, verdict, source, number)


class _Matcher:
    """One rule with its globs compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule: Final = rule
        self._reason = re.compile(translate(rule.reason))
        self._site = re.compile(translate(rule.site))
        self._packets_too = rule.protocol == "*"

    def matches(self, reason: str, function: str, is_packet: bool) -> bool:
        return (
            (self._packets_too or not is_packet)
            and self._reason.match(reason) is not None
            and self._site.match(function) is not None
        )


class Layers:
    """The rules, ready to be asked; each distinct question is worked out once."""

    def __init__(self, rules: Iterable[Rule], reasons: Collection[str] = ()) -> None:
        """Take the rules, and the core reasons that the kernel has."""
        self.rules: Final = tuple(rule for rule in rules if not rule.where or rule.where in reasons)
        self._matchers = tuple(_Matcher(rule) for rule in self.rules)
        # Whether there is a protocol, not which: senders choose ethertypes and must not make this grow.
        self._verdicts: dict[tuple[str, str, str, bool], Verdict] = {}

    @classmethod
    def load(cls, path: Path | None = None, reasons: Collection[str] = ()) -> Layers:
        """Read a rule file, by default the one shipped with pktdrop; `reasons` are the core's that the kernel has.

        Raises ValueError, naming file and line, if the file is malformed; OSError if it cannot be read.
        """
        return cls(tables.load(path or tables.DATA / "layers.tsv", parse), reasons)

    def verdict(self, subsystem: str, reason: str, site: str, protocol: int) -> Verdict:
        """Judge one free; always answers, with UNKNOWN for what no rule knows.  Arguments as for rule()."""
        question = (subsystem, reason, site, protocol != 0)
        answer = self._verdicts.get(question)
        if answer is None:
            rule = self.rule(subsystem, reason, site, protocol)
            answer = self._verdicts[question] = UNKNOWN if rule is None else rule.verdict
        return answer

    def rule(self, subsystem: str, reason: str, site: str, protocol: int) -> Rule | None:
        """Return the rule that decides, None if there is none.

        ``subsystem`` is "core" or the subsystem's name; ``reason`` the kernel's name without its prefix, or a
        number as text; ``site`` the symbol that freed the packet, with or without an offset; ``protocol`` the
        ethertype in host order, 0 if the packet has none (AF_UNIX, netlink).
        """
        name = reason if subsystem == "core" else f"{subsystem}/{reason}"
        function = function_of(site)
        for matcher in self._matchers:
            if matcher.matches(name, function, protocol != 0):
                return matcher.rule
        return None
