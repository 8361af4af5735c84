# SPDX-License-Identifier: MIT
"""What a run cannot know, as facts. The sentences are made once, at the end: see `views.limits`."""

from collections.abc import Iterable
from typing import NamedTuple

from pktdrop.model.drops import Netns


class Limit(NamedTuple):
    """One thing that a run cannot know, and how much of it."""

    kind: str
    """Key of `views.limits.SENTENCES`, which say it in words."""
    names: tuple[str, ...] = ()
    """What it is about: namespaces, interfaces, files, protocols or causes; of many the first ones."""
    why: str = ""
    """In the words of the kernel, or of whatever refused."""
    do: str = ""
    """What the user can do about the limit, a sentence."""
    number: int = 0
    """How many things the limit holds for; 0: not counted."""
    of: int = 0
    """Of how many."""
    source: str = ""
    """Whose counters it is about: a key of `views.limits.SOURCES`; empty: not of one source alone."""
    netns: Netns | None = None
    """Network namespace whose counters could not be read."""


def refused(error: OSError | ValueError, kind: str = "refused", *names: str) -> Limit:
    """Return that something could not be read."""
    why = error.strerror if isinstance(error, OSError) else None
    return Limit(kind, names, why or str(error))


def of_source(source: str, netns: Netns | None, limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Return limits as those of a source's counters in a namespace."""
    return tuple(one._replace(source=source, netns=netns) for one in limits)
