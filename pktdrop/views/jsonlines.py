# SPDX-License-Identifier: MIT
"""Drops as JSON, one object per line, for programs. Keys and their meaning: README, "JSON"."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pktdrop.filters import Selection
from pktdrop.model import flow
from pktdrop.model.container import Container
from pktdrop.model.drops import Count, DropKey, Netns, Verdict
from pktdrop.model.limits import Limit
from pktdrop.model.snapshots import Drops, Interval
from pktdrop.rules.protocols import Protocols
from pktdrop.text.escaping import json_text
from pktdrop.views.limits import sentences
from pktdrop.views.scope import as_object

if TYPE_CHECKING:
    from pktdrop.ledger.books import Ledger
    from pktdrop.ledger.entry import Entry
    from pktdrop.model.flow import CountedFlow
    from pktdrop.model.packet import Packet
    from pktdrop.model.sample import Sample
    from pktdrop.samples.gather import ByKind

_ROWS = 256
"""Drops, or entries of the ledger, in a piece of text."""


class JsonView:
    """Renders the start, intervals and the summary as lines. None is null: this run cannot know."""

    def __init__(
        self,
        protocols: Protocols,
        is_gone: Callable[[Netns], bool] = lambda netns: False,
        by: str | None = None,
        container: Callable[[Netns], Container | None] = lambda netns: None,
    ) -> None:
        """Take the names of ethertypes, and what tells of a namespace whether nothing leads to it, and its container.

        Where `by` names one of BY, drops that are alike in it are one object.
        """
        self._protocols = protocols
        self._by = by
        self._is_gone = is_gone
        self._container = container

    def start(self, time: float, version: str, kernel: str, probes: Mapping[str, str], limits: Sequence[Limit]) -> str:
        """Return the first line: what runs where, and what it cannot know."""
        return _line(
            type="start", time=time, version=version, kernel=kernel, probes=dict(probes), limits=sentences(limits)
        )

    def interval(
        self,
        interval: Interval,
        selection: Selection,
        ledger: "Ledger",
        kind: str = "interval",
        samples: "ByKind | None" = None,
        sampled: Mapping[DropKey, int] | None = None,
        flows: "Sequence[CountedFlow]" = (),
    ) -> Iterator[str]:
        """Yield the line of one interval, or with kind "summary" that of the whole run, piece by piece.

        There may be 65,536 drops, which are some 20 MB of text.
        """
        yield json_text({"type": kind, "start": interval.start, "end": interval.end})[:-1] + ',"drops":['
        packets, taken = samples or {}, sampled or {}
        apart = (
            self._drop(key, count, selection.judge(key), taken.get(key, 0), packets.get(key, ()))
            for key, count in Drops.of(selection.drops).most_first()
        )
        yield from _pieces(iter(summed(apart, BY[self._by or ""])) if self._by in BY else apart)
        if self._by in flow.BY:
            yield '],"flows":['
            yield from _pieces(iter(self._flows(selection, flows)))
        yield '],"ledger":['
        yield from _pieces(map(entry_object, ledger.entries))
        rest = {
            "layers": dict(ledger.lost),
            "doubt": dict(ledger.doubt),
            "lost": interval.uncounted._asdict(),
            "filtered": selection.filtered,
        }
        yield "]," + json_text(rest)[1:] + "\n"

    def _drop(
        self, key: DropKey, count: Count, verdict: Verdict, sampled: int, samples: "Sequence[Sample]"
    ) -> dict[str, Any]:
        return {
            **self.kind(key, verdict),
            "count": count.packets,
            "bytes": count.bytes,
            "sampled": sampled,
            "samples": [self.sample(one) for one in samples],
        }

    def _flows(self, selection: Selection, flows: "Sequence[CountedFlow]") -> list[dict[str, Any]]:
        """Return flows that are alike in what they are counted by, as one."""
        from pktdrop.views.flows import as_object as flow_object

        rows = (
            {
                **self.kind(one.key, selection.judge(one.key)),
                **flow_object(one),
                "count": one.packets,
                "bytes": one.bytes,
            }
            for one in flows
            if selection.shows(one.key)
        )
        return summed(rows, FLOW_KEYS)

    def kind(self, key: DropKey, verdict: Verdict) -> dict[str, Any]:
        """Return what a drop is counted by, and what the rules say of it, as JSON has it."""
        return {
            "reason": key.reason,
            "subsystem": key.subsystem,
            "cpu": key.cpu,
            "target_cpu": key.target_cpu,
            "interface": key.interface,
            "ifindex": key.ifindex,
            "netns": None if key.netns is None else key.netns.inode,
            "netns_cookie": None if key.netns is None else key.netns.cookie,
            "netns_name": key.netns_name,
            "netns_gone": key.netns is not None and key.netns_name is None and self._is_gone(key.netns),
            "container": None if key.netns is None else _container(self._container(key.netns)),
            "protocol": self._protocols.name(key.protocol),
            "location": key.call_site,
            "layer": verdict.layer,
            "noise": verdict.noise or "",
            "doubt": verdict.doubt or "",
            "other_places": key.other_places,
        }

    def sample(self, sample: "Sample") -> dict[str, Any]:
        """Return a sampled packet as JSON has it."""
        from pktdrop.samples.words import describe

        packet, socket, owner = sample.packet, sample.socket, sample.owner
        return {
            "time": sample.time,
            "text": describe(packet, self._protocols.name),
            "length": sample.length,
            "captured": len(sample.content),
            "received": sample.received,
            **_packet(packet),
            "socket": None if socket is None else {**socket._asdict(), "is_receiver": sample.is_for_socket},
            "owner": None if owner is None else owner._asdict(),
            "container": _container(sample.container),
            "stack": list(sample.stack),
        }


def _container(container: Container | None) -> dict[str, Any] | None:
    return None if container is None else {"label": str(container), **container._asdict()}


BY: Final[Mapping[str, tuple[str, ...]]] = {
    "reason": ("subsystem", "reason"),
    "layer": ("layer",),
    "interface": ("interface",),
    "netns": ("netns", "netns_cookie"),
    "cpu": ("cpu", "target_cpu"),
}
"""What drops can be summed by, and the keys that tell it."""


FLOW_KEYS: Final = (
    *("source", "destination", "source_port", "destination_port", "ip_protocol", "inode", "pid", "comm", "other"),
)


def summed(drops: Iterable[dict[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """Return drops with the same values of some keys as one, the most first; losses, doubts and noise apart.

    Keys of which the values differ are null, and how many values there are is in "different".
    """
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for drop in drops:
        sort = bool(drop["noise"]), bool(drop["doubt"])
        alike.setdefault((*sort, *(drop[key] for key in by)), []).append(drop)
    return sorted(map(_sum, alike.values()), key=lambda drop: -int(drop["count"]))


def _sum(drops: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {
        key: sum(drop[key] for drop in drops) for key in ("count", "bytes", "sampled") if key in drops[0]
    }
    samples = {"samples": [sample for drop in drops for sample in drop["samples"]]} if "samples" in drops[0] else {}
    same = [key for key in drops[0] if key not in sums and key not in samples]
    different = {key: len({repr(drop[key]) for drop in drops}) for key in same}
    return {
        **{key: drops[0][key] if different[key] == 1 else None for key in same},
        **sums,
        **samples,
        "kinds": len(drops),
        "different": {key: number for key, number in different.items() if number > 1},
    }


def _packet(packet: "Packet") -> dict[str, Any]:
    return {
        "source": packet.source,
        "destination": packet.destination,
        "protocol": packet.protocol,
        "source_port": packet.source_port,
        "destination_port": packet.destination_port,
        "flags": list(packet.flags),
        "options": list(packet.options),
        "payload": packet.payload,
        "what": packet.what,
        "fragment": packet.fragment,
        "ttl": packet.ttl,
        "sequence": packet.sequence,
        "link_source": packet.link_source,
        "link_destination": packet.link_destination,
        "vlans": list(packet.vlans),
        "inner": None if packet.inner is None else _packet(packet.inner),
    }


def _pieces(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield the elements of an array, some at a time."""
    comma = ""
    while some := [*islice(rows, _ROWS)]:
        yield comma + json_text(some)[1:-1]
        comma = ","


def entry_object(entry: "Entry") -> dict[str, Any]:
    """Return an entry of the ledger as JSON has it."""
    return {
        "layer": entry.layer,
        "counter": entry.counter,
        "scope": as_object(entry.scope),
        "delta": entry.delta,
        "explained": entry.explained,
        "unexplained": entry.unexplained,
        "status": entry.status,
        "by": [{"reason": reason, "count": count} for reason, count in entry.by],
        "note": entry.note,
    }


def _line(**fields: Any) -> str:
    return json_text(fields) + "\n"
