# SPDX-License-Identifier: MIT
"""Options that choose packets: what they mean in the words of pcap-filter(7), and what is refused in a sentence."""

from __future__ import annotations

import struct

import pytest

from pktdrop.cli.matching import host_expression, port_expression, program
from pktdrop.errors import PktdropError, WrongUse
from pktdrop.kernel import classic, pcap, readers
from pktdrop.kernel.pcap import Instruction, Matcher, compile_expression, libpcap
from tests.kit.frames import ether, ipv4, tcp, udp

needs_libpcap = pytest.mark.skipif(libpcap() is None, reason="libpcap is not installed")
DNS = ether(0x0800, ipv4(17, udp(53, 999)))
WEB = ether(0x0800, ipv4(6, tcp(999, 443), source="10.0.0.7"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["53"], "(port 53)"),
        (["53", "domain"], "(port 53 or port domain)"),
        (["8000-8100"], "(portrange 8000-8100)"),
        (["!22"], "not port 22"),
        (["1", "!22", "2", "!23-24"], "(port 1 or port 2) and not port 22 and not portrange 23-24"),
        ([], ""),
    ],
)
def test_ports(values: list[str], expected: str) -> None:
    """Numbers, names and ranges; any of those that are wanted, none of those that are not."""
    assert port_expression(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["10.0.0.9"], "(host 10.0.0.9)"),
        (["10.0.0.0/8", "2001:db8::1"], "(net 10.0.0.0/8 or host 2001:db8::1)"),
        (["!fd00::/64"], "not net fd00::/64"),
        (["web-1.example"], "(host web-1.example)"),
    ],
)
def test_hosts(values: list[str], expected: str) -> None:
    """Addresses, networks and names."""
    assert host_expression(values) == expected


@pytest.mark.parametrize("value", ["", "!", "53 or tcp", "53)", "-1", "123456", "5-6-7", "a b", "/", "\0", "(53"])
def test_no_port_brings_words_of_its_own(value: str) -> None:
    """What is no port is refused before libpcap reads it."""
    with pytest.raises(WrongUse, match="is no port: give a number") as wrong:
        port_expression([value])
    assert wrong.value.option == "--port"


@pytest.mark.parametrize("value", ["", "!", "10.0.0.1 or tcp", "(::1", "10.0.0.0/", "a/b", "\x1b[31m", "a" * 300])
def test_no_host_brings_words_of_its_own(value: str) -> None:
    """What is no host is refused before libpcap reads it, and shown without its control characters."""
    with pytest.raises(WrongUse, match="is no host: give an address") as wrong:
        host_expression([value])
    assert wrong.value.option == "--host"
    assert "\x1b" not in wrong.value.why
    assert len(wrong.value.why) < 160


@needs_libpcap
def test_all_that_is_given_must_hold() -> None:
    """Expressions, ports and hosts are joined by `and`, each as if in parentheses."""
    both = Matcher(program(["udp or tcp"], ["53", "443"], ["!10.0.0.7"]))
    assert (both(DNS), both(WEB)) == (True, False)
    two = Matcher(program(["udp or tcp", "port 443 or port 444"], [], []))
    assert (two(DNS), two(WEB)) == (False, True)


@needs_libpcap
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an empty filter matches every packet"),
        ("  ", "an empty filter matches every packet"),
        ("udp prot 53", "libpcap refuses 'udp prot 53': "),
        ("udp) or (tcp", "libpcap refuses 'udp) or (tcp': "),
        ("\x1b[31m", r"libpcap refuses '\x1b[31m': "),
        ("ip and arp", "expression rejects all packets"),
        ("inbound", "not in a packet's bytes"),
        ("ether[-1] = 1", "not in a packet's bytes"),
        ("ip6 protochain 6", "takes a loop"),
        ("udp\0", "NUL character"),
        (" or ".join(f"port {port}" for port in range(10_000)), "at most 2,000 are allowed"),
        ("&".join(f"ip[{at}]" for at in range(200)) + " = 3", "at most 700 are allowed"),
        ("(" * 3000, "at most 2,000 are allowed"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    """What libpcap or the kernel would refuse, or take long for, is refused in a sentence."""
    with pytest.raises(WrongUse) as wrong:
        compile_expression(text)
    assert why in wrong.value.why.replace("\\\\", "\\")
    assert wrong.value.option == "--filter"
    assert "\n" not in wrong.value.why
    assert "\x1b" not in wrong.value.why
    assert wrong.value.why.endswith((".", "leave it out."))


def test_without_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libpcap it is said what is missing and how to get it."""
    monkeypatch.setattr(pcap, "LIBRARIES", ("libpcap-that-is-not-there.so",))
    pcap.libpcap.cache_clear()
    try:
        with pytest.raises(PktdropError) as missing:
            compile_expression("udp")
    finally:
        pcap.libpcap.cache_clear()
    assert missing.value.what == "Filters of packets need libpcap, which is not installed."
    assert "apt install libpcap0.8" in missing.value.do


@needs_libpcap
def test_a_matcher_knows_the_length_on_the_wire() -> None:
    """Of a packet of which only the beginning is there, the whole length counts."""
    long = Matcher(compile_expression("greater 1000"))
    assert long(DNS, 1500)
    assert not long(DNS)


WAYS = [classic.ByteReader(way, 7, 8) for way in readers.ORDER]
HALF, RETURN_A = Instruction(0x28, 0, 0, 12), Instruction(0x16, 0, 0, 0)


def jumps(code: bytes) -> list[tuple[int, int, int]]:
    """Return the instructions: number, operation, and where they jump to, which is the next one if they do not."""
    found = []
    for at, (operation, _, offset, _) in enumerate(struct.iter_unpack("=BBhi", code)):
        is_jump = operation & 7 in (5, 6) and operation not in (0x85, 0x95)
        found.append((at, operation, at + 1 + (offset if is_jump else 0)))
    return found


@needs_libpcap
@pytest.mark.parametrize("way", WAYS, ids=readers.ORDER)
@pytest.mark.parametrize(
    "text",
    ["udp port 53 and host 10.0.0.9", "tcp[((tcp[12] & 0xf0) >> 2):2] = 0x7878", "ip[2:2] / ip[3] % 7 << ip[4] > 3",
     "ether[4000000000] = 1 or ether[1500000000] = 2", "not vlan and ether[ether[5]:4] = 9", "len ^ 3 = 7"],
)  # fmt: skip
def test_the_kernel_gets_no_loop_and_no_dead_code(way: classic.ByteReader, text: str) -> None:
    """Jumps go forward and stay inside, every instruction is led to, and the last one ends the function."""
    code = jumps(classic.translate(compile_expression(text), way))
    reached = {0}
    for at, operation, target in code:
        assert at in reached, f"nothing leads to instruction {at}"
        assert at < target <= len(code)
        if operation != 0x95:
            reached.add(target)
            if operation != 0x05:
                reached.add(at + 1)
    assert max(reached) == len(code) - 1
    assert code[-1][1] == 0x95


def test_the_longest_program_jumps_far_enough() -> None:
    """As many instructions as are allowed, each of which takes the most of the kernel's, can be translated."""
    most = Instruction(0x40, 0, 0, 0), *(Instruction(0x48, 0, 0, 14),) * (pcap.MOST_INSTRUCTIONS - 2), RETURN_A
    for way in WAYS:
        assert len(classic.translate(most, way)) // 8 < 1 << 15


@pytest.mark.parametrize(
    "program",
    [(HALF,), (Instruction(0x05, 0, 0, 7), RETURN_A), (Instruction(0x15, 9, 0, 7), RETURN_A),
     (Instruction(0x02, 0, 0, 16), RETURN_A), (Instruction(0xE0, 0, 0, 1), RETURN_A)],
    ids=["no end", "jump out", "branch out", "word 16", "no such load"],
)  # fmt: skip
def test_what_is_no_program(program: tuple[Instruction, ...]) -> None:
    """What libpcap never makes is refused, not translated somehow."""
    with pytest.raises(ValueError, match=r"instruction|word|load"):
        classic.translate(program, WAYS[0])
