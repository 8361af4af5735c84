# SPDX-License-Identifier: MIT
"""Looks as JSON: nothing is lost, nothing is taken on trust, and a run can be made again from them."""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktdrop.model.container import Container
from pktdrop.model.counters import SOURCES, Counters, Interface, Row, Scope
from pktdrop.model.drops import Count, DropKey, Known, Netns, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.model.look import Answer, Kernel, Look, Question
from pktdrop.model.lookfile import Malformed, from_json, to_json
from pktdrop.model.sample import Owner, Sample, Socket
from pktdrop.model.snapshots import Drops, Kinds, Snapshot
from tests.kit.recording import Recorded, Recorder, outputs, read_back
from tests.unit.accounts import DNS
from tests.unit.fates import ETH0, FATES, NETNS, OTHER_NETNS, RECEIVER, SENDER, TAP
from tests.unit.make import NOON, make_doubt, make_drop, make_look

texts = st.text(max_size=12)
numbers = st.integers(0, (1 << 64) - 1)
moments = st.floats(0, 1e10)
namespaces = st.builds(Netns, numbers, st.none() | numbers, st.integers(0, 9))
scopes = st.builds(Scope, st.none() | namespaces, st.none() | texts, *[st.none() | st.integers(0, 9)] * 2, texts, texts)
rows = st.lists(st.tuples(texts, numbers), max_size=4).map(
    lambda pairs: Row(tuple(name for name, _ in pairs), tuple(value for _, value in pairs))
)
containers = st.builds(Container, *[st.none() | texts] * 7, st.none() | numbers)
interfaces = st.builds(Interface, texts, st.none() | st.binary(max_size=8))
keys = st.builds(
    DropKey, texts, texts, st.integers(0, 9), st.none() | st.integers(0, 9), st.none() | st.integers(1, 9),
    st.none() | texts, st.none() | namespaces, st.none() | texts, st.integers(0, 65535), texts, st.booleans(),
)  # fmt: skip
small = st.integers(0, 65535)
limits = st.lists(
    st.builds(
        Limit, texts, st.lists(texts, max_size=2).map(tuple), texts, texts, small, small, texts, st.none() | namespaces
    ),
    max_size=2,
).map(tuple)
samples = st.builds(
    Sample, moments, keys, st.binary(max_size=128), small, st.booleans(), st.integers(-32768, 32767), st.none() | small,
    st.booleans(), st.none() | small,
    st.none() | st.builds(Socket, *[small] * 5, st.none() | numbers, st.none() | numbers),
    st.none() | st.builds(Owner, small, texts, st.booleans()), st.lists(texts, max_size=2).map(tuple),
    st.none() | containers,
)  # fmt: skip
answers: st.SearchStrategy[Answer] = (
    st.none() | texts | numbers | st.lists(st.none() | texts | numbers, max_size=4).map(tuple)
)


def _tables(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, dict[Scope, Row]]]:
    return st.fixed_dictionaries({name: st.dictionaries(scopes, rows, max_size=2) for name in names})


@st.composite
def looks(draw: st.DrawFn) -> Look:
    """Anything that can be read at a moment."""
    kinds = Kinds()
    for key in draw(st.lists(keys, max_size=4, unique=True)):
        kinds.number(key)
    after = draw(st.lists(st.tuples(numbers, numbers), min_size=len(kinds), max_size=len(kinds)))
    known = draw(st.integers(0, len(kinds)))
    uncounted = st.builds(Uncounted, numbers, numbers)
    snapshots = [
        Snapshot(draw(moments), draw(moments), _drops(kinds, counts), draw(uncounted))
        for counts in ([(one // 2, other // 2) for one, other in after[:known]], after)
    ]
    some = st.frozensets(namespaces, max_size=3)
    counters = Counters(
        draw(moments), draw(moments), draw(_tables(SOURCES)), draw(_tables(("softnet", "qdisc", "socket"))),
        draw(st.dictionaries(st.tuples(st.none() | namespaces, texts), texts, max_size=2)),
        draw(st.dictionaries(scopes, numbers, max_size=2)), draw(some), draw(st.frozensets(texts, max_size=2)),
        draw(limits),
        draw(st.dictionaries(namespaces, st.dictionaries(st.integers(1, 9), interfaces, max_size=2), max_size=2)),
        draw(st.integers(0, 9)), draw(st.dictionaries(st.none() | namespaces, moments, max_size=2)),
    )  # fmt: skip
    return Look(
        Kernel(draw(texts), {"kfree_skb": draw(texts), "enqueue_to_backlog": draw(texts)},
               tuple(draw(st.lists(texts, max_size=2))), draw(st.booleans())),
        snapshots[0], counters, snapshots[1],
        Known(draw(st.dictionaries(namespaces, texts, max_size=2)), draw(some), draw(some), draw(some),
              draw(st.none() | namespaces), draw(st.none() | namespaces), draw(st.integers(0, 9)),
              draw(st.dictionaries(namespaces, containers, max_size=2))),
        draw(some), tuple(draw(some)), draw(limits), draw(st.booleans()),
        draw(st.dictionaries(st.builds(Question, texts, st.none() | namespaces, texts), answers, max_size=3)),
        tuple(draw(st.lists(samples, max_size=2))),
    )  # fmt: skip


def _drops(kinds: Kinds, counts: list[tuple[int, int]]) -> Drops:
    drops = Drops.of({make_drop(cpu=number): Count(*count) for number, count in enumerate(counts)})
    return Drops(kinds, range(len(counts)), drops.packets, drops.octets)


@settings(deadline=None)
@given(looks())
def test_nothing_is_lost(look: Look) -> None:
    """What is read back is what was written, and writes the same."""
    line = to_json(look)
    assert "\n" not in line
    assert from_json(line) == look
    assert json.loads(to_json(from_json(line))) == json.loads(line)


def _nodes(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for name, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from _nodes(value, (*path, name))


RUBBISH = (None, True, -1, 1.5, 1 << 64, 1e300, "", "x" * 70_000, [], [[]], {}, {"a": 1}, [[1, 2], [1, 2]])


@settings(deadline=None, max_examples=100)
@given(looks(), st.data(), st.sampled_from([*RUBBISH, "gone"]))
def test_what_is_malformed_is_refused_in_a_sentence(look: Look, data: st.DataObject, rubbish: object) -> None:
    """Whatever stands anywhere: it is a Look, or the text says where it is none."""
    written = json.loads(to_json(look))
    *path, last = data.draw(st.sampled_from([node for node in _nodes(written) if node]))
    parent = written
    for name in path:
        parent = parent[name]
    if rubbish == "gone":
        del parent[last]
    else:
        parent[last] = rubbish
    try:
        read = from_json(json.dumps(written))
    except Malformed as refused:
        said = str(refused)
    else:
        said = "" if from_json(to_json(read)) == read else "it is read as another one"
    assert len(said) < 600
    assert "another" not in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ('{"format":2,"limits":NaN}', "NaN is no number"),
        ("7", "this is no Look in format 2"),
        ('{"format":1}', "this is no Look in format 2"),
        ('{"format":2}', "it is missing"),
        (" " * ((1 << 26) + 1), "a Look has at most 67,108,864 characters"),
    ],
)
def test_what_is_no_look_at_all(text: str, why: str) -> None:
    """The text says what is wrong with it."""
    with pytest.raises(Malformed, match=why):
        from_json(text)


def test_it_says_where() -> None:
    """By the names of what it is in."""
    data = json.loads(to_json(_look({}, {}, 0)))
    data["counters"]["rows"]["softnet"] = [[[None, None, None, 0, None, None], [["dropped"], [1, 2]]]]
    with pytest.raises(Malformed, match=r"^counters\.rows\.softnet: its parts do not go together$"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("packets", "octets", "why"),
    [
        ([5, 7], [500, 700], None),
        ([4], [400], None),  # the second kind came between the two readings
        ([6, 7], [500, 700], "it has more drops than what was read after it"),
        ([5, 7], [501, 700], "it has more drops than what was read after it"),
        ([5, 7, 1], [500, 700, 100], "there are not as many counts as kinds of drops"),
        ([5, 7], [500], "there are not as many counts as kinds of drops"),
        ([5, -1], [500, 700], "a count is below 0"),
    ],
)
def test_what_was_read_before_goes_with_what_was_read_after(
    packets: list[int], octets: list[int], why: str | None
) -> None:
    """Of the same kinds there were as many drops at most, and bytes, and no others."""
    drops = {make_drop(cpu=0): Count(5, 500), make_drop(cpu=1): Count(7, 700)}
    data = json.loads(to_json(_look(drops, {}, 0)))
    data["before"] |= {"keys": None, "packets": packets, "octets": octets}
    if why is None:
        assert from_json(json.dumps(data)).before.drops == {
            key: Count(*counts) for key, *counts in zip(drops, packets, octets, strict=False)
        }
    else:
        with pytest.raises(Malformed, match=f"^before.*: {why}$"):
            from_json(json.dumps(data))


# ------------------------------------------------------------------------------------------------------------ replay


Counted = dict[str, dict[Scope, Tally[str]]]


def _look(drops: dict[DropKey, Count], counted: Counted, number: int, **changes: Any) -> Look:
    rows = {
        source: {scope: Row(tuple(named), tuple(named.values())) for scope, named in counted.get(source, {}).items()}
        for source in SOURCES
    }
    gauges = {"softnet": {}, "qdisc": {}, "socket": {DNS: Row(("rmem_alloc", "rcvbuf"), (90, 100))}}
    both = frozenset((NETNS, OTHER_NETNS))
    when, moment = NOON + number, 10.0 + number
    counters = Counters(
        when, moment, rows, gauges, {(NETNS, "eth0"): "igb", (NETNS, "v0"): "veth"}, {DNS: 812}, both, frozenset(), (),
        read_at={None: moment, **dict.fromkeys(both, moment)},
    )  # fmt: skip
    snapshot = Snapshot(when, moment, dict(drops), Uncounted(0, number))
    known = Known({NETNS: "host", OTHER_NETNS: "b\nlue"}, both, both, frozenset(), NETNS, NETNS, 1)
    return make_look(counters, before=snapshot, after=snapshot, namespaces=known, **changes)


class _Answering(Recorded):
    """Answers all that is asked, and remembers it."""

    def __init__(self, looks: list[Look]) -> None:
        super().__init__(looks)
        self._answers: dict[Question, Answer] = {}

    def look(self, is_last: bool = False) -> Look:
        self._answers = {}
        return super().look(is_last)

    @property
    def asked(self) -> Look:
        return replace(self.last, answers=self._answers)

    def ask(self, question: Question) -> Answer:
        answer: Answer = (256, 4096, 2, 4, None, None, 1) if question.what == "nic" else "1000"
        return self._answers.setdefault(question, answer)


happened = st.lists(st.tuples(st.sampled_from(range(len(FATES))), st.integers(1, 3000)), max_size=6)


@settings(deadline=None, max_examples=5)
@given(st.lists(happened, min_size=2, max_size=4))
def test_a_run_is_made_again_from_its_looks(tmp_path_factory: pytest.TempPathFactory, run: list[Any]) -> None:
    """All that trace, top, diagnose and counters show is the same, byte for byte."""
    drops: dict[DropKey, Count] = {}
    counted: Counted = {
        "links": {scope: Tally(rx_packets=1) for scope in (ETH0, TAP, SENDER, RECEIVER)},
        "softnet": {Scope(cpu=cpu): Tally(dropped=1) for cpu in (0, 1)},
    }
    looks = [_look(drops, counted, 0)]
    for number, interval in enumerate(run, 1):
        extra = [(make_doubt(), number), (make_drop(netns=OTHER_NETNS, netns_name=None), 9)]
        for which, packets in interval:
            fate = FATES[which]
            extra += [] if fate.event is None else [(fate.event, packets)]
            for source, scope, name in fate.moved:
                counted.setdefault(source, {}).setdefault(scope, Tally())[name] += packets
        for key, packets in extra:
            drops[key] = drops.get(key, Count(0, 0)).plus(Count(packets, 60 * packets))
        looks.append(_look(drops, counted, number, dropped_in=(NETNS,), is_last=number == len(run)))
    place = tmp_path_factory.mktemp("replay")
    recorder = Recorder(_Answering(looks))
    first = outputs(recorder, len(run), place / "first")
    again = outputs(read_back(recorder.lines, place / "looks"), len(run), place / "again")
    assert first == again
    assert "b\\nlue" in first["table"]
