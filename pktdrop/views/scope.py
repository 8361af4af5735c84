# SPDX-License-Identifier: MIT
"""What a counter belongs to, in words and in JSON."""

from collections.abc import Callable
from typing import Any

from pktdrop.model.counters import Scope
from pktdrop.model.drops import THE_GONE, Netns

Name = Callable[[Netns], str | None]
"""Gives the name of a network namespace."""


def scope_text(scope: Scope, name: Name) -> str:
    """Write what a counter belongs to: "eth0 queue 3", "CPU 1", "netns blue", "udp 0.0.0.0:53 (blue)"."""
    if scope.cpu is not None:
        return f"CPU {scope.cpu}"
    namespace = (name(scope.netns) or str(scope.netns)) if scope.netns is not None else ""
    if scope.interface is None and scope.socket is None:
        return f"netns {namespace}" if namespace else "whole host"
    text = " ".join(part for part in (scope.interface, scope.qdisc, scope.socket) if part)
    if scope.queue is not None:
        text += f" queue {scope.queue}"
    return f"{text} ({namespace})" if namespace and namespace != "host" else text


def as_object(scope: Scope) -> dict[str, Any]:
    """Return what is known of a scope, by name."""
    known = {key: value for key, value in scope._asdict().items() if value is not None}
    if scope.netns == THE_GONE:
        known |= {"netns": None, "netns_cookie": None, "netns_gone": True}
    elif scope.netns is not None:
        known |= {"netns": scope.netns.inode, "netns_cookie": scope.netns.cookie}
    return known
