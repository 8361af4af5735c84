# SPDX-License-Identifier: MIT
"""What the driver tables make of real drivers' output, before and after as many frames as tests/vm had sent to them.

Expected: frames that were sent and did not arrive, which a socket in the guest counted.
"""

import json
import re
from pathlib import Path

import pytest

from pktdrop.counters.like import net_dev
from pktdrop.counters.links import NAMES
from pktdrop.model.counters import Row, Scope
from pktdrop.rules.drivers import Drivers
from tests.unit.make import amounts

DATA = Path(__file__).parent.parent / "data/counters"
FIXTURES = sorted(path.parent for path in DATA.glob("*/frames.json"))
COUNTING = {"8139cp": "fifo", "pcnet32": "ring", "vmxnet3": "ring"}
"""Drivers whose NIC counts what it loses, and the class of that."""
SILENT = {"ne2k-pci", "tulip"}
"""Drivers whose NIC loses frames without a word."""
ETH0 = Scope(interface="eth0")
_QUEUE = re.compile(r"(?:Rx|Tx) Queue#: ([0-9]+)")

each = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def drivers() -> Drivers:
    """The tables that come with pktdrop."""
    return Drivers.load()


def driver_of(fixture: Path) -> str:
    """Return the driver as `ethtool -i` printed it."""
    first = (fixture / "ethtool-i").read_text().splitlines()[0]
    return first.removeprefix("driver: ")


def statistics(path: Path) -> dict[Scope, dict[str, int]]:
    """Return what `ethtool -S` printed; what stands below a line "Rx Queue#: 1" is of that queue."""
    found: dict[Scope, dict[str, int]] = {}
    scope = ETH0
    for line in path.read_text().splitlines()[1:]:
        queue = _QUEUE.fullmatch(line.strip())
        if queue is not None:
            scope = ETH0._replace(queue=int(queue[1]))
            continue
        name, value = line.strip().rsplit(": ", 1)
        place = ETH0 if name == "tx timeout count" else scope
        found.setdefault(place, {})[f"ethtool.{name}"] = int(value)
    return found


def links(path: Path) -> dict[str, int]:
    """Return rtnl_link_stats64 as `ip -s -s -j link` printed it (iproute2's ip/ipaddress.c print_stats64)."""
    (link,) = json.loads(path.read_text())
    found = {"collisions": link["stats64"]["tx"]["collisions"], "multicast": link["stats64"]["rx"]["multicast"]}
    for way in ("rx", "tx"):
        found |= {f"{way}_{name}": value for name, value in link["stats64"][way].items()}
    return {name: found.get(name, 0) for name in NAMES}


def rise(fixture: Path) -> tuple[dict[Scope, Row], Row]:
    """Return by how much the counters of the driver, and of the kernel, rose."""
    before, after = (statistics(fixture / when / "ethtool-S") for when in ("quiet", "flooded"))
    rows = {
        scope: Row(tuple(counted), tuple(value - before[scope][name] for name, value in counted.items()))
        for scope, counted in after.items()
    }
    first, second = (links(fixture / when / "ip.json") for when in ("quiet", "flooded"))
    return rows, Row(NAMES, tuple(second[name] - first[name] for name in NAMES))


def missing(fixture: Path) -> int:
    """Return how many frames did not arrive."""
    frames = json.loads((fixture / "frames.json").read_text())
    return int(frames["sent"] - frames["received"])


def test_there_are_fixtures() -> None:
    """Of all these drivers, some of which lost frames."""
    found = {driver_of(fixture): missing(fixture) for fixture in FIXTURES}
    assert {driver for driver, lost in found.items() if lost} == SILENT | set(COUNTING)
    assert {driver for driver, lost in found.items() if not lost} == {"e100", "e1000", "e1000e", "virtio_net"}


@each
def test_frames_that_did_not_arrive_are_the_loss(drivers: Drivers, fixture: Path) -> None:
    """Each lost frame is counted once, in its class, though several counters have it; what is no loss is none."""
    driver = driver_of(fixture)
    rows, fields = rise(fixture)
    expected = {COUNTING[driver]: missing(fixture)} if driver in COUNTING else {}
    assert amounts(drivers.nic_loss(driver, rows, fields)) == expected
    # its errors have the missed frames, too
    signs = {"ethtool.rx_err": missing(fixture)} if driver == "8139cp" else {}
    assert {hint.counter: hint.value for hint in drivers.hints(driver, rows)} == signs


@each
def test_quiet_drivers_lost_nothing(drivers: Drivers, fixture: Path) -> None:
    """Before the flood no counter says anything."""
    rows = {
        scope: Row(tuple(counted), tuple(counted.values()))
        for scope, counted in statistics(fixture / "quiet/ethtool-S").items()
    }
    fields = links(fixture / "quiet/ip.json")
    assert amounts(drivers.nic_loss(driver_of(fixture), rows, Row(NAMES, tuple(fields.values())))) == {}


@each
def test_no_meaning_is_guessed(drivers: Drivers, fixture: Path) -> None:
    """Every statistic of these drivers that says something has a row of the driver's own."""
    names = {name for counted in statistics(fixture / "flooded/ethtool-S").values() for name in counted}
    meanings = {name: drivers.classify(driver_of(fixture), name) for name in names}
    assert {
        name for name, meaning in meanings.items() if meaning is not None and meaning.confidence != "driver"
    } == set()


@pytest.mark.parametrize("driver", ["8139cp", "e100", "e1000", "e1000e"])
def test_rows_name_statistics_that_exist(drivers: Drivers, driver: str) -> None:
    """Each row of these drivers is a statistic that theirs print: no name is misspelt."""
    (fixture,) = (path for path in FIXTURES if driver_of(path) == driver)
    printed = statistics(fixture / "flooded/ethtool-S")[ETH0]
    named = {f"ethtool.{rule.name}" for rule in drivers.rules if driver in rule.drivers}
    assert named <= set(printed)
    assert named


@each
@pytest.mark.parametrize("when", ["quiet", "flooded"])
def test_fields_fold_as_proc_net_dev_does(fixture: Path, when: str) -> None:
    """What `pktdrop counters --like` makes of the fields is the line of /proc/net/dev, which netstat and sar read."""
    line = (fixture / when / "dev").read_text().splitlines()[-1]
    fields = links(fixture / when / "ip.json")
    folded = net_dev(Row(tuple(fields), tuple(fields.values())))
    assert [*folded.values()] == [int(cell) for cell in line.partition(":")[2].split()]
