# SPDX-License-Identifier: MIT
"""The three files of SNMP counters, and what may become of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import mib
from pktdrop.counters.mib import GAUGES, Mib, Mibs
from pktdrop.model.counters import Row
from pktdrop.model.drops import Netns
from pktdrop.model.limits import Limit
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters/mib-6.18.44"
SNMP, NETSTAT, SNMP6 = ((DATA / file).read_bytes() for file in ("snmp", "netstat", "snmp6"))
UDP = b"Udp: InDatagrams NoPorts\nUdp: 5 6\n"


def values(row: Row) -> dict[str, int]:
    """Values by name."""
    return dict(zip(row.names, row.values, strict=True))


def parse(snmp: bytes = b"", netstat: bytes = b"", snmp6: bytes = b"") -> Mib:
    """Parse without anything remembered."""
    return Mibs().parse(snmp, netstat, snmp6)


def test_real_files_equal_nstat() -> None:
    """Of real files each name and value is the one that nstat(8) showed; what it never shows is no counter."""
    shown = json.loads((DATA / "nstat.json").read_text())["kernel"]
    found = parse(SNMP, NETSTAT, SNMP6)
    assert found.faults == ()
    assert values(found.counters) == {name: value for name, value in shown.items() if name not in GAUGES}


def test_names_are_shared() -> None:
    """Files with the same names give rows with one and the same tuple of names."""
    mibs = Mibs()
    first = mibs.parse(UDP, b"", b"Ip6InReceives  1\n")
    second = mibs.parse(UDP.replace(b"5 6", b"7 8"), b"", b"Ip6InReceives  2\n")
    assert first.counters.names is second.counters.names
    assert second.counters.values == (7, 8, 2)


def test_many_sets_of_names() -> None:
    """Names that others bring about, by types of ICMP, do not fill the memory, and are all shown."""
    mibs = Mibs()
    for number in range(3000):
        found = mibs.parse(b"IcmpMsg: InType%d\nIcmpMsg: 1\n" % number, b"", b"")
        assert values(found.counters) == {f"IcmpMsgInType{number}": 1}
    assert len(mibs._layouts) <= 1000


@pytest.mark.parametrize(
    "bad",
    [
        b"Tcp: ActiveOpens PassiveOpens\nTcp: 1\n",
        b"Tcp: ActiveOpens\nTcp: 1 2\n",
        b"Tcp: ActiveOpens\nIcmp: 1\n",
        b"Tcp: ActiveOpens\nTcp: one\n",
        b"Tcp: ActiveOpens\nTcp: 1_0\n",
        b"Tcp: ActiveOpens\nTcp: 1-0\n",
        b"Tcp: ActiveOpens\nTcp: 18446744073709551616\n",
        b"Tcp: ActiveOpens\nTcp: " + b"9" * 5000 + b"\n",
        b"\xff\xfe\n\0\n",
    ],
)
def test_a_malformed_section_does_not_hide_the_others(bad: bytes) -> None:
    """Only the malformed section is missing, and it is said of which file."""
    found = parse(netstat=UDP + bad + UDP.replace(b"Udp", b"UdpLite"))
    assert values(found.counters) == {
        "UdpInDatagrams": 5,
        "UdpNoPorts": 6,
        "UdpLiteInDatagrams": 5,
        "UdpLiteNoPorts": 6,
    }
    assert found.faults == (Limit("malformed-sections", ("netstat",), number=1),)


def test_a_title_without_its_numbers() -> None:
    """Where the file ends between two lines of a section, that one is missing, and it is said."""
    found = parse(snmp=UDP + b"Tcp: ActiveOpens\n")
    assert values(found.counters) == {"UdpInDatagrams": 5, "UdpNoPorts": 6}
    assert found.faults == (Limit("malformed-sections", ("snmp",), number=1),)


@pytest.mark.parametrize("bad", [b"", b"Ip6InNoRoutes", b"Ip6InNoRoutes 1 2", b"Ip6InNoRoutes x", b"1 2 3 4"])
def test_a_malformed_line_does_not_hide_the_others(bad: bytes) -> None:
    """Only the malformed line is missing, and it is said of which file."""
    found = parse(snmp6=b"Ip6InReceives  \t5\n" + bad + b"\nIp6InDiscards  \t6\n")
    assert values(found.counters) == {"Ip6InReceives": 5, "Ip6InDiscards": 6}
    assert found.faults == (Limit("malformed-lines", ("snmp6",), number=1),)


def test_largest_numbers_and_new_names() -> None:
    """Counters have 64 bits; sections and names nobody knows are shown by the names they have."""
    found = parse(b"New: One Two\nNew: 18446744073709551615 -1\n")
    assert values(found.counters) == {"NewOne": 2**64 - 1, "NewTwo": -1}


def test_a_name_twice() -> None:
    """A name that is there twice counts once, as first seen."""
    assert values(parse(UDP, UDP.replace(b"5 6", b"7 8")).counters) == {"UdpInDatagrams": 5, "UdpNoPorts": 6}


def test_truncated() -> None:
    """Files cut anywhere give no value but those of the whole file: not the first digits of a number for the number."""
    for file in range(3):
        files = [SNMP, NETSTAT, SNMP6]
        whole = values(parse(*files).counters)
        for cut in range(1, len(files[file])):
            found = parse(*[data[:cut] if place == file else data for place, data in enumerate(files)])
            assert values(found.counters).items() <= whole.items()
            assert found.faults or files[file][cut - 1 : cut] == b"\n"


@given(st.binary(max_size=300), st.text("Udp: 01-\n", max_size=100).map(str.encode), st.binary(max_size=300))
def test_garbage(snmp: bytes, netstat: bytes, snmp6: bytes) -> None:
    """Any bytes at all give no exception."""
    found = parse(snmp, netstat, snmp6)
    assert len(found.counters.names) == len(found.counters.values)


def test_missing_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said if snmp or netstat is missing, not if snmp6 is: a kernel without IPv6 has none."""
    (tmp_path / "snmp").write_bytes(UDP)
    monkeypatch.setattr(mib, "_PROC", f"{tmp_path}/")
    reading = Mibs().read(Netns(4026531840, 1))
    ((scope, row),) = reading.rows.items()
    assert scope.netns == Netns(4026531840, 1)
    assert values(row) == {"UdpInDatagrams": 5, "UdpNoPorts": 6}
    assert sentences(reading.limits) == ["SNMP counters of network namespace 4026531840: netstat is missing."]
