# SPDX-License-Identifier: MIT
"""What to do about the losses of a row: the remedies of `pktdrop diagnose`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pktdrop.top.subjects import (
    NO_EVENT,
    CounterScope,
    Cpu,
    InterfaceQueue,
    OneNetns,
    Reason,
    SampledFlow,
    SampledProcess,
    Subject,
)
from pktdrop.watch import Watch

if TYPE_CHECKING:
    from pktdrop.diagnosis.diagnosis import Advised
    from pktdrop.ledger.loss import Loss


def advised(watch: Watch) -> "tuple[Advised, ...]":
    """Return the losses since the watch began, with what to do about each.

    Asks for the host's own values: in the thread that reads.
    """
    from pktdrop.diagnosis.diagnosis import Circumstances, diagnosis_of  # not needed before the first loss
    from pktdrop.diagnosis.values import HostValues

    account = watch.whole()
    host = HostValues(account.look, watch.ask)
    return diagnosis_of(account, Circumstances(watch.kernel.rungs), host, watch.rules).losses


def concerning(subject: Subject, losses: "Iterable[Advised]") -> list[str]:
    """Return what to do about the losses of a row, each thing once."""
    said: dict[str, None] = {}
    for one in losses:
        if _is_meant(subject, one.loss):
            for advice in one.advice:
                command = f" {advice.command}" if advice.command else ""
                cost = f" ({advice.cost})" if advice.cost else ""
                said[f"{advice.say}{command}{cost}"] = None
    return list(said)


def _is_meant(subject: Subject, loss: "Loss") -> bool:
    whereabouts = loss.whereabouts
    match subject:
        case Reason(layer, name, noise, doubt):
            named = name in loss.reasons or (name == NO_EVENT and loss.without_event > 0)
            return noise is None and doubt is None and layer == loss.layer and named
        case Cpu(number):
            return number == whereabouts.cpu or number in whereabouts.sources
        case InterfaceQueue(netns, interface):
            return (whereabouts.netns, whereabouts.interface) == (netns, interface)
        case OneNetns(netns):
            return whereabouts.netns == netns
        case CounterScope(counter):
            return counter in loss.counters
        case SampledFlow() | SampledProcess():
            return False  # of which loss they are is not known
