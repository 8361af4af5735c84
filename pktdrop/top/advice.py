# SPDX-License-Identifier: MIT
"""What to do about the losses of a row: the remedies of `pktdrop diagnose`."""

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from pktdrop.account import Account
from pktdrop.top.history import NO_EVENT, Reason
from pktdrop.watch import Watch

if TYPE_CHECKING:
    from pktdrop.diagnosis.diagnosis import Advised, Tables
    from pktdrop.ledger.loss import Loss


class Adviser:
    """Judges what has been lost so far, with the host's own values. Asks for them: in the thread that reads."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._tables: Tables | None = None

    def losses(self, watch: Watch) -> "tuple[Advised, ...]":
        """Return the losses since the watch began, with advice."""
        from pktdrop.diagnosis.diagnosis import Circumstances, Tables, diagnose  # not needed before the first loss
        from pktdrop.diagnosis.values import Host

        if self._tables is None:
            self._tables = Tables.load(watch.kernel.reasons)
        account: Account = watch.whole()
        host = Host(account.look, watch.ask)
        return diagnose(account, Circumstances(watch.kernel.rungs), host, self._tables).losses


def concerning(key: Hashable, losses: "Iterable[Advised]") -> list[str]:
    """Return what to do about the losses of a row, each thing once."""
    said: dict[str, None] = {}
    for one in losses:
        if _is_meant(key, one.loss):
            for advice in one.advice:
                command = f" {advice.command}" if advice.command else ""
                cost = f" ({advice.cost})" if advice.cost else ""
                said[f"{advice.say}{command}{cost}"] = None
    return list(said)


def _is_meant(key: Hashable, loss: "Loss") -> bool:
    whereabouts = loss.whereabouts
    if isinstance(key, Reason):
        named = key.name in loss.reasons or (key.name == NO_EVENT and loss.without_event > 0)
        return key.noise is None and key.doubt is None and key.layer == loss.layer and named
    if isinstance(key, int):
        return key == whereabouts.cpu or key in whereabouts.sources
    if not isinstance(key, tuple):
        return False
    if key[0] == "ledger":
        return key[1] in loss.counters
    return bool(
        whereabouts.netns == key[1] if key[0] == "netns" else (whereabouts.netns, whereabouts.interface) == key[:2]
    )
