# SPDX-License-Identifier: MIT
"""Namespaces that come and go, 20 a second: each drop has the name of its own, and nothing is kept of the dead.

The witness is the process that made them: it knows who lived when, and read the kernel's counters in each of them. Many
get the inode of one that is gone, as the kernel gives these again within a second.
"""

import os

import pytest

from benchmarks import churn
from tests.kit.process import command

PATIENCE = float(os.environ.get("PKTDROP_PATIENCE", "1"))
"""In an emulated machine they come as much slower, and live as much longer: a look takes seconds there."""
SECONDS = 24.0


@pytest.fixture(scope="module")
def churned() -> churn.Result:
    """What a trace showed of it."""
    return churn.run(SECONDS, churn.RATE, command(), PATIENCE)


def test_the_kernel_gave_inodes_again(churned: churn.Result) -> None:
    """Without that there is nothing to take for another."""
    assert churned.inodes < 0.75 * len(churned.lives)
    assert all(life.sent == life.lost for life in churned.lives)


def test_no_drop_has_the_name_of_another_namespace(churned: churn.Result) -> None:
    """Neither of a dead one, nor of one that took the inode."""
    assert churned.names.shown > churned.sent / 2
    assert churned.names.wrong == 0, churned.names.examples[:10]


def test_every_drop_is_shown(churned: churn.Result) -> None:
    """As many as the namespaces' own counters have, though most are gone when they are read."""
    assert (churned.events, churned.lost) == (churned.sent, 0)


@pytest.mark.parametrize("counter", churn.COUNTERS.values())
def test_the_ledger_has_what_could_be_read_and_not_more(churned: churn.Result, counter: str) -> None:
    """Counters of a namespace are never compared with those of another that had its inode."""
    total = churned.totals[counter]
    assert total.readable > 0
    assert total.readable <= total.ledger <= total.counted
    assert total.unexplained == 0


def test_what_could_not_be_read_is_said(churned: churn.Result) -> None:
    """SYNs at a full listen queue raise no event: of a namespace that is gone nobody can tell."""
    assert any(total.ledger < total.counted for total in churned.totals.values())
    assert "network namespaces were gone" in " ".join(churned.said.split())


def test_nothing_grows_with_the_namespaces_that_were(churned: churn.Result) -> None:
    """Open files least of all."""
    few, many = churned.descriptors
    assert many <= few + 1
    middle, end = churned.resident
    assert end <= 1.15 * middle


def test_it_ends_well(churned: churn.Result) -> None:
    """When asked, and without complaint."""
    assert churned.status == 0
    assert "Traceback" not in churned.said
