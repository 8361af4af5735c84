# SPDX-License-Identifier: MIT
"""A diagnosis as text or as JSON. JSON keys and their meaning: README, "Diagnosis"."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pktdrop.diagnosis.diagnosis import NATURE_WORDS, Advised, Diagnosis, Noise
from pktdrop.diagnosis.stations import Station
from pktdrop.diagnosis.who import Who
from pktdrop.rules.remedies import Advice
from pktdrop.text.escaping import json_line, safe
from pktdrop.text.table import Column, table
from pktdrop.text.wording import counted, listed, number, share
from pktdrop.views.limits import sentences
from pktdrop.views.scope import as_object

_STATIONS = (
    Column("station"),
    Column("state"),
    Column("lost", "right"),
    Column("what was seen", least=20, wrap=True),
)
_STATES = {"ok": "ok", "unseen": "? unseen", "warning": "! warning", "loss": "!! LOSS"}
_SHOWN = 12
"""Losses with advice; of more only their number: nobody reads on."""
_INDENT = "   "
_JOINED = "\0"
"""A blank where no line may end; not in texts, as these are escaped."""


def as_text(diagnosis: Diagnosis, width: int) -> str:
    """Return the verdict, what was watched, the stations, and for each loss why and what to change."""
    parts = [_filled(diagnosis.verdict, width)]
    if diagnosis.lost:
        parts.append(_filled(_natures(diagnosis), width))
    parts.append(_filled(_watched(diagnosis), width))
    parts.append(table(_STATIONS, [_station(station) for station in diagnosis.stations], width))
    parts += _losses(diagnosis, width)
    if diagnosis.doubt:
        packets = sum(one.packets for one in diagnosis.doubt)
        they_were = "it was" if packets == 1 else "they were"
        opening = f"{counted(packets, 'packet')} of which it is not known whether {they_were} lost"
        parts.append(_filled(f"{opening}: {_told(diagnosis.doubt)}.", width))
    if diagnosis.noise:
        packets = sum(one.packets for one in diagnosis.noise)
        opening = f"Not lost: {counted(packets, 'packet')} freed without loss (noise)"
        parts.append(_filled(f"{opening}: {_told(diagnosis.noise)}.", width))
    if diagnosis.limits:
        parts.append(
            "\n".join(["What could not be seen:", *(_item(limit, width) for limit in sentences(diagnosis.limits))])
        )
    return "\n\n".join(parts) + "\n"


def status(elapsed: float, duration: float | None, lost: int, width: int) -> str:
    """Return the status line that is shown while diagnose watches."""
    of = f" of {duration:.0f} s" if duration is not None else " s"
    seen = f"{counted(lost, 'packet')} lost so far" if lost else "nothing lost so far"
    return f"{elapsed:.0f}{of} watched, {seen}; Ctrl-C ends it now"[: width - 1]


def _natures(diagnosis: Diagnosis) -> str:
    """Tell capacity from policy and the rest, with numbers that add up."""
    told = [
        f"{number(packets)} {NATURE_WORDS[nature]} ({nature}, {share(packets, diagnosis.lost)})"
        for nature, packets in diagnosis.natures.items()
    ]
    none = "" if "capacity" in diagnosis.natures else " None for lack of room (capacity)."
    return f"Lost: {', '.join(told)}.{none}"


def _watched(diagnosis: Diagnosis) -> str:
    """Say what the verdict is based on."""
    watched = diagnosis.watched
    probes = (
        "drops traced by " + ", ".join(f"{probe}: {rung}" for probe, rung in watched.rungs.items())
        if watched.traced
        else "counters only, drops not traced"
    )
    unread = f" ({number(watched.unread)} more could not be read)" if watched.unread else ""
    if not watched.sees_all and not watched.unread:
        unread = " (those of other users cannot be seen)"
    counts = ", ".join(
        (
            counted(watched.interfaces, "interface"),
            counted(watched.cpus, "CPU"),
            counted(watched.namespaces, "network namespace"),
        )
    )
    return f"Watched: {counts}{unread}; {counted(watched.received, 'packet')} received in that time; {probes}."


def _station(station: Station) -> tuple[str, ...]:
    facts = "; ".join(station.facts) or "-"
    return station.layer, _STATES[station.status], number(station.packets) if station.packets else "-", facts


def _losses(diagnosis: Diagnosis, width: int) -> Iterator[str]:
    """Yield a paragraph for each loss."""
    others = [loss for loss in diagnosis.losses if loss.matches == 0]
    small = [loss for loss in diagnosis.losses if loss.is_small and loss.matches != 0]
    large = [loss for loss in diagnosis.losses if not loss.is_small and loss.matches != 0]
    shown = large[:_SHOWN]
    for index, loss in enumerate(shown):
        yield _loss(index + 1, loss, diagnosis, width)
    more = large[_SHOWN:]
    if more:
        packets = sum(one.loss.packets for one in more)
        yield _filled(
            f"and {counted(packets, 'packet')} ({share(packets, diagnosis.lost)}) in {counted(len(more), 'place')} "
            "more: --format json has all of them.",
            width,
        )
    if small:
        packets = sum(one.loss.packets for one in small)
        where = listed([f"{number(one.loss.packets)} {one.where}" for one in small])
        other = "other place" if large else "place"
        yield _filled(
            f"{'and ' * bool(large)}{counted(packets, 'packet')} ({share(packets, diagnosis.lost)}) in "
            f"{counted(len(small), other)}, too few to change anything for: {where}.",
            width,
        )

    if others:
        packets = sum(one.loss.packets for one in others)
        yield _filled(
            f"filtered: {counted(packets, 'packet')} ({share(packets, diagnosis.lost)}) in "
            f"{counted(len(others), 'place')}, where no packet matches.",
            width,
        )


def _loss(position: int, advised: Advised, diagnosis: Diagnosis, width: int) -> str:
    one = advised.loss
    amount = f"{counted(one.packets, 'packet')} ({share(one.packets, diagnosis.lost)})"
    evidence = ", ".join((*one.reasons, *one.counters))
    matching = "" if advised.matches is None else f"; {number(advised.matches)} match the filter"
    lines = [
        _filled(f"{position}. {amount} {advised.where}{matching}", width, "", _INDENT),
        _labelled("Class", f"{one.nature} ({NATURE_WORDS[one.nature]}); {evidence}", width),
        _labelled("Why", one.cause.why, width),
    ]
    if advised.who is not None:
        lines.insert(2, _labelled("Who", f"{advised.who}.", width))
    if one.note:
        lines.append(_labelled("Note", f"no drop event accounts for it: {one.note}", width))
    return "\n".join([*lines, *(line for advice in advised.advice for line in _advice(advice, width))])


def _advice(advice: Advice, width: int) -> Iterator[str]:
    yield _labelled("Do", advice.say, width)
    if advice.command is not None:
        yield f"{_INDENT + ' ' * 7}{safe(advice.command)}"  # never wrapped: it is to be copied
    if advice.cost is not None:
        yield _labelled("Cost", advice.cost, width)


def _told(frees: Sequence[Noise]) -> str:
    told = [f"{number(one.packets)} {safe(one.reason)} ({one.why})" for one in frees[:_SHOWN]]
    more = len(frees) - _SHOWN
    return ", ".join([*told, f"and {counted(more, 'kind')} more"][: len(told) + (more > 0)])


def _item(text: str, width: int) -> str:
    return _filled(f"- {text[:1].upper()}{text[1:]}", width, "", "  ")


def _labelled(label: str, text: str, width: int) -> str:
    return _filled(f"{label + ':':<7}{text}", width, _INDENT, _INDENT + " " * 7)


def _filled(text: str, width: int, first: str = "", later: str = "") -> str:
    """Wrap a text; a number and its percent sign stay together."""
    joined = safe(text).replace(" %", f"{_JOINED}%")
    filled = textwrap.fill(joined, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
    return filled.replace(_JOINED, " ")


# ------------------------------------------------------------------------------------------------------------- JSON


def as_json(diagnosis: Diagnosis, failed: Sequence[str], version: str) -> str:
    """Return one object on a line; `failed` are the conditions of --fail-on that hold."""
    watched = diagnosis.watched
    return json_line(
        {
            "type": "diagnosis",
            "version": version,
            "start": diagnosis.start,
            "end": diagnosis.end,
            "verdict": diagnosis.verdict,
            "packets": diagnosis.lost,
            "unexplained": diagnosis.unexplained,
            "uncounted": diagnosis.uncounted,
            "classes": dict(diagnosis.natures),
            "stations": [
                {
                    "layer": station.layer,
                    "status": station.status,
                    "packets": station.packets,
                    "facts": list(station.facts),
                }
                for station in diagnosis.stations
            ],
            "losses": [_loss_object(loss) for loss in diagnosis.losses],
            **{
                verdict: [{"reason": one.reason, "why": one.why, "packets": one.packets} for one in frees]
                for verdict, frees in (("noise", diagnosis.noise), ("doubt", diagnosis.doubt))
            },
            "watched": {
                "interfaces": watched.interfaces,
                "cpus": watched.cpus,
                "namespaces": watched.namespaces,
                "unread": watched.unread,
                "sees_all": watched.sees_all,
                "received": watched.received,
            },
            "probes": dict(watched.rungs),
            "limits": sentences(diagnosis.limits),
            "failed": list(failed),
        }
    )


def _loss_object(advised: Advised) -> dict[str, Any]:
    one, whereabouts = advised.loss, advised.loss.whereabouts
    return {
        "packets": one.packets,
        "layer": one.layer,
        "class": one.nature,
        "cause": one.cause.name,
        "where": advised.where,
        "netns": None if whereabouts.netns is None else whereabouts.netns.inode or None,  # 0: THE_GONE
        "netns_cookie": None if whereabouts.netns is None else whereabouts.netns.cookie,
        "interface": whereabouts.interface,
        "queues": [{"queue": queue, "packets": packets} for queue, packets in whereabouts.queues],
        "target_cpu": whereabouts.cpu,
        "cpus": list(whereabouts.sources),
        "sockets": [as_object(scope) for scope in whereabouts.sockets],
        "qdiscs": list(whereabouts.qdiscs),
        "reasons": list(one.reasons),
        "counters": list(one.counters),
        "guess": one.is_guess,
        "small": advised.is_small,
        "note": one.note,
        **({} if advised.matches is None else {"matches": advised.matches}),
        "who": _who_object(advised.who),
        "why": one.cause.why,
        "advice": [{"say": advice.say, "command": advice.command, "cost": advice.cost} for advice in advised.advice],
    }


def _who_object(who: Who | None) -> dict[str, Any] | None:
    if who is None:
        return None
    most = {"source": who.source, "destination": who.destination, "owner": who.owner}
    return {"samples": who.samples} | {
        name: None if one is None else {"name": one.name, "samples": one.seen} for name, one in most.items()
    }
