# SPDX-License-Identifier: MIT
"""Whose packets were dropped: flows and processes by samples, whatever senders choose."""

from __future__ import annotations

import json
from pathlib import Path

from pktdrop.filters import Filters, reason_filter
from pktdrop.model.container import Container
from pktdrop.model.drops import Count
from pktdrop.model.sample import Owner
from pktdrop.top.save import save, text_of
from pktdrop.top.screen import Screen
from pktdrop.top.whose import Whose
from tests.kit.frames import ether, ipv4, udp
from tests.unit.make import make_doubt, make_drop, make_sample, make_selection
from tests.unit.top_steps import STATSD, busy_look, make_screen, make_step

FLOW = "10.0.0.5 > 10.0.0.9:8125"


def shown(screen: Screen, view: str, width: int = 200) -> str:
    """A table with the detail of its first row."""
    screen.choose_view(view)
    return text_of(screen.lines(width, 40))


def cells(screen: Screen, view: str, title: str) -> list[object]:
    """The values of a column."""
    screen.choose_view(view)
    position = [column.title for column in screen.columns].index(title)
    return [row.values[position] for row in screen.rows()]


def test_samples_of_several_looks_and_kinds_add_up() -> None:
    """A flow has all its samples, and all packets of the kinds they are of: one more look of 40 and another reason."""
    other = make_drop(reason="SOCKET_RCVBUFF")
    later = make_step(
        {make_drop(): Count(40, 1), other: Count(9, 1), make_drop(cpu=7): Count(500, 1)},
        samples={make_drop(): [make_sample(owner=STATSD)], other: [make_sample(key=other, owner=STATSD)]},
    )
    screen = make_screen(busy_look(), later)
    assert cells(screen, "flows", "sampled")[0] == (5, 1249)
    assert cells(screen, "flows", "reason")[0] == ["NO_SOCKET", "SOCKET_RCVBUFF"]
    assert cells(screen, "processes", "sampled")[0] == (5, 1249)


def test_what_a_process_sent_is_told_from_what_it_would_have_got() -> None:
    """Both are one row, each with its number."""
    sent = make_sample(owner=STATSD._replace(is_receiver=False))
    screen = make_screen(
        make_step({make_drop(): Count(9, 1)}, samples={make_drop(): [sent, make_sample(owner=STATSD)]})
    )
    assert cells(screen, "processes", "process") == ["statsd[812]"]
    assert (cells(screen, "processes", "for it"), cells(screen, "processes", "from it")) == ([1], [1])


def test_a_process_tells_its_container() -> None:
    """In both views, as below a row of trace; a session says nothing, and without a process no container is said."""
    mail, session = Container("lxc", name="mail"), Container(None, unit="session-3.scope")
    some = [make_sample(owner=STATSD, container=mail), make_sample(owner=Owner(7, "bash"), container=session)]
    screen = make_screen(make_step({make_drop(): Count(9, 1)}, samples={make_drop(): [*some, make_sample()]}))
    told = {"statsd[812] (lxc mail)", "bash[7]"}
    assert set(cells(screen, "processes", "process")) == {*told, "not known"}
    assert set(cells(screen, "flows", "process")) == {*told, "-"}


def test_noise_and_doubt_stay_apart() -> None:
    """What is no loss is marked, comes last and goes with the noise; what may be none has its mark."""
    doubt = make_doubt()
    screen = make_screen(
        busy_look(), make_step({doubt: Count(5, 1)}, samples={doubt: [make_sample(key=doubt, owner=STATSD)]})
    )
    screen.choose_view("flows")
    assert [row.mark for row in screen.rows()] == [" ", "?", " ", "*"]
    screen.toggle_noise()
    assert [row.mark for row in screen.rows()] == [" ", "?", " "]


def test_filters_of_the_command_line_hide_samples() -> None:
    """Samples of drops that are not shown are not shown either."""
    screen = make_screen(busy_look(), filters=Filters([reason_filter(["NETFILTER_DROP"])]))
    assert cells(screen, "flows", "sampled") == [(1, 3)]


def test_senders_do_not_make_it_grow() -> None:
    """Of 8,000 addresses a few are told apart, the one seen most and the loss among them; no sample is missing."""
    whose = Whose()
    for look in range(2000):
        key = make_drop(cpu=look)  # as if there were ever more kinds, too
        rotated = [
            make_sample(ether(0x0800, ipv4(17, udp(), source=f"10.{look >> 8}.{look & 255}.{host}")), key=key,
                        owner=Owner(look, f"worker-{look}"))
            for host in range(3)
        ]  # fmt: skip
        samples = {key: [*rotated, make_sample(key=key, owner=STATSD)]}
        whose.add(samples, make_selection({key: Count(100, 1)}), float(look))
    assert len(whose.flows) <= 1024
    assert len(whose.processes) <= 1024
    assert len(whose.recent) == 256
    for sums, kind in ((whose.flows, "flows"), (whose.processes, "processes")):
        assert sum(one.seen for one in sums.values()) + whose.forgotten[kind] == 8000
        assert max(one.seen for one in sums.values()) == 2000
        assert max(len(one.newest) for one in sums.values()) == 4


def test_what_is_forgotten_has_a_row() -> None:
    """Samples of flows that are not told apart any more are counted together, and the row says what it is."""
    key = make_drop()
    samples = [make_sample(ether(0x0800, ipv4(17, udp(), source=f"10.1.{at >> 8}.{at & 255}"))) for at in range(1025)]
    screen = make_screen(make_step({key: Count(2000, 1)}, samples={key: samples}))
    assert cells(screen, "flows", "sampled")[0] == (513, None)
    assert "513 others" in shown(screen, "flows")
    assert "too many to be told apart" in shown(screen, "flows")


def test_names_that_senders_choose_are_escaped() -> None:
    """A process may be called anything."""
    red = Owner(7, "a\x1b[31mb\n")
    screen = make_screen(make_step({make_drop(): Count(1, 1)}, samples={make_drop(): [make_sample(owner=red)]}))
    for view in ("flows", "processes", "reasons"):
        text = shown(screen, view)
        assert "a\\x1b[31mb\\n[7]" in text
        assert text.replace("\n", "").isprintable()


def test_rows_have_the_packets_of_their_last_look() -> None:
    """Behind each row stand those of its kinds, alike ones together, and of how many they are."""
    screen = make_screen(busy_look())
    for view in ("reasons", "interfaces", "namespaces"):
        assert f"whose   {FLOW} UDP 48 B for statsd[812], 3 of 1,200 seen" in shown(screen, view)
    assert f"whose   {FLOW} UDP 48 B for statsd[812], 2 of 1,000 seen" in shown(screen, "CPUs")


def test_rows_have_no_packets_of_looks_before() -> None:
    """What one CPU dropped a look ago is not counted with what another one dropped now."""
    key = make_drop(cpu=1)
    screen = make_screen(busy_look(), make_step({key: Count(7, 1)}, samples={key: [make_sample(key=key)]}))
    assert "10.0.0.5:43210 > 10.0.0.9:8125 UDP 48 B, 1 of 7 seen" in shown(screen, "reasons")
    assert shown(screen, "reasons").count("whose") == 1


def test_nobody_was_looked_at() -> None:
    """Where no packet was sampled the tables say so."""
    screen = make_screen(make_step({make_drop(): Count(9, 1)}))
    assert "no dropped packet was looked at so far" in shown(screen, "flows")


def test_words_find_flows() -> None:
    """An address, a port, a process, a reason: each is a word to search for."""
    screen = make_screen(busy_look())
    for words in ("10.0.0.5", ":8125", "statsd", "no_socket", "udp blue"):
        screen.search(words)
        assert FLOW in cells(screen, "flows", "flow"), words
        assert "10.0.0.7:43210 > 10.0.0.9:443" not in cells(screen, "flows", "flow"), words


def test_saved_as_numbers(tmp_path: Path) -> None:
    """JSON has both numbers of a flow."""
    screen = make_screen(busy_look())
    screen.choose_view("flows")
    save(screen, [], str(tmp_path / "now.json"))
    assert json.loads((tmp_path / "now.json").read_text())["rows"][0]["sampled"] == [3, 1200]
