# SPDX-License-Identifier: MIT
"""From the numbers of the kernel to the names of a DropKey."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.naming import Naming
from pktdrop.kernel.reasons import ReasonNames
from pktdrop.kernel.records import NO_CPU, RawKey
from pktdrop.kernel.symbols import Symbols
from pktdrop.model.drops import DropKey, Netns

DATA = Path(__file__).parents[1] / "data/symbols/6.1.0-50-debian"
UDP_RCV, BACKLOG, IP_RCV_CORE = 0xFFFFFFFF818B4DB0, 0xFFFFFFFF817CE720, 0xFFFFFFFF8186CFA0
"""Addresses in the kallsyms there."""
REASONS = {2: "NOT_SPECIFIED", 3: "NO_SOCKET", 12: "OTHERHOST", 46: "CPU_BACKLOG"}


@pytest.fixture
def naming(tmp_path: Path) -> Naming:
    """Names as on a host that runs 6.1, in which there is a namespace with a name."""
    for table in ("kallsyms", "modules"):
        shutil.copy(DATA / table, tmp_path / table)
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns/blue").touch()
    return Naming(
        ReasonNames("BTF", REASONS, {0: "core", 3: "openvswitch"}),
        Namespaces(tmp_path / "netns", tmp_path, _identify),
        Symbols(tmp_path),
    )


def _identify(path: Path) -> Netns:
    return Netns(path.stat().st_ino, 1)


def _raw(**changes: Any) -> RawKey:
    values: dict[str, Any] = {
        "call_site": UDP_RCV + 0x49E,
        "netns": 0,
        "ifindex": 0,
        "reason": 3,
        "cpu": 1,
        "target_cpu": NO_CPU,
        "protocol": 0x0800,
    }
    return RawKey(**(values | changes))


def test_a_whole_drop(naming: Naming, tmp_path: Path) -> None:
    """Each number gets its name."""
    netns = _identify(tmp_path / "netns/blue")
    naming.namespaces.learn_interface(netns, 7, "veth0")
    assert naming.key(_raw(netns=7, ifindex=7), netns) == DropKey(
        reason="NO_SOCKET",
        subsystem="core",
        cpu=1,
        target_cpu=None,
        ifindex=7,
        interface="veth0",
        netns=netns,
        netns_name="blue",
        protocol=0x0800,
        call_site="udp_rcv+0x49e",
    )


def test_what_the_kernel_could_not_tell_is_none(naming: Naming) -> None:
    """Zero of an interface or namespace, and the CPU that is none, mean unknown."""
    key = naming.key(_raw(), None)
    assert (key.ifindex, key.interface, key.netns, key.netns_name, key.target_cpu) == (None,) * 5


@pytest.mark.parametrize(("ifindex", "netns"), [(7, None), (7, Netns(4026532999, 9)), (0, Netns(4026532999, 9))])
def test_numbers_without_names_stay(naming: Naming, ifindex: int, netns: Netns | None) -> None:
    """An interface or namespace that has no name is still told apart by its number."""
    key = naming.key(_raw(ifindex=ifindex), netns)
    assert (key.ifindex, key.netns) == (ifindex or None, netns)
    assert key.interface is None
    assert key.netns_name is None


def test_a_reason_without_a_name(naming: Naming) -> None:
    """A number that this kernel's enum does not have stays a number, of its subsystem."""
    assert naming.key(_raw(reason=137), None)[:2] == ("137", "core")
    assert naming.key(_raw(reason=3 << 16 | 5), None)[:2] == ("5", "openvswitch")
    assert naming.key(_raw(reason=9 << 16 | 5), None)[:2] == ("5", "9")


def test_an_address_without_a_name(naming: Naming) -> None:
    """A call site that has no symbol is an address."""
    key = naming.key(_raw(call_site=0xFFFFFFFF90000000, reason=2), None)
    assert key.call_site == "0xffffffff90000000"


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"reason": 46, "call_site": BACKLOG + 0x1A8, "target_cpu": 3}, 3),
        ({"reason": 46, "call_site": BACKLOG + 0x1A8, "target_cpu": 0}, 0),
        ({"reason": 46, "call_site": 0xFFFFFFFF90000000, "target_cpu": 3}, 3),
        ({"reason": 2, "call_site": BACKLOG + 0x1A8, "target_cpu": 3}, 3),
        ({"reason": 46, "call_site": BACKLOG + 0x1A8}, None),
        ({"reason": 3, "target_cpu": 3}, None),
    ],
)
def test_only_drops_of_the_backlog_have_a_target(naming: Naming, changes: dict[str, int], target: int | None) -> None:
    """The CPU whose queue was full is that of drops for it or at enqueue_to_backlog(), and of no others."""
    assert naming.key(_raw(**changes), None).target_cpu == target


@pytest.mark.parametrize(
    ("number", "reason", "tracepoint"),
    [(1, "ABORTED", "xdp_exception"), (4, "REDIRECT_ERR", "xdp_redirect_err"), (6, "BULK_TX", "xdp_bulk_tx")],
)
def test_what_ends_in_xdp_has_a_tracepoint_for_a_call_site(
    naming: Naming, number: int, reason: str, tracepoint: str
) -> None:
    """Unless it was an skb, which somebody freed."""
    raw = _raw(call_site=0xFFFF << 48, reason=0x3FFF << 16 | number, protocol=0)
    named = naming.key(raw, None)
    assert (named.subsystem, named.reason, named.call_site) == ("xdp", reason, tracepoint)
    assert naming.key(raw._replace(call_site=UDP_RCV + 0x49E), None).call_site == "udp_rcv+0x49e"
