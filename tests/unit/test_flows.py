# SPDX-License-Identifier: MIT
"""Many packets in few words: which are alike, who stood out, and that no sender makes it grow."""

from __future__ import annotations

import pytest

from pktdrop.model.packet import IPV4
from pktdrop.model.sample import Owner, Sample
from pktdrop.rules.protocols import Protocols
from pktdrop.samples.flows import Flow, Standouts, flows, outstanding
from pktdrop.samples.gather import RunSamples, by_kind
from tests.kit.frames import ether, ipv4, tcp, udp
from tests.unit.make import JUDGE, make_doubt, make_drop, make_noise, make_sample

NAMES = Protocols.load()
DNS = Owner(812, "dnsmasq")


def datagram(source: int = 43210, destination: int = 8125, size: int = 48, host: str = "10.0.0.5") -> Sample:
    """A sampled datagram."""
    return make_sample(ether(IPV4, ipv4(17, udp(source, destination, bytes(size)), source=host)))


def test_the_same_packet_again() -> None:
    """Packets that say the same are one line, with their number."""
    assert flows([datagram(), datagram(), datagram()], NAMES.name) == [
        Flow("10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B", None, 3)
    ]


def test_a_client_has_another_port_each_time() -> None:
    """What differs among packets to a service is left out, whether they go there or come from there."""
    there = [datagram(40000 + at, 8125, 10 * at) for at in range(3)]
    back = [datagram(53, 40000 + at) for at in range(2)]
    assert flows([*back, *there], NAMES.name) == [
        Flow("10.0.0.5 > 10.0.0.9:8125 UDP", None, 3),
        Flow("10.0.0.5:53 > 10.0.0.9 UDP 48 B", None, 2),
    ]


def test_the_service_may_be_at_either_end() -> None:
    """From port 53 or to port 53 is not the same, whatever the other port."""
    assert [flow.text for flow in flows([datagram(40000, 53), datagram(53, 40001)], NAMES.name)] == [
        "10.0.0.5:40000 > 10.0.0.9:53 UDP 48 B",
        "10.0.0.5:53 > 10.0.0.9:40001 UDP 48 B",
    ]


def test_what_makes_a_flow_another_one() -> None:
    """Another host, service, flag or process is another line; the most seen comes first."""
    syn, reset = (make_sample(ether(IPV4, ipv4(6, tcp(bits=bits)))) for bits in (2, 4))
    owned = datagram()
    owned.owner = DNS
    found = flows(
        [datagram(), datagram(host="10.0.0.6"), datagram(destination=53), syn, reset, owned, reset], NAMES.name
    )
    assert found[0] == Flow("10.0.0.5:43210 > 10.0.0.9:443 TCP RST 0 B", None, 2)
    assert Flow("10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B", "for dnsmasq[812]", 1) in found
    assert len(found) == 6


def test_packets_without_addresses() -> None:
    """A packet of which nothing is known is a line of its kind, and so are frames of no protocol with addresses."""
    nothing = make_sample(b"", has_mac=False, network=0, key=make_drop(protocol=0))
    lldp = make_sample(ether(0x88CC, b"\2\7"), key=make_drop(protocol=0x88CC))
    assert [flow.text for flow in flows([nothing, nothing, lldp], NAMES.name)] == [
        "no network packet",
        "02:00:00:00:00:0a > 02:00:00:00:00:0b LLDP",
    ]


def test_without_a_mac_header() -> None:
    """The drop says by what a packet begins; and devices without Ethernet have no frames."""
    ip = ipv4(17, udp())
    for sample in (
        make_sample(ip, has_mac=False, network=0),
        make_sample(ip, has_mac=True, network=0),
        make_sample(b"\0" * 4 + ip, has_mac=True, network=4, device_type=512),
        make_sample(ip, has_mac=False, network=-20),
    ):
        assert not sample.is_frame
        assert sample.packet.destination_port == 8125
    before = make_sample(ether(IPV4, ip), network=-70)  # the network header is not set yet
    assert before.is_frame
    assert before.packet.destination_port == 8125


def test_who_stood_out() -> None:
    """Of losses and doubts that are shown, by reason: who sent, where to, and for whom."""
    standouts, some = Standouts(), [datagram(), datagram(host="10.0.0.6"), datagram(destination=53)]
    some[0].owner = DNS
    drops = {make_drop(): some, make_noise(): some, make_doubt(): some[:1], make_drop(reason="HIDDEN"): some}
    standouts.add(drops, {key: None for key in drops if key.reason != "HIDDEN"}, JUDGE)
    assert set(standouts.of_reason) == {("core", "NO_SOCKET"), ("core", "NOT_SPECIFIED")}
    tallies = standouts.of_reason["core", "NO_SOCKET"]
    assert tallies.samples == 3
    assert outstanding(tallies.sources) == ("10.0.0.5", 2)
    assert outstanding(tallies.destinations) == ("10.0.0.9:8125 UDP", 2)
    assert outstanding(tallies.owners) == ("for dnsmasq[812]", 1)
    assert outstanding(type(tallies.owners)()) is None


def test_a_sender_with_many_addresses() -> None:
    """However many addresses there are, few are remembered, and one that is there all the time stands out."""
    standouts, key = Standouts(), make_drop()
    for at in range(3000):
        host = f"10.{at >> 8}.7.{at & 255}"
        standouts.add({key: [datagram(host=host), datagram(at + 1024, 8125)]}, {key: None}, JUDGE)
    tallies = standouts.of_reason["core", "NO_SOCKET"]
    assert max(map(len, (tallies.sources, tallies.destinations))) <= 512
    assert tallies.samples == 6000
    assert outstanding(tallies.sources) == ("10.0.0.5", 3000)


def test_no_more_samples_than_drops() -> None:
    """Of a kind there are no more samples than its drops, and none of a kind without."""
    from pktdrop.model.drops import Count

    other = make_drop(cpu=1)
    some = [datagram(), datagram(), make_sample(key=other)]
    found = by_kind(some, {make_drop(): Count(1, 76)})
    assert found == {make_drop(): some[:1]}


def test_a_run_remembers_some() -> None:
    """Of each kind the first ones stay, as many as asked for, and of all kinds not too many; all are counted."""
    run = RunSamples()
    first = [datagram(), datagram()]
    run.add({make_drop(): first})
    run.add({make_drop(): [datagram() for _ in range(8)]})
    assert run.taken == {make_drop(): 10}
    assert run.first[make_drop()][:2] == first
    assert len(run.first[make_drop()]) == 8
    for cpu in range(5000):
        run.add({make_drop(cpu=cpu, reason="X"): [datagram()]})
    assert sum(map(len, run.first.values())) == 2048
    assert sum(run.taken.values()) == 5010


def test_kinds_beyond_those_that_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """New ones are left out; of those that are known samples are counted on."""
    monkeypatch.setattr("pktdrop.samples.gather._KINDS", 2)
    run, kinds = RunSamples(), [make_drop(cpu=cpu) for cpu in range(3)]
    for _ in range(2):
        for kind in kinds:
            run.add({kind: [datagram()]})
    assert run.taken == {kinds[0]: 2, kinds[1]: 2}
