# SPDX-License-Identifier: MIT
"""Whose packets a loss was: by the packets that were looked at, of this loss and of no other."""

from __future__ import annotations

import json
from dataclasses import replace

from pktdrop.diagnosis.diagnosis import Circumstances, Diagnosis, diagnosis_of
from pktdrop.diagnosis.who import Seen
from pktdrop.model.drops import DropKey
from pktdrop.model.packet import IPV4
from pktdrop.model.sample import Owner, Sample, Socket
from pktdrop.views.diagnose import as_json, as_text
from tests.kit.frames import ether, ipv4, udp
from tests.unit.accounts import DNS, HOST, RULES, TRACED, KnownHost, make_account
from tests.unit.make import make_backlog_drop, make_drop, make_noise, make_sample

FULL = make_drop(reason="SOCKET_RCVBUFF", netns=HOST, netns_name="host", call_site="__udp_queue_rcv_skb+0x1")
DNS_SOCKET = Socket(2, 53, None, 17, 7, inode=812, cgroup=None, is_receiver=True)


def query(source: str = "10.0.0.5", key: DropKey = FULL, **changes: object) -> Sample:
    """A datagram to port 53."""
    return make_sample(ether(IPV4, ipv4(17, udp(43210, 53), source=source)), key=key, **changes)


def judged(samples: dict[DropKey, list[Sample]], drops: dict[DropKey, int]) -> Diagnosis:
    """The diagnosis of drops, and of the counter of a socket, with these packets seen."""
    increments = {
        "socket": {DNS: {"drops": drops.get(FULL, 0)}},
        "mib": {DNS._replace(socket=None): dict.fromkeys(("UdpRcvbufErrors", "UdpInErrors"), drops.get(FULL, 0))},
    }
    account = replace(make_account(drops, increments), samples=samples)
    seen = Seen()
    seen.add(account)
    return diagnosis_of(account, Circumstances(TRACED, seen=seen), KnownHost(), RULES)


def test_a_loss_says_who() -> None:
    """Who sent most, where to, and for whom, of how many packets that were looked at."""
    some = [query(socket=DNS_SOCKET), query("10.0.0.6", socket=DNS_SOCKET), query(socket=DNS_SOCKET)]
    for sample in some:
        sample.owner = Owner(7, "dnsmasq")
    diagnosis = judged({FULL: some}, {FULL: 1250})
    (loss,) = diagnosis.losses
    assert str(loss.who) == "from 10.0.0.5 (2 of 3 samples), to 10.0.0.9:53 UDP (3), for dnsmasq[7] (3)"
    assert "\n   Who:   from 10.0.0.5 (2 of 3 samples), to 10.0.0.9:53 UDP (3), for dnsmasq[7]\n" in as_text(
        diagnosis, 80
    )
    (data,) = json.loads(as_json(diagnosis, (), "1"))["losses"]
    assert data["who"] == {
        "samples": 3,
        "source": {"name": "10.0.0.5", "samples": 2},
        "destination": {"name": "10.0.0.9:53 UDP", "samples": 3},
        "owner": {"name": "for dnsmasq[7]", "samples": 3},
    }


def test_packets_of_another_loss() -> None:
    """Another reason, namespace, interface, backlog or socket is another loss; noise is none."""
    backlog, other = make_backlog_drop(), make_backlog_drop(target_cpu=1)
    elsewhere, noise = make_drop(reason="SOCKET_RCVBUFF"), make_noise()
    diagnosis = judged(
        {
            FULL: [query(socket=DNS_SOCKET._replace(inode=9))],
            backlog: [query("10.0.0.3", backlog)],
            other: [query("10.0.0.1", other)],
            elsewhere: [query("10.0.0.7", elsewhere)],
            noise: [query("10.0.0.8", noise)],
        },
        {FULL: 1250, backlog: 500, other: 300, noise: 700},
    )
    found = {(one.loss.cause.name, one.loss.whereabouts.cpu): one.who for one in diagnosis.losses}
    assert len(found) == 3
    assert found.pop(("receive-buffer", None)) is None
    assert [str(who) for _, who in sorted(found.items(), key=str)] == [
        "from 10.0.0.1 (1 of 1 sample), to 10.0.0.9:53 UDP (1)",
        "from 10.0.0.3 (1 of 1 sample), to 10.0.0.9:53 UDP (1)",
    ]


def test_nothing_was_looked_at() -> None:
    """Without a packet nothing is said, and JSON has null."""
    diagnosis = judged({}, {FULL: 1250})
    assert "Who:" not in as_text(diagnosis, 80)
    assert json.loads(as_json(diagnosis, (), "1"))["losses"][0]["who"] is None


def test_what_a_filter_matches() -> None:
    """Each loss says how many of its packets match; those without any are one line, and nothing is advised for them."""
    backlog, noise = make_backlog_drop(), make_noise()
    drops = {FULL: 40, FULL._replace(matches=False): 1210, backlog._replace(matches=False): 500, noise: 700}
    increments = {
        "socket": {DNS: {"drops": 1250}},
        "mib": {DNS._replace(socket=None): dict.fromkeys(("UdpRcvbufErrors", "UdpInErrors"), 1250)},
    }
    how = Circumstances(TRACED, is_filtered=True)
    diagnosis = diagnosis_of(make_account(drops, increments), how, KnownHost(), RULES)
    assert {one.loss.cause.name: one.matches for one in diagnosis.losses} == {"receive-buffer": 40, "backlog": 0}
    text = " ".join(as_text(diagnosis, 80).split())
    assert "1. 1,250 packets (71 %) " in text
    assert "; 40 match the filter Class:" in text
    assert "filtered: 500 packets (29 %) in 1 place, where no packet matches." in text
    assert "2. " not in text
    losses = json.loads(as_json(diagnosis, (), "1"))["losses"]
    assert sorted(loss["matches"] for loss in losses) == [0, 40]


def test_any_number_of_places() -> None:
    """However many namespaces there are, memory is not."""
    seen = Seen()
    for number in range(3000):
        key = make_drop(netns=HOST._replace(inode=number))
        seen.add(replace(make_account({}), samples={key: [query(key=key)]}))
    assert len(seen._tallies) == 1024


CLOSED = make_drop(netns=HOST, netns_name="host")


def advised(*ports: int) -> list[str]:
    """What is advised where datagrams to these ports found no socket."""
    frames = [ether(IPV4, ipv4(17, udp(43210, port))) for port in ports]
    samples = {CLOSED: [make_sample(frame, key=CLOSED) for frame in frames]}
    account = replace(make_account({CLOSED: 300}, {}), samples=samples)
    seen = Seen()
    seen.add(account)
    (loss,) = diagnosis_of(account, Circumstances(TRACED, seen=seen), KnownHost(), RULES).losses
    return [f"{one.say} {one.command}" for one in loss.advice]


def test_remedies_speak_of_the_packets_that_were_looked_at() -> None:
    """The port that most went to is named, in words and in the command."""
    (one,) = advised(9, 9, 9, 53)
    assert one.startswith("Nobody listens on port 9: ")
    assert one.endswith("ss -l -t -u -n -p 'sport = :9'")


def test_remedies_name_nothing_that_few_packets_have() -> None:
    """Where ports differ, the advice is the general one, and complete."""
    for ports in ((9, 9, 53, 54), ()):
        (one,) = advised(*ports)
        assert "port 9" not in one
        assert one.endswith("ss -l -t -u -n -p")
