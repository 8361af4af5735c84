# SPDX-License-Identifier: MIT
"""Where settings of the kernel can be set, and what they are by default: what advice keeps to."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from pktdrop.ledger.loss import Whereabouts
from pktdrop.rules import remedies, settings
from tests.unit.accounts import BLUE, KnownHost, asked, judge, make_account, make_counters
from tests.unit.make import make_backlog_drop

SETTINGS = settings.load()
FILES = {one.file.replace("/{interface}/", "/*/"): one for one in SETTINGS.values() if one.file is not None}
CHANGES = [
    (remedy.line, prefix, name)
    for remedy in remedies.load()
    for prefix, names in re.findall(r"(\{in_\w+\})?sysctl (?:-w )?(.*)", remedy.command or "")
    for name in re.findall(r"(?:net[./][\w./{}:]+)", names)
]
# No values of remedies.tsv: each namespace has its own, net/ipv4/devinet.c devinet_conf_proc, net/ipv6/addrconf.c
OF_NETNS = ("rp_filter", "disable_ipv6", "ip_forward", "forwarding", "log_martians")


@pytest.mark.parametrize(("line", "prefix", "name"), CHANGES, ids=lambda value: str(value))
def test_commands_work_where_they_are_to_be_run(line: int, prefix: str, name: str) -> None:
    """What only the first network namespace can change is changed there, the rest where the packets were lost."""
    path = re.sub(r"/\{interface:q\}/", "/*/", name.removeprefix("net").replace(".", "/").strip("/"))
    if path.rpartition("/")[2] in OF_NETNS:
        assert prefix == "{in_netns}"
    else:
        expected = {"first": "{in_first_netns}", "netns": "{in_netns}"}[FILES[path].set_in]
        assert prefix == expected, f"line {line}"


def test_the_table_says_what_the_kernel_does() -> None:
    """nf_conntrack_standalone_init_sysctl: mode 0444 but in init_net; net_core_table and ipv4_table are init_net's."""
    first = {name for name, one in SETTINGS.items() if one.set_in == "first"}
    assert {"conntrack_max", "netdev_max_backlog", "netdev_budget", "rmem_max", "rmem_default", "gc_thresh3"} <= first
    assert first.isdisjoint({"somaxconn", "tcp_rmem_max", "tcp_syncookies", "unres_qlen_bytes", "ipfrag_high_thresh"})


@pytest.mark.parametrize(("now", "advised"), [(3, 1000), (249, 1000), (251, 1004), (1000, 4000)])
def test_advice_never_goes_below_the_default(now: int, advised: int) -> None:
    """Four times of what is far too little is still too little: netdev_max_backlog is 1,000 (net_hotdata)."""
    host = KnownHost({"netdev_max_backlog": now, "in_first_netns": "nsenter -t 1 -n "})
    (loss,) = judge(make_account({make_backlog_drop(): 50}), host=host).losses
    assert [one.command for one in loss.advice] == [f"nsenter -t 1 -n sysctl -w net.core.netdev_max_backlog={advised}"]
    assert "packets of eth0" in loss.where


def test_nothing_printed_is_below_a_default() -> None:
    """On a host where everything was lowered to 1, each number of a command is a default, or a whole lot of memory.

    Defaults as Debian 12 and a 6.18 kernel show them; those that go by memory for a host of 24 GB.
    """
    defaults = {
        "net.core.somaxconn": 4096, "net.ipv4.tcp_max_syn_backlog": 2048, "net.core.netdev_max_backlog": 1000,
        "net.core.netdev_budget": 300, "net.core.rmem_max": 4194304, "net.core.rmem_default": 212992,
        "net.ipv4.tcp_rmem": 33554432, "net.ipv4.ipfrag_high_thresh": 4194304, "net.ipv4.tcp_syncookies": 1,
        "net.netfilter.nf_conntrack_max": 262144, "net.ipv4.neigh.default.gc_thresh3": 1024,
        "net/ipv4/neigh/eth0/unres_qlen_bytes": 212992,
    }  # fmt: skip
    seen = set()
    for remedy in remedies.load():
        advice = replace(remedy, when=()).advice(
            lambda name: {"interface": "eth0"}.get(name, "" if "in_" in name else 1)
        )
        for name, value in re.findall(r'(net[./][\w./]+)="?(?:\d+ )*(\d+)', (advice and advice.command) or ""):
            if name in defaults:
                seen.add(name)
                assert int(value) >= defaults[name], (remedy.line, name)
    assert seen == set(defaults)


def test_what_goes_by_memory_is_worked_out() -> None:
    """sysctl(8) shows what this host has, which nobody lowered: advice is at least that, and twice what is most."""
    host = asked(make_counters())
    whereabouts = Whereabouts()
    free, more = host.value("min_free_kbytes", whereabouts), host.value("min_free_more", whereabouts)
    assert isinstance(free, int)
    assert isinstance(more, int)
    assert more >= 2 * free
    now = subprocess.run(["sysctl", "-n", "net.ipv4.udp_mem"], capture_output=True, text=True, check=False)
    if now.returncode != 0:
        pytest.skip("not in the first network namespace")
    low, pressure, most = map(int, now.stdout.split())
    advised = [*map(int, str(host.value("udp_mem_more", whereabouts)).split())]
    assert all(one >= other for one, other in zip(advised, (low, pressure, 2 * most), strict=True))


def test_packets_of_a_namespace_name_it() -> None:
    """A backlog is of the whole host; the interface and namespace are those of its packets."""
    drops = {make_backlog_drop(netns_name="blue", netns=BLUE, interface="vb"): 50}
    (loss,) = judge(make_account(drops)).losses
    assert "(packets of vb of netns blue, sent there by CPU 0)" in loss.where
    drops |= {make_backlog_drop(interface="eth1"): 9}
    (loss,) = judge(make_account(drops)).losses
    assert "(packets of vb of netns blue and of others, sent there by CPU 0)" in loss.where


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tcore/a\tx\tnetns\t1\tsource", "line 2: word 'x' is no number"),
        ("a\tcore/a\t0\tfirst\tx\tsource", "line 2: default 'x' is no number"),
        ("a\tcore/a\t0\tnowhere\t1\tsource", "line 2: unknown set_in 'nowhere'"),
    ],
)
def test_a_malformed_row_is_named(row: str, message: str) -> None:
    """A broken table is refused with the line at fault."""
    with pytest.raises(ValueError, match=re.escape(message)):
        settings.TABLE.parse(["setting\tfile\tword\tset_in\tdefault\tsource", row])
