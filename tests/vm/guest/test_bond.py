# SPDX-License-Identifier: MIT
"""What an inactive member of a bond does not pass on is no loss, in no command."""

import json
import socket
import subprocess
from typing import Any

from pktdrop.demo import frames
from pktdrop.demo.namespace import Namespace
from pktdrop.demo.net import Net, ipv4, mac, two_ns
from tests.kit.diagnosed import diagnosing, judged, of
from tests.kit.process import DEADLINE, command, wait_until
from tests.kit.trace import inside, total, tracing

N = 23
OPEN = 4007


def bond(net: Net) -> None:
    """Let the server have two cables to the client in a bond, of which the first is used (active-backup)."""
    client, server = net["client"], net["server"]
    subprocess.run(["modprobe", "bonding", "max_bonds=0"], check=True, timeout=DEADLINE)
    server.ip("link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "50")
    for name in ("one", "two"):
        client.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", server.name)
        client.ip("link", "set", name, "arp", "off", "up")
        server.ip("link", "set", name, "master", "bond0")
    server.ip("link", "set", "bond0", "arp", "off", "up")
    server.ip("link", "set", "bond0", "type", "bond", "active_slave", "one")
    server.ip("address", "add", f"{ipv4(5, 2)}/24", "dev", "bond0")
    wait_until(lambda: detail(server)["active_slave"] == "one", "the first cable to be used", DEADLINE)


def detail(server: Namespace) -> dict[str, Any]:
    """What ip(8) says of the bond."""
    (link,) = json.loads(server.ip("-d", "-j", "link", "show", "bond0"))
    return dict(link["linkinfo"]["info_data"])


def refused(server: Namespace) -> int:
    """Count frames at the second cable that nobody took, by ip(8)."""
    (link,) = json.loads(server.ip("-s", "-s", "-j", "link", "show", "two"))
    return int(link["stats64"]["rx"].get("nohandler", 0))


def send(net: Net, interface: str, count: int) -> None:
    """Send datagrams to the server's open port, as a switch does that floods both cables."""
    packet = frames.ip4(ipv4(5, 1), ipv4(5, 2), frames.UDP, frames.udp(ipv4(5, 1), ipv4(5, 2), OPEN))
    with net["client"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((interface, 0))
        for _ in range(count):
            wire.send(frames.ethernet("ff:ff:ff:ff:ff:ff", mac(5, 1), frames.ETH_P_IP, packet))


def test_what_an_inactive_member_does_not_pass_on_is_no_loss() -> None:
    """The same datagrams arrive by the other cable; rx_nohandler has them, of the cable and of the bond."""
    with two_ns() as net:
        server = net["server"]
        bond(net)
        with server.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind((ipv4(5, 2), OPEN))
            sink.settimeout(DEADLINE)
            before = refused(server)
            with diagnosing("--all-netns") as made, tracing("--all-netns") as trace:
                send(net, "two", N)
                send(net, "one", N)
                for _ in range(N):
                    sink.recv(100)
                wait_until(lambda: refused(server) == before + N, "the second cable to refuse them", DEADLINE)
                assert trace.stop() == 0, trace.stderr
                summary, data = trace.summary, judged(made)
        drops = [drop for drop in inside(summary["drops"], [server]) if drop["interface"] == "two"]
        assert total(drops) == N
        assert all(drop["noise"] or drop["doubt"] for drop in drops)
        assert of(data, server) == []


def test_counters_call_it_no_loss() -> None:
    """Neither of the cable nor, once more, of the bond."""
    with two_ns() as net:
        bond(net)
        send(net, "two", N)
        server = net["server"]
        wait_until(lambda: refused(server) >= N, "the second cable to refuse them", DEADLINE)
        inside_of = ["ip", "netns", "exec", server.name, *command(), "counters", "--format", "json"]
        shown = subprocess.run(inside_of, capture_output=True, text=True, check=True, timeout=4 * DEADLINE).stdout
    found = [one for line in shown.splitlines() for one in json.loads(line).get("counters", [])]
    told = [one for one in found if "nohandler" in json.dumps(one)]
    assert told, shown
    assert [one for one in told if one.get("loss")] == []
