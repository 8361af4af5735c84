# SPDX-License-Identifier: MIT
"""What the options that choose drops mean on this host, and a warning of what is not there."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pktdrop.filters import (
    Filter,
    check_reasons,
    container_filter,
    cpu_filter,
    interface_filter,
    is_container,
    netns_filter,
    protocol_filter,
    reason_filter,
)
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import host, sysbpf
from pktdrop.kernel.facts import KernelFacts
from pktdrop.process.messages import say
from pktdrop.rules.protocols import Protocols
from pktdrop.text.escaping import safe


def filters(
    reasons: Sequence[str],
    interfaces: Sequence[str],
    netns: Sequence[str],
    containers: Sequence[str],
    cpus: Sequence[str],
    protocols: Sequence[str],
    namespaces: Namespaces,
) -> tuple[Filter, ...]:
    """Return what the options mean; warn of what is not there. Raises WrongUse, and PktdropError."""
    if reasons:
        check_reasons(reasons, KernelFacts.read().reasons)
    found = (
        reason_filter(reasons),
        interface_filter(interfaces),
        netns_filter(netns),
        container_filter(containers, namespaces.container),
        cpu_filter(cpus),
        protocol_filter(protocols, Protocols.load()),
    )
    _warn_of_interfaces(_names(interfaces))
    _warn_of_namespaces(_names(netns))
    _warn_of_containers(_names(containers))
    _warn_of_cpus(_names(cpus))
    return found


def _names(values: Iterable[str]) -> list[str]:
    return [value.removeprefix("!") for value in values]


def _warn_of_interfaces(wanted: Sequence[str]) -> None:
    """Warn of names that no interface has; it is no error, as one may come later."""
    present = Namespaces().interfaces() if wanted else ()
    for name in wanted:
        if not any(fnmatchcase(one, name) for one in present):
            say(f"Warning: no namespace has an interface '{safe(name)}' now; waiting for it to come.")


def _warn_of_namespaces(wanted: Sequence[str]) -> None:
    """Warn of names and inodes that no namespace has; it is no error, as one may come later."""
    known = Namespaces()
    inodes = known.paths() if wanted else ()
    present = {str(inode) for inode in inodes} | {known.name(inode) or "" for inode in inodes}
    for name in wanted:
        if not any(fnmatchcase(one, name) for one in present):
            say(f"Warning: there is no network namespace '{safe(name)}' now; waiting for it to come.")


def _warn_of_containers(wanted: Sequence[str]) -> None:
    """Warn of containers that no network namespace is of; it is no error, as one may come later."""
    known = Namespaces()
    there = known.paths() if wanted else ()
    found = [known.container(netns) for netns in there if known.name(netns)]
    for name in wanted:
        if not any(one is not None and is_container(one, name) for one in found):
            say(
                f"Warning: no network namespace is of a container '{safe(name)}' now; waiting for it to come. Those in "
                "the host's network, or in a namespace with a name of its own, are not found."
            )


def _warn_of_cpus(wanted: Sequence[str]) -> None:
    """Warn of CPUs that this host cannot have."""
    if not wanted:
        return
    host.require_sys()
    end = sysbpf.cpu_numbers()
    for number in wanted:
        if int(number) >= end:
            say(f"Warning: this host has no CPU {number}, only 0 to {end - 1}: nothing is dropped on it.")
