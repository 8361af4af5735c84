# SPDX-License-Identifier: MIT
"""Which causes a user means."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import DemoCause
from pktdrop.errors import WrongUse

USUAL = ("udp_closed_port", "receive_buffer_full", "nftables_input", "no_route", "udp_checksum", "shaper_full")
"""Without a word of the user's: one or two of each layer, and each with another remedy."""


def choose(patterns: Sequence[str], causes: Iterable[DemoCause] = CAUSES) -> tuple[DemoCause, ...]:
    """Return the causes whose names match, or the usual ones. Raises WrongUse for what matches none."""
    known = {cause.name: cause for cause in causes}
    chosen: dict[str, DemoCause] = {}
    for pattern in patterns or USUAL:
        matching = {name: cause for name, cause in known.items() if fnmatchcase(name, pattern.lower())}
        if not matching:
            near = get_close_matches(pattern, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "See 'pktdrop demo --list'."
            raise WrongUse(f"there is no cause {pattern!r}. {hint}", "CAUSE")
        chosen |= matching
    return tuple(chosen.values())
