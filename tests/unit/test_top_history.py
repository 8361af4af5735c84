# SPDX-License-Identifier: MIT
"""What has happened so far: sums, rates, and what they are of."""

from __future__ import annotations

from dataclasses import replace

from pktdrop.filters import Filters, interface_filter
from pktdrop.ledger.entry import Entry
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import THE_GONE, Count, Netns, Uncounted
from pktdrop.top.history import History
from pktdrop.top.reader import Shown
from pktdrop.top.subjects import NO_EVENT, CounterScope, InterfaceQueue, Reason
from tests.unit.make import JUDGE, make_backlog_drop, make_drop, make_ledger, make_noise
from tests.unit.top_steps import BLUE, DROPS, ETH0, HOST, NO_PORTS, busy_look, make_step

EVERYTHING = Filters([])
NO_SOCKET = Reason("socket", "NO_SOCKET", None)


def history_of(*looks: Shown, filters: Filters = EVERYTHING) -> History:
    """A history of some looks."""
    history = History(2.0)
    for look in looks:
        history.add(look.account, filters.select(look.account.interval.drops, JUDGE))
    return history


def test_packets_and_rates_of_a_reason() -> None:
    """Drops of one reason on several CPUs are one row; its rate is that of the last interval."""
    history = history_of(make_step(DROPS), make_step({make_drop(): Count(30, 1)}))
    tally = history.reasons[NO_SOCKET].tally
    assert tally.packets == 1230
    assert tally.rate(history.elapsed) == 15.0


def test_quiet_interval_has_no_rate() -> None:
    """A row that did not move in the last interval has the rate 0 and keeps when it was seen."""
    history = history_of(make_step(DROPS), make_step())
    tally = history.reasons[NO_SOCKET].tally
    assert tally.rate(history.elapsed) == 0.0
    assert (tally.seen, history.elapsed) == (2.0, 4.0)


def test_noise_is_no_loss() -> None:
    """What is no loss has a row of its own and is in no sum of losses."""
    history = history_of(make_step({make_noise(): Count(7, 1), make_drop(interface="eth0"): Count(2, 1)}))
    assert history.noise == 7
    assert history.loss.packets == 2
    assert history.cpus[0].tally.packets == 2
    assert history.cpus[0].noise == 7
    assert history.reasons[Reason("stack", "OTHERHOST*", "frame for another host")].tally.packets == 7


def test_rows_of_a_layer_sum_up_to_what_the_ledger_has() -> None:
    """What the ledger has beyond the events is a row of its own, so that nothing is missing from the table."""
    history = history_of(busy_look())
    rows: dict[str, int] = {}
    for key, group in history.reasons.items():
        if key.noise is None:
            rows[key.layer] = rows.get(key.layer, 0) + group.tally.packets
    assert rows == {"nic-ring": 500, "backlog": 812, "stack": 7, "socket": 1200}
    assert history.reasons[Reason("nic-ring", NO_EVENT, None)].tally.packets == 500
    assert history.reasons[Reason("stack", NO_EVENT, None)].tally.packets == 4
    assert history.loss.packets == 2519


def test_backlog_counts_for_both_cpus() -> None:
    """A drop of CPU 0 for the full backlog of CPU 3 is a drop of the one and a full backlog of the other."""
    history = history_of(make_step({make_backlog_drop(): Count(812, 1)}))
    assert {cpu: group.tally.packets for cpu, group in history.cpus.items()} == {0: 812}
    assert {cpu: tally.packets for cpu, tally in history.targets.items()} == {3: 812}


def test_filters_hide_rows_but_not_the_host() -> None:
    """What a filter of the command line hides is counted as filtered; layers stay those of the whole host."""
    history = history_of(busy_look(), filters=Filters([interface_filter(["eth0"])]))
    assert NO_SOCKET not in history.reasons
    assert history.filtered == 1203
    assert history.layers["socket"].packets == 1200


def test_loss_budget_adds_up() -> None:
    """Events that could not be counted, and packets that stayed unexplained, are summed over all intervals."""
    history = history_of(busy_look(), make_step(uncounted=Uncounted(5, 1)), make_step(uncounted=Uncounted(1, 0)))
    assert history.uncounted == Uncounted(6, 1)
    assert history.unexplained == 4


def test_event_an_interval_late_is_explained() -> None:
    """A counter that rose before its event was read is explained once the event is."""
    early = Entry("socket", "mib.UdpNoPorts", NO_PORTS.scope, 5, 3, 2, "bound", (("NO_SOCKET", 3),), "jitter")
    late = Entry("socket", "mib.UdpNoPorts", NO_PORTS.scope, 1, 1, 0, "bound", (("NO_SOCKET", 3),), "jitter")
    history = history_of(make_step(ledger=make_ledger(early)), make_step(ledger=make_ledger(late)))
    line = history.lines[CounterScope("mib.UdpNoPorts", NO_PORTS.scope)]
    assert (line.delta, line.explained, line.unexplained, line.status) == (6, 6, 0, "exact")


def test_nic_losses_by_class_and_queue() -> None:
    """What the NIC lost is known by class, for the interface and for each queue that lost."""
    history = history_of(busy_look(), busy_look())
    assert history.ports[InterfaceQueue(HOST, "eth0")].stat_classes == {"ring": 1000}
    assert history.ports[InterfaceQueue(HOST, "eth0", 3)].stat_classes == {"ring": 1000}
    assert InterfaceQueue(HOST, "eth0", 0) not in history.ports
    assert history.ports[InterfaceQueue(HOST, "eth0")].driver == "igb"
    assert history.ports[InterfaceQueue(HOST, "eth0")].received == 4500.0


def test_softnet_counters_and_the_backlog_of_now() -> None:
    """Counters of a CPU add up, the length of its backlog is the last one."""
    history = history_of(busy_look(), busy_look())
    processor = history.processors[3]
    assert processor.total == {"processed": 8000, "dropped": 1624, "time_squeeze": 12}
    assert processor.rates["processed"] == 2000.0
    assert processor.backlog["backlog_len"] == 300


def test_empty_interval_divides_by_nothing() -> None:
    """An interval of no length counts packets and has no rate."""
    history = history_of(make_step({make_drop(): Count(4, 1)}, seconds=0.0))
    assert (history.reasons[NO_SOCKET].tally.packets, history.per_second(4)) == (4, 0.0)


def test_a_copy_stays_as_it_was() -> None:
    """What is added later is not in a copy made before: neither in rows nor in what lies behind them."""
    history = history_of(busy_look())
    copy = history.copy()
    look = busy_look()
    history.add(look.account, EVERYTHING.select(look.account.interval.drops, JUDGE))
    assert copy.elapsed == 2.0
    assert copy.loss.packets == 2519
    assert copy.reasons[NO_SOCKET].tally.packets == 1200
    assert copy.drops[make_drop()] == 1000
    assert copy.ports[InterfaceQueue(ETH0.netns, "eth0")].stat_classes == {"ring": 500}
    assert sum(copy.ports[InterfaceQueue(ETH0.netns, "eth0")].counters.values()) == 500
    assert copy.netns[BLUE].tally.packets == 1200
    assert copy.lines[CounterScope(NO_PORTS.counter, NO_PORTS.scope)].delta == 1200


def test_counting_anew_starts_at_zero() -> None:
    """After a reset nothing of before is left but the clock."""
    history = history_of(busy_look()).anew(2.0)
    assert (history.elapsed, history.since, history.loss.packets, history.reasons) == (2.0, 2.0, 0, {})


def test_rows_do_not_grow_with_what_was() -> None:
    """Thousands of namespaces that come, lose and go are a few rows in the end, with all that they lost."""
    history = History(2.0)
    for number in range(1, 3001):
        netns = Netns(number, number)
        scope = Scope(netns=netns)
        key = make_drop(netns=netns, netns_name=f"n{number}", interface="eth0", ifindex=2)
        entry = NO_PORTS._replace(scope=scope, delta=7, explained=7, by=(("NO_SOCKET", 7),))
        look = make_step({key: Count(7, 1)}, ledger=make_ledger(entry))
        rows = {**look.account.counters.rows, "links": {scope._replace(interface="eth0"): Row((), ())}}
        counters = replace(look.account.counters, rows=rows, netns=frozenset((netns,)))
        account = replace(
            look.account, look=replace(look.account.look, counters=counters), is_kept=lambda one, now=netns: one == now
        )
        history.add(account, EVERYTHING.select(account.interval.drops, JUDGE))
    for grown in (history.drops, history.netns, history.interfaces, history.ports, history.lines):
        assert len(grown) < 1400
    assert {key.other_places for key in history.drops} == {True, False}
    assert sum(history.drops.values()) == 7 * 3000
    for groups in (history.netns, history.interfaces, history.cpus, history.reasons):
        rows_of = groups.values()
        assert sum(group.tally.packets for group in rows_of) == 7 * 3000
        assert sum(len(group.keys) for group in rows_of) == len(history.drops)
    assert sum(line.delta for line in history.lines.values()) == 7 * 3000
    assert history.lines[CounterScope("mib.UdpNoPorts", Scope(netns=THE_GONE))].status == "exact"
