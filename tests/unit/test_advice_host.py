# SPDX-License-Identifier: MIT
"""Values of the host: read where they are, unknown where they are not, compared with what sysctl(8) and ip(8) say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pktdrop.diagnosis.values import HostValues, _mask, _number
from pktdrop.host.namespaces import Namespaces
from pktdrop.ledger.loss import Whereabouts
from pktdrop.model.counters import Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.model.look import Answer, Question
from pktdrop.observe.ask import Asker
from pktdrop.rules.remedies import HOST_VALUES
from tests.unit.accounts import DNS, asked, make_counters
from tests.unit.make import make_look

OWN = Namespaces().own()
LO = Whereabouts(netns=OWN, interface="lo")


@pytest.fixture
def host() -> HostValues:
    """This host, and a socket of dnsmasq that this process claims not to know."""
    gauges = {"softnet": {}, "qdisc": {}, "socket": {DNS: Row(("rmem_alloc", "rcvbuf"), (1, 212992))}}
    return asked(make_counters(gauges=gauges))


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("somaxconn", "net.core.somaxconn"),
        ("tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog"),
        ("ipfrag_time", "net.ipv4.ipfrag_time"),
        ("min_free_kbytes", "vm.min_free_kbytes"),
        ("unres_qlen_bytes", "net.ipv4.neigh.lo.unres_qlen_bytes"),
    ],
)
def test_sysctls_are_what_sysctl_shows(host: HostValues, name: str, setting: str) -> None:
    """Settings of the namespace, of the host, and of an interface."""
    if shutil.which("sysctl") is None:
        pytest.skip("sysctl not installed")
    shown = subprocess.run(["sysctl", "-n", setting], capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        pytest.skip(f"no {setting} here: {shown.stderr.strip()}")
    assert host.value(name, LO) == int(shown.stdout)


def test_the_length_of_a_queue_is_what_ip_shows(host: HostValues) -> None:
    """Read by an ioctl, which works in any namespace."""
    if shutil.which("ip") is None:
        pytest.skip("ip not installed")
    shown = json.loads(
        subprocess.run(["ip", "-j", "link", "show", "dev", "lo"], capture_output=True, check=True).stdout
    )
    assert host.value("txqueuelen", LO) == shown[0]["txqlen"]


OF_HOST = frozenset(
    "cpus gc_thresh3 in_first_netns min_free_kbytes min_free_more netdev_budget netdev_budget_usecs netdev_max_backlog "
    "rcvbuf_max rmem_default rmem_max rps_all tcp_mem_fill tcp_mem_max tcp_mem_used udp_mem_fill udp_mem_max "
    "udp_mem_more udp_mem_used".split()
)
"""Values that are those of the whole host, wherever a loss is."""
OF_INTERFACE = frozenset(
    "combined combined_max combined_more rp_filter rps rps_mask rx_channels rx_channels_max rx_channels_more rx_ring "
    "rx_ring_max threaded tx_pause txqueuelen unres_qlen_bytes".split()
)
"""Values that only an interface has."""


def _known(host: HostValues, whereabouts: Whereabouts) -> set[str]:
    """Ask for all values; return the names of those that are known, but for the name of the interface itself."""
    return {name for name in HOST_VALUES - {"interface"} if host.value(name, whereabouts) is not None}


def test_nothing_is_known_of_what_is_gone(host: HostValues) -> None:
    """An interface, a namespace and a socket that are gone, or none: only values of the whole host are known."""
    gone = Whereabouts(netns=Netns(1), interface="gone0", sockets=(Scope(netns=Netns(1), socket="udp *:1 ino:1"),))
    known = _known(host, LO)
    for nowhere in (gone, Whereabouts()):
        assert _known(host, nowhere) <= OF_HOST
        assert OF_HOST & known <= _known(host, nowhere)  # what this kernel has, it has everywhere
    assert host.value("interface", gone) == "gone0"
    assert host.value("interface", Whereabouts()) is None


@pytest.mark.parametrize("interface", ["../../etc", "", "."])
def test_a_name_that_no_interface_has_leads_nowhere(host: HostValues, interface: str) -> None:
    """Neither to a file outside of its directory nor to another interface; the namespace's own values are known."""
    known = _known(host, Whereabouts(netns=OWN, interface=interface))
    assert known & OF_INTERFACE == set()
    assert {"somaxconn", "tcp_max_syn_backlog", "ipfrag_time"} <= known


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/run/netns/blue one", "ip netns exec 'blue one' "),
        ("/run/netns/host", "ip netns exec host "),
        ("/run/netns/web[1]", "ip netns exec 'web[1]' "),
        ("/run/docker/netns/web[1]", "nsenter --net='/run/docker/netns/web[1]' "),
        ("/run/docker/netns/$(id)", "nsenter --net='/run/docker/netns/$(id)' "),
        ("/proc/812/ns/net", "nsenter -t 812 -n "),
    ],
)
def test_commands_enter_the_namespace_by_what_leads_there(
    host: HostValues, path: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its name, which may look like that of a process."""
    there = Netns(7, 7)
    monkeypatch.setattr(Namespaces, "paths", lambda self: {there: Path(path)})
    assert host.value("in_netns", Whereabouts(netns=there)) == command


def test_an_unknown_name_has_no_value(host: HostValues) -> None:
    """The tables are tested for such; at run time it is no reason to end."""
    assert host.value("nothing", LO) is None


def test_values_are_read_once() -> None:
    """What was read stays: advice for many losses must not read a file for each."""
    namespaces, read = Namespaces(), Counter[Question]()
    namespaces.own()
    asker = Asker(namespaces, make_counters())
    for reader in asker._readers:
        asker._readers[reader] = lambda netns, name: read.update([Question("", netns, name)])
    for _ in range(2):
        asker(Question("sysctl", None, "net/core/somaxconn"))
    assert read.total() == 1


def test_the_buffer_of_a_socket_is_that_of_the_last_reading(host: HostValues) -> None:
    """Of one socket, not of several."""
    assert host.value("rcvbuf", Whereabouts(sockets=(DNS,))) == 212992
    assert host.value("rcvbuf", Whereabouts(sockets=(DNS, DNS))) is None
    assert host.process(DNS) is None


def test_commands_for_the_own_namespace_have_nothing_before_them(host: HostValues) -> None:
    """Only for others something must be entered; for those that nobody can name there is no command."""
    assert host.value("in_netns", LO) == ""
    assert host.value("in_netns", Whereabouts(netns=Netns(1))) is None


@pytest.mark.parametrize(
    ("cpus", "mask"), [(1, "1"), (2, "3"), (32, "ffffffff"), (33, "1,ffffffff"), (64, "ffffffff,ffffffff")]
)
def test_masks(cpus: int, mask: str) -> None:
    """As bitmap_parse() of the kernel reads them."""
    assert _mask(cpus) == mask


def test_more_queues_only_for_cpus_that_there_are() -> None:
    """No more queues than CPUs, and no advice where there is nothing to gain."""
    online = os.sysconf("SC_NPROCESSORS_ONLN")
    eth0 = Whereabouts(netns=OWN, interface="eth0")
    for now, more in ((online, None), (0, online), (None, None)):
        answers: dict[Question, Answer] = {
            Question("nic", OWN, "eth0"): (None, None, now, 64 + online, None, None, None),
            Question("sysconf", None, "SC_NPROCESSORS_ONLN"): online,
        }
        assert HostValues(make_look(make_counters(), answers=answers)).value("combined_more", eth0) == more


@pytest.mark.parametrize(
    ("text", "word", "number"),
    [("4096 131072 6291456", 2, 6291456), ("", 0, None), (None, 0, None), ("-1", 0, None), ("7", 1, None)],
)
def test_numbers(text: str | None, word: int, number: int | None) -> None:
    """A word of a setting, or nothing."""
    assert _number(text, word) == number
