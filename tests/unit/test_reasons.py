# SPDX-License-Identifier: MIT
"""Names of drop reasons, over excerpts of real kernels' BTF and tracepoint formats (tests/data/README.md).

Expected numbers are those that `bpftool btf dump file FILE format c` prints for the whole BTF of each kernel.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pktdrop.kernel.btf import Btf
from pktdrop.kernel.reasons import OWN_NAMES, ReasonNames

DATA = Path(__file__).parents[1] / "data"
WITH_REASONS = ("6.1.0-50-debian", "6.12.95-debian", "6.18.44", "7.3.4-debian")
KERNELS = ("5.10.0-32-debian", *WITH_REASONS)


def load(kernel: str) -> ReasonNames:
    """Return the names of a kernel."""
    return load_from(DATA / "btf" / kernel)


def load_from(directory: Path) -> ReasonNames:
    """Return the names of the kernel whose BTF is in a directory like /sys/kernel/btf."""
    return ReasonNames.from_btf(Btf.load(directory / "vmlinux"), directory)


def read_format(kernel: str) -> str:
    """Return the format of a kernel's tracepoint kfree_skb."""
    return (DATA / "format" / kernel).read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("kernel", "numbers"),
    [
        ("6.1.0-50-debian", (1, 2, 7, 11, 15, 45, 46, 49)),
        ("6.12.95-debian", (2, 3, 8, 12, 16, 55, 56, 59)),
        ("6.18.44", (2, 3, 12, 16, 6, 64, 71, 74)),
        ("7.3.4-debian", (2, 3, 12, 16, 6, 64, 66, 71)),
    ],
)
def test_numbers_are_those_of_the_kernel(kernel: str, numbers: tuple[int, ...]) -> None:
    """The same reason has another number in each kernel, and is named right in all."""
    reasons = load(kernel)
    names = (
        *("NOT_SPECIFIED", "NO_SOCKET", "NETFILTER_DROP", "IP_RPFILTER", "SOCKET_RCVBUFF"),
        *("QDISC_DROP", "CPU_BACKLOG", "UNHANDLED_PROTO"),
    )
    assert [reasons.name(number) for number in numbers] == [("core", name) for name in names]
    assert tuple(reasons.value(name) for name in names) == numbers
    assert reasons.source == "BTF"


@pytest.mark.parametrize(
    ("kernel", "number", "name"),
    [
        ("6.1.0-50-debian", 0, "NOT_DROPPED_YET"),
        ("6.1.0-50-debian", 1, "NOT_SPECIFIED"),
        ("6.18.44", 0, "NOT_DROPPED_YET"),
        ("6.18.44", 1, "CONSUMED"),
    ],
)
def test_reasons_without_the_usual_prefix(kernel: str, number: int, name: str) -> None:
    """SKB_NOT_DROPPED_YET and SKB_CONSUMED are named, on kernels that have them."""
    assert load(kernel).name(number) == ("core", name)


@pytest.mark.parametrize(
    ("kernel", "number", "expected"),
    [  # the same number is another subsystem's in another kernel
        ("6.12.95-debian", 0x1_0002, ("mac80211_unusable", "RX_DROP_U_REPLAY")),
        ("6.12.95-debian", 0x2_0001, ("mac80211_monitor", "RX_DROP_M_UNEXPECTED_4ADDR_FRAME")),
        ("6.12.95-debian", 0x3_0001, ("openvswitch", "OVS_DROP_LAST_ACTION")),
        ("7.3.4-debian", 0x1_0002, ("mac80211_unusable", "RX_DROP_U_REPLAY")),
        ("7.3.4-debian", 0x2_0001, ("openvswitch", "OVS_DROP_LAST_ACTION")),
        ("7.3.4-debian", 0x3_0002, ("qdisc", "QDISC_DROP_OVERLIMIT")),
    ],
)
def test_subsystems(kernel: str, number: int, expected: tuple[str, str]) -> None:
    """The upper 16 bits select the subsystem, whose names come from vmlinux or from its module."""
    assert load(kernel).name(number) == expected


@pytest.mark.parametrize(
    ("kernel", "number", "expected"),
    [
        ("6.18.44", 137, ("core", "137")),
        ("6.18.44", 128, ("core", "128")),  # SKB_DROP_REASON_MAX
        ("6.18.44", 9 << 16 | 5, ("9", "5")),
        ("6.18.44", 0xFFFF_0000, ("65535", "0")),  # SKB_DROP_REASON_SUBSYS_MASK
        ("6.18.44", 2 << 16 | 1, ("openvswitch", "1")),  # the module is not loaded
        ("7.3.4-debian", 2 << 16, ("openvswitch", "0")),  # __OVS_DROP_REASON, where the subsystem's numbers begin
        ("7.3.4-debian", 0x2_000C, ("openvswitch", "12")),  # OVS_DROP_MAX
        ("6.1.0-50-debian", 1 << 16 | 2, ("1", "2")),  # a kernel without subsystems
    ],
)
def test_what_has_no_name_keeps_its_number(kernel: str, number: int, expected: tuple[str, str]) -> None:
    """Numbers without a name, and the enumerators that are no reason, are shown as numbers."""
    assert load(kernel).name(number) == expected


def test_kernel_without_reasons() -> None:
    """Where the kernel gives no reason, every reason is NOT_SPECIFIED, and that is the one name to filter by."""
    reasons = load("5.10.0-32-debian")
    assert [reasons.name(number) for number in (0, 2, 137)] == [("core", "NOT_SPECIFIED")] * 3
    assert (reasons.source, reasons.names(), reasons.counts()) == ("none", ["NOT_SPECIFIED"], {"core": 0})
    assert reasons.value("CPU_BACKLOG") is None


@pytest.mark.parametrize(
    ("kernel", "counts"),
    [  # enumerators without MAX, masks, and those of mac80211_drop_reason that belong to the other or to no subsystem
        ("6.1.0-50-debian", {"core": 65}),
        ("6.12.95-debian", {"core": 98, "mac80211_unusable": 46, "mac80211_monitor": 4, "openvswitch": 11}),
        ("6.18.44", {"core": 128, "mac80211_unusable": 0, "openvswitch": 0}),
        ("7.3.4-debian", {"core": 126, "mac80211_unusable": 91, "openvswitch": 11, "qdisc": 9}),
    ],
)
def test_counts(kernel: str, counts: dict[str, int]) -> None:
    """The names of each subsystem are counted, each reason in one; 0 where the module is not there."""
    reasons = load(kernel)
    assert reasons.counts() == counts
    assert len(reasons.names()) == sum(counts.values())


def test_names() -> None:
    """Core reasons are listed bare, others behind their subsystem, and nothing that is no reason."""
    names = load("7.3.4-debian").names()
    assert {"NO_SOCKET", "CONSUMED", "SKB_CSUM", "qdisc/QDISC_DROP_OVERLIMIT", "openvswitch/OVS_DROP_METER"} <= set(
        names
    )
    assert len(set(names)) == len(names)
    assert not [name for name in names if re.search(r"MAX$|MASK$|/_|UNSPEC$|RX_CONTINUE|RX_QUEUED|DROP_REASON", name)]


@pytest.mark.parametrize("kernel", WITH_REASONS)
def test_names_and_numbers_agree(kernel: str) -> None:
    """Each core name has a number, and that number has this name."""
    reasons = load(kernel)
    for name in reasons.core.values():
        number = reasons.value(name)
        assert number is not None
        assert reasons.name(number) == ("core", name)


@pytest.fixture
def without_modules(tmp_path: Path) -> Path:
    """Return a directory like /sys/kernel/btf of 7.3.4 with no module loaded."""
    shutil.copy(DATA / "btf" / "7.3.4-debian" / "vmlinux", tmp_path)
    return tmp_path


def test_module_is_read_when_needed(without_modules: Path) -> None:
    """A module's names are there as soon as it is loaded, though they were asked for before."""
    reasons = load_from(without_modules)
    assert reasons.name(0x2_0001) == ("openvswitch", "1")
    assert reasons.counts()["openvswitch"] == 0
    shutil.copy(DATA / "btf" / "7.3.4-debian" / "openvswitch", without_modules)
    assert reasons.name(0x2_0001) == ("openvswitch", "OVS_DROP_LAST_ACTION")


def test_damaged_module(without_modules: Path) -> None:
    """A module whose BTF cannot be read costs its names only."""
    (without_modules / "openvswitch").write_bytes(b"no BTF")
    reasons = load_from(without_modules)
    assert reasons.name(0x2_0001) == ("openvswitch", "1")
    assert reasons.name(3) == ("core", "NO_SOCKET")


@pytest.mark.parametrize("kernel", WITH_REASONS)
def test_format_agrees_with_btf(kernel: str) -> None:
    """The tracepoint's format names every core reason that BTF names, but for those that it never shows."""
    shown = ReasonNames.from_format(read_format(kernel))
    known = dict(load(kernel).core)
    never_shown = {number for number, name in known.items() if name in ("NOT_DROPPED_YET", "CONSUMED")}
    assert dict(shown.core) == {number: name for number, name in known.items() if number not in never_shown}
    assert (shown.source, shown.counts()) == ("tracepoint format", {"core": len(known) - len(never_shown)})


def test_format_knows_no_subsystems() -> None:
    """With the format alone, reasons of subsystems keep both numbers."""
    assert ReasonNames.from_format(read_format("7.3.4-debian")).name(0x2_0001) == ("2", "1")


def test_format_without_reasons() -> None:
    """The format of a tracepoint without a reason gives NOT_SPECIFIED only."""
    reasons = ReasonNames.from_format(read_format("5.10.0-32-debian"))
    assert (reasons.source, reasons.name(2), reasons.names()) == ("none", ("core", "NOT_SPECIFIED"), ["NOT_SPECIFIED"])


@given(st.text() | st.text('{}, "0123456789AZ_ reason;\n', max_size=200))
def test_any_format(text: str) -> None:
    """Any text ends in names or none."""
    assert ReasonNames.from_format(text).name(3)[0] == "core"


@given(st.sampled_from(KERNELS), st.integers(0, 2**32 - 1))
@example("6.18.44", 0x3FFF_0000)
@example("6.18.44", 0x3FFF_0001)
@example("6.18.44", 0x3FFF_0007)
def test_every_number_is_shown(kernel: str, number: int) -> None:
    """Any number that the kernel could give has a subsystem and a reason, named or as the number it is."""
    reasons = load(kernel)
    subsystem, reason = reasons.name(number)
    if subsystem == "xdp":  # one of ours
        assert f"xdp/{reason}" in OWN_NAMES
        return
    assert subsystem in reasons.subsystems.values() or subsystem == str(number >> 16)
    assert reason == str(number & 0xFFFF) or (reason if subsystem == "core" else f"{subsystem}/{reason}") in (
        *reasons.names(),
        "NOT_SPECIFIED",
    )


def test_frozen() -> None:
    """Names do not change while they are in use."""
    with pytest.raises(FrozenInstanceError):
        load("6.18.44").core = {}  # type: ignore[misc]


@pytest.mark.parametrize("kernel", KERNELS)
def test_reasons_of_ours_are_those_of_the_programs(kernel: str) -> None:
    """On every kernel, also one without reasons, each number in bpf/drops.h has its name, which is no kernel's."""
    header = (Path(__file__).parents[2] / "bpf/drops.h").read_text(encoding="utf-8")
    (subsystem,) = re.findall(r"#define REASON_XDP \((\w+?)U << 16\)", header)
    found = re.findall(r"#define REASON_XDP_(\w+) \(REASON_XDP \| (\d+)\)", header)
    reasons = load(kernel)
    named = [reasons.name(int(subsystem, 16) << 16 | int(number)) for _, number in found]
    assert named == [("xdp", name) for name, _ in found]
    assert sorted(OWN_NAMES) == sorted(f"xdp/{name}" for name, _ in found)
    assert not set(OWN_NAMES).intersection(reasons.names())
