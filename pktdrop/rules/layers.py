# SPDX-License-Identifier: MIT
"""Give each freed packet the one layer that lost it; tell losses from frees that lose nothing, and from doubts.

The rules are data: ``data/layers.tsv``, one row per rule with the kernel function it was read in.  The first row
that matches decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pktdrop.model.drops import DropKey, Verdict
from pktdrop.rules.match import ANY, GROUP, Event, Pattern, Patterns, is_nameless, known
from pktdrop.rules.tables import NOTHING, Cells, Table

#: The stations of a packet: the receive path from the wire to the socket, then the transmit path.
LAYERS: Final = ("nic-fifo", "nic-ring", "driver", "backlog", "stack", "socket", "qdisc", "tx")

#: What nature of event a free is: the column ``nature`` of the data file.
NATURES: Final = ("capacity", "policy", "routing", "malformed", "protocol", "teardown", "unspecified")

#: What is said of a free: a packet was lost, none was, or that is not known.
VERDICTS: Final = ("loss", "noise", "doubt")

#: Longest text that explains why a free is no loss, or may be none, in characters.
WHY_WIDTH: Final = 40

#: What is said of a free whose call site has no name, where that would decide.
NAMELESS: Final = "its place in the kernel has no name"

_PROTOCOLS: Final = (ANY, "none", "IP", "group")
#: What is said of a free for a reason that no rule knows: it counts as a loss in the stack.
UNKNOWN: Final = Verdict("stack", "unspecified", None)


@dataclass(frozen=True)
class LayerRule:
    """One row of the data file; ``line`` is its number there, counted from 1."""

    reason: str
    needs: str
    """A core reason: the rule is only for kernels that have this reason. Empty: for all."""
    function: str
    protocol: str
    verdict: Verdict
    source: str
    line: int


def _rule(cells: Cells) -> LayerRule:
    reason, _, needs = cells["reason"].partition(" where ")
    cells.one_of("protocol", _PROTOCOLS)
    what, why = cells.one_of("verdict", VERDICTS), cells.short("why", WHY_WIDTH)
    if (why == NOTHING) != (what == "loss"):
        raise cells.wrong("noise and doubt say why, a loss does not")
    verdict = Verdict(
        cells.one_of("layer", LAYERS),
        cells.one_of("nature", NATURES),
        noise=why if what == "noise" else None,
        doubt=why if what == "doubt" else None,
    )
    return LayerRule(reason, needs, cells["function"], cells["protocol"], verdict, cells["source"], cells.line)


TABLE: Final = Table("layers.tsv", "reason function protocol layer nature verdict why source", _rule)


class Layers:
    """The rules, ready to be asked; each distinct question is worked out once."""

    def __init__(self, rules: Iterable[LayerRule], reasons: Collection[str] = ()) -> None:
        """Take the rules, and the core reasons that the kernel has."""
        self.rules: Final = tuple(rule for rule in rules if not rule.needs or rule.needs in reasons)
        self._patterns = Patterns(Pattern.of(rule, rule.reason, rule.function, rule.protocol) for rule in self.rules)
        self._verdicts: dict[tuple[str, str, str, int], Verdict] = {}

    @classmethod
    def load(cls, path: Path | None = None, reasons: Collection[str] = ()) -> Layers:
        """Read a rule file, as Table.load() does; `reasons` are the core's that the kernel has."""
        return cls(TABLE.load(path), reasons)

    def of(self, key: DropKey) -> Verdict:
        """Return what the rules say of a kind of drops."""
        return self.verdict(key.subsystem, key.reason, key.call_site, GROUP if key.to_group else key.protocol)

    def verdict(self, subsystem: str, reason: str, call_site: str, protocol: int) -> Verdict:
        """Judge one free; always answers, with UNKNOWN for what no rule knows.  Arguments as for Event.of()."""
        question = subsystem, reason, call_site, known(protocol)
        answer = self._verdicts.get(question)
        if answer is None:
            answer = self._verdicts[question] = self._judge(Event.of(*question))
        return answer

    def rule(self, event: Event) -> LayerRule | None:
        """Return the rule that decides, None if there is none."""
        return self._patterns.first(event.name, function=event.function, protocol=event.protocol)

    def _judge(self, event: Event) -> Verdict:
        """Where the call site has no name, and would decide whether it is a loss, nobody knows.

        Rows of packets and of any reason do not count then: every free would be in doubt for the sake of parts of
        packets (skb_release_data).
        """
        rule = self.rule(event)
        answer = UNKNOWN if rule is None else rule.verdict
        if not is_nameless(event.function):
            return answer
        possible = [answer]
        for one in self._patterns.fitting(event.name, protocol=event.protocol):
            if one.row.reason != ANY or event.protocol == 0:
                if one.is_of_any_function:
                    break
                possible.append(one.row.verdict)
        if all(one.is_loss == answer.is_loss and one.doubt is None for one in possible):
            return answer
        return replace(answer, noise=None, doubt=NAMELESS)
