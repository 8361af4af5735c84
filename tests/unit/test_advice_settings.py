# SPDX-License-Identifier: MIT
"""Where settings of the kernel can be set, and what they are by default: what advice keeps to."""

from __future__ import annotations

import re

import pytest

from pktdrop.advice import remedies, settings
from tests.unit.accounts import BLUE, KnownHost, judge, make_account
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
        ("a\tcore/a\tx\tnetns\t1\tsource", "line 2: 'x' is no number"),
        ("a\tcore/a\t0\tfirst\tx\tsource", "line 2: 'x' is no number"),
        ("a\tcore/a\t0\tnowhere\t1\tsource", "line 2: unknown set_in 'nowhere'"),
    ],
)
def test_a_malformed_row_is_named(row: str, message: str) -> None:
    """A broken table is refused with the line at fault."""
    with pytest.raises(ValueError, match=re.escape(message)):
        settings.parse(["setting\tfile\tword\tset_in\tdefault\tsource", row])
