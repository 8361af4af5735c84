# SPDX-License-Identifier: MIT
"""Tables in the columns of other tools, against what those tools printed."""

import re
from pathlib import Path

import pytest

from pktdrop.counters import like, softnet
from pktdrop.counters.links import NAMES, parse
from pktdrop.counters.netlink import NetlinkAnswer
from pktdrop.model.counters import Row

DATA = Path(__file__).parent.parent / "data/counters"
SECONDS = 1.37  # between the two readings that sar had

# The numbers from which data/counters/like/*.dev are made: see README.md there.
FIRST = {
    "fx0": Row(NAMES, tuple(2 ** (20 + position) for position in range(25))),
    "fx1": Row(NAMES, (0,) * 25),
}
SECOND = {
    "fx0": Row(NAMES, tuple(2 ** (20 + position) + 3 * 2**position for position in range(25))),
    "fx1": Row(NAMES, tuple(7 if name in ("rx_packets", "rx_bytes") else 0 for name in NAMES)),
}
DIFFERENCE = {
    name: Row(NAMES, tuple(new - old for new, old in zip(row.values, FIRST[name].values, strict=True)))
    for name, row in SECOND.items()
}


def real() -> dict[str, Row]:
    """Rows of a real namespace by name of interface."""
    names = re.findall(r"^\d+: ([^:@]+)", (DATA / "links-6.18.44/ip.txt").read_text(), re.MULTILINE)
    rows = parse(NetlinkAnswer([(DATA / "links-6.18.44/getstats").read_bytes()], 1)).rows.values()
    return dict(zip(names, rows, strict=True))


def net_dev(path: str) -> dict[str, tuple[int, ...]]:
    """Numbers of a file in the form of /proc/net/dev by name of interface."""
    lines = (DATA / path).read_text().splitlines()[2:]
    return {line.split(":")[0].strip(): tuple(map(int, line.split(":")[1].split())) for line in lines}


def ifconfig(path: str) -> dict[tuple[str, str, str], str]:
    """Counters that ifconfig printed, by interface, direction and word."""
    shown: dict[tuple[str, str, str], str] = {}
    for block in (DATA / path).read_text().strip().split("\n\n"):
        name = block.split(":")[0]
        for direction, text in re.findall(r"^ +(RX|TX) (.*)$", block, re.MULTILINE):
            shown |= {(name, direction, word): number for word, number in re.findall(r"([a-z]+) (\d+)", text)}
    return shown


def sar(path: str) -> list[list[str]]:
    """Words of the averages that sar printed, titles first."""
    lines = (DATA / path).read_text().splitlines()
    titles = next(line.split()[1:] for line in lines if "/s" in line)
    return [titles, *(line.split()[1:] for line in lines if line.startswith("Average:"))]


def test_fold_of_real_counters() -> None:
    """The fold of real counters is what /proc/net/dev had."""
    assert {name: tuple(like.net_dev(row).values()) for name, row in real().items()} == net_dev("links-6.18.44/dev")


@pytest.mark.parametrize(("rows", "path"), [(FIRST, "like/first.dev"), (SECOND, "like/second.dev")])
def test_fold_of_every_counter(rows: dict[str, Row], path: str) -> None:
    """With each counter a power of two, the sums tell that each is where it belongs and nowhere else."""
    assert {name: tuple(like.net_dev(row).values()) for name, row in rows.items()} == net_dev(path)


def test_fold_wraps_as_in_the_kernel() -> None:
    """Sums have 64 bits."""
    row = Row(("rx_dropped", "rx_missed_errors"), (2**64 - 1, 3))
    assert like.net_dev(row)["rx_drop"] == 2


def test_counters_the_kernel_has_not() -> None:
    """Missing counters are 0; those after the ones that are folded change nothing."""
    assert [*like.net_dev(Row((), ())).values()] == [0] * 16
    short = {name: Row(NAMES[:23], row.values[:23]) for name, row in SECOND.items()}
    assert like.netstat(short) == like.netstat(SECOND)


@pytest.mark.parametrize("path", ["like/netstat.txt", "links-6.18.44/netstat.txt"])
def test_netstat(path: str) -> None:
    """All columns of `netstat -i` but MTU and Flg, digit for digit."""
    rows = SECOND if path.startswith("like") else real()
    header, *lines = [line.split() for line in (DATA / path).read_text().splitlines()[1:]]
    keep = [position for position, title in enumerate(header) if title not in ("MTU", "Flg")]
    table = like.netstat(rows)
    assert table.titles == tuple(header[position] for position in keep)
    assert set(table.rows) == {tuple(line[position] for position in keep) for line in lines}


@pytest.mark.parametrize("path", ["like/ifconfig.txt", "links-6.18.44/ifconfig.txt"])
def test_ifconfig(path: str) -> None:
    """All counters of ifconfig, digit for digit."""
    rows = SECOND if path.startswith("like") else real()
    assert {
        (row[0], table.titles[0], title): cell
        for table in like.ifconfig(rows)
        for row in table.rows
        for title, cell in zip(table.titles[1:], row[1:], strict=True)
    } == ifconfig(path)


def test_ip() -> None:
    """All counters in the text of `ip -s -s link`, digit for digit."""
    lines = (DATA / "links-6.18.44/ip.txt").read_text().splitlines()
    shown: dict[tuple[str, str, str], str] = {}
    name = ""
    for position, line in enumerate(lines):
        if head := re.match(r"\d+: ([^:@]+)", line):
            name = head[1]
        elif match := re.fullmatch(r" +([RT]X)( errors)?:(.*)", line):
            kind = match[1] + (match[2] or "")
            cells = zip(match[3].split(), lines[position + 1].split(), strict=True)
            shown |= {(name, kind, title): cell for title, cell in cells if title != "transns"}
    ours = {
        (name, table.titles[0], title): cell
        for name, row in real().items()
        for table in like.ip({name: row})
        for title, cell in zip(table.titles[1:], table.rows[0][1:], strict=True)
    }
    assert ours == shown


def test_ip_shows_optional_columns_for_all_or_none() -> None:
    """A column that one interface needs is there for all of them; one that none needs is not there."""
    received, errors, sent, _ = like.ip(SECOND)
    assert received.titles[-1] == sent.titles[-1] == "compressed"
    assert errors.titles[-2:] == ("nohandler", "otherhost")
    assert [row[-1] for row in errors.rows] == [str(2**44 + 3 * 2**24), "0"]
    assert all("compressed" not in table.titles for table in like.ip({"fx1": SECOND["fx1"]}))


def test_sar_edev() -> None:
    """All rates of `sar -n EDEV`, digit for digit."""
    titles, *lines = sar("like/sar-edev.txt")
    table = like.sar_edev(DIFFERENCE, SECONDS)
    assert list(table.titles) == titles
    assert [list(row) for row in table.rows] == lines


def test_sar_of_no_time() -> None:
    """Two readings in less than a hundredth of a second count as one hundredth, as in sar."""
    assert like.sar_edev({"eth0": Row(("rx_errors",), (1,))}, 0.0).rows[0][1] == "100.00"


def test_sar_soft() -> None:
    """All rates of `sar -P ALL -n SOFT`, digit for digit, also around 2^32."""
    titles, *lines = sar("like/sar-soft.txt")
    first, second = (softnet.parse((DATA / f"like/{name}.softnet").read_bytes(), []) for name in ("first", "second"))
    differences = {
        scope.cpu or 0: Row(
            row.names,
            tuple(
                (new - old) % 2**softnet.WIDTH for new, old in zip(row.values, first.rows[scope].values, strict=True)
            ),
        )
        for scope, row in second.rows.items()
    }
    gauges = {scope.cpu or 0: row for scope, row in second.gauges.items()}
    table = like.sar_soft(differences, gauges, SECONDS)
    assert list(table.titles) == titles
    assert [list(row) for row in table.rows] == lines


@pytest.mark.parametrize("width", [9, 11, 13, 15])
def test_softnet_stat(width: int) -> None:
    """The cells are those of the file, without the columns that are always 0."""
    text = (DATA / "like/second.softnet").read_text()
    lines = [line.split()[:width] for line in text.splitlines()]
    both = softnet.parse("".join(" ".join(line) + "\n" for line in lines).encode(), [0, 1])
    table = like.softnet_stat(
        {scope.cpu or 0: row for scope, row in both.rows.items()},
        {scope.cpu or 0: row for scope, row in both.gauges.items()},
    )
    positions = [position for position in (0, 1, 2, 9, 10, 11, 13, 14) if position < width]
    assert [row[1:] for row in table.rows] == [tuple(line[position] for position in positions) for line in lines]
    assert [row[0] for row in table.rows] == ["00000000", "00000001"]
