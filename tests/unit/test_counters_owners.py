# SPDX-License-Identifier: MIT
"""Whose packets were dropped: what is looked for, how often, and what is said of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pktdrop.counters import owners as module
from pktdrop.counters.owners import Owners
from pktdrop.host import processes
from pktdrop.host.namespaces import Namespaces
from pktdrop.model.container import Container
from pktdrop.model.packet import IPV4
from pktdrop.model.sample import Owner, Sample, Socket
from tests.kit.frames import ether, ipv4, udp
from tests.unit.make import make_sample

FULL = Socket(2, 8125, None, 17, 7, inode=812, cgroup=None, is_receiver=True)


@dataclass
class Host:
    """A host with one process, whose search takes a second; what was looked for is noted."""

    now: float = 1000.0
    asked: list[set[int]] = field(default_factory=list)

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def of_sockets(self, inodes: Collection[int]) -> dict[int, processes.Process]:
        """Who has these open: one process has 812 and 813."""
        self.now += 1.0
        self.asked.append(set(inodes))
        return {inode: processes.Process(7, "statsd") for inode in inodes if inode in (812, 813)}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """That host in place of this one."""
    made = Host()
    monkeypatch.setattr(module.time, "monotonic", made.monotonic)
    monkeypatch.setattr(processes, "of_sockets", made.of_sockets)
    return made


def owner_of(owners: Owners, sample: Sample) -> Owner | None:
    """Who has it, after a look at that sample alone."""
    owners.find([sample])
    return sample.owner


def test_a_search_is_remembered(host: Host) -> None:
    """Each socket is looked for once; one that nobody has open, too."""
    owners = Owners(Namespaces())
    for _ in range(3):
        assert owner_of(owners, make_sample(socket=FULL)) == Owner(7, "statsd", is_receiver=True)
        host.now += 100
        assert owner_of(owners, make_sample(socket=FULL._replace(inode=9))) is None
        host.now += 100
    assert host.asked == [{812}, {9}]


def test_searches_take_a_small_part_of_the_time(host: Host) -> None:
    """After a search that took a second there is none for 20, whatever sockets there are."""
    owners = Owners(Namespaces())
    owners.find([make_sample(socket=FULL)])
    other = FULL._replace(inode=813)
    assert owner_of(owners, make_sample(socket=other)) is None
    host.now += 19
    assert owner_of(owners, make_sample(socket=other)) is None
    host.now += 2
    assert owner_of(owners, make_sample(socket=other)) is not None
    assert host.asked == [{812}, {813}]


def test_for_whom_or_from_whom(host: Host) -> None:
    """A socket that the kernel does not call the receiver has sent the packet, if its port does not say otherwise."""
    owners = Owners(Namespaces())
    plain = FULL._replace(is_receiver=False)
    cases = {
        True: make_sample(socket=plain),
        False: make_sample(socket=plain._replace(local_port=43210)),
    }
    for is_receiver, sample in cases.items():
        assert owner_of(owners, sample) == Owner(7, "statsd", is_receiver)
    sent = make_sample(ether(IPV4, ipv4(17, udp())), socket=plain, received=False)
    assert owner_of(owners, sent) == Owner(7, "statsd", is_receiver=False)


def test_no_socket_no_search(host: Host) -> None:
    """A packet that nobody would get is nobody's, and nobody is looked for."""
    assert owner_of(Owners(Namespaces()), make_sample()) is None
    assert host.asked == []


def test_in_which_container(host: Host, tmp_path: Path) -> None:
    """The process tells it, read once; where there is none, the cgroup that the socket was made in."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("0::/lxc.payload.mail\n")
    namespaces = Namespaces(proc=tmp_path)
    namespaces.containers._of_number = {40: Container(None, unit="foo.service"), 41: None}
    owners, samples = Owners(namespaces), [make_sample(socket=FULL._replace(cgroup=40))]
    owners.find(samples)
    (tmp_path / "7/cgroup").unlink()
    host.now += 100
    samples += [
        make_sample(socket=FULL),
        make_sample(socket=FULL._replace(inode=9, cgroup=40)),
        make_sample(socket=FULL._replace(inode=None, cgroup=40, is_receiver=False, local_port=43210)),
        make_sample(socket=FULL._replace(inode=9, cgroup=41)),
    ]
    owners.find(samples[1:])
    assert [sample.whose for sample in samples] == [
        "for statsd[7] (lxc mail)",
        "for statsd[7] (lxc mail)",
        "for unit foo.service",
        "from unit foo.service",
        None,
    ]


def test_a_session_says_nothing_of_a_process(host: Host, tmp_path: Path) -> None:
    """It is known, but not shown."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    sample = make_sample(socket=FULL)
    Owners(Namespaces(proc=tmp_path)).find([sample])
    assert sample.whose == "for statsd[7]"
    assert sample.container == Container(None, unit="session-3.scope")
