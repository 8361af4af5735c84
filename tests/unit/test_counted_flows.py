# SPDX-License-Identifier: MIT
"""Drops counted by port, address, flow or process: what the kernel's numbers mean, their names, their sums."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pktdrop.kernel.flows import Risen, counted
from pktdrop.kernel.records import FLOW_KEY
from pktdrop.model.drops import Count
from pktdrop.model.flow import BY, CountedFlow
from pktdrop.model.sample import Owner
from pktdrop.rules.protocols import Protocols
from pktdrop.samples.gather import RunFlows
from pktdrop.views import flows as views
from pktdrop.views.table import TableView
from tests.kit.patience import PATIENCE
from tests.unit.make import make_drop, make_interval, make_ledger, make_noise, make_selection

BPF = Path(__file__).parents[2] / "bpf"
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
KEY, NOBODY = make_drop(), "0.0.0.0"
PROGRAM = """
#include <stdio.h>
#include "drops.h"

int main(void)
{
    struct flow_key key = {
        .kind = { .netns = 9 },
        .source = { 0xfd00000000000000, 5 },
        .destination = { 0x20010db800000000, 0x0a },
        .inode = 0x0102030405060708,
        .source_port = 43210,
        .destination_port = 53,
        .protocol = 17,
        .version = 6,
        .is_for_socket = 1,
    };

    printf("%d %d %d %d %d\\n", FLOWS_PORT, FLOWS_SOURCE, FLOWS_DESTINATION, FLOWS_FLOW, FLOWS_PROCESS);
    for (unsigned long i = sizeof(struct drop_key); i < sizeof(key); i++)
        printf("%02x", ((const unsigned char *)&key)[i]);
    return 0;
}
"""


def raw(version: int, low: int, **other: int) -> bytes:
    """What the kernel counts by, of a packet with one number for both addresses."""
    numbers = struct.pack("=QQ", 0, low)
    ports = other.get("source_port", 0), other.get("destination_port", 0)
    return FLOW_KEY.pack(numbers, numbers, other.get("inode", 0), *ports, other.get("protocol", 0), version, 0)


def test_the_numbers_of_c(tmp_path: Path) -> None:
    """A key that C fills in is read with each number in its place; what can be counted by has the same numbers."""
    if CC is None:
        pytest.skip("there is no C compiler (gcc)")
    (tmp_path / "flows.c").write_text(PROGRAM)
    include = ("-I", BPF, "-I", BPF / "include")
    subprocess.run([CC, *include, "flows.c", "-o", "flows"], check=True, cwd=tmp_path, timeout=60 * PATIENCE)
    done = subprocess.run([tmp_path / "flows"], check=True, capture_output=True, text=True, timeout=60 * PATIENCE)
    numbers, key = done.stdout.split("\n")
    assert numbers.split() == [str(BY.index(by) + 1) for by in BY]
    assert counted(Risen(b"", bytes.fromhex(key), 3, 90), KEY, "flow") == CountedFlow(
        KEY, 3, 90, "fd00::5", "2001:db8::a", 43210, 53, 17, 0x0102030405060708, True
    )


@pytest.mark.parametrize(
    ("by", "source", "destination"),
    [("port", None, None), ("source", NOBODY, None), ("destination", None, NOBODY), ("flow", NOBODY, NOBODY)],
)  # fmt: skip
def test_an_address_of_zeros_is_one(by: str, source: str | None, destination: str | None) -> None:
    """DHCP clients have it; what is not counted by is not known."""
    flow = counted(Risen(b"", raw(4, 0), 1, 1), KEY, by)
    assert (flow.source, flow.destination) == (source, destination)


def test_no_network_packet_has_nothing() -> None:
    """What was not understood as IP has neither address nor port."""
    assert counted(Risen(b"", raw(0, 0), 2, 120), KEY, "flow") == CountedFlow(KEY, 2, 120)
    assert counted(Risen(b"", b"", 2, 120), KEY, "flow") == CountedFlow(KEY, 2, 120, is_other=True)


@pytest.mark.parametrize(
    ("flow", "by", "name"),
    [
        (CountedFlow(KEY, 1, 1, destination_port=53, protocol=17), "port", "UDP 53"),
        (CountedFlow(KEY, 1, 1, protocol=1), "port", "ICMP -"),
        (CountedFlow(KEY, 1, 1), "port", "-"),
        (CountedFlow(KEY, 1, 1, source="10.0.0.5"), "source", "10.0.0.5"),
        (CountedFlow(KEY, 1, 1, destination="fd00::5"), "destination", "fd00::5"),
        (CountedFlow(KEY, 1, 1), "source", "-"),
        (CountedFlow(KEY, 1, 1, "fd00::5", "fd00::9", 7, 53, 17), "flow", "[fd00::5]:7 > [fd00::9]:53 UDP"),
        (CountedFlow(KEY, 1, 1, "10.0.0.5", "10.0.0.9", protocol=1), "flow", "10.0.0.5 > 10.0.0.9 ICMP"),
        (CountedFlow(KEY, 1, 1), "flow", "-"),
        (CountedFlow(KEY, 1, 1, inode=7, owner=Owner(812, "statsd")), "process", "for statsd[812]"),
        (CountedFlow(KEY, 1, 1, inode=7), "process", "-"),
        (CountedFlow(KEY, 1, 1, is_other=True), "flow", "other"),
    ],
)
def test_names(flow: CountedFlow, by: str, name: str) -> None:
    """A flow is called by what it is counted by."""
    assert views.name(flow, by) == name


def test_a_run_adds_up_and_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows of many looks are summed; those beyond the bound count as other, and none is missing."""
    monkeypatch.setattr("pktdrop.samples.gather._FLOWS", 3)
    run = RunFlows()
    for _ in range(2):
        run.add([CountedFlow(KEY, 5, 50, destination_port=port) for port in range(1, 11)])
    found = run.all()
    assert sum(flow.packets for flow in found) == 100
    assert [(flow.destination_port, flow.packets, flow.is_other) for flow in found] == [
        (1, 10, False), (2, 10, False), (3, 10, False), (None, 70, True),
    ]  # fmt: skip


def test_the_table() -> None:
    """A row for each port, over all kinds; noise apart; what a filter hides is not there."""
    noise, hidden = make_noise(), make_drop(interface="tun0")
    drops = {KEY: Count(30, 900), make_drop(cpu=1): Count(5, 150), noise: Count(4, 4)}
    flows = [
        CountedFlow(KEY, 20, 600, destination_port=53, protocol=17),
        CountedFlow(make_drop(cpu=1), 5, 150, destination_port=53, protocol=17),
        CountedFlow(KEY, 10, 300, destination_port=123, protocol=17),
        CountedFlow(noise, 4, 4),
        CountedFlow(hidden, 99, 99, destination_port=9, protocol=17),
    ]
    selection = make_selection(drops)
    object.__setattr__(selection, "shows", lambda key: key != hidden)
    view = TableView(Protocols.load(), 20, lambda _: "host", by="port")
    lines = view.interval(make_interval(drops), selection, make_ledger(), 100, flows=flows).splitlines()
    assert lines[1].split() == ["packets", "/s", "port", "reason", "iface", "netns", "where"]
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["25", "12", "UDP", "53"], ["10", "5.0", "UDP", "123"], ["4", "2.0", "-", lines[4].split()[3]],
    ]  # fmt: skip
    assert lines[5] == "Each row is a sum by port; (3): three different ones."


def test_drops_are_told_where_no_flow_is_counted() -> None:
    """Where the kernel counts no flows, the number of drops is shown, and no empty table."""
    drops = {KEY: Count(30, 900)}
    view = TableView(Protocols.load(), 20, lambda _: "host", by="port")
    lines = view.interval(make_interval(drops), make_selection(drops), make_ledger(), 100).splitlines()
    assert len(lines) == 2
    assert "  30 packets dropped in " in lines[0]
    assert lines[1] == ""
