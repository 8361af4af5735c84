# SPDX-License-Identifier: MIT
"""Full RX rings and FIFOs of emulated NICs, fed from outside the guest.

QEMU's e1000e, virtio-net and, but for jumbo frames, e1000 hold back what finds no descriptor, and ne2k_pci and tulip
lose it without a word: these here lose it and count it, each frame once (QEMU 7.2, hw/net):

- vmxnet3.c vmxnet3_indicate_packet: VMXNET3_PKT_STATUS_OUT_OF_BUF
- pcnet.c pcnet_receive: CSR_MISSC; OFLO and BUFF in the descriptor of a frame whose rest finds none
- rtl8139.c rtl8139_do_receive, in C+ mode: RxMissed, and MissPkt of the tally counters
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kit.diagnosed import commands, diagnosing, judged
from tests.kit.process import DEADLINE, wait_until
from tests.kit.trace import tracing
from tests.vm.guest.cpus import RECEIVES, SENDS, rise, settings, softnet
from tests.vm.guest.nics import Cable, Nic, Receiver, Rises, bring_up, ethtool, run, slow, witnesses

DRIVERS = {"vmxnet3": "vmxnet3", "pcnet32": "pcnet32", "8139cp": "8139cp"}
FRAMES = 3_000
OTHER_PORT = 10
HEADERS = 14 + 20 + 8
"""Bytes of Ethernet, IPv4 and UDP."""
SECONDS_FOR_ONE = 1.0
"""After which a frame is taken for lost."""
FEW = 8
"""Frames that any ring has room for."""
RING = 32
"""Descriptors: the fewest that vmxnet3 takes."""
Record = Callable[[str, object], None]
LARGE = 3_000
"""Bytes of a frame that takes two of pcnet32's buffers."""


@dataclass
class Window:
    """What pktdrop and others saw of the same frames."""

    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    rose: Rises = field(default_factory=dict)
    """What each witness's number rose by, by driver."""
    diagnosis: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def lost(self, driver: str) -> int:
        """Return how many frames were not received."""
        return self.sent[driver] - self.received[driver]

    def loss(self, nic: Nic, layer: str) -> dict[str, Any]:
        """Return the one loss that the diagnosis has there."""
        (found,) = (
            loss
            for loss in self.diagnosis["losses"]
            if loss["layer"] == layer and loss.get("interface") == nic.interface
        )
        return dict(found)


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    """The way to ask for frames."""
    with Cable() as made:
        yield made


@pytest.fixture(scope="module")
def nics(cable: Cable) -> dict[str, Nic]:
    """The NICs, whose links are up and which receive."""
    found = bring_up(DRIVERS)
    assert set(found) == set(DRIVERS)
    run("ethtool", "-G", found["vmxnet3"].interface, "rx", str(RING))
    for nic in found.values():
        wait_until_one_arrives(nic, cable)
    return found


def wait_until_one_arrives(nic: Nic, cable: Cable) -> None:
    """Send one frame after the other until one is received: then the link is up, and all before it were dealt with."""
    size, again = 60, 0.0

    def arrived() -> bool:
        nonlocal size, again
        if receiver.received() and receiver.longest == size - HEADERS:
            return True
        if time.monotonic() > again:  # the last one was lost, or will not be the last
            size += 1
            cable.send(nic, 1, nic.frame(size, OTHER_PORT))
            again = time.monotonic() + SECONDS_FOR_ONE
        return False

    with Receiver(nic, OTHER_PORT) as receiver:
        wait_until(arrived, f"a frame on {nic.interface}", DEADLINE)


@contextmanager
def watched(nics: Mapping[str, Nic]) -> Iterator[Window]:
    """Run pktdrop trace, pktdrop diagnose and the other tools around a block."""
    window = Window()
    with tracing("3600") as trace, diagnosing() as made:
        with witnesses(nics) as window.rose:
            yield window
        window.diagnosis = judged(made)
        assert trace.stop() == 0, trace.stderr
        window.summary = trace.summary


@pytest.fixture(scope="module")
def flood(nics: dict[str, Nic], cable: Cable) -> Window:
    """All NICs, one after the other, got more than they had room for."""
    with watched(nics) as window, slow(nics):
        for driver, nic in nics.items():
            window.sent[driver], window.received[driver] = FRAMES, received_of_many(nic, cable)
    return window


def received_of_many(nic: Nic, cable: Cable) -> int:
    """Send FRAMES at once; return how many were received, once the NIC has lost all others."""
    with Receiver(nic) as receiver:
        before = lost_by(nic)
        cable.send(nic, FRAMES, nic.frame())
        wait_until(lambda: receiver.received() + lost_by(nic) - before == FRAMES, "all frames", 2 * DEADLINE)
        return receiver.received()


@pytest.fixture(scope="module")
def trickle(nics: dict[str, Nic], cable: Cable) -> Window:
    """All NICs got as many frames, a few at a time."""
    with watched(nics) as window, slow(nics):
        for driver, nic in nics.items():
            window.sent[driver], window.received[driver] = FRAMES, received_of_few(nic, cable)
    return window


def received_of_few(nic: Nic, cable: Cable) -> int:
    """Send as many, but no more at once than any ring has room for."""
    with Receiver(nic) as receiver:
        for _ in range(FRAMES // FEW):
            expected = receiver.received() + FEW
            cable.send(nic, FEW, nic.frame())
            wait_until(partial(receiver.has, expected), "some frames", DEADLINE)
        return receiver.received()


def lost_by(nic: Nic) -> int:
    """Return what a NIC counted as lost for lack of a descriptor."""
    if nic.driver == "vmxnet3":
        return ethtool(nic)["pkts rx OOB"]
    return nic.statistics("rx_missed_errors")


def test_a_full_ring_is_named_with_its_size(nics: dict[str, Nic], flood: Window, record_property: Record) -> None:
    """vmxnet3 counts a frame without a descriptor in `ethtool -S` only; the ring could be larger."""
    lost = flood.lost("vmxnet3")
    record_property("lost by vmxnet3", lost)
    assert lost > 0
    loss, name = flood.loss(nics["vmxnet3"], "nic-ring"), nics["vmxnet3"].interface
    assert (loss["packets"], loss["class"], loss["cause"]) == (lost, "capacity", "nic-ring")
    assert loss["where"].startswith(f"in the RX ring of {name}")
    rose = flood.rose["vmxnet3"]
    assert rose["ethtool pkts rx OOB"] == lost
    assert {rose["netstat RX-OK"], rose["ifconfig packets"]} == {flood.received["vmxnet3"]}
    # no field of rtnl_link_stats64 has it: tools that read these alone see nothing
    assert not any(value for tool, value in rose.items() if tool.startswith("sar "))
    assert {rose["netstat RX-DRP"], rose["ifconfig dropped"], rose["netstat RX-OVR"]} == {0}
    now, most = ring_of(nics["vmxnet3"])
    assert now == RING
    said = " ".join(one["say"] for one in loss["advice"])
    assert f"Each RX ring of {name} has {now} of at most {most:,} descriptors: make it larger." in said
    assert f"ethtool -G {name} rx {most}" in commands(loss)


def test_a_full_ring_in_a_field_of_its_own(nics: dict[str, Nic], flood: Window, record_property: Record) -> None:
    """pcnet32 counts it as missed; what it counts in rx_errors besides, an interrupt for many, is no damaged frame."""
    lost = flood.lost("pcnet32")
    record_property("lost by pcnet32", lost)
    assert lost > 0
    loss, name = flood.loss(nics["pcnet32"], "nic-ring"), nics["pcnet32"].interface
    assert (loss["packets"], loss["class"], loss["cause"]) == (lost, "capacity", "nic-ring")
    rose = flood.rose["pcnet32"]
    assert {rose["netstat RX-DRP"], rose["ifconfig dropped"], rose["sar rxdrop/s"]} == {lost}
    assert {rose["netstat RX-OK"], rose["ifconfig packets"]} == {flood.received["pcnet32"]}
    assert 0 < rose["netstat RX-ERR"] == rose["ifconfig errors"] == rose["sar rxerr/s"] <= lost
    now, most = ring_of(nics["pcnet32"])
    assert f"Each RX ring of {name} has {now} of at most {most:,} descriptors: make it larger." in " ".join(
        one["say"] for one in loss["advice"]
    )
    assert f"ethtool -G {name} rx {most}" in commands(loss)


def test_a_full_fifo(nics: dict[str, Nic], flood: Window, record_property: Record) -> None:
    """8139cp counts what its FIFO had no room for in `ethtool -S` and as missed; its ring has one size only."""
    lost = flood.lost("8139cp")
    record_property("lost by 8139cp", lost)
    assert lost > 0
    loss = flood.loss(nics["8139cp"], "nic-fifo")
    assert (loss["packets"], loss["class"], loss["cause"]) == (lost, "capacity", "nic-fifo")
    assert loss["where"] == f"in the memory (FIFO) of {nics['8139cp'].interface}"
    rose = flood.rose["8139cp"]
    assert rose["ethtool rx_fifo"] == lost
    assert {rose["netstat RX-DRP"], rose["ifconfig dropped"], rose["sar rxdrop/s"]} == {lost}
    assert {rose["netstat RX-OK"], rose["ifconfig packets"], rose["ethtool rx_ok"]} == {flood.received["8139cp"]}
    assert not any("ethtool -G" in command for command in commands(loss))


def test_each_lost_frame_is_one(flood: Window) -> None:
    """The layers have what was lost, and nothing else; no counter is a riddle, though several count the same frames."""
    layers = {
        "nic-fifo": flood.lost("8139cp"),
        "nic-ring": flood.lost("vmxnet3") + flood.lost("pcnet32"),
    }
    assert flood.summary["layers"] == layers, flood.summary["drops"]
    assert flood.diagnosis["packets"] == sum(layers.values())
    assert flood.diagnosis["unexplained"] == 0
    assert "unexplained" not in {entry["status"] for entry in flood.summary["ledger"]}


def test_as_many_frames_slowly_are_no_loss(nics: dict[str, Nic], trickle: Window) -> None:
    """What a ring has room for is received, and nothing is said."""
    assert trickle.received == dict.fromkeys(nics, FRAMES)
    assert trickle.summary["layers"] == {}, trickle.summary["drops"]
    assert (trickle.diagnosis["packets"], trickle.diagnosis["losses"]) == (0, [])
    assert trickle.diagnosis["verdict"].startswith("Nothing was lost on this host in ")
    for rose in trickle.rose.values():
        assert rose["netstat RX-OK"] == FRAMES
        assert not any(value for name, value in rose.items() if name.startswith("sar "))


def test_frames_cut_off_by_a_full_ring(nics: dict[str, Nic], cable: Cable, record_property: Record) -> None:
    """Of a frame that takes two buffers, where one is left, pcnet32 counts an overrun: once, though in two fields."""
    nic = nics["pcnet32"]
    only = {nic.driver: nic}
    with watched(only) as window, slow(only), Receiver(nic):
        before = lost_by(nic)
        cable.send(nic, FRAMES, nic.frame(), nic.frame(LARGE))
        wait_until_one_arrives(nic, cable)
        missed = lost_by(nic) - before
    rose = window.rose["pcnet32"]
    cut = rose["netstat RX-OVR"]
    record_property("cut off by pcnet32", cut)
    assert cut > 0
    assert {rose["ifconfig overruns"], rose["sar rxfifo/s"]} == {cut}
    assert {rose["ifconfig frame"], rose["sar rxfram/s"]} == {cut}  # rx_over_errors, which /proc/net/dev folds there
    assert {rose["netstat RX-DRP"], rose["ifconfig dropped"], rose["sar rxdrop/s"]} == {missed}
    assert window.loss(nic, "nic-fifo")["packets"] == cut
    assert window.loss(nic, "nic-fifo")["where"] == f"in the memory (FIFO) of {nic.interface}"
    # Where there are two buffers for it, it is too long all the same: pcnet32_rx_entry() counts it in rx_errors alone,
    # where it counts one cut off not at all, as that has no end (drivers/net/ethernet/amd/pcnet32.c, v5.10).
    long = max(0, rose["netstat RX-ERR"] - missed)
    layers = {"nic-fifo": cut, "nic-ring": missed, "driver": long}
    assert window.summary["layers"] == {layer: lost for layer, lost in layers.items() if lost}, window.summary["ledger"]
    assert window.diagnosis["unexplained"] == 0


def test_ring_backlog_and_socket_at_once(nics: dict[str, Nic], cable: Cable, record_property: Record) -> None:
    """Frames lost on the NIC, at the other CPU's backlog and at a socket are three losses, as their counters say."""
    nic = nics["vmxnet3"]
    only = {nic.driver: nic}
    first = f"{nic.interface}-rxtx-0"
    (interrupt,) = (path.parent for path in Path("/proc/irq").glob("*/*") if path.name == first)
    (interrupt / "smp_affinity").write_text(f"{1 << SENDS:x}")
    nic.write("queues/rx-0/rps_cpus", f"{1 << RECEIVES:x}")
    try:
        with (
            settings(netdev_max_backlog=RING),
            watched(only) as window,
            slow(only),
            Receiver(nic, size=0) as receiver,
        ):
            ring, backlog, sent = lost_by(nic), softnet(1), 0

            def lost_so_far() -> dict[str, int]:
                queued = rise(backlog, softnet(1))
                assert set(queued) <= {RECEIVES}
                return {
                    "nic-ring": lost_by(nic) - ring,
                    "backlog": queued.get(RECEIVES, 0),
                    "socket": receiver.drops(),
                }

            def rest() -> int:
                return sent - sum(lost_so_far().values()) - receiver.received()

            deadline = time.monotonic() + 4 * DEADLINE
            while not all((lost := lost_so_far()).values()):  # which CPU of a guest is the faster one is up to chance
                assert time.monotonic() < deadline, lost
                cable.send(nic, FRAMES, nic.frame())
                sent += FRAMES
                wait_until(lambda: rest() == 0, "all frames", 2 * DEADLINE)
    finally:
        nic.write("queues/rx-0/rps_cpus", "0")
    for layer, packets in lost.items():
        record_property(f"lost at once: {layer}", packets)
        assert packets > 0, layer
    assert window.rose["vmxnet3"]["ethtool pkts rx OOB"] == lost["nic-ring"]
    assert window.rose["vmxnet3"]["netstat RX-DRP"] == window.rose["vmxnet3"]["sar rxdrop/s"] == lost["backlog"]
    assert window.summary["layers"] == lost, window.summary["ledger"]
    found = {loss["layer"]: loss["packets"] for loss in window.diagnosis["losses"]}
    assert found == lost
    assert len(window.diagnosis["losses"]) == len(lost)
    assert window.diagnosis["unexplained"] == 0
    (full,) = (loss for loss in window.diagnosis["losses"] if loss["layer"] == "backlog")
    assert full["target_cpu"] == RECEIVES


def ring_of(nic: Nic) -> tuple[int, int]:
    """Return size and largest size of an RX ring, as `ethtool -g` prints them: the largest first."""
    most, now = (int(line.split()[1]) for line in run("ethtool", "-g", nic.interface).splitlines() if "RX:" in line)
    return now, most
