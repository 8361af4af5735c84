# SPDX-License-Identifier: MIT
"""/proc/net/xfrm_stat, and what it should not be."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import xfrm
from pktdrop.counters.xfrm import parse
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import Identities
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters"
NETNS = Netns(4026531840, 1)
# as net/xfrm/xfrm_proc.c prints it: "%-24s\t%lu\n"
FILE = b"XfrmInError             \t7\nXfrmInNoPols            \t18446744073709551615\n"


def test_numbers() -> None:
    """Each line is a counter of up to 64 bits."""
    assert parse(FILE) == (Row(("XfrmInError", "XfrmInNoPols"), (7, 2**64 - 1)), 0)


def test_counters_of_loss_have_these_names() -> None:
    """What loss_counters.tsv tells of is there under that name."""
    told = {name.partition(".")[2] for name in Identities.load().counters if name.startswith("xfrm.")}
    row, malformed = parse((DATA / "xfrm_stat-6.18.44").read_bytes())
    assert malformed == 0
    assert told
    assert told <= set(row.names)


@pytest.mark.parametrize(
    "bad", [b"", b"X", b"X 1 2", b"X y", b"X -1", b"X 0x1", b"X 18446744073709551616", b"X " + b"1" * 9000]
)
def test_malformed_lines(bad: bytes) -> None:
    """A malformed line is left out and counted; the others are there."""
    assert parse(FILE + bad + b"\nLast 3\n") == (Row(("XfrmInError", "XfrmInNoPols", "Last"), (7, 2**64 - 1, 3)), 1)


def test_a_name_twice() -> None:
    """A name that is there twice counts once, as first seen."""
    assert parse(b"A 1\nA 2\n") == (Row(("A",), (1,)), 0)


def test_truncated() -> None:
    """Cut anywhere, the file gives no value but those of the whole, and says if a line is not."""
    for cut in range(1, len(FILE)):
        row, malformed = parse(FILE[:cut])
        assert row.values == (7,)[: len(row.values)]
        assert malformed or FILE[cut - 1 : cut] == b"\n"


@given(st.one_of(st.binary(max_size=200), st.text("Xfrm 01-\n", max_size=200).map(str.encode)))
def test_garbage(data: bytes) -> None:
    """Any bytes at all give no exception."""
    row, malformed = parse(data)
    assert row.names or malformed or not data.strip()


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A path in the place of the file, where nothing is."""
    monkeypatch.setattr(xfrm, "_FILE", tmp_path / "xfrm_stat")
    return tmp_path / "xfrm_stat"


def test_reading(file: Path) -> None:
    """Its counters belong to the namespace. No file is no limit, one that cannot be read is."""
    assert xfrm.read(NETNS) == Reading({})
    file.write_bytes(FILE)
    assert xfrm.read(NETNS) == Reading({Scope(netns=NETNS): parse(FILE).row})
    file.write_bytes(FILE + b"?\n")
    assert sentences(xfrm.read(NETNS).limits) == [
        f"IPsec counters of network namespace {NETNS}: 1 malformed lines of xfrm_stat are left out."
    ]
    file.unlink()
    file.mkdir()
    (limit,) = sentences(xfrm.read(NETNS).limits)
    assert xfrm.read(NETNS).rows == {}
    assert (
        limit == f"IPsec counters of network namespace {NETNS}: xfrm_stat cannot be read: {os.strerror(errno.EISDIR)}."
    )
