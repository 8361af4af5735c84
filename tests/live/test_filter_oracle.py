# SPDX-License-Identifier: MIT
"""Filters in the kernel, held against libpcap's own answer: pcap_offline_filter(3) on the same bytes.

The translated filter is run as the kernel runs it: by BPF_PROG_TEST_RUN, behind a program that hands it a frame out of
a map; in each way of reading that this kernel lets.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from pktdrop.kernel import classic, host, readers, sysbpf
from pktdrop.kernel.btf import Btf
from pktdrop.kernel.pcap import Instruction, Matcher, compile_expression, libpcap
from tests.kit.frames import ether, ipv4, ipv6, tcp, udp
from tests.kit.patience import PATIENCE
from tests.kit.reading import VMLINUX, works

pytestmark = pytest.mark.timeout(180 * PATIENCE)
PACKETS = int(20_000 / float(os.environ.get("PKTDROP_PATIENCE", "1")))
"""Fewer on an emulated machine, of which the variable says how slow it is."""
ROW = 512
"""Bytes of a frame in the map: struct frame, the address of the packet, the packet."""
PACKET = 64
"""Where the packet is in it."""
EXPRESSIONS = """
ip
ip6
arp
tcp
udp
icmp
icmp6
sctp
vlan
vlan 10
vlan 10 and udp port 53
vlan and vlan 20
not ip
udp port 53
udp port 53 and host 10.0.0.9
tcp port 443 or tcp port 80
src port 53
dst port 53
portrange 50-60
not port 53 and not port 443
port 53 or port 80 or port 123 or port 443 or port 8125
host 10.0.0.5
src host 10.0.0.5 and not dst port 53
net 10.0.0.0/24
net 10.0.0.0/30
dst net 192.168.0.0/16
host fd00::5
net fd00::/64
ip6 and tcp port 443
ip6 proto 17
ip proto 132
ip[8] < 64
ip[0] & 0xf != 5
ip[6:2] & 0x1fff != 0
ip[6] & 0x20 != 0
tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn
tcp[tcpflags] & tcp-rst != 0
tcp[((tcp[12] & 0xf0) >> 2):2] = 0x7878
udp[4:2] > 30
udp[8:4] = 0x78787878
icmp[icmptype] == icmp-echo
less 60
greater 100
len > 60 and len <= 100
ether host 02:00:00:00:00:0a
ether src 02:00:00:00:00:0a
ether dst 02:00:00:00:00:0b
ether multicast
ether broadcast
ether[0] & 1 = 0
ether[10:4] = 0x000a0800
ether[11] = 10
ether proto 0x88cc
ether[ether[5] + 1] = 8
ether[(ether[5] + 3):4] & 0xff000000 = 0x45000000
ether[12:2] + len > 2100
ip[2:2] - ((ip[0] & 0xf) << 2) > 40
len * 3 / 2 - 7 > 80
len % 7 = 3
1 << (ip[8] & 3) = 4
ip[ip[0] & 0xf] = 7 or ip[9] ^ 17 = 0
(ip[12:4] | 3) = 0x0a000007 and (udp or tcp)
tcp[0:2] / tcp[2:2] > 90
-ip[8] > 0xffffffc0
""".split("\n")[1:-1]
"""At least 60; each is to match some of the packets, and not to match others."""
# struct bpf_insn
_INSTRUCTION = struct.Struct("=BBhi")
_PROG_TEST_RUN = 10
_SYSCALL = {"x86_64": 321, "aarch64": 280}


def random_packet(dice: random.Random) -> bytes:
    """Make a packet out of few enough values that expressions meet some; cut short now and then, or damaged."""
    addresses = ("10.0.0.5", "10.0.0.9", "10.0.0.1", "192.168.7.7", "203.0.113.9")
    longer = ("fd00::5", "fd00::9", "2001:db8::1")
    ports = (53, 80, 123, 443, 8125, 43210, dice.randrange(65536))
    pair = dice.choice(ports), dice.choice(ports)
    rest = dice.choice((b"", b"x" * 7, b"x" * 48, bytes(dice.randrange(120))))
    options = dice.choice((b"", b"", b"\1" * 4, b"\1" * 20))
    inner, number = dice.choice((
        (udp(*pair, rest), 17), (udp(*pair, rest), 17), (tcp(*pair, dice.choice((2, 18, 16, 4, 1)), options, rest), 6),
        (bytes((dice.choice((8, 0, 3)), 0, 0, 0)) + rest, 1), (bytes((128, 0, 0, 0)) + rest, 58),
        (struct.pack("!HHII", *pair, 1, 0) + rest, 132), (rest, dice.randrange(256)),
    ))  # fmt: skip
    kind = dice.random()
    if kind < 0.55:
        fragment = dice.choice((0, 0, 0, 0x2000, 0x2005, 7))
        ethertype = 0x0800
        content = ipv4(number, inner, dice.choice(addresses), dice.choice(addresses), options, fragment)
        content = content[:8] + bytes((dice.choice((64, 63, 1, 255)),)) + content[9:]
    elif kind < 0.85:
        ethertype = 0x86DD
        content = ipv6(number, inner, dice.choice(longer), dice.choice(longer))
    elif kind < 0.93:
        ethertype, content = 0x0806, bytes.fromhex("0001080006040001") + dice.randbytes(20)
    else:
        ethertype, content = dice.choice((0x88CC, 0x0800, dice.randrange(65536))), dice.randbytes(dice.randrange(80))
    frame = bytearray(ether(ethertype, content, dice.choice(((), (), (), (10,), (20,), (10, 20), (0x700A,)))))
    if dice.random() < 0.1:
        frame[0] |= 1
    if dice.random() < 0.05:
        frame[:6] = b"\xff" * 6
    if dice.random() < 0.1:
        frame[5] = dice.randrange(30)
    if dice.random() < 0.15:
        del frame[dice.randrange(len(frame) + 1) :]
    if dice.random() < 0.1 and frame:
        frame[dice.randrange(len(frame))] = dice.randrange(256)
    return bytes(frame[: ROW - PACKET])


class Packet(NamedTuple):
    """A packet as the kernel has it."""

    content: bytes
    length: int
    has_addresses: bool = True


@pytest.fixture(scope="module")
def packets() -> list[Packet]:
    """The packets, the same each time; every tenth is longer than what there is of it."""
    dice = random.Random(16)
    made = [random_packet(dice) for _ in range(PACKETS)]
    return [Packet(one, len(one) + (dice.randrange(1400) if at % 10 == 0 else 0)) for at, one in enumerate(made)]


@pytest.fixture(params=["plain", "cast", "probe"])
def reader(request: pytest.FixtureRequest) -> classic.ByteReader:
    """A way of reading that this kernel lets."""
    if libpcap() is None:
        pytest.skip("libpcap is not installed")
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    way: str = request.param
    if not works(way):
        pytest.skip(f"this kernel lets no program read packets by {way}")
    facts = readers.facts(Btf.load(VMLINUX))
    assert facts is not None
    return classic.ByteReader(way, facts.cast_type, facts.cast_function)


class Machine:
    """Runs filters on frames, in the kernel."""

    def __init__(self, reader: classic.ByteReader, packets: Sequence[Packet]) -> None:
        """Put the packets into a map."""
        host.raise_memlock()
        self._reader = reader
        self._count = len(packets)
        with ExitStack() as stack:
            self._map = sysbpf.map_create(sysbpf.MapType.ARRAY, 4, ROW, len(packets), "frames")
            stack.callback(os.close, self._map)
            memory = stack.enter_context(sysbpf.map_memory(self._map, ROW, len(packets)))
            for at, packet in enumerate(packets):
                memory[at * ROW : at * ROW + PACKET + len(packet.content)] = row(packet)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Let go of the map."""
        self._stack.close()

    def answers(self, program: Sequence[Instruction]) -> list[bool]:
        """Return what the translated program says of each packet."""
        found = classic.translate(program, self._reader)
        loaded = sysbpf.program_load(sysbpf.ProgramType.RAW_TRACEPOINT, self._caller() + found, "filter")
        try:
            run = Runner(loaded)
            return [run(at) == 1 for at in range(self._count)]
        finally:
            os.close(loaded)

    def _caller(self) -> bytes:
        """Return a program that calls what stands behind it, with frame number ctx[0] and where its packet is."""
        plain, facts = self._reader.way == readers.PLAIN, readers.facts(Btf.load(VMLINUX))
        assert facts is not None
        cast = [
            (0xBF, 0x21, 0, 0),  # r1 = r2
            (0xB7, 0x02, 0, 0),  # r2 = 0: bytes of no type
            (0x85, 0x20, 0, facts.cast_function),
            (0xBF, 0x02, 0, 0),  # r2 = r0
        ]
        steps = [
            (0x79, 0x11, 0, 0),  # r1 = ctx[0]
            (0x63, 0x1A, -4, 0),  # *(u32 *)(r10 - 4) = r1
            (0x18, 0x11, 0, self._map),
            (0, 0, 0, 0),
            (0xBF, 0xA2, 0, 0),  # r2 = r10 - 4
            (0x07, 0x02, 0, -4),
            (0x85, 0, 0, 1),  # bpf_map_lookup_elem()
            (0x55, 0x00, 1, 0),
            (0x95, 0, 0, 0),
            (0xBF, 0x06, 0, 0),  # r6 = the frame
            (0xBF, 0x01, 0, 0),
            (0x07, 0x01, 0, PACKET),
            (0x7B, 0x16, 56, 0),  # by way of the map, so that the kernel takes the address for a number
            (0x79, 0x62, 56, 0),
            *(cast if plain else []),
            (0xBF, 0x61, 0, 0),  # r1 = r6
            (0x85, 0x10, 0, 1),  # call what is behind
            (0x95, 0, 0, 0),
        ]
        return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def row(packet: Packet) -> bytes:
    """Return a packet with its struct frame, as bpf/filter.h makes it."""
    first = 0 if packet.has_addresses else 12
    content = packet.content if packet.has_addresses else bytes(12) + packet.content[12:]
    link = struct.unpack(">5Q", content[:40].ljust(40, b"\0"))
    return struct.pack("=5QIIIIQ", *link, packet.length, len(content), 0, first, 0) + content


class _TestRun(ctypes.Structure):
    """The part of union bpf_attr for BPF_PROG_TEST_RUN."""

    _fields_ = (
        ("program", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("sizes", ctypes.c_uint32 * 2),
        ("data", ctypes.c_uint64 * 2),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("context_sizes", ctypes.c_uint32 * 2),
        ("context", ctypes.c_uint64 * 2),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class Runner:
    """Runs a raw tracepoint program with one argument."""

    def __init__(self, program: int) -> None:
        """Take the program's descriptor."""
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._number = _SYSCALL[os.uname().machine]
        self._arguments = (ctypes.c_uint64 * 12)()
        self._run = _TestRun(program=program)
        self._run.context_sizes[0] = ctypes.sizeof(self._arguments)
        self._run.context[0] = ctypes.addressof(self._arguments)
        self._at, self._size = ctypes.byref(self._run), ctypes.sizeof(self._run)

    def __call__(self, argument: int) -> int:
        """Return what the program returns."""
        self._arguments[0] = argument
        if self._call(self._number, _PROG_TEST_RUN, self._at, self._size):
            raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
        return int(self._run.result)


@pytest.fixture
def machine(reader: classic.ByteReader, packets: list[Packet]) -> Iterator[Machine]:
    """A machine with all packets."""
    made = Machine(reader, packets)
    yield made
    made.close()


def test_as_libpcap_says(machine: Machine, packets: list[Packet]) -> None:
    """Each expression matches, of 20,000 packets, those that libpcap says it matches: some, and not all."""
    assert len(EXPRESSIONS) >= 60
    assert len(packets) == PACKETS
    for text in EXPRESSIONS:
        program = compile_expression(text)
        matches = Matcher(program)
        expected = [matches(packet.content, packet.length) for packet in packets]
        hits = sum(expected)
        assert 0 < hits < len(packets), f"{text!r} matches {hits} packets"
        answers = machine.answers(program)
        wrong = [packets[at] for at, (one, other) in enumerate(zip(expected, answers, strict=True)) if one != other]
        assert not wrong, f"{text!r} differs for {len(wrong)} packets: {wrong[0]}"


def test_without_addresses(reader: classic.ByteReader, packets: list[Packet]) -> None:
    """Where a packet has no MAC header, what asks for addresses matches nothing; all else is as if it had one."""
    without = [packet._replace(has_addresses=False) for packet in packets[:2000] if len(packet.content) > 12]
    machine = Machine(reader, without)
    try:
        for text in EXPRESSIONS:
            program = compile_expression(text)
            matches = Matcher(program)
            asks = text.startswith(("ether host", "ether src", "ether dst", "ether multi", "ether broad")) or any(
                part in text for part in ("ether[0", "ether[1", "ether[(", "ether[ether") if "ether[12" not in text
            )
            expected = [not asks and matches(bytes(12) + packet.content[12:], packet.length) for packet in without]
            assert machine.answers(program) == expected, text
    finally:
        machine.close()
