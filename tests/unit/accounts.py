# SPDX-License-Identifier: MIT
"""Accounts of a window, made by the real ledger, and a host whose values a test chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pktdrop.account import Account
from pktdrop.diagnosis.diagnosis import Circumstances, Diagnosis, diagnosis_of
from pktdrop.diagnosis.values import HostValues
from pktdrop.host.namespaces import Namespaces
from pktdrop.ledger.books import Books
from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import SOURCES, Counters, Row, Scope
from pktdrop.model.drops import Count, DropKey, Netns, Uncounted
from pktdrop.model.snapshots import Interval
from pktdrop.observe.ask import Asker
from pktdrop.rules.match import Value
from pktdrop.rules.rules import Rules
from tests.kit.windows import FixedWindows
from tests.unit.make import NOON, make_look

HOST, BLUE = Netns(4026531833, 1), Netns(4026532281, 7)
TRACED = {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}
UNTRACED = {"kfree_skb": "none", "enqueue_to_backlog": "none"}
RULES = Rules.load()
DNS = Scope(netns=HOST, socket="udp 0.0.0.0:53 ino:812")
"""A socket of dnsmasq."""

Increments = Mapping[str, Mapping[Scope, Mapping[str, int]]]


def make_counters(**changes: Any) -> Counters:
    """Counters of two namespaces and two CPUs, as they stand at NOON."""
    rows: dict[str, Any] = {source: {} for source in SOURCES}
    rows["links"] = {
        Scope(netns=netns, interface=name): Row((), ()) for netns in (HOST, BLUE) for name in ("lo", "eth0")
    }
    rows["softnet"] = {Scope(cpu=cpu): Row((), ()) for cpu in (0, 1)}
    values: dict[str, Any] = {
        "time": NOON,
        "monotonic": 10.0,
        "rows": rows,
        "gauges": {"softnet": {}, "qdisc": {}, "socket": {}},
        "drivers": {},
        "inodes": {},
        "netns": frozenset((HOST, BLUE)),
        "failed": frozenset(),
        "limits": (),
    }
    return Counters(**(values | changes))


def make_account(
    drops: Mapping[DropKey, int] | None = None,
    increments: Increments | None = None,
    drivers: Mapping[str, str] | None = None,
    rungs: Mapping[str, str] = TRACED,
    uncounted: Uncounted | None = None,
    late: Mapping[DropKey, int] | None = None,
    rules: Rules = RULES,
) -> Account:
    """Ten seconds that end at NOON; the ledger is made of drops and counters by the real tables.

    Of the drops, those in `late` happened while the counters were read for the last time.
    """
    counts = {key: Count(packets, 60 * packets) for key, packets in (drops or {}).items()}
    driver_of: dict[tuple[int | None, str], str] = {(HOST, name): driver for name, driver in (drivers or {}).items()}
    books = Books(rungs, rules)
    books.learn_drivers(driver_of)
    inner = {key: Count(count.packets - (late or {}).get(key, 0), 0) for key, count in counts.items()}
    windows = FixedWindows(inner, counts)
    unattributed = sum(uncounted) if uncounted else 0
    ledger = books.of_interval(counts, increments or {}, windows, {HOST, BLUE}, unattributed, is_last=True)
    interval = Interval(start=NOON - 10, end=NOON, seconds=10.0, drops=counts, uncounted=uncounted or Uncounted(0, 0))
    return Account(
        interval, ledger, increments or {}, make_look(make_counters(drivers=driver_of)), windows, rules.layers.of
    )


def asked(counters: Counters) -> HostValues:
    """This host, which answers now."""
    namespaces = Namespaces()
    namespaces.own()
    namespaces.paths()
    return HostValues(make_look(counters, namespaces=namespaces.known), Asker(namespaces, counters))


@dataclass
class KnownHost:
    """A host of which just these names and values are known."""

    values: Mapping[str, Value] = field(default_factory=dict)
    processes: Mapping[Scope, str] = field(default_factory=lambda: {DNS: "dnsmasq"})

    def value(self, name: str, whereabouts: Whereabouts) -> Value | None:
        """Return a value, and what follows from the place itself."""
        return (
            {"interface": whereabouts.interface, "in_netns": "", "in_first_netns": ""}.get(name)
            if name not in self.values
            else self.values[name]
        )

    def netns(self, netns: int | None) -> str | None:
        """Return "host" or "blue"."""
        return {HOST: "host", BLUE: "blue"}.get(netns or 0)

    def process(self, scope: Scope) -> str | None:
        """Return the process of a socket."""
        return self.processes.get(scope)


def judge(account: Account, rungs: Mapping[str, str] = TRACED, **changes: Any) -> Diagnosis:
    """Diagnose an account; values of the host, limits and so on can be given."""
    how = Circumstances(
        rungs=rungs,
        limits=changes.get("limits", ()),
        present=changes.get("present", frozenset((HOST, BLUE))),
        sees_all=changes.get("sees_all", True),
        **({"peaks": changes["peaks"]} if "peaks" in changes else {}),
    )
    return diagnosis_of(account, how, changes.get("host", KnownHost()), RULES)
