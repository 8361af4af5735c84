# SPDX-License-Identifier: MIT
"""Names of ethertypes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.rules.protocols import Protocols

PROTOCOLS = Protocols.load()
UAPI = Path("/usr/include/linux/if_ether.h")


@pytest.mark.parametrize(
    ("number", "name"),
    [(0x0800, "IPv4"), (0x86DD, "IPv6"), (0x0806, "ARP"), (0x8100, "VLAN"), (0x88CC, "LLDP"), (0x888E, "EAPOL")],
)
def test_names_of_ieee(number: int, name: str) -> None:
    """Ethertypes have the names that engineers use (numbers: IEEE 802 registry, RFC 9542)."""
    assert PROTOCOLS.name(number) == name
    assert PROTOCOLS.number(name) == PROTOCOLS.number(name.upper()) == number


def test_a_number_without_a_name_is_hex() -> None:
    """An ethertype that has no name shows as four hex digits."""
    assert PROTOCOLS.name(0x88B5) == "0x88b5"
    assert PROTOCOLS.name(0x60) == "0x0060"


@given(st.integers(0, 0xFFFF))
def test_names_and_numbers_go_both_ways(number: int) -> None:
    """What is shown for an ethertype can be asked for, and means the same."""
    assert PROTOCOLS.number(PROTOCOLS.name(number)) == number
    assert PROTOCOLS.number(str(number)) == number
    assert PROTOCOLS.number(f"{number:#X}") == number


@pytest.mark.parametrize("text", ["", "0x", "0x10000", "65536", "99999", "IPv5", "0xg", "-1", "1.5", "²", " 1"])
def test_what_is_no_ethertype(text: str) -> None:
    """A text that is neither a name nor a number of 16 bits has no ethertype."""
    assert PROTOCOLS.number(text) is None


@given(st.text(max_size=8))
def test_any_text_is_answered(text: str) -> None:
    """Whatever is asked for, the answer is a 16-bit number or none."""
    number = PROTOCOLS.number(text)
    assert number is None or 0 <= number <= 0xFFFF


def test_numbers_are_those_of_the_kernel() -> None:
    """Each row's number is that of the ETH_P_ name in its source column, by the kernel's own header."""
    if not UAPI.exists():
        pytest.skip(f"{UAPI} is not installed (linux-libc-dev)")
    defined = dict(re.findall(r"^#define\s+(ETH_P_\w+)\s+(0x[0-9A-Fa-f]+)", UAPI.read_text(), re.MULTILINE))
    table = Path(__file__).parents[2] / "pktdrop/data/ethertypes.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines() if line.startswith("0x")]
    assert len(rows) == len(PROTOCOLS.names())
    *rows, mark = rows
    assert mark[:2] == ["0xffff", "other"]
    for number, name, source in rows:
        constant = re.search(r"ETH_P_\w+", source)
        assert constant is not None, f"{name} names no constant"
        assert int(number, 16) == int(defined[constant[0]], 16), name


def test_names_are_unique() -> None:
    """No two ethertypes share a name, whatever its case."""
    names = [name.lower() for name in PROTOCOLS.names()]
    assert len(set(names)) == len(names)
