# SPDX-License-Identifier: MIT
"""The options of commands that trace: which drops to show, and how to attach the probes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pktdrop.cli.options import family
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel import probes
from pktdrop.kernel.cache import Cache, default_directory
from pktdrop.kernel.extras import USUAL, Extras
from pktdrop.kernel.tracer import MAP_ENTRIES, Tracer
from pktdrop.process.messages import say
from pktdrop.text.escaping import safe

if TYPE_CHECKING:
    from pktdrop.filters import Filter
    from pktdrop.kernel.pcap import Instruction


@dataclass(frozen=True)
class Choice:
    """Which drops to show, as given."""

    reasons: tuple[str, ...]
    interfaces: tuple[str, ...]
    netns: tuple[str, ...]
    containers: tuple[str, ...]
    cpus: tuple[str, ...]
    protocols: tuple[str, ...]
    no_noise: bool

    def filters(self, namespaces: Namespaces) -> "tuple[Filter, ...]":
        """Return what is meant. Raises WrongUse and PktdropError; warns of what is not there."""
        given = self.reasons, self.interfaces, self.netns, self.containers, self.cpus, self.protocols
        if not any(given):
            return ()
        from pktdrop.cli.choosing import filters

        return filters(*given, namespaces)


@dataclass(frozen=True)
class Matching:
    """Which packets to show, as given."""

    expressions: tuple[str, ...]
    ports: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def program(self) -> "tuple[Instruction, ...]":
        """Return the program that finds them; empty: it is all. Raises WrongUse and PktdropError."""
        if not (self.expressions or self.ports or self.hosts):
            return ()
        from pktdrop.cli.matching import program

        return program(self.expressions, self.ports, self.hosts)


@dataclass(frozen=True)
class Attaching:
    """How to attach the probes, as the options say."""

    no_cache: bool
    rungs: tuple[str, ...]
    """The only rungs to try, for both probes; none: all rungs, the best first."""
    map_entries: int

    def tracer(self, namespaces: Namespaces, extras: Extras = USUAL) -> Tracer:
        """Attach them; warn where programs were kept that cannot be trusted. Raises PktdropError."""
        cache = Cache(None if self.no_cache else default_directory())
        tracer = Tracer(namespaces, self.rungs, self.map_entries, cache, extras)
        if cache.mistrusted:
            say(f"Warning: the compiled programs that are kept were not read: {safe(cache.mistrusted)}.")
        return tracer


CHOICE = family(
    Choice,
    click.option("--reason", "reasons", multiple=True, metavar="REASON",
                 help="Show only this drop reason: NO_SOCKET, 'TCP_*', openvswitch/..."),
    click.option("--interface", "interfaces", multiple=True, metavar="NAME", help="Show only this interface."),
    click.option("--netns", "netns", multiple=True, metavar="NAME",
                 help="Show only this namespace: name or inode."),
    click.option("--container", "containers", multiple=True, metavar="NAME",
                 help="Show only this container or pod: web-1, shop/cart-7f9."),
    click.option("--cpu", "cpus", multiple=True, metavar="N",
                 help="Show only this CPU, dropping or with a full backlog."),
    click.option("--protocol", "protocols", multiple=True, metavar="NAME",
                 help="Show only this ethertype: IPv4, 0x88cc."),
    click.option("--no-noise", is_flag=True, help="Hide frees that are no loss."),
)  # fmt: skip
MATCHING = family(
    Matching,
    click.option("--filter", "expressions", multiple=True, metavar="EXPRESSION",
                 help="Show only packets that match, as tcpdump does: 'udp port 53'."),
    click.option("--port", "ports", multiple=True, metavar="PORT",
                 help="Show only packets from or to this port: 53, 8000-8100."),
    click.option("--host", "hosts", multiple=True, metavar="ADDRESS",
                 help="Show only packets from or to this host or network."),
)  # fmt: skip
ATTACHING = family(
    Attaching,
    click.option("--no-cache", is_flag=True, help="Compile the programs anew, and keep nothing."),
    click.option("--probe", "rungs", multiple=True, type=click.Choice([*probes.KFREE_SKB, *probes.BACKLOG]),
                 hidden=True),
    click.option("--map-entries", type=click.IntRange(min=1), default=MAP_ENTRIES, hidden=True),
)  # fmt: skip
