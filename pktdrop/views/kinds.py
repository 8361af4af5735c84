# SPDX-License-Identifier: MIT
"""A kind of drop in words: its reason, CPU, interface and namespace."""

from collections.abc import Sequence

from pktdrop.model.drops import DropKey, Verdict
from pktdrop.text.table import DOUBT, MARK
from pktdrop.text.wording import number

_OTHER = "other"
"""Shown as interface and namespace of drops of other places."""


def reason(key: DropKey, verdict: Verdict) -> str:
    """Return the reason, with its subsystem unless that is core, and the mark of noise or doubt."""
    return reason_of(key.subsystem, key.reason) + mark(verdict)


def reason_of(subsystem: str, name: str) -> str:
    """Return a reason by its name, with its subsystem unless that is core."""
    return f"{subsystem}/{name}" if subsystem != "core" or name.isdigit() else name


def mark(verdict: Verdict) -> str:
    """Return what stands behind the name of noise or doubt; nothing of a loss."""
    return ("", DOUBT, MARK)[sort_of(verdict)]


def sort_of(verdict: Verdict) -> int:
    """Return in which order losses, doubts and noise are shown."""
    return 0 if verdict.is_loss else 1 if verdict.doubt is not None else 2


def why(verdict: Verdict) -> str:
    """Return why it is no loss, or may be none; empty for a loss."""
    return verdict.doubt or verdict.noise or ""


def common(texts: Sequence[str]) -> str:
    """Return what all texts are, or how many different ones there are."""
    different = len(set(texts))
    return texts[0] if different == 1 else f"({number(different)})"


def cpu(key: DropKey) -> str:
    """Return the CPU that dropped, "0>3" where the backlog of CPU 3 was full."""
    return str(key.cpu) if key.target_cpu is None else f"{key.cpu}>{key.target_cpu}"


def interface_of(key: DropKey) -> str:
    """Return the interface by name, else by number, else what is known instead."""
    return key.interface or (f"if{key.ifindex}" if key.ifindex else _OTHER if key.other_places else "-")


def netns_of(key: DropKey) -> str:
    """Return the namespace by name, else by number, else what is known instead."""
    return key.netns_name or (str(key.netns) if key.netns else _OTHER if key.other_places else "-")
