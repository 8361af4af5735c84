# SPDX-License-Identifier: MIT
"""Causes and remedies: the tables fit the others, each loss has a cause, each cause a remedy."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from pktdrop.ledger.entry import STAT_CLASS_LAYERS
from pktdrop.rules import causes, remedies
from pktdrop.rules.causes import Causes
from pktdrop.rules.identities import Identities
from pktdrop.rules.layers import LAYERS, NATURES, LayerRule, Layers
from pktdrop.rules.match import Event, Value
from pktdrop.rules.remedies import HOST_VALUES, SEEN_VALUES, Advice

CAUSES, REMEDIES = Causes.load(), remedies.load()
RULES = Layers.load(reasons=["CPU_BACKLOG"]).rules  # those of all kernels: tests/unit/test_layers.py
COUNTERS = Identities.load().counters
HEADER = "cause\tnature\tmatch\twhere\twhy\tsource"
REMEDY_HEADER = "cause\twhen\tsay\tcommand\tcost\tsource"
ANYTHING = "unknown\t-\tclass:*/*,counter:*\there\tWhy.\tsource"


def tokens(what: str) -> list[str]:
    """All globs of a kind in loss_causes.tsv."""
    return [glob for row in CAUSES.rows for named, glob in row.matches if named == what]


def overlap(one: str, other: str) -> bool:
    """Whether one of two globs is within the other."""
    return fnmatchcase(one, other) or fnmatchcase(other, one)


def test_a_command_is_short_enough_to_be_copied() -> None:
    """Each row has one command: behind the prefix for a namespace, two would not fit a line."""
    assert [row.command for row in REMEDIES if row.command is not None and row.command.count("{in_netns}") > 1] == []


def test_reasons_are_known_to_the_layers() -> None:
    """A reason that has a cause has a rule in layers.tsv."""
    reasons = {rule.reason for rule in RULES}
    assert [
        name for glob in tokens("event") if not any(overlap(name := glob.partition("@")[0], r) for r in reasons)
    ] == []


def test_counters_and_driver_classes_are_known() -> None:
    """A counter that has a cause is in loss_counters.tsv, a class of drivers in the layers of the ledger."""
    assert [glob for glob in tokens("counter") if not any(fnmatchcase(name, glob) for name in COUNTERS)] == []
    assert sorted(tokens("driver")) == sorted(STAT_CLASS_LAYERS)


def test_classes_are_known() -> None:
    """A row about a class names layers and classes that there are."""
    for glob in tokens("nature"):
        layer, _, nature = glob.partition("/")
        assert any(fnmatchcase(name, layer) for name in LAYERS), glob
        assert any(fnmatchcase(name, nature) for name in NATURES), glob


def test_each_row_can_be_reached() -> None:
    """No row stands below a wider one that takes all that it is about."""
    for row in CAUSES.rows:
        for what, glob in row.matches:
            if what == "event":
                reason, _, function = glob.partition("@")
                assert any(
                    CAUSES.of_event(rule.verdict.layer, rule.verdict.nature, Event.of("core", *example, 0)) is row
                    for rule in RULES
                    for example in [(reason.replace("*", "X"), (function or "*").replace("*", "x"))]
                ), f"line {row.line}: {glob}"
            elif what == "counter":
                assert any(CAUSES.of_counter(name) is row for name in [*COUNTERS, "x.y"]), f"line {row.line}: {glob}"


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.verdict.noise is None], ids=lambda rule: str(rule.line)
)
def test_a_cause_says_nothing_that_layers_contradict(rule: LayerRule) -> None:
    """What is policy by layers.tsv has no cause that speaks of lack of room, and the other way round."""
    reason, call_site = rule.reason.replace("*", "X"), rule.function.replace("*", "x")
    nature = rule.verdict.nature
    found = CAUSES.of_event(rule.verdict.layer, nature, Event.of("core", reason, call_site, 0))
    assert found.nature in (None, nature) or {found.nature, nature}.isdisjoint({"policy", "capacity"}), found.name


@pytest.mark.parametrize("counter", [name for name, fact in COUNTERS.items() if fact.loss != "no"])
def test_each_loss_counter_has_a_cause_of_its_own(counter: str) -> None:
    """What only counters show is explained, too, and has a class."""
    cause = CAUSES.of_counter(counter)
    assert cause.name != "unknown"
    assert cause.nature is not None


def test_each_cause_has_a_remedy_and_each_remedy_a_cause() -> None:
    """There is always something to say, and nothing that is never said."""
    assert {row.name for row in CAUSES.rows} == {remedy.cause for remedy in REMEDIES}


def test_each_cause_can_say_something_where_nothing_is_known() -> None:
    """Without any value of the host, causes for lack of room that have a queue still lead to a sentence."""
    silent = {
        name
        for name in {remedy.cause for remedy in REMEDIES}
        if not any(remedy.advice(lambda _: None) for remedy in REMEDIES if remedy.cause == name)
    }
    needs_values = {"backlog", "conntrack-full", "driver-xdp", "gro-cells", "ipv6-off", "memory", "neighbour-queue"}
    needs_values |= {"xdp-redirect", "xdp-send"}
    needs_values |= {"fragments", "neighbour-table", "reserves", "socket-backlog", "syn-queue", "tap-ring", "tunnel"}
    needs_values |= {"socket-filter", "transmit", "transmit-any", "udp-memory", "wire", "tcp-receive-queue"}
    assert silent <= needs_values


def test_all_values_are_used() -> None:
    """No value of the host is read for nothing."""
    assert {name for remedy in REMEDIES for name in remedy.names} == HOST_VALUES | SEEN_VALUES


def test_names_are_quoted_in_commands() -> None:
    """Names of interfaces come from anybody, and commands are copied into a root shell."""
    assert [remedy.line for remedy in REMEDIES if "{interface}" in (remedy.command or "")] == []


def test_no_command_but_those_that_read_or_say_their_cost() -> None:
    """What changes something says what that costs."""
    for remedy in REMEDIES:
        changes = any(
            word in (remedy.command or "") for word in ("-w ", "ethtool -G", "ethtool -L", "ethtool -A", "echo ")
        )
        assert remedy.cost is not None or not changes, f"line {remedy.line}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tcapacity\tevent:X\tin {nowhere}\tWhy.\tsource", "line 2: unknown word 'nowhere'"),
        ("a\tbad\tevent:X\tin {nic}\tWhy.\tsource", "line 2: unknown nature 'bad'"),
        ("a\t-\tX\tin {nic}\tWhy.\tsource", "line 2: 'X' is not what:glob"),
        ("a\t-\tthing:X\tin {nic}\tWhy.\tsource", "line 2: unknown match 'thing'"),
        (f"a\t-\tevent:X\tin {{nic}}\t{'w' * 121}\tsource", "longer than 120"),
    ],
)
def test_a_bad_cause_is_named(row: str, message: str) -> None:
    """What is wrong with a row is said with its line."""
    with pytest.raises(ValueError, match=message):
        causes.TABLE.parse([HEADER, row, ANYTHING])


def test_causes_must_cover_everything() -> None:
    """A table that leaves some loss without a cause is refused."""
    with pytest.raises(ValueError, match="no row matches every nature"):
        Causes(causes.TABLE.parse([HEADER, "a\t-\tevent:X\there\tWhy.\tsource"]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tnothing<3\tSay.\t-\t-\tsource", "line 2: unknown value 'nothing'"),
        ("a\trx_ring\tSay.\t-\t-\tsource", "line 2: 'rx_ring' is no condition"),
        ("a\t-\tSay {nothing}.\t-\t-\tsource", "line 2: unknown value 'nothing'"),
        ("a\t-\tSay.\tdo {nothing}\t-\tsource", "line 2: unknown value 'nothing'"),
        ("a\t-\tSay {rx_ring:z}.\t-\t-\tsource", "line 2: {rx_ring:z} is no way"),
        (f"a\t-\t{'s' * 201}\t-\t-\tsource", "longer than 200"),
    ],
)
def test_a_bad_remedy_is_named(row: str, message: str) -> None:
    """What is wrong with a row is said with its line."""
    with pytest.raises(ValueError, match=message):
        remedies.TABLE.parse([REMEDY_HEADER, row])


def filled(row: str, **values: Value) -> Advice | None:
    """What a remedy becomes on a host with these values."""
    (remedy,) = remedies.TABLE.parse([REMEDY_HEADER, row])
    return remedy.advice(values.get)


RING = "a\trx_ring<rx_ring_max\tNow {rx_ring:,} of {rx_ring_max:,}.\tethtool -G {interface:q} rx {rx_ring_max}\t-\ts"


def test_a_remedy_is_filled_with_the_hosts_values() -> None:
    """Numbers are readable in the sentence, plain in the command, and names are quoted there."""
    advice = filled(RING, rx_ring=256, rx_ring_max=4096, interface="a b")
    assert advice == Advice("Now 256 of 4,096.", "ethtool -G 'a b' rx 4096", None)


def test_a_remedy_that_makes_no_sense_is_left_out() -> None:
    """A ring that is as large as it can be is not to be made larger; one that is not known, neither."""
    assert filled(RING, rx_ring=4096, rx_ring_max=4096, interface="eth0") is None
    assert filled(RING, rx_ring=256, interface="eth0") is None
    assert filled(RING, interface="eth0") is None


def test_a_command_with_unknown_values_is_left_out() -> None:
    """The sentence stays, if it can be said."""
    advice = filled(RING, rx_ring=256, rx_ring_max=4096)
    assert advice == Advice("Now 256 of 4,096.", None, None)


@pytest.mark.parametrize(
    ("when", "values", "holds"),
    [
        ("rps=off", {"rps": "off"}, True),
        ("rps=off", {"rps": "on"}, False),
        ("rps!=off", {"rps": "on"}, True),
        ("rps=off&cpus>1", {"rps": "off", "cpus": 2}, True),
        ("rps=off&cpus>1", {"rps": "off", "cpus": 1}, False),
        ("rcvbuf=unknown", {}, True),
        ("rcvbuf=unknown", {"rcvbuf": 1}, False),
        ("rcvbuf!=unknown", {}, False),
        ("rcvbuf!=unknown", {"rcvbuf": 1}, True),
        ("conntrack_fill>=90", {"conntrack_fill": 90}, True),
        ("conntrack_fill<90", {}, False),
        ("cpus>1", {"cpus": "many"}, False),
    ],
)
def test_conditions(when: str, values: dict[str, Value], holds: bool) -> None:
    """A condition on a value that is not known never holds, but for the one that says so."""
    assert (filled(f"a\t{when}\tSay.\t-\t-\tsource", **values) is not None) == holds


def test_multiples() -> None:
    """A command may ask for a multiple of what is there."""
    advice = filled("a\t-\tSay.\tset {rmem_max:x4}\t-\tsource", rmem_max=212992)
    assert advice is not None
    assert advice.command == f"set {4 * 212992}"
