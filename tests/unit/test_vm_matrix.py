# SPDX-License-Identifier: MIT
"""What is tried a second time where a guest is emulated, and what is not."""

import pytest

from tests.vm.matrix import Boot, Outcome, with_second_try

BOOT = Boot("some", ("tests/live", "--ignore=tests/live/test_x.py"), minutes=1)
ONE, OTHER = "tests/live/test_a.py::test_one[x y]", "tests/live/test_b.py::test_other"


def outcome(passed: int, *failed: str) -> Outcome:
    """What came of a start that took 10 seconds."""
    return Outcome("some", 5, 10, passed, failed, (), {})


class Guest:
    """What comes of one start after the other, and what was asked for."""

    def __init__(self, *outcomes: Outcome) -> None:
        """Take all outcomes."""
        self._outcomes = list(outcomes)
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, boot: Boot) -> Outcome:
        """Start it."""
        self.asked.append(boot.tests)
        return self._outcomes.pop(0)


def test_what_goes_well_runs_once() -> None:
    """Nothing is tried again without need, and nothing is called unsteady."""
    guest = Guest(outcome(7))
    assert with_second_try(BOOT, guest) == outcome(7)
    assert guest.asked == [BOOT.tests]


def test_only_what_failed_runs_again() -> None:
    """What goes well then is unsteady, what fails again has failed."""
    guest = Guest(outcome(7, ONE, OTHER), outcome(1, OTHER))
    assert with_second_try(BOOT, guest) == Outcome("some", 5, 20, 8, (OTHER,), (ONE,), {})
    assert guest.asked == [BOOT.tests, (ONE, OTHER)]


@pytest.mark.parametrize("complaint", ["[ 1.2] BUG: unable to handle page fault", "the guest did not end in 60 s"])
def test_what_the_kernel_says_is_final(complaint: str) -> None:
    """A kernel that complains, a guest that hangs: no second try makes that good."""
    guest = Guest(outcome(7, ONE, complaint))
    assert with_second_try(BOOT, guest) == outcome(7, ONE, complaint)
    assert guest.asked == [BOOT.tests]


def test_a_second_guest_that_does_not_come_up_saves_nothing() -> None:
    """Tests that have not run again did not go well."""
    guest = Guest(outcome(7, ONE), outcome(0, "the guest ended before its command did"))
    assert with_second_try(BOOT, guest).failed == ("the guest ended before its command did",)
    assert with_second_try(BOOT, Guest(outcome(7, ONE), outcome(0, "the guest ended"))).unsteady == ()
