# SPDX-License-Identifier: MIT
"""The guest's emulated NICs: frames asked for from outside, and what other tools say of them."""

import socket
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.kit.process import DEADLINE
from tests.vm.nic import PORT

NET = Path("/sys/class/net")
DISCARD = 9
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h
_RULES = 300
_SADC = "/usr/lib/sysstat/sadc"


def run(*command: str) -> str:
    """Run a tool; return what it printed."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE).stdout


class Nic(NamedTuple):
    """One emulated NIC whose driver is loaded."""

    driver: str
    interface: str
    mac: str

    @property
    def number(self) -> int:
        """Its number on the host, which is in its address."""
        return int(self.mac.rpartition(":")[2], 16)

    @property
    def ip(self) -> str:
        """Its address in a network of its own; .1 is outside."""
        return f"10.77.{self.number}.2"

    def frame(self, size: int = 60, port: int = DISCARD) -> bytes:
        """Return a frame of this size to a UDP port here, without a checksum."""
        length = size - 14
        udp = struct.pack("!HHHH", 1, port, length - 20, 0).ljust(length - 20, b"\0")
        source, target = (socket.inet_aton(f"10.77.{self.number}.{end}") for end in (1, 2))
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, source, target)
        total = sum(struct.unpack("!10H", header))
        total = (total >> 16) + (total & 0xFFFF)
        header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
        return bytes.fromhex(self.mac.replace(":", "") + "0200000000fe" + "0800") + header + udp

    def write(self, setting: str, value: object) -> None:
        """Write a file of the interface below /sys/class/net."""
        (NET / self.interface / setting).write_text(f"{value}\n")

    def statistics(self, *fields: str) -> int:
        """Return the sum of some members of struct rtnl_link_stats64."""
        return sum(int((NET / self.interface / "statistics" / field).read_text()) for field in fields)


def bring_up(drivers: Mapping[str, str]) -> dict[str, Nic]:
    """Load drivers (values: modules) of NICs that nothing has touched; return those that are up then, by driver."""
    for module in drivers.values():
        run("modprobe", module)
    found = {}
    for place in NET.iterdir():
        driver = (place / "device/driver").resolve().name
        if driver in drivers:
            nic = found[driver] = Nic(driver, place.name, (place / "address").read_text().strip())
            Path("/proc/sys/net/ipv6/conf", nic.interface, "disable_ipv6").write_text("1")  # it sends of its own
            run("ip", "addr", "add", f"{nic.ip}/24", "dev", nic.interface)
            run("ip", "link", "set", "dev", nic.interface, "up")
    return found


class Cable:
    """Asks the host for frames."""

    def __init__(self) -> None:
        """Open the port; its device has a number of its own."""
        (port,) = Path("/dev").glob(f"vport*p{PORT}")
        self._port = open(port, "r+b", buffering=0)  # noqa: SIM115  closed by __exit__()

    def __enter__(self) -> "Cable":
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._port.close()

    def send(self, nic: Nic, count: int, *frames: bytes) -> None:
        """Have frames sent to a NIC, so often; return once its emulation, not its driver, took them all."""
        self._port.write(" ".join((str(nic.number), str(count), *(frame.hex() for frame in frames))).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._port.read(1)
        assert int(answer) == count


class Receiver:
    """A socket that takes all frames to one port of a NIC, and counts them."""

    def __init__(self, nic: Nic, port: int = DISCARD, size: int = 1 << 26) -> None:
        """Bind it, with a buffer of this size."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        self.socket.bind((nic.ip, port))
        self.socket.setblocking(False)
        self._nic, self._port, self._count = nic, port, 0
        self.longest = 0
        """Bytes that the longest of them carried."""

    def __enter__(self) -> "Receiver":
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.socket.close()

    def received(self) -> int:
        """Read what has come; return how much that was so far."""
        while True:
            try:
                self.longest = max(self.longest, len(self.socket.recv(1 << 16)))
            except BlockingIOError:
                return self._count
            self._count += 1

    def has(self, count: int) -> bool:
        """Tell whether so many came."""
        return self.received() == count

    def drops(self) -> int:
        """Return what found no room in it: the last column of /proc/net/udp (net/ipv4/udp.c udp4_format_sock)."""
        address = f"{int.from_bytes(socket.inet_aton(self._nic.ip), 'little'):08X}:{self._port:04X}"
        (row,) = (line.split() for line in Path("/proc/net/udp").read_text().splitlines() if f" {address} " in line)
        return int(row[-1])


@contextmanager
def slow(nics: Mapping[str, Nic]) -> Iterator[None]:
    """Let each frame that a driver hands over pass many rules first: so its ring is emptied slowly."""
    rules = "\n".join(f"udp sport {port} drop" for port in range(10000, 10000 + _RULES))
    chains = "\n".join(
        f'chain {nic.interface} {{ type filter hook ingress device "{nic.interface}" priority 0;\n{rules}\n}}'
        for nic in nics.values()
    )
    subprocess.run(
        ["nft", "-f", "-"], input=f"table netdev slow {{\n{chains}\n}}", text=True, check=True, timeout=2 * DEADLINE
    )
    try:
        yield
    finally:
        run("nft", "delete", "table", "netdev", "slow")


# -------------------------------------------------------------------------------------------------------- witnesses


def ethtool(nic: Nic) -> Counter[str]:
    """Return what `ethtool -S` prints, the queues of a device added up; nothing if the driver has no statistics."""
    answer = subprocess.run(["ethtool", "-S", nic.interface], capture_output=True, text=True, timeout=DEADLINE)
    found = Counter[str]()
    for line in answer.stdout.splitlines():
        name, _, value = line.strip().rpartition(": ")
        if name and value.isdecimal() and not name.endswith("Queue#"):
            found[name] += int(value)
    return found


def netstat(nic: Nic) -> dict[str, int]:
    """Return the columns of `netstat -i` that are numbers."""
    titles, *rows = (line.split() for line in run("netstat", "-i", "-a").splitlines()[1:])
    (row,) = (row for row in rows if row[0] == nic.interface)
    return {title: int(cell) for title, cell in zip(titles, row, strict=False) if cell.isdecimal()}


def ifconfig(nic: Nic) -> dict[str, int]:
    """Return what `ifconfig` says of received frames: packets, errors, dropped, overruns, frame."""
    words = " ".join(line for line in run("ifconfig", nic.interface).splitlines() if line.lstrip().startswith("RX"))
    return {name: int(value) for name, value in pairwise(words.split()) if value.isdecimal()}


class Sar:
    """sysstat's own readings, between which `sar -n EDEV` gives rates."""

    def __init__(self, directory: str) -> None:
        """Read for the first time, into a file of this directory."""
        self._file = f"{directory}/sa"
        self.read()

    def read(self) -> None:
        """Add a reading."""
        run(_SADC, "-S", "ALL", "1", "1", self._file)

    def edev(self, nic: Nic) -> dict[str, int]:
        """Return by how much its columns rose between the last two readings: their rates times the time between.

        `sadf -r` prints the values that sar makes its rates of, which have two digits behind the point only.
        """
        printed = [line.split("; ") for line in run("sadf", "-r", self._file, "--", "-n", "EDEV").splitlines()]
        cells = [cell.rstrip(";") for cell in next(line for line in reversed(printed) if line[2] == nic.interface)[3:]]
        columns = zip(cells[::3], cells[1::3], cells[2::3], strict=True)
        return {title: int(now) - int(before) for title, before, now in columns}


Rises = dict[str, dict[str, int]]
"""What numbers rose by: driver -> "netstat RX-DRP", "ethtool rx_fifo", "sar rxdrop/s"."""


@contextmanager
def witnesses(nics: Mapping[str, Nic]) -> Iterator[Rises]:
    """Have all of them read some NICs before and after a block, behind which the result is filled in."""
    rises: Rises = {}
    with tempfile.TemporaryDirectory() as directory:
        sar = Sar(directory)
        before = _read(nics)
        yield rises
        sar.read()
        for driver, after in _read(nics).items():
            rises[driver] = {name: value - before[driver][name] for name, value in after.items()}
            rises[driver] |= {f"sar {name}": value for name, value in sar.edev(nics[driver]).items()}


def _read(nics: Mapping[str, Nic]) -> dict[str, dict[str, int]]:
    tools = {"ethtool": ethtool, "netstat": netstat, "ifconfig": ifconfig}
    return {
        driver: {f"{tool} {name}": value for tool, ask in tools.items() for name, value in ask(nic).items()}
        for driver, nic in nics.items()
    }
