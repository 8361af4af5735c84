# SPDX-License-Identifier: MIT
"""What the doctor makes of what it found, and how it is shown."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop import doctor
from pktdrop.doctor import Check, Checks
from pktdrop.kernel import host
from pktdrop.views.doctor import as_json, as_table

LOCKED = Check(
    "lockdown",
    "degraded",
    "confidentiality",
    "Only tp_btf can work: raw, fentry and kprobe are forbidden.",
    "Nothing, unless the target CPU of backlog drops matters: boot with lockdown=integrity.",
)
CHECKS = Checks((Check("kernel", "ok", "6.12.95 x86_64"), LOCKED), can_trace=True)


def test_table() -> None:
    """All checks in a table; below it what each that is not ok means and asks for; the verdict last."""
    assert as_table(CHECKS, 80) == (
        "check     status    found\n"
        "kernel    ok        6.12.95 x86_64\n"
        "lockdown  degraded  confidentiality\n"
        "\n"
        "lockdown: degraded\n"
        "  Means: Only tp_btf can work: raw, fentry and kprobe are forbidden.\n"
        "  Do: Nothing, unless the target CPU of backlog drops matters: boot with\n"
        "    lockdown=integrity.\n"
        "\n"
        "pktdrop trace can run.\n"
    )


def test_what_is_the_same_is_said_once() -> None:
    """Two checks that mean and ask for the same have one paragraph, under both names."""
    twice = [Check(f"backlog {rung}", "degraded", "refused", "No target CPU.", "Use root.") for rung in ("a", "b")]
    text = as_table(Checks((*twice, LOCKED), can_trace=True), 80)
    assert "backlog a, backlog b: degraded\n  Means: No target CPU.\n  Do: Use root.\n" in text
    assert text.count("Means:") == text.count("Do:") == 2


def test_json() -> None:
    """One object on a line, with all that is known of each check."""
    line = as_json(CHECKS, "0.1.0")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "type": "doctor",
        "version": "0.1.0",
        "can_trace": True,
        "checks": [
            {"name": "kernel", "status": "ok", "found": "6.12.95 x86_64", "means": "", "do": ""},
            {
                "name": "lockdown",
                "status": "degraded",
                "found": "confidentiality",
                "means": "Only tp_btf can work: raw, fentry and kprobe are forbidden.",
                "do": "Nothing, unless the target CPU of backlog drops matters: boot with lockdown=integrity.",
            },
        ],
    }


@pytest.mark.parametrize("can_trace", [True, False])
def test_the_verdict_is_the_last_line(can_trace: bool) -> None:
    """Whether trace can run is the last word, and the answer of a program that reads JSON."""
    checked = Checks((LOCKED,), can_trace)
    last = as_table(checked, 80).splitlines()[-1]
    assert last == ("pktdrop trace can run." if can_trace else "pktdrop trace cannot run here.")
    assert json.loads(as_json(checked, "0"))["can_trace"] is can_trace


SENTENCES = st.lists(
    st.text("abcdefgh-", min_size=1, max_size=12).filter(lambda word: word.strip("-")), max_size=20
).map(" ".join)


@given(st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=6), st.integers(60, 200))
def test_the_table_fits(texts: list[tuple[str, str, str]], width: int) -> None:
    """Whatever was found, lines are no wider than the terminal, and no word is lost."""
    checks = tuple(
        Check(f"check{place}", "degraded", found, means, do) for place, (found, means, do) in enumerate(texts)
    )
    text = as_table(Checks(checks, True), width)
    assert max(map(len, text.splitlines())) <= width
    for found, means, do in texts:
        for sentence in (found, means, do):
            assert all(piece in text for word in sentence.split() for piece in word.split("-"))


def test_control_characters_are_escaped() -> None:
    """What a kernel or a library says cannot move the cursor."""
    check = Check("x", "missing", "\x1b[2J", "a\x1b[1m", "b\r")
    assert all(line.isprintable() for line in as_table(Checks((check,), False), 80).splitlines())


Statuses = list[tuple[str, str, Literal["ok", "degraded", "missing"]]]


@pytest.mark.parametrize(
    ("tried", "statuses"),
    [
        ({"a": None, "b": None}, [("p a", "in use", "ok"), ("p b", "works, not needed", "ok")]),
        ({"a": "refused", "b": None}, [("p a", "refused", "degraded"), ("p b", "in use", "ok")]),
        ({"a": None, "b": "refused"}, [("p a", "in use", "ok"), ("p b", "refused", "degraded")]),
        ({"a": "no", "b": "never"}, [("p a", "no", "missing"), ("p b", "never", "missing")]),
    ],
)
def test_rungs_are_judged_by_the_first_that_works(tried: dict[str, str | None], statuses: Statuses) -> None:
    """A rung that fails is a loss of cost or of nothing while another works; if none works, it costs the answer."""
    checks = list(doctor._judge("p", ("a", "b"), tried, "missing", "Nothing works."))
    assert [(check.name, check.found, check.status) for check in checks] == statuses
    assert all(("Nothing works." in check.means) == (check.status == "missing") for check in checks)


def test_a_failing_rung_below_the_one_in_use_costs_nothing() -> None:
    """That raw is refused where tp_btf works is said to mean nothing."""
    below = list(doctor._judge("p", ("a", "b"), {"a": None, "b": "refused"}, "missing", "x"))[1]
    assert below.means.startswith("Nothing")
    assert below.do == ""


def test_a_failing_rung_above_the_one_in_use_has_a_price() -> None:
    """That tp_btf is refused where raw works is said to cost something, not nothing."""
    above = next(iter(doctor._judge("p", ("a", "b"), {"a": "refused", "b": None}, "missing", "x")))
    assert above.means.startswith("b is used")
    assert "cost" in above.means


def test_every_check_that_is_not_ok_says_what_it_means() -> None:
    """On this host, whatever it lacks, no check leaves the reader alone with a bad status."""
    checked = doctor.check()
    assert len({check.name for check in checked.checks}) == len(checked.checks)
    assert {"kernel", "rights", "BTF", "symbols"} <= {check.name for check in checked.checks}
    assert all(check.found for check in checked.checks)
    assert all(check.means for check in checked.checks if check.status != "ok")
    if not host.may_use_bpf(host.own_capabilities()):
        assert not checked.can_trace
