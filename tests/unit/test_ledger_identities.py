# SPDX-License-Identifier: MIT
"""The tables that say which drop events and which counters are moved by the same packets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.rules.identities import COUNTERS, NOTE_WIDTH, TABLE, Identities, Identity
from pktdrop.rules.layers import LAYERS
from pktdrop.rules.match import Event
from tests.unit.kernel_reasons import REASONS

NONE, IPV4, IPV6 = 0, 0x0800, 0x86DD
PROTOCOLS = {"*": (IPV4, IPV6, NONE), "IPv4": (IPV4,), "IPv6": (IPV6,), "none": (NONE,)}

HEADER = "reason\tfunction\tprotocol\tcounter\trelation\tnote\tsource\n"
ROW = "NO_SOCKET\t*\tIPv4\tmib.UdpNoPorts\t=\t-\tnet/ipv4/udp.c udp_rcv, v7.3\n"
COUNTER_HEADER = "counter\tscope\tlayer\tloss\tpart_of\tfreed_by\tnote\tsource\n"
COUNTER_ROW = "mib.UdpNoPorts\tnetns\tsocket\tshown\t-\t-\t-\tnet/ipv4/udp.c udp_rcv, v7.3\n"


@pytest.fixture(scope="module")
def identities() -> Identities:
    """Give the tables that come with pktdrop."""
    return Identities.load()


def ask(identities: Identities, name: str, call_site: str, protocol: int) -> tuple[Identity, ...]:
    """Return the rows for "REASON" or "subsystem/REASON"."""
    subsystem, _, reason = name.rpartition("/")
    return identities.of(Event.of(subsystem or "core", reason, call_site, protocol))


def counters(identities: Identities, name: str, call_site: str, protocol: int) -> set[tuple[str, str]]:
    """Return counters and relations of an event."""
    return {
        ("|".join(row.counters), row.relation) for row in ask(identities, name, call_site, protocol) if row.counters
    }


def questions(row: Identity) -> Iterator[tuple[str, str, int]]:
    """Events made from a row's own globs: the known reasons they cover, the functions its source names."""
    functions = [word for word in re.findall(r"\w+", row.source) if fnmatchcase(word, row.function)]
    for reason in REASONS:
        if fnmatchcase(reason, row.reason):
            for call_site in functions if row.function != "*" else ["some_function"]:
                for protocol in PROTOCOLS[row.protocol]:
                    yield reason, call_site, protocol


def ends_a_search(identities: Identities, row: Identity) -> bool:
    """Whether a row without a counter keeps the rows below it from holding for some event."""
    if row.counters:
        return False
    others = Identities((each for each in identities.rows if each is not row), identities.counters.values())
    return any(ask(identities, *question) != ask(others, *question) for question in questions(row))


def test_each_row_holds_for_some_event(identities: Identities) -> None:
    """No row is hidden by those above it, and each names a reason and a function that exist."""
    dead = [row for row in identities.rows if not any(row in ask(identities, *question) for question in questions(row))]
    dead = [row for row in dead if not ends_a_search(identities, row)]
    assert not dead, "\n".join(f"line {row.line}: {row.reason} {row.function} {row.protocol}" for row in dead)


def test_each_reason_exists_in_a_kernel(identities: Identities) -> None:
    """Every glob covers a name that some kernel has."""
    lost = [row for row in identities.rows if not any(fnmatchcase(name, row.reason) for name in REASONS)]
    assert not lost, "\n".join(f"line {row.line}: {row.reason}" for row in lost)


def test_each_row_has_a_source_in_a_kernel_tree(identities: Identities) -> None:
    """Every row says which file and which release it was read in."""
    source = re.compile(
        r"((net|drivers|include)/[\w/.-]+\.[ch] \w+|enum skb_drop_reason \(BTF).*, v\d+\.\d+( v\d+\.\d+)*"
    )
    rows = [(row.line, row.source) for row in (*identities.rows, *identities.counters.values())]
    bad = [f"line {line}: {text}" for line, text in rows if not source.fullmatch(text)]
    assert not bad, "\n".join(bad)


def test_a_bound_says_why(identities: Identities) -> None:
    """A relation that is no equality, and events that no counter has, carry a note for the reader."""
    silent = [row for row in identities.rows if row.relation != "=" and not row.note]
    assert not silent, "\n".join(f"line {row.line}" for row in silent)
    assert all(counter.note for counter in identities.counters.values() if counter.loss == "own")


def test_mib_names_are_those_of_the_running_kernel(identities: Identities) -> None:
    """Each mib counter is in /proc/net/snmp, netstat or snmp6, under the name nstat gives it."""
    found = set()
    for file in ("snmp", "netstat"):
        lines = Path("/proc/net", file).read_text(encoding="ascii").splitlines()
        for titles in lines[::2]:
            prefix, _, names = titles.partition(":")
            found |= {prefix + name for name in names.split()}
    found |= {line.split()[0] for line in Path("/proc/net/snmp6").read_text(encoding="ascii").splitlines()}
    # gone in 7.3 (UDP-Lite), not there in older kernels (others)
    may_lack = (
        "UdpLite",
        "TcpExtBeyondWindow",
        "TcpExtTSEcrRejected",
        "TcpExtPAWSOldAck",
        "TcpExtPAWSTimewait",
        "TcpExtTCPAO",
    )
    names = [name.removeprefix("mib.") for name in identities.counters if name.startswith("mib.")]
    assert not [name for name in names if name not in found and not name.startswith(may_lack)]


def test_xfrm_and_link_names_are_those_of_the_running_kernel(identities: Identities) -> None:
    """Each xfrm counter is in /proc/net/xfrm_stat, each of an interface in its statistics directory."""
    links = {path.name for path in Path("/sys/class/net/lo/statistics").iterdir()} | {"rx_otherhost_dropped"}
    assert {name.removeprefix("links.") for name in identities.counters if name.startswith("links.")} <= links
    stat = Path("/proc/net/xfrm_stat")
    if stat.exists():
        found = {line.split()[0] for line in stat.read_text(encoding="ascii").splitlines()}
        newer = {"XfrmInStateDirError", "XfrmOutStateDirError", "XfrmInIptfsError", "XfrmOutNoQueueSpace"}
        assert {name.removeprefix("xfrm.") for name in identities.counters if name.startswith("xfrm.")} <= found | newer


def test_statistics_of_tables_are_named_as_their_files_title_them(identities: Identities) -> None:
    """Names of neighbour, route and connection statistics are column titles of /proc/net/stat."""
    for source, file in (("neigh", "arp_cache"), ("rt_cache", "rt_cache"), ("conntrack", "nf_conntrack")):
        path = Path("/proc/net/stat", file)
        if path.exists():
            titles = set(path.read_text(encoding="ascii").partition("\n")[0].split())
            assert {name.partition(".")[2] for name in identities.counters if name.startswith(f"{source}.")} <= titles


# From kernel source and documents, not from the table.
RELATIONS = [
    ("CPU_BACKLOG", "enqueue_to_backlog+0x1d1", IPV4, {("softnet.dropped", "="), ("links.rx_dropped", "=")}),
    # a device that is down: 6.11 and later do not count it in softnet, and call it DEV_READY
    ("DEV_READY", "enqueue_to_backlog", IPV4, {("links.rx_dropped", "=")}),
    ("NOT_SPECIFIED", "enqueue_to_backlog", IPV4, {("softnet.dropped", "="), ("links.rx_dropped", "=")}),
    ("NOT_SPECIFIED", "gro_cells_receive", IPV4, {("links.rx_dropped", "=")}),
    ("UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0", 0x88CC, {("links.rx_nohandler|links.rx_dropped", "=")}),
    ("UNHANDLED_PROTO", "ip6_rcv_core", IPV6, {("mib.Ip6InHdrErrors", "=")}),
    ("OTHERHOST", "ip_rcv_core", IPV4, {("links.rx_otherhost_dropped", "=")}),
    ("IP_RPFILTER", "ip_rcv_finish_core", IPV4, {("mib.TcpExtIPReversePathFilter", "=")}),
    ("IP_CSUM", "ip_rcv_core", IPV4, {("mib.IpExtInCsumErrors", "="), ("mib.IpInHdrErrors", "=")}),
    ("IP_INNOROUTES", "ip_error", IPV4, {("mib.IpExtInNoRoutes", "=")}),
    ("IP_INNOROUTES", "ip6_pkt_drop", IPV6, {("mib.Ip6InNoRoutes", "=")}),
    ("NEIGH_QUEUEFULL", "__neigh_event_send", IPV4, {("neigh.unresolved_discards", "=")}),
    ("NO_SOCKET", "__udp4_lib_rcv", IPV4, {("mib.UdpLiteNoPorts|mib.UdpNoPorts", "=")}),
    ("NO_SOCKET", "udp_rcv", IPV4, {("mib.UdpLiteNoPorts|mib.UdpNoPorts", "=")}),
    ("NO_SOCKET", "udpv6_rcv", IPV6, {("mib.UdpLite6NoPorts|mib.Udp6NoPorts", "=")}),
    ("NO_SOCKET", "tcp_v4_rcv", IPV4, {("mib.TcpOutRsts", "<=")}),
    ("NO_SOCKET", "ping_rcv", IPV4, set()),
    ("TCP_ZEROWINDOW", "tcp_data_queue", IPV4, {("mib.TcpExtTCPZeroWindowDrop", "=")}),
    ("TCP_OFO_DROP", "tcp_ofo_queue", IPV4, set()),
    ("DUP_FRAG", "ip_frag_queue", IPV4, set()),
    ("QDISC_BURST_DROP", "__dev_queue_xmit", IPV4, set()),
    ("NEIGH_DEAD", "__neigh_event_send", IPV4, set()),
    ("XDP", "do_xdp_generic", IPV4, set()),
    ("FRAG_REASM_TIMEOUT", "ip_expire", IPV4, {("mib.IpReasmTimeout", ">="), ("mib.IpReasmFails", ">=")}),
    (
        "TCP_LISTEN_OVERFLOW",
        "tcp_v4_rcv",
        IPV4,
        {("mib.TcpExtListenOverflows", "<="), ("mib.TcpExtListenDrops", "<=")},
    ),
]


@pytest.mark.parametrize(("reason", "call_site", "protocol", "expected"), RELATIONS)
def test_an_event_belongs_to_the_counters_its_path_moves(
    identities: Identities, reason: str, call_site: str, protocol: int, expected: set[tuple[str, str]]
) -> None:
    """Each event is in the counters of the code that freed the packet, and in no other."""
    assert {
        (name, kind) for name, kind in counters(identities, reason, call_site, protocol) if kind != "other"
    } == expected


def test_counters_inside_others_are_named(identities: Identities) -> None:
    """What is counted twice by the kernel is known to be one packet."""
    inside = {name: counter.part_of for name, counter in identities.counters.items()}
    assert inside["mib.UdpRcvbufErrors"] == inside["mib.UdpInCsumErrors"] == "mib.UdpInErrors"
    assert inside["mib.TcpExtListenOverflows"] == inside["mib.TcpExtTCPReqQFullDrop"] == "mib.TcpExtListenDrops"
    assert inside["softnet.dropped"] == "links.rx_dropped"
    assert inside["mib.IpExtInCsumErrors"] == "mib.IpInHdrErrors"


def test_dropped_syns_are_losses_without_events(identities: Identities) -> None:
    """A SYN that a listener drops is freed as consumed: only its counters tell."""
    for name in ("ListenDrops", "ListenOverflows", "TCPReqQFullDrop"):
        counter = identities.counters[f"mib.TcpExt{name}"]
        assert (counter.layer, counter.loss) == ("socket", "own")


def test_tcp_input_is_lost_without_events_where_the_kernel_raises_none(identities: Identities) -> None:
    """Without reasons tcp_drop() calls __kfree_skb() (net/ipv4/tcp_input.c, v5.10): then only counters tell."""
    without = Identities.load(tcp_input_has_events=False)
    changed = {name for name in identities.counters if identities.counters[name] != without.counters[name]}
    assert {f"mib.TcpExtTCP{queue}Drop" for queue in ("RcvQ", "OFO", "ZeroWindow")} <= changed
    assert {without.counters[name].loss for name in changed} <= {"own", "no"}
    for name in ("mib.TcpExtTCPRcvQDrop", "mib.TcpExtTCPOFOMerge"):
        assert (identities.may_exceed(name), without.may_exceed(name)) == (False, True)
    assert without.slack("mib.TcpExtTCPRcvQDrop") == "this kernel frees the input that TCP drops without an event"
    # tcp_add_backlog() leaves the packet to tcp_v4_rcv(), which frees it with an event (net/ipv4/tcp_ipv4.c, v5.10)
    assert not without.may_exceed("mib.TcpExtTCPBacklogDrop")


def test_every_layer_is_known(identities: Identities) -> None:
    """Counters are in the layers of design, or said to be in several."""
    assert {counter.layer for counter in identities.counters.values()} <= {*LAYERS, "*"}


@given(st.text(), st.text(), st.text(), st.integers(0, 0xFFFF))
def test_any_event_has_an_answer(subsystem: str, reason: str, call_site: str, protocol: int) -> None:
    """Whatever the kernel reports is answered, the same each time, with at most one row a counter."""
    tables = Identities(TABLE.parse([HEADER, ROW]), COUNTERS.parse([COUNTER_HEADER, COUNTER_ROW]))
    event = Event.of(subsystem, reason, call_site, protocol)
    first = tables.of(event)
    assert tables.of(event) == first
    assert len(first) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        (ROW, "line 1: expected the header"),
        (HEADER + "# comment\n\nNO_SOCKET\t*\t*\n", "line 4: 3 columns"),
        (HEADER + ROW.replace("IPv4", "ARP"), "line 2: unknown protocol 'ARP'"),
        (HEADER + ROW.replace("\t=\t", "\t==\t"), "line 2: unknown relation '=='"),
        (HEADER + ROW.replace("mib.UdpNoPorts", "UdpNoPorts"), "line 2: counter 'UdpNoPorts'"),
        (HEADER + ROW.replace("mib.UdpNoPorts", "none"), "line 2: unknown relation '='"),
        (HEADER + ROW.replace("\t-\t", "\t" + "x" * (NOTE_WIDTH + 1) + "\t"), "line 2: note is longer"),
        (HEADER + ROW.replace("\t-\t", "\t\t"), "line 2: column note is empty"),
        (HEADER + ROW.replace("UdpNoPorts", "UdpOther"), "line 2: no row of loss_counters.tsv describes mib.UdpOther"),
    ],
)
def test_malformed_file_names_the_line(text: str, message: str) -> None:
    """A row that cannot be used is refused with its line number."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Identities(TABLE.parse(text.splitlines()), COUNTERS.parse([COUNTER_HEADER, COUNTER_ROW]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COUNTER_HEADER + COUNTER_ROW.replace("netns", "pod"), "line 2: unknown scope 'pod'"),
        (COUNTER_HEADER + COUNTER_ROW.replace("\tsocket", "\tsockets"), "line 2: unknown layer 'sockets'"),
        (COUNTER_HEADER + COUNTER_ROW.replace("shown", "maybe"), "line 2: unknown loss 'maybe'"),
        (COUNTER_HEADER + COUNTER_ROW.replace("-\t-\tnet", "udp_drop\t-\tnet"), "line 2: unknown freed_by 'udp_drop'"),
        (COUNTER_HEADER + COUNTER_ROW + COUNTER_ROW, "line 3: mib.UdpNoPorts is described a second time"),
        (COUNTER_HEADER + COUNTER_ROW.replace("shown\t-", "shown\tmib.X"), "part of mib.X, which has no row"),
        (COUNTER_HEADER + COUNTER_ROW.replace("shown\t-", "shown\tmib.UdpNoPorts"), "is part of itself"),
    ],
)
def test_malformed_counters_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    """A counter that cannot be used is refused, with the file and its line number."""
    (tmp_path / "identities.tsv").write_text(HEADER + ROW)
    (tmp_path / "counters.tsv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        Identities(TABLE.load(tmp_path / "identities.tsv"), COUNTERS.load(tmp_path / "counters.tsv"))
