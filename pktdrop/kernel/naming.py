# SPDX-License-Identifier: MIT
"""From the numbers that the kernel counts by to the names that a reader knows."""

from dataclasses import dataclass, field

from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.reasons import ReasonNames, tracepoint
from pktdrop.kernel.records import NO_CALL_SITE, NO_CPU, RawKey
from pktdrop.kernel.symbols import Symbols
from pktdrop.model.drops import DropKey, Netns
from pktdrop.rules.match import function_of

_BACKLOG_FUNCTION = "enqueue_to_backlog"
_BACKLOG_REASON = "CPU_BACKLOG"


@dataclass(frozen=True)
class Naming:
    """Names for drops: of reasons, of namespaces and interfaces, of call sites."""

    reasons: ReasonNames
    namespaces: Namespaces
    symbols: Symbols = field(default_factory=Symbols)

    def key(self, raw: RawKey, netns: Netns | None) -> DropKey:
        """Return the kind of a raw key, of a drop in `netns`.

        The interface's name must have been taught to `namespaces`, if the drop came with it.
        """
        subsystem, reason = self.reasons.name(raw.reason)
        call_site = tracepoint(raw.reason) if raw.call_site == NO_CALL_SITE else self.symbols.name(raw.call_site)
        # the record of an enqueue_to_backlog() call outlives the call: see target_cpu() in bpf/drops.c
        in_backlog = reason == _BACKLOG_REASON or function_of(call_site) == _BACKLOG_FUNCTION
        return DropKey(
            reason=reason,
            subsystem=subsystem,
            cpu=raw.cpu,
            target_cpu=raw.target_cpu if in_backlog and raw.target_cpu != NO_CPU else None,
            ifindex=raw.ifindex or None,
            interface=self._interface(netns, raw.ifindex),
            netns=netns,
            netns_name=None if netns is None else self.namespaces.name(netns),
            protocol=raw.protocol,
            call_site=call_site,
            to_group=raw.to_group,
            matches=raw.matches,
        )

    def _interface(self, netns: Netns | None, ifindex: int) -> str | None:
        return self.namespaces.interface(netns, ifindex) if netns is not None and ifindex else None
