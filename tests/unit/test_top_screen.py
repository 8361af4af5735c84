# SPDX-License-Identifier: MIT
"""The screen as text, at several sizes, and what becomes of it when the user chooses something."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.errors import PktdropError
from pktdrop.filters import Filters, reason_filter
from pktdrop.model.drops import Count, Uncounted
from pktdrop.model.limits import Limit
from pktdrop.top.keys import KEYS
from pktdrop.top.lines import STYLES, plain
from pktdrop.top.save import save, text_of
from pktdrop.top.screen import Screen
from pktdrop.top.series import PLAIN
from pktdrop.top.subjects import Reason
from pktdrop.top.views import VIEWS
from tests.unit.make import make_backlog_drop, make_drop, make_interval
from tests.unit.top_steps import DROPS, busy_look, make_screen, make_step

RED = "a\x1b[31mb"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NOON is 22:13:20, wherever the tests run."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text(screen: Screen, width: int = 80, height: int = 24) -> str:
    """What a terminal shows, without blanks at the ends of lines."""
    return text_of(screen.lines(width, height))


def names(screen: Screen, column: str) -> list[object]:
    """The values of a column, from the first row to the last."""
    place = [each.title for each in screen.columns].index(column)
    return [row.values[place] for row in screen.rows()]


def test_reasons_at_80_columns() -> None:
    """Everything an engineer looks for first fits the smallest usual terminal."""
    assert text(make_screen(busy_look())) == (
        "pktdrop top  22:13:20  box  0:00:02 elapsed  every 2 s  Linux 6.18.44\n"
        "lost 2,519  !1,260/s  not counted 0  unexplained ?4  noise* 50\n"
        " nic-fifo !nic-ring  driver   !backlog  !stack    !socket    qdisc     tx\n"
        " -         250/s     -         406/s     3.5/s     600/s     -         -\n"
        "                  █                   █         █         █\n"
        "   /s↓  total  share layer    reason         CPU  iface  netns   seen      trend\n"
        ">! 600  1,200   48 % socket   NO_SOCKET      0-1  lo     blue     now          █\n"
        " ! 406    812   32 % backlog  CPU_BACKLOG    0>3  eth0   host     now          █\n"
        " ! 250    500   20 % nic-ring (no event)     -    -      -        now          █\n"
        " ! 2.0      4   <1 % stack    (no event)     -    -      -        now          █\n"
        " ! 1.5      3   <1 % stack    NETFILTER_DROP 1    veth-a green    now          █\n"
        " *  25     50      - stack    OTHERHOST*     0    eth0   blue     now          █\n"
        "\n\n\n\n"
        + "-" * 80 + "\n"
        "what    NO_SOCKET, lost in socket\n"
        "sites   udp_rcv+0x49e 1,200 (600/s)\n"
        "CPUs    0 1,000 (500/s), 1 200 (100/s)\n"
        "ifaces  lo (blue) 1,200 (600/s)\n"
        "whose   10.0.0.5 > 10.0.0.9:8125 UDP 48 B for statsd[812], 3 of 1,200 seen\n"
        "ledger  mib.UdpNoPorts of netns blue rose by 1,200, events explain all of it\n"
        "? help  q quit  1-7 reasons  / filter  Space freeze  > sort  Enter detail\n"
    )  # fmt: skip


def test_cpus_at_80_columns() -> None:
    """Each CPU has its drops, its backlog and its softnet counters; the detail shows who filled which backlog."""
    screen = make_screen(busy_look())
    screen.choose_view("CPUs")
    assert text(screen).splitlines()[5:9] == [
        "    CPU /s↓  total  share  full  backlog  dropped  squeezed most           trend",
        ">!    0 906  1,812   72 %     -        -        -         - NO_SOCKET          █",
        " !    1 102    203    8 %     -        -        -         - NO_SOCKET          █",
        " !    3   -      -      -   812      300      812         6 -",
    ]
    assert "from\\to  CPU 3\nCPU 0      812\n" in text(screen)


def test_interfaces_at_80_columns() -> None:
    """An interface and each of its queues that lost something: drops, and what the NIC lost by class."""
    screen = make_screen(busy_look())
    screen.choose_view("interfaces")
    assert text(screen).splitlines()[5:11] == [
        "   iface   queue netns  driver  /s↓  total  ring  rx/s  tx/s most          trend",
        ">! lo        all blue   -       600  1,200     -     -     - NO_SOCKET         █",
        " ! eth0      all host   igb     406    812   500 4,500    10 CPU_BACKLOG       █",
        " ! veth-a    all green  -       1.5      3     -     -     - NETFILTER_..      █",
        " ! eth0        3 host   -         -      -   500     -     - -",
        "   eth0      all blue   -         -      -     -     -     - -",
    ]


def test_namespaces_at_80_columns() -> None:
    """Each namespace has its losses, and its noise apart."""
    screen = make_screen(busy_look())
    screen.choose_view("namespaces")
    assert text(screen).splitlines()[5:9] == [
        "   /s↓  total  share netns       inode  noise iface   most           seen  trend",
        ">! 600  1,200   48 % blue   4026532281     50 eth0,lo NO_SOCKET       now      █",
        " ! 406    812   32 % host   4026531833      - eth0    CPU_BACKLOG     now      █",
        " ! 1.5      3   <1 % green  4026532999      - veth-a  NETFILTER_D..   now      █",
    ]


def test_ledger_at_120_columns() -> None:
    """Each counter that rose stands beside its events, riddles first, marked."""
    screen = make_screen(busy_look())
    screen.choose_view("ledger")
    lines = text(screen, 120).splitlines()[5:10]
    assert [line.split() for line in lines] == [
        ["rose", "explained", "rest", "status↑", "layer", "counter", "of", "by"],
        [">?", "7", "3", "4", "unexplained", "stack", "mib.IpInAddrErrors", "netns", "blue", "3", "IP_INADDRERRORS"],
        ["!", "500", "-", "500", "no-event", "nic-ring", "ethtool.rx_no_dma_resources", "eth0", "queue", "3"],
        [*"1,200 1,200 0 exact socket mib.UdpNoPorts netns blue 1,200 NO_SOCKET".split()],
        [*"812 812 0 exact backlog softnet.dropped CPU 3 812 CPU_BACKLOG".split()],
    ]


def test_300_columns() -> None:
    """A wide terminal shows names whole, and longer sparklines."""
    long = make_drop(reason="A_REASON_" * 5, interface="a-long-one", netns_name="a-namespace-with-a-name")
    lines = text(make_screen(make_step({long: Count(7, 7)})), 300, 50).splitlines()
    assert "A_REASON_" * 5 in lines[6]
    assert "a-long-one a-namespace-with-a-name" in lines[6]
    assert lines[0].endswith("tp_btf fentry")
    assert "Enter detail" in lines[-1]


def test_40_columns() -> None:
    """In a narrow terminal there is less, and what there is can be read."""
    lines = text(make_screen(busy_look()), 40, 10).splitlines()
    assert lines[2:4] == ["!nic-ring !backlog  !stack    !socket", " 250/s     406/s     3.5/s     600/s"]
    assert lines[5].split() == ["/s↓", "total", "reason", "seen", "trend"]
    assert lines[6].split()[:4] == [">!", "600", "1,200", "NO_SOCKET"]


def test_nothing_lost() -> None:
    """A quiet host is said to be quiet."""
    lines = text(make_screen(make_step())).splitlines()
    assert lines[1] == "lost 0  0/s  not counted 0  unexplained 0  noise* 0"
    assert lines[6] == "  nothing lost so far"


def test_loss_budget_is_in_the_header() -> None:
    """Drops that pktdrop could not count are marked."""
    assert "not counted !5" in text(make_screen(make_step(uncounted=Uncounted(1, 5))))


@given(st.integers(1, 320), st.integers(1, 100), st.sampled_from([view.name for view in VIEWS]), st.booleans())
def test_always_as_large_as_the_terminal(width: int, height: int, view: str, is_large: bool) -> None:
    """Whatever the size and the table, there are as many lines as fit, each exactly as wide."""
    screen = make_screen(busy_look())
    screen.choose_view(view)
    if is_large:
        screen.enlarge()
    for page in (None, "help", "limits"):
        screen.page = page
        lines = screen.lines(width, height)
        assert len(lines) == height
        assert {len(plain(line)) for line in lines} == {width}
        assert {style for line in lines for _, style in line} <= set(STYLES)


def test_names_from_outside_are_escaped() -> None:
    """What would move the cursor is shown, not done: in tables, details and files."""
    screen = make_screen(make_step({make_drop(interface=RED, netns_name=RED, call_site=RED): Count(1, 1)}))
    for view in VIEWS:
        screen.choose_view(view.name)
        assert "\x1b" not in text(screen, 200, 50)
    screen.choose_view("interfaces")
    assert "a\\x1b[31mb" in text(screen, 200, 50)


def test_loss_is_marked_without_colour() -> None:
    """What red says, "!" says: every row of a loss that goes on has it, no other one has."""
    screen = make_screen(busy_look(), make_step({make_drop(): Count(5, 5)}))
    marks = {plain(line)[1] for line in screen.lines(80, 24)[6:12] if any(style == "loss" for _, style in line)}
    assert marks <= {"!"}
    rows = text(screen).splitlines()[6:12]
    assert [line[1] for line in rows] == ["!" if "NO_SOCKET" in row else "*" if "*" in row else " " for row in rows]
    assert text(screen).splitlines()[2].split() == [
        "nic-fifo", ".nic-ring", "driver", ".backlog", ".stack", "!socket", "qdisc", "tx",
    ]  # fmt: skip


def test_plain_terminals_get_plain_marks() -> None:
    """Where there are no block characters, the screen is ASCII."""
    screen = Screen(make_screen().run, Filters([]), 1.0, PLAIN)
    screen.take(busy_look())
    assert text(screen).isascii()


# --- what the user does


def test_sorting_by_each_column_and_reversing() -> None:
    """Numbers start with the highest, names in their order; reversing turns that round, in every table."""
    screen = make_screen(busy_look())
    for view in VIEWS:
        screen.choose_view(view.name)
        for column in screen.columns:
            screen.sort_by(column.title)
            once = [row.subject for row in screen.rows()]
            screen.reverse()
            again = [row.subject for row in screen.rows()]
            assert set(once) == set(again)
    screen.choose_view("reasons")
    screen.sort_by("total")
    assert names(screen, "total") == [1200, 812, 500, 4, 3, 50]
    screen.sort_by("total")
    assert names(screen, "total") == [3, 4, 500, 812, 1200, 50]
    screen.sort_by("reason")
    assert names(screen, "reason") == sorted(str(name) for name in names(screen, "reason"))


def test_sort_is_shown_and_moves_sideways() -> None:
    """The title of the column that is sorted by has a mark; < and > move it."""
    screen = make_screen(busy_look())
    screen.sort_beside(1)
    assert " total↓ " in text(screen)
    screen.sort_beside(-2)
    assert "trend↓" in text(screen)


def test_filter_as_typed() -> None:
    """Rows must have all words, in whatever name: reason, layer, CPU, interface, namespace, call site."""
    screen = make_screen(busy_look())
    screen.search("blue no_s")
    assert names(screen, "reason") == ["NO_SOCKET"]
    assert "rows with blue no_s" in text(screen)
    screen.search("NFT_do_chain")
    assert names(screen, "reason") == ["NETFILTER_DROP"]
    screen.search("nothing like it")
    assert "no row has these words" in text(screen)


def test_hiding_noise() -> None:
    """Noise goes from the table and the header says so; totals of losses stay."""
    screen = make_screen(busy_look())
    screen.toggle_noise()
    assert "OTHERHOST*" not in names(screen, "reason")
    assert "noise hidden" in text(screen)
    assert "lost 2,519" in text(screen)


def test_frozen_screen_stands_still_while_counting_goes_on() -> None:
    """What happens meanwhile is there when the screen goes on."""
    screen = make_screen(busy_look())
    screen.freeze()
    before = text(screen)
    assert "FROZEN" in before
    screen.take(busy_look())
    assert text(screen) == before
    screen.sort_by("reason")
    assert sum(int(str(total)) for total in names(screen, "total")) == 2569
    screen.freeze()
    assert "lost 5,038" in text(screen)


def everything(screen: Screen) -> list[str]:
    """All rows of all tables, whole, and the detail of each."""
    said = []
    for view in VIEWS:
        screen.choose_view(view.name)
        for position, row in enumerate(screen.rows()):
            screen.point_at(position)
            values = (column.text(value, 60) for column, value in zip(screen.columns, row.values, strict=True))
            said += [" ".join(values), text_of(screen.detail(120))]
    return said


def test_nothing_of_a_frozen_screen_changes() -> None:
    """Neither a row of any table nor what lies behind it, whatever is counted meanwhile."""
    screen = make_screen(busy_look())
    screen.freeze()
    before = everything(screen)
    for _ in range(3):
        screen.take(busy_look())
    assert everything(screen) == before
    screen.freeze()
    assert everything(screen) != before


def test_counting_from_zero() -> None:
    """A reset forgets what was counted and says since when it counts."""
    screen = make_screen(busy_look())
    screen.reset()
    assert "lost 0 " in text(screen)
    screen.take(make_step({make_drop(): Count(5, 5)}))
    assert names(screen, "total") == [5]
    assert "zero at 0:00:02" in text(screen, 120)


def test_cursor_stays_with_its_row() -> None:
    """The chosen row stays chosen when others overtake it; without a choice it is the first one, whichever."""
    screen = make_screen(busy_look())
    assert screen.chosen == Reason("socket", "NO_SOCKET", None)
    screen.move(1)
    assert screen.chosen == Reason("backlog", "CPU_BACKLOG", None)
    screen.take(make_step({make_backlog_drop(): Count(1, 1), make_drop(): Count(5, 5)}))
    assert screen.chosen == Reason("backlog", "CPU_BACKLOG", None)
    screen.to_first()
    screen.take(make_step({make_backlog_drop(): Count(9, 1)}))
    assert screen.chosen == Reason("backlog", "CPU_BACKLOG", None)


def test_cursor_is_always_on_the_screen() -> None:
    """However far it moves, the row with the cursor is shown."""
    many = {make_drop(reason=f"REASON_{number:03}"): Count(number + 1, 1) for number in range(200)}
    screen = make_screen(make_step(many))
    for move in (screen.to_last, lambda: screen.turn_page(-1), lambda: screen.move(-7), screen.to_first):
        move()
        assert text(screen).count("\n>") == 1


def test_large_detail_has_all_lines() -> None:
    """Enter gives the detail the screen; what does not fit scrolls."""
    call_sites = {
        make_drop(call_site=f"function_{number}+0x1", interface=f"if{number}"): Count(number + 1, 1)
        for number in range(40)
    }
    others = {make_drop(reason=f"OTHER_{number}"): Count(1, 1) for number in range(9)}
    screen = make_screen(make_step({**call_sites, **others}))
    small = text(screen, 80, 20)
    screen.enlarge()
    assert text(screen, 80, 20).count("\n        ") > small.count("\n        ")
    screen.scroll(1000)
    assert "and 28 more" in text(screen, 80, 20)


def test_new_limits_are_said_and_kept() -> None:
    """A source that fails during the run shows as such, at once and in the list of limits."""
    screen = make_screen(make_step())
    screen.take(make_step(limits=(Limit("not-entered", ("red",), "Permission denied"),)))
    assert "Limit: Network namespace red cannot be entered" in text(screen)
    assert "limits (L) !1" in text(screen)
    screen.show_page("limits")
    assert "red cannot be entered: Permission denied." in text(screen)


def test_failed_look_is_said_until_the_next_one() -> None:
    """When reading fails the screen says so and keeps what it has; the next look that works clears it."""
    screen = make_screen(busy_look())
    screen.fail("the map is gone")
    assert "CANNOT READ: the map is gone" in text(screen)
    assert "NO_SOCKET" in text(screen)
    screen.take(make_step())
    assert "CANNOT READ" not in text(screen)


def test_filters_of_the_command_line_are_said() -> None:
    """What they hide is counted and shown as a number."""
    screen = make_screen(busy_look(), filters=Filters([reason_filter(["NO_SOCKET"])]))
    assert "filtered 865" in text(screen, 120)


def test_help_names_every_key() -> None:
    """Each key is on the help page with what it does."""
    screen = make_screen()
    screen.show_page("help")
    shown = text(screen, 80, 60)
    assert [key.shown for key in KEYS if f"  {key.shown} " not in shown or key.help not in shown] == []


def test_no_key_is_bound_twice() -> None:
    """Each key does one thing."""
    keys = [key for each in KEYS for key in each.keys]
    assert len(keys) == len(set(keys))


# --- files


def test_saved_as_text_and_json(tmp_path: Path) -> None:
    """A name without an ending gives both files; JSON has the whole table, with numbers as numbers."""
    screen = make_screen(busy_look())
    lines = screen.lines(80, 24)
    assert save(screen, lines, str(tmp_path / "now")) == [tmp_path / "now.txt", tmp_path / "now.json"]
    assert (tmp_path / "now.txt").read_text() == text(screen)
    saved = json.loads((tmp_path / "now.json").read_text())
    assert saved["packets"] == 2519
    assert saved["layers"] == {"nic-ring": 500, "backlog": 812, "stack": 7, "socket": 1200}
    assert [(row["reason"], row["total"], row["/s"]) for row in saved["rows"]][:2] == [
        ("NO_SOCKET", 1200, 600.0), ("CPU_BACKLOG", 812, 406.0),
    ]  # fmt: skip


@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_every_table_can_be_saved(view: str, tmp_path: Path) -> None:
    """JSON of each table has each of its rows, with each of its columns."""
    screen = make_screen(busy_look())
    screen.choose_view(view)
    save(screen, [], str(tmp_path / "now.json"))
    saved = json.loads((tmp_path / "now.json").read_text())
    assert len(saved["rows"]) == len(screen.rows())
    assert list(saved["rows"][0]) == [column.title for column in screen.columns]


def test_limits_do_nothing_to_a_terminal() -> None:
    """They name processes and interfaces, which may be called anything."""
    screen = make_screen(busy_look())
    screen.limits = (Limit("not-entered", (f"{RED}[7]",), "Operation not permitted"),)
    screen.show_page("limits")
    shown = text(screen)
    assert "a\\x1b[31mb[7]" in shown
    assert shown.replace("\n", "").isprintable()


def test_saving_never_overwrites(tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    (tmp_path / "now.txt").write_text("mine")
    screen = make_screen(busy_look())
    with pytest.raises(PktdropError, match="cannot be written: File exists"):
        save(screen, screen.lines(80, 24), str(tmp_path / "now.txt"))
    assert (tmp_path / "now.txt").read_text() == "mine"


def test_intervals_that_do_not_reach_a_second() -> None:
    """Numbers hold for intervals of any length: 10 packets in 0.1 s are 100 a second."""
    look = make_step({make_drop(): Count(10, 1)}, seconds=0.1)
    assert look.account.interval == make_interval({make_drop(): Count(10, 1)}, seconds=0.1)
    assert names(make_screen(look), "/s") == [100.0]
    assert names(make_screen(make_step(DROPS), look), "/s")[0] == pytest.approx(100.0)
