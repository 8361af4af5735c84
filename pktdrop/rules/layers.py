# SPDX-License-Identifier: MIT
"""Place each freed packet in the one layer that lost it; tell losses from frees that lose nothing, and from doubts.

The rules are data: ``data/layers.tsv``, one row per rule with the kernel function it was read in.  The first row
that matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import translate
from pathlib import Path
from typing import Final

from pktdrop.model.drops import DropKey, Verdict, full_reason
from pktdrop.rules import tables

#: The stations of a packet: the receive path from the wire to the socket, then the transmit path.
LAYERS: Final = ("nic-fifo", "nic-ring", "driver", "backlog", "stack", "socket", "qdisc", "tx")

#: What nature of event a free is: the column ``nature`` of the data file.
NATURES: Final = ("capacity", "policy", "routing", "malformed", "protocol", "teardown", "unspecified")

#: What is said of a free: a packet was lost, none was, or that is not known.
VERDICTS: Final = ("loss", "noise", "doubt")

#: Longest text that explains why a free is no loss, or may be none, in characters.
WHY_WIDTH: Final = 40

#: Stands for the ethertype of a frame that was sent to a group or to all; known for some reasons only.
GROUP: Final = -1

#: What is said of a free whose call site has no name, where that would decide.
NAMELESS: Final = "its place in the kernel has no name"

_COLUMNS: Final = ("reason", "function", "protocol", "layer", "nature", "verdict", "why", "source")
#: Ethertypes that every kernel has a receiver for: IPv4, IPv6, ARP (include/uapi/linux/if_ether.h).
_IP: Final = frozenset((0x0800, 0x86DD, 0x0806))
_PROTOCOLS: Final = ("*", "none", "IP", "group")
# GCC names the copies it makes of a function after the function: f.isra.0, f.constprop.0, f.part.0, f.cold.
# LLVM adds f.llvm.<hash>.
_COPY: Final = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")
_BARE: Final = re.compile(r"[+ ].*")


#: What is said of a free for a reason that no rule knows: it counts as a loss in the stack.
UNKNOWN: Final = Verdict("stack", "unspecified", None)


@dataclass(frozen=True)
class Rule:
    """One row of the data file; ``line`` is its number there, counted from 1."""

    reason: str
    where: str
    """A core reason: the rule is of kernels that have it. Empty: of all."""
    function: str
    protocol: str
    verdict: Verdict
    source: str
    line: int


def function_of(call_site: str) -> str:
    """Return the function a call site is in: "tcp_v4_rcv" for "tcp_v4_rcv.isra.0+0x1c [module]"."""
    return _COPY.sub("", _BARE.sub("", call_site))


def parse(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules in the text of a layers.tsv.  Raises ValueError that names the line at fault."""
    return tables.rows(lines, _COLUMNS, _rule)


def _rule(cells: list[str], number: int) -> Rule:
    name, function, protocol, layer, nature, what, why, source = cells
    reason, _, where = name.partition(" where ")
    tables.one_of("protocol", protocol, _PROTOCOLS, number)
    tables.one_of("verdict", what, VERDICTS, number)
    if (why == "-") != (what == "loss"):
        raise ValueError(f"line {number}: noise and doubt say why, a loss does not")
    if len(why) > WHY_WIDTH:
        raise ValueError(f"line {number}: {why!r} is longer than {WHY_WIDTH} characters")
    verdict = Verdict(
        tables.one_of("layer", layer, LAYERS, number),
        tables.one_of("nature", nature, NATURES, number),
        noise=why if what == "noise" else None,
        doubt=why if what == "doubt" else None,
    )
    return Rule(reason, where, function, protocol, verdict, source, number)


class _Matcher:
    """One rule with its globs compiled."""

    def __init__(self, rule: Rule) -> None:
        self.rule: Final = rule
        self._reason = re.compile(translate(rule.reason))
        self._function = re.compile(translate(rule.function))
        self.is_of_any_function: Final = rule.function == "*"

    def fits(self, reason: str, family: str) -> bool:
        return self.rule.protocol in ("*", family) and self._reason.match(reason) is not None

    def matches(self, reason: str, function: str, family: str) -> bool:
        return self.fits(reason, family) and self._function.match(function) is not None


class Layers:
    """The rules, ready to be asked; each distinct question is worked out once."""

    def __init__(self, rules: Iterable[Rule], reasons: Collection[str] = ()) -> None:
        """Take the rules, and the core reasons that the kernel has."""
        self.rules: Final = tuple(rule for rule in rules if not rule.where or rule.where in reasons)
        self._matchers = tuple(_Matcher(rule) for rule in self.rules)
        # Families of protocols, not protocols: senders choose ethertypes and must not make this grow.
        self._verdicts: dict[tuple[str, str, str, str], Verdict] = {}

    @classmethod
    def load(cls, path: Path | None = None, reasons: Collection[str] = ()) -> Layers:
        """Read a rule file, by default the one shipped with pktdrop; `reasons` are the core's that the kernel has.

        Raises ValueError, naming file and line, if the file is malformed; OSError if it cannot be read.
        """
        return cls(tables.load(path or tables.DATA / "layers.tsv", parse), reasons)

    def of(self, key: DropKey) -> Verdict:
        """Judge a kind of drops."""
        return self.verdict(key.subsystem, key.reason, key.call_site, GROUP if key.to_group else key.protocol)

    def verdict(self, subsystem: str, reason: str, call_site: str, protocol: int) -> Verdict:
        """Judge one free; always answers, with UNKNOWN for what no rule knows.  Arguments as for rule()."""
        question = (subsystem, reason, call_site, _family(protocol))
        answer = self._verdicts.get(question)
        if answer is None:
            rule = self.rule(subsystem, reason, call_site, protocol)
            answer = UNKNOWN if rule is None else rule.verdict
            if is_nameless(call_site):
                answer = self._without_name(full_reason(subsystem, reason), _family(protocol), answer)
            self._verdicts[question] = answer
        return answer

    def _without_name(self, name: str, family: str, otherwise: Verdict) -> Verdict:
        """Judge a free whose call site has no name: where its function would decide, nobody knows whether it is a loss.

        `otherwise` is what is said of other call sites. Rows of packets and of any reason do not count: every free
        would be in doubt for the sake of parts of packets (skb_release_data).
        """
        possible = [otherwise]
        for matcher in self._matchers:
            if matcher.fits(name, family) and (matcher.rule.reason != "*" or family == "none"):
                if matcher.is_of_any_function:
                    break
                possible.append(matcher.rule.verdict)
        if all(one.is_loss == otherwise.is_loss and one.doubt is None for one in possible):
            return otherwise
        return replace(otherwise, noise=None, doubt=NAMELESS)

    def rule(self, subsystem: str, reason: str, call_site: str, protocol: int) -> Rule | None:
        """Return the rule that decides, None if there is none.

        ``subsystem`` is "core" or the subsystem's name; ``reason`` the kernel's name without its prefix, or a
        number as text; ``call_site`` the symbol that freed the packet, with or without an offset; ``protocol`` the
        ethertype in host order, 0 if the packet has none (AF_UNIX, netlink), or GROUP.
        """
        name, function, family = full_reason(subsystem, reason), function_of(call_site), _family(protocol)
        for matcher in self._matchers:
            if matcher.matches(name, function, family):
                return matcher.rule
        return None


def is_nameless(call_site: str) -> bool:
    """Tell whether a call site is an address: kernel symbols are hidden, or its code is of no symbol."""
    return call_site.startswith("0x")


def _family(protocol: int) -> str:
    """Return what the column `protocol` calls an ethertype; "" for all others."""
    if protocol == GROUP:
        return "group"
    return "none" if protocol == 0 else "IP" if protocol in _IP else ""
