# SPDX-License-Identifier: MIT
"""Advice in the live view: the remedies of `pktdrop diagnose`, each beside the rows it is about."""

from __future__ import annotations

import pytest

from pktdrop.diagnosis.diagnosis import Advised, Circumstances, diagnosis_of
from pktdrop.model.counters import Scope
from pktdrop.model.drops import Count, Netns
from pktdrop.rules.protocols import Protocols
from pktdrop.top import detail
from pktdrop.top.advice import concerning
from pktdrop.top.lines import plain
from pktdrop.top.save import text_of
from pktdrop.top.series import BLOCKS
from pktdrop.top.subjects import Cpu, InterfaceQueue, OneNetns, Reason, Subject
from pktdrop.top.view import Context
from tests.unit.accounts import BLUE, RULES, TRACED, KnownHost, make_account
from tests.unit.make import make_backlog_drop, make_drop
from tests.unit.top_steps import make_screen, make_step

CONTEXT = Context(lambda netns: None, BLOCKS, Protocols.load())
NO_SOCKET, FULL = Reason("socket", "NO_SOCKET", None), Reason("backlog", "CPU_BACKLOG", None)


def losses() -> tuple[Advised, ...]:
    """Five packets to a closed port in "blue", and nine for the full backlog of CPU 3."""
    account = make_account({make_drop(): 5, make_backlog_drop(): 9}, {"softnet": {Scope(cpu=3): {"dropped": 9}}})
    return diagnosis_of(account, Circumstances(TRACED), KnownHost({"netdev_max_backlog": 1000}), RULES).losses


@pytest.mark.parametrize(
    ("subject", "word"),
    [(NO_SOCKET, "listen"), (FULL, "backlog"), (Cpu(3), "backlog"), (Cpu(0), "backlog"), (OneNetns(BLUE), "listen")],
    ids=str,
)
def test_advice_is_that_of_the_row(subject: Subject, word: str) -> None:
    """A row has the advice on its losses, and no other."""
    said = concerning(subject, losses())
    assert said
    assert all(word in sentence for sentence in said)


@pytest.mark.parametrize(
    "subject", [Reason("stack", "IP_CSUM", None), Cpu(7), OneNetns(Netns(1)), InterfaceQueue(BLUE, "eth9")], ids=str
)
def test_other_rows_have_none(subject: Subject) -> None:
    """Where nothing of it was lost there is nothing to advise."""
    assert concerning(subject, losses()) == []


def test_advice_is_in_the_detail() -> None:
    """It is asked for once something was lost, and stands in the detail as soon as it is there."""
    screen = make_screen()
    assert not screen.wants_advice
    screen.take(make_step({make_drop(): Count(5, 5)}))
    assert screen.wants_advice
    screen.take(make_step()._replace(losses=losses()))
    assert not screen.wants_advice
    assert "\nadvice  " in text_of(screen.lines(80, 24))


def test_much_advice_is_cut_short() -> None:
    """A row of many namespaces does not push all else from the screen: the first sentences stand, and how many more."""
    screen = make_screen(make_step({make_drop(): Count(5, 5)}))
    advice = [f"Raise it in namespace {number}." for number in range(14)]
    assert screen.chosen is not None
    lines = detail.lines(screen.history, screen.chosen, CONTEXT, advice, 80)
    said = [plain(line) for line in lines if plain(line).startswith("advice")]
    assert [line.split(maxsplit=1)[1] for line in said[:4]] == advice[:4]
    assert said[4:] == ["advice  and 10 more; 'pktdrop diagnose' has all"]


def test_advice_is_not_worked_out_at_each_look() -> None:
    """Later losses are judged too, but not more often than every ten seconds."""
    screen = make_screen(make_step({make_drop(): Count(5, 5)}))
    screen.take(make_step()._replace(losses=losses()))
    for _ in range(5):
        assert not screen.wants_advice
        screen.take(make_step({make_drop(): Count(5, 5)}))
    assert screen.wants_advice
