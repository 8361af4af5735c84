# SPDX-License-Identifier: MIT
"""Differences of two readings of all counters, and which of them tell of loss."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from pktdrop.cli import main
from pktdrop.counters.collect import Collector, since
from pktdrop.host.namespaces import Namespaces
from pktdrop.ledger.told import Meanings, Told
from pktdrop.model.counters import Counters, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.drivers import Drivers
from pktdrop.rules.identities import Identities
from pktdrop.views.counters import as_table, nothing
from pktdrop.views.limits import sentences
from pktdrop.views.scope import scope_text

CPU1 = Scope(cpu=1)
ETH0 = Scope(netns=Netns(4026531840, 1), interface="eth0")


def reading(**sources: Mapping[Scope, Row]) -> Counters:
    """Make a reading of some sources, with ixgbe behind eth0."""
    drivers = {(Netns(4026531840, 1), "eth0"): "ixgbe"}
    rows = {"softnet": {}, "links": {}, "driver": {}, "mib": {}, **sources}
    return Counters(0.0, 0.0, rows, {"softnet": {}}, drivers, {}, frozenset(), frozenset(), ())


def told(counters: Counters) -> dict[str, Told]:
    """Return what each counter says, by its name."""
    return {one.counter: one for one in Meanings(Identities.load(), Drivers.load()).told(counters)}


def test_softnet_wraps_at_32_bits() -> None:
    """Columns of softnet_stat are 32 bits wide (kernel: seq_printf("%08x") in softnet_seq_show)."""
    before = reading(softnet={CPU1: Row(("dropped",), (0xFFFFFFFF,))})
    after = reading(softnet={CPU1: Row(("dropped",), (4,))})
    assert since(before, after).rows["softnet"][CPU1].values == (5,)


def test_a_driver_that_was_loaded_anew_counts_from_zero() -> None:
    """A 64-bit counter that fell was reset: what it shows was counted since."""
    before, after = (reading(links={ETH0: Row(("rx_dropped",), (value,))}) for value in (1000, 3))
    assert since(before, after).rows["links"][ETH0].values == (3,)


def test_names_may_come_and_go() -> None:
    """A driver that has other counters than before (a queue more) is compared by name."""
    before = reading(driver={ETH0: Row(("ethtool.a", "ethtool.b"), (10, 20))})
    after = reading(driver={ETH0: Row(("ethtool.b", "ethtool.c"), (25, 7))})
    assert since(before, after).rows["driver"][ETH0].values == (5, 7)


def test_a_new_interface_counts_from_zero_and_a_gone_one_is_left_out() -> None:
    """What was not there before rose from zero; what is gone says nothing."""
    gone, new = Scope(netns=Netns(1), interface="gone"), Scope(netns=Netns(1), interface="new")
    before, after = (reading(links={scope: Row(("rx_dropped",), (9,))}) for scope in (gone, new))
    assert dict(since(before, after).rows["links"]) == {new: Row(("rx_dropped",), (9,))}


def test_traffic_is_not_loss() -> None:
    """Packets that were received tell nothing of loss; drops do, in the words of the layers; LLDP is in rx_dropped."""
    one = told(
        reading(
            links={ETH0: Row(("rx_packets", "rx_dropped"), (5, 6))},
            mib={Scope(netns=Netns(1)): Row(("UdpInDatagrams", "UdpRcvbufErrors"), (7, 8))},
        )
    )
    assert [one[name].layer_or_class for name in ("links.rx_packets", "mib.UdpInDatagrams")] == [None, None]
    assert (one["links.rx_dropped"].is_loss, one["links.rx_dropped"].layer_or_class) == (False, "any")
    assert (one["mib.UdpRcvbufErrors"].is_loss, one["mib.UdpRcvbufErrors"].layer_or_class) == (True, "socket")


def test_a_warning_is_no_loss() -> None:
    """time_squeeze is a softirq that ran out of budget, not a lost packet (kernel: net_rx_action)."""
    assert not told(reading(softnet={CPU1: Row(("time_squeeze",), (3,))}))["softnet.time_squeeze"].is_loss


def test_a_driver_speaks_in_its_own_words() -> None:
    """ixgbe: rx_no_dma_resources counts empty rings, rx_missed_errors a full FIFO (82599 datasheet: QPRDC, MPC)."""
    row = Row(("ethtool.rx_no_dma_resources", "ethtool.rx_missed_errors", "ethtool.rx_packets"), (1, 2, 3))
    one = told(reading(driver={ETH0: row}))
    assert [one[name].layer_or_class for name in row.names] == ["ring", "fifo", None]
    assert not any(one[name].is_guess for name in row.names)


def test_loss_stands_above_hints() -> None:
    """The table starts with what was lost; a hint says that it is one, a guess has a question mark."""
    rows = [
        Told("softnet.time_squeeze", CPU1, 900, "backlog", is_loss=False, is_guess=False),
        Told("ethtool.rx_overflow", ETH0, 5, "fifo", is_loss=True, is_guess=True),
    ]
    assert as_table(rows, None, 80, lambda netns: "host") == (
        "count  tells of       of     counter\n"
        "    5  fifo?          eth0   ethtool.rx_overflow\n"
        "  900  hint: backlog  CPU 1  softnet.time_squeeze\n"
    )


def test_nothing_is_said_of_what_was_read_only() -> None:
    """Where other namespaces lose packets, "nothing moved" would be untrue: it says that they were not read."""
    assert nothing(differences=True, all_netns=True) == "no counter of lost packets moved."
    assert nothing(differences=False, all_netns=False) == (
        "no counter of lost packets is above 0. Other network namespaces were not read (--all-netns)."
    )


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (CPU1, "CPU 1"),
        (ETH0, "eth0 (blue)"),
        (ETH0._replace(queue=3), "eth0 queue 3 (blue)"),
        (Scope(netns=Netns(4026531840, 1)), "netns blue"),
        (Scope(), "whole host"),
    ],
)
def test_a_counter_belongs_somewhere(scope: Scope, text: str) -> None:
    """A reader sees which CPU, interface, queue and namespace a counter is of."""
    assert scope_text(scope, lambda netns: "blue") == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--like", "sar"), "INTERVAL"),
        (("--like", "netstat", "--format", "json"), "--like"),
        (("--like", "top"), "netstat"),
        (("0",), "0.1"),
        (("1", "0"), "COUNT"),
    ],
)
def test_wrong_uses(arguments: tuple[str, ...], said: str) -> None:
    """A wrong use ends with status 2 and says what is wrong."""
    result = CliRunner().invoke(main, ["counters", *arguments])
    assert result.exit_code == 2
    assert said in result.output.splitlines()[-1]


class Refusing(Namespaces):
    """A host whose other namespaces cannot be entered."""

    def __init__(self, others: Sequence[Netns], error: int = errno.EPERM) -> None:
        """Take the others, and what setns(2) says of them."""
        super().__init__()
        self.others, self.error = others, error

    def name(self, netns: Netns) -> str | None:
        """Return "n1" and so on."""
        return f"n{netns.inode}" if netns in self.others else super().name(netns)

    @contextmanager
    def entered(self, netns: Netns) -> Iterator[None]:
        """Raise as setns(2) does."""
        raise OSError(self.error, os.strerror(self.error))
        yield


def test_namespaces_that_may_not_be_entered_are_one_sentence() -> None:
    """There may be hundreds: their number is said, and the first names."""
    others = [Netns(number, number) for number in range(1, 6)]
    collector = Collector(Refusing(others))
    said = [limit for limit in sentences(collector.read(others).limits) if "entered" in limit]
    assert said == ["5 network namespaces cannot be entered (n1, n2, n3 and 2 more): Operation not permitted."]
    said = [limit for limit in sentences(collector.read(others[:2]).limits) if "entered" in limit]
    assert said == ["2 network namespaces cannot be entered (n1 and n2): Operation not permitted."]
    said = [limit for limit in sentences(collector.read(others[:1]).limits) if "entered" in limit]
    assert said == ["Network namespace n1 cannot be entered: Operation not permitted."]


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESTALE])
def test_a_namespace_that_is_gone_is_no_limit(error: int) -> None:
    """Its name is gone, or another one has its inode: there is nothing that could be read."""
    found = Collector(Refusing([Netns(1, 1)], error)).read([Netns(1, 1)])
    assert Netns(1, 1) not in found.netns
    assert [limit for limit in found.limits if limit.names == ("n1",)] == []


def test_what_there_is_no_time_for_is_counted() -> None:
    """The own namespace is always read; of the others those before it is over."""
    namespaces = Namespaces()
    others = [Netns(number, number) for number in range(1, 6)]
    found = Collector(namespaces).read(others, lambda netns: netns.inode == 3)
    assert (found.netns, found.late) == ({namespaces.own()}, 3)


class Vanishing(Namespaces):
    """A host whose other namespaces can be entered so many times before they are gone."""

    def __init__(self, times: int) -> None:
        """Take how many."""
        super().__init__()
        self.times = times

    @contextmanager
    def entered(self, netns: Netns) -> Iterator[None]:
        """Stay where it is, as if it was there."""
        if not self.times:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        self.times -= 1
        yield


def test_the_first_reading_reads_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces with one address are no reason: none can have moved since a reading before."""
    monkeypatch.setattr("pktdrop.counters.collect.addresses", lambda names: dict.fromkeys(names, b"\2\0\0\0\0\1"))
    namespaces = Vanishing(2)
    assert Collector(namespaces).read([Netns(1, 1), Netns(2, 2)]).netns == {
        Netns(1, 1),
        Netns(2, 2),
        namespaces.own(),
    }


def test_nothing_is_left_of_a_namespace_that_ends_before_it_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interfaces may have moved to another one meanwhile: it is read again, unless it is gone by then."""
    monkeypatch.setattr("pktdrop.counters.collect.addresses", lambda names: dict.fromkeys(names, b"\2\0\0\0\0\1"))
    one, other = Netns(1, 1), Netns(2, 2)
    collector = Collector(Vanishing(3))
    assert one in collector.read([one]).read_at
    found = collector.read([one, other])
    assert other in found.netns
    assert one not in {*found.read_at, *found.netns, *(netns for netns, _ in found.drivers)}
    assert one not in {scope.netns for scope in (*found.rows["links"], *found.inodes)}
