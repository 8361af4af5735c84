# SPDX-License-Identifier: MIT
"""Sampled packets, one by one: a line or a JSON object each."""

import time
from typing import Any

from pktdrop.model.drops import Verdict
from pktdrop.model.sample import Sample
from pktdrop.rules.protocols import Protocols
from pktdrop.samples.words import describe
from pktdrop.text.escaping import json_line, safe
from pktdrop.views.jsonlines import JsonView
from pktdrop.views.kinds import cpu, interface_of, netns_of, reason


def line(sample: Sample, verdict: Verdict, protocols: Protocols) -> str:
    """Return a line as tcpdump(8) has it, with why, where and on which CPU the packet was dropped before it."""
    key = sample.key
    seconds, fraction = divmod(sample.time, 1)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    parts = [
        f"{clock}.{int(fraction * 1e6):06}",
        reason(key, verdict),
        key.call_site,
        f"CPU {cpu(key)}",
        interface_of(key),
        netns_of(key),
        describe(sample.packet, protocols.name),
        *([] if sample.whose is None else [sample.whose]),
    ]
    lines = [" ".join(part for part in parts if part), *(f"    {frame}" for frame in sample.stack)]
    return "".join(f"{safe(text)}\n" for text in lines)


def comment(sample: Sample, verdict: Verdict) -> str:
    """Return what a capture file says of a packet: why, where and on which CPU it was dropped, and whose it is."""
    key = sample.key
    parts = [f"{reason(key, verdict)} at {key.call_site}", f"CPU {cpu(key)}"]
    if sample.whose is not None:
        parts.append(sample.whose)
    if why := verdict.noise or verdict.doubt:
        parts.append(why)
    return ", ".join(parts)


def as_json(sample: Sample, verdict: Verdict, view: JsonView) -> str:
    """Return an object in a line: what a drop has in `trace`, but for its counts, and what a sample has."""
    of_drop: dict[str, Any] = view.kind(sample.key, verdict)
    of_packet = view.sample(sample)
    return json_line({"type": "packet", "drop": of_drop, **of_packet})
