# SPDX-License-Identifier: MIT
"""Files of /proc/net/stat: real ones of several kernels, and malformed ones."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters import procstat
from pktdrop.counters.procstat import parse
from pktdrop.model.counters import Reading, Row, Scope
from pktdrop.model.drops import Netns
from pktdrop.rules.identities import Identities
from pktdrop.views.limits import sentences

DATA = Path(__file__).parent.parent / "data/counters"
KERNELS = ("6.1.0-50-debian", "7.3.4-debian")
NETNS = Netns(4026531840, 1)
# `conntrack -S` has other names for some columns.
CONNTRACK_NAMES = {"error": "icmp_error", "clash_resolve": "clashres", "chaintoolong": "chainlength"}
FILE = b"entries  lost  kept\n00000009  00000001 00000002\n00000009  0000000f 00000010 \n"


def values(row: Row) -> dict[str, int]:
    """Counters by name."""
    return dict(zip(row.names, row.values, strict=True))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("file", ["arp_cache", "ndisc_cache", "rt_cache"])
def test_real_files_equal_lnstat(kernel: str, file: str) -> None:
    """Of a real file each sum over the CPUs is the one that lnstat(8) showed."""
    shown = json.loads((DATA / f"procstat-{kernel}" / f"{file}.lnstat.json").read_text())
    del shown["entries"]
    assert values(parse((DATA / f"procstat-{kernel}" / file).read_bytes())) == shown
    assert any(shown.values())


@pytest.mark.parametrize("kernel", KERNELS)
def test_real_files_equal_conntrack(kernel: str) -> None:
    """Of a real file each sum over the CPUs is that of the lines of `conntrack -S`."""
    shown: dict[str, int] = {}
    for name, number in re.findall(r"(\w+)=(\d+)", (DATA / f"procstat-{kernel}" / "conntrack.txt").read_text()):
        column = CONNTRACK_NAMES.get(name, name)
        shown[column] = shown.get(column, 0) + int(number)
    ours = values(parse((DATA / f"procstat-{kernel}" / "nf_conntrack").read_bytes()))
    del shown["cpu"]
    assert {name: number for name, number in shown.items() if name in ours} == {
        name: number for name, number in ours.items() if name in shown
    }
    assert {"drop", "insert_failed", "invalid", "early_drop"} <= shown.keys()
    assert shown["invalid"] > 0


@pytest.mark.parametrize(
    ("source", "files"),
    [("conntrack", ["nf_conntrack"]), ("neigh", ["arp_cache", "ndisc_cache"]), ("rt_cache", ["rt_cache"])],
)
def test_counters_of_loss_have_these_names(source: str, files: list[str]) -> None:
    """What loss_counters.tsv tells of is there under that name."""
    told = {name.partition(".")[2] for name in Identities.load().counters if name.startswith(f"{source}.")}
    assert told
    for file in files:
        assert told <= set(parse((DATA / "procstat-7.3.4-debian" / file).read_bytes()).names)


def test_sum() -> None:
    """Numbers are hexadecimal, one line for each CPU; entries is no counter."""
    assert parse(FILE) == Row(("lost", "kept"), (16, 18))


def test_new_columns() -> None:
    """Columns are known by the title, wherever they stand."""
    assert values(parse(b"new lost entries\n1 2 3\n10 20 30\n")) == {"new": 17, "lost": 34}


def test_wrap() -> None:
    """Where the number of a CPU wraps around 32 bits, the sum does, too: a difference of sums stays right."""
    before = parse(b"entries lost\n0 fffffffe\n0 ffffffff\n", 1 << 32).values[0]
    after = parse(b"entries lost\n0 00000003\n0 ffffffff\n", 1 << 32).values[0]
    assert (after - before) % 2**32 == 5
    assert parse(b"entries lost\n0 ffffffffffffffff\n0 2\n").values == (1,)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "cut off"),
        (b"\n", "cut off"),
        (FILE[:-1], "cut off"),
        (b"entries lost\n", "columns"),
        (FILE + b"\n", "columns"),
        (FILE + b"1 2\n", "columns"),
        (FILE + b"1 2 3 4\n", "columns"),
        (FILE + b"1 2 x\n", "numbers"),
        (FILE + b"1 2 -3\n", "numbers"),
        (FILE + b"1 2 0x3\n", "numbers"),
        (FILE + b"1 2 \xff\n", "numbers"),
    ],
)
def test_malformed(bad: bytes, why: str) -> None:
    """A file with anything malformed in it gives no sum."""
    with pytest.raises(ValueError, match=why):
        parse(bad)


@given(st.one_of(st.binary(max_size=300), st.text("0123456789abcdef \n", max_size=300).map(str.encode)))
def test_garbage(data: bytes) -> None:
    """Any bytes at all give a row or are refused."""
    try:
        row = parse(data)
    except ValueError:
        return
    assert len(row.names) == len(row.values)


@given(st.data())
def test_truncated(data: st.DataObject) -> None:
    """A real file cut within a line is refused."""
    whole = (DATA / "procstat-7.3.4-debian/arp_cache").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    if whole[:cut].count(b"\n") < 2 or not whole[:cut].endswith(b"\n"):
        with pytest.raises(ValueError, match=r"cut off|columns"):
            parse(whole[:cut])


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory in the place of /proc/net/stat, empty."""
    monkeypatch.setattr(procstat, "_DIRECTORY", f"{tmp_path}/")
    return tmp_path


def test_scopes(proc: Path) -> None:
    """Connection tracking belongs to a namespace, the others to the host; neighbours are those of both protocols."""
    for file in ("nf_conntrack", "arp_cache", "ndisc_cache", "rt_cache"):
        (proc / file).write_bytes(FILE)
    assert procstat.conntrack(NETNS).rows == {Scope(netns=NETNS): Row(("lost", "kept"), (16, 18))}
    assert procstat.rt_cache().rows == {Scope(): Row(("lost", "kept"), (16, 18))}
    assert procstat.neighbours().rows == {Scope(): Row(("lost", "kept"), (32, 36))}
    (proc / "ndisc_cache").unlink()
    assert procstat.neighbours().rows == {Scope(): Row(("lost", "kept"), (16, 18))}


def test_absent(proc: Path) -> None:
    """What the kernel does not have is no limit, but neighbours are always there, only elsewhere."""
    assert procstat.conntrack(NETNS) == procstat.rt_cache() == Reading({})
    (limit,) = sentences(procstat.neighbours().limits)
    assert limit == "Counters of neighbours can be read in the host's first network namespace only."


def test_unreadable(proc: Path) -> None:
    """What cannot be read or understood is said, and there is no half of a sum."""
    (proc / "rt_cache").mkdir()
    assert sentences(procstat.rt_cache().limits) == [
        f"/proc/net/stat/rt_cache cannot be read: {os.strerror(errno.EISDIR)}."
    ]
    (proc / "arp_cache").write_bytes(FILE)
    (proc / "ndisc_cache").write_bytes(FILE[:-1])
    reading = procstat.neighbours()
    assert reading.rows == {}
    assert sentences(reading.limits) == ["/proc/net/stat/ndisc_cache cannot be read: it is cut off."]


@pytest.mark.parametrize(("file", "risen"), [("nf_conntrack", 2), ("arp_cache", 2 + (1 << 32))])
def test_a_sum_wraps_as_its_numbers_do(file: str, risen: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Connection tracking counts in 32 bits on each CPU, neighbours in those of a long: 64 here."""
    monkeypatch.setattr(procstat, "_DIRECTORY", f"{tmp_path}/")
    (tmp_path / file).write_text("entries drop\n00000000 80000001\n00000000 80000001\n")
    reading = procstat.conntrack(NETNS) if file == "nf_conntrack" else procstat.neighbours()
    assert [row.values for row in reading.rows.values()] == [(risen,)]
