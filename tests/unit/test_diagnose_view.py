# SPDX-License-Identifier: MIT
"""A diagnosis as text that fits a terminal, and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pktdrop.diagnosis.diagnosis import Diagnosis
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Netns, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.views.diagnose import as_json, as_text, status
from tests.unit.accounts import BLUE, DNS, HOST, UNTRACED, KnownHost, judge, make_account
from tests.unit.make import make_backlog_drop, make_doubt, make_drop, make_noise

ETH0 = Scope(netns=HOST, interface="eth0")
FULL = make_drop(reason="SOCKET_RCVBUFF", netns=HOST, netns_name="host", call_site="__udp_queue_rcv_skb+0x1")
REFUSED = make_drop(reason="NETFILTER_DROP", call_site="nft_do_chain+0x40f")
RING = {"driver": {ETH0: {"ethtool.rx_queue_3_drops": 5297}}}
SYSCTLS = {"rx_ring": 256, "rx_ring_max": 4096, "rmem_max": 212992, "rmem_default": 212992, "rcvbuf": 212992}
KNOWN = KnownHost({**SYSCTLS, "rcvbuf_max": 425984, "process": "dnsmasq", "netdev_max_backlog": 1000})

CASES: Mapping[str, Diagnosis] = {
    "quiet": judge(make_account()),
    "noise": judge(make_account({make_noise(): 12})),
    "ring": judge(make_account({}, RING, {"eth0": "igb"}), host=KNOWN),
    "backlog": judge(make_account({make_backlog_drop(): 5}, {"softnet": {Scope(cpu=3): {"dropped": 5}}}), host=KNOWN),
    "socket": judge(make_account({FULL: 5}, {"socket": {DNS: {"drops": 5}}}), host=KNOWN),
    "policy": judge(make_account({REFUSED: 23})),
    "unexplained": judge(make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}})),
    "no root": judge(
        make_account({}, {"mib": {Scope(netns=HOST): {"UdpNoPorts": 4}}}, rungs=UNTRACED),
        UNTRACED,
        limits=(
            Limit("untraced", why="Tracing needs root, or the capabilities CAP_BPF and CAP_PERFMON.", do="Use sudo."),
        ),
        present=frozenset((HOST, BLUE, 5)),
    ),
    "uncounted": judge(make_account(uncounted=Uncounted(0, 3))),
    "doubt": judge(make_account({make_doubt(): 1})),
    "long names": judge(
        make_account(
            {make_drop(reason="NOT_SPECIFIED", call_site="f+1", interface="x" * 15, netns=Netns(4026532999, 9)): 10**12}
        )
    ),
    "many": judge(make_account({make_drop(netns=Netns(index)): 1000 + index for index in range(1, 40)})),
}
every_case = pytest.mark.parametrize("name", CASES)


def shown(name: str, width: int = 80) -> str:
    """A case as text."""
    return as_text(CASES[name], width)


@every_case
@pytest.mark.parametrize("width", [80, 120])
def test_it_fits(name: str, width: int) -> None:
    """No line is wider than the terminal, but for commands, which are to be copied; none has blanks at its end."""
    commands = {one.command for loss in CASES[name].losses for one in loss.advice}
    lines = shown(name, width).splitlines()
    assert [line for line in lines if len(line) > width and line.strip() not in commands] == []
    assert [line for line in lines if line != line.rstrip()] == []


@every_case
def test_the_verdict_comes_first(name: str) -> None:
    """Whatever was seen, the first words are the answer, and a percent sign is never alone on its line."""
    text = shown(name)
    assert " ".join(text.split("\n\n")[0].split()) == CASES[name].verdict
    assert [line for line in text.splitlines() if line.lstrip().startswith("%")] == []


def test_quiet_is_proven() -> None:
    """What was watched is said, and each station is ok."""
    assert shown("quiet") == (
        "Nothing was lost on this host in 10.0 s.\n"
        "\n"
        "Watched: 4 interfaces, 2 CPUs, 2 network namespaces; 0 packets received in that\n"
        "time; drops traced by kfree_skb: tp_btf, enqueue_to_backlog: fentry.\n"
        "\n"
        "station   state  lost  what was seen\n"
        "nic-fifo  ok        -  -\n"
        "nic-ring  ok        -  -\n"
        "driver    ok        -  -\n"
        "backlog   ok        -  -\n"
        "stack     ok        -  -\n"
        "socket    ok        -  -\n"
        "qdisc     ok        -  -\n"
        "tx        ok        -  -\n"
    )


def test_a_loss_says_why_and_what_to_do() -> None:
    """Where, why, the host's own values, the command, the cost."""
    paragraphs = shown("ring").split("\n\n")
    assert "nic-ring  !! LOSS  5,297  5,297 in the RX ring of eth0 (queue 3)" in paragraphs[3]
    assert paragraphs[4].splitlines()[:9] == [
        "1. 5,297 packets (100 %) in the RX ring of eth0 (queue 3)",
        "   Class: capacity (for lack of room); ethtool.rx_queue_3_drops",
        "   Why:   The NIC found no free descriptor: the kernel emptied the ring more",
        "          slowly than frames came.",
        "   Do:    Each RX ring of eth0 has 256 of at most 4,096 descriptors: make it",
        "          larger.",
        "          ethtool -G eth0 rx 4096",
        "   Cost:  The link is reset on most drivers (a short loss); memory for each",
        "          queue; longer delay, colder caches.",
    ]


def test_policy_is_no_lack_of_room() -> None:
    """The second paragraph says that nothing was too small."""
    assert shown("policy").split("\n\n")[1] == (
        "Lost: 23 refused on purpose (policy, 100 %). None for lack of room (capacity)."
    )


def test_noise_is_named_and_not_counted_as_lost() -> None:
    """Frees without loss are at the end, with why they are none."""
    assert "Not lost: 12 packets freed without loss (noise): 12 OTHERHOST (frame for another\nhost)." in shown("noise")


def test_a_doubt_has_its_grammar() -> None:
    """One packet is an it."""
    assert "1 packet of which it is not known whether it was lost: 1 NOT_SPECIFIED" in " ".join(shown("doubt").split())


def test_a_riddle_is_called_one() -> None:
    """What nothing explains is marked where it stands."""
    assert "   Note:  no drop event accounts for it" in shown("unexplained")


def test_what_could_not_be_seen_is_said() -> None:
    """Without root: in the verdict, in what was watched, and at the end."""
    text = shown("no root")
    assert "Drops were not traced" in " ".join(text.split())
    assert "(1 more could not be read)" in text
    assert "counters only, drops not" in text
    last = text.split("\n\n")[-1]
    assert last.splitlines()[:2] == [
        "What could not be seen:",
        "- Drops could not be traced: Tracing needs root, or the capabilities CAP_BPF and",
    ]


def test_of_many_losses_the_largest_are_shown() -> None:
    """The others are one line, and nothing is lost on the way: the numbers add up."""
    text = shown("many")
    headings = [line for line in text.splitlines() if line[:1].isdigit()]
    assert len(headings) == 12
    assert "and 27,378 packets (69 %) in 27 places more" in text
    listed = sum(int(line.split()[1].replace(",", "")) for line in headings)
    assert listed + 27378 == CASES["many"].lost


@every_case
def test_json_has_what_text_has(name: str) -> None:
    """One line, the verdict word for word, and numbers that add up."""
    diagnosis = CASES[name]
    line = as_json(diagnosis, ("loss",), "1.0")
    assert line.count("\n") == 1
    data: dict[str, Any] = json.loads(line)
    assert (data["type"], data["verdict"], data["failed"]) == ("diagnosis", diagnosis.verdict, ["loss"])
    assert data["packets"] == sum(loss["packets"] for loss in data["losses"])
    assert data["packets"] == sum(station["packets"] for station in data["stations"])
    assert data["packets"] == sum(data["classes"].values())
    assert len(data["stations"]) == 8


def test_json_of_a_loss() -> None:
    """Every part of the place and of the advice is a key."""
    (loss,) = json.loads(as_json(CASES["socket"], (), "1.0"))["losses"]
    assert loss["sockets"] == [{"netns": HOST.inode, "netns_cookie": HOST.cookie, "socket": "udp 0.0.0.0:53 ino:812"}]
    assert (loss["cause"], loss["class"], loss["layer"], loss["reasons"]) == (
        "receive-buffer", "capacity", "socket", ["SOCKET_RCVBUFF"],
    )  # fmt: skip
    assert {"say", "command", "cost"} == set(loss["advice"][0])
    (backlog,) = json.loads(as_json(CASES["backlog"], (), "1.0"))["losses"]
    assert (backlog["target_cpu"], backlog["cpus"], backlog["interface"]) == (3, [0], "eth0")
    assert json.loads(as_json(CASES["no root"], (), "1.0"))["unexplained"] is None


@pytest.mark.parametrize(
    ("elapsed", "lost", "text"),
    [
        (3.0, 0, "3 of 10 s watched, nothing lost so far; Ctrl-C ends it now"),
        (9.6, 1, "10 of 10 s watched, 1 packet lost so far; Ctrl-C ends it now"),
        (1.0, 12345, "1 of 10 s watched, 12,345 packets lost so far; Ctrl-C ends it now"),
    ],
)
def test_the_status_line(elapsed: float, lost: int, text: str) -> None:
    """While it watches, how far it is; it never wraps."""
    assert status(elapsed, 10, lost, 80) == text
    assert len(status(elapsed, 10, lost, 30)) == 29


def test_every_json_key_is_in_the_readme() -> None:
    """Whoever reads JSON finds each key explained where it is: of the object in its table, of a loss below that."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    part = readme.partition("`diagnose` writes one object")[2].partition("An entry of the ledger is")[0]
    opening, table, of_losses = part.split("\n\n")[:3]
    rows = [row.split(" | ") for row in table.splitlines()[2:]]
    named = {"limits", *re.findall(r"`(\w+)`", opening), *(row[0].strip("| `") for row in rows)}
    objects = [json.loads(as_json(diagnosis, (), "1.0")) for diagnosis in CASES.values()]
    for data in objects:
        assert data.keys() <= named
        inner = _keys([data[name] for name in ("stations", "noise", "doubt", "watched")])
        assert inner <= set(re.findall(r"`(\w+)`", table))
        assert _keys(data["losses"]) <= set(re.findall(r"`(\w+)`", of_losses))
    assert any(data["losses"] for data in objects)


def _keys(data: Any) -> set[str]:
    """All keys of objects, however deep."""
    if isinstance(data, dict):
        return {*data, *(key for value in data.values() for key in _keys(value))}
    return {key for value in data for key in _keys(value)} if isinstance(data, list) else set()
