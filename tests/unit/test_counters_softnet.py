# SPDX-License-Identifier: MIT
"""All widths of /proc/net/softnet_stat."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.counters.softnet import WIDTH, parse, parse_cpus
from pktdrop.model.counters import Scope
from pktdrop.views.limits import sentences

# net/core/net-procfs.c softnet_seq_show: processed, dropped, time_squeeze, five times 0, cpu_collision, received_rps,
# flow_limit_count, backlog, CPU, input_pkt_queue, process_queue
COLUMNS = (11, 12, 13, 0, 0, 0, 0, 0, 0, 14, 15, 30, 2, 10, 20)
COUNTERS = {"processed": 11, "dropped": 12, "time_squeeze": 13, "received_rps": 14, "flow_limit_count": 15}
GAUGES = {"backlog_len": 30, "input_qlen": 10, "process_qlen": 20}


def line(*columns: int) -> bytes:
    """One line as the kernel writes it."""
    return " ".join(f"{column:08x}" for column in columns).encode() + b"\n"


@pytest.mark.parametrize(
    ("width", "counters", "gauges"),
    [(9, 3, 0), (10, 4, 0), (11, 5, 0), (12, 5, 1), (13, 5, 1), (14, 5, 2), (15, 5, 3)],
)
def test_widths(width: int, counters: int, gauges: int) -> None:
    """Each width has the columns of its kernel and no others; from 13 on the CPU is the one in the line."""
    both = parse(line(*COLUMNS[:width]), [7])
    cpu = 2 if width >= 13 else 7
    ((scope, row),) = both.rows.items()
    assert scope == Scope(cpu=cpu)
    assert dict(zip(row.names, row.values, strict=True)) == dict(list(COUNTERS.items())[:counters])
    shown = [dict(zip(row.names, row.values, strict=True)) for row in both.gauges.values()]
    assert shown == ([dict(list(GAUGES.items())[:gauges])] if gauges else [])
    assert both.limits == ()


def test_offline_cpus() -> None:
    """The CPU column is hexadecimal and skips CPUs that are offline; so do the lines of old kernels."""
    new = parse(b"".join(line(*COLUMNS[:12], cpu, 0, 0) for cpu in (0, 3, 17)), [])
    assert [scope.cpu for scope in new.rows] == [0, 3, 17]
    old = parse(line(*COLUMNS[:11]) * 3, [0, 3, 17])
    assert [scope.cpu for scope in old.rows] == [0, 3, 17]


def test_old_kernel_with_another_number_of_cpus() -> None:
    """Where lines and CPUs do not match, nobody can say whose line is whose: none is shown."""
    both = parse(line(*COLUMNS[:11]) * 3, [0, 1])
    assert both.rows == both.gauges == {}
    assert sentences(both.limits) == ["softnet_stat has 3 lines for 2 CPUs that are online: all left out."]


def test_further_columns() -> None:
    """A kernel with more columns is read, and what is left out is said."""
    both = parse(line(*COLUMNS, 99), [])
    assert next(iter(both.rows.values())).values == tuple(COUNTERS.values())
    assert sentences(both.limits) == ["softnet_stat has 1 columns that pktdrop does not know."]


def test_largest_numbers() -> None:
    """Counters have as many bits as WIDTH says."""
    (row,) = parse(line(*[2**WIDTH - 1] * 15), []).rows.values()
    assert set(row.values) == {0xFFFFFFFF}


@pytest.mark.parametrize("bad", [b"zzzzzzzz", b"", line(*COLUMNS[:14]).strip(), b"0x000001 " * 15, b"1" * 5000])
def test_malformed_line(bad: bytes) -> None:
    """One malformed line does not hide the others, wherever it is not the first with numbers."""
    data = line(*COLUMNS[:12], 0, 0, 0) + bad + b"\n" + line(*COLUMNS[:12], 1, 0, 0)
    both = parse(data, [])
    assert [scope.cpu for scope in both.rows] == [0, 1]
    assert sentences(both.limits) == ["1 malformed lines of softnet_stat are left out."]


def test_empty() -> None:
    """No line at all is said."""
    assert sentences(parse(b"", [0]).limits) == ["softnet_stat is empty."]


@given(st.one_of(st.binary(max_size=300), st.text("0123456789abcdef \n", max_size=300).map(str.encode)))
def test_garbage(data: bytes) -> None:
    """Any bytes at all give no exception."""
    both = parse(data, [0, 1])
    assert both.rows or both.limits


def test_real_file() -> None:
    """The backlogs of a file with every column in use are those that sar showed of it."""
    data = (Path(__file__).parent.parent / "data/counters/like/second.softnet").read_bytes()
    both = parse(data, [])
    assert [row.values[0] for row in both.rows.values()] == [4294967280, 12345]
    assert [row.values[0] for row in both.gauges.values()] == [42, 3]  # blg_len of sar


@pytest.mark.parametrize(
    ("text", "cpus"), [("0\n", (0,)), ("0-3\n", (0, 1, 2, 3)), ("0-1,4,6-7\n", (0, 1, 4, 6, 7)), ("12-11", ())]
)
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    """Lists are those of sysfs (cpulist_parse in lib/bitmap-str.c)."""
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "0-", "1,,2", "-1", "9" * 30])
def test_malformed_lists_of_cpus(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="no range of CPUs"):
        parse_cpus(text)
