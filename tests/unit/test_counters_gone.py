# SPDX-License-Identifier: MIT
"""What stands for interfaces and sockets that are gone."""

from __future__ import annotations

import pytest

from pktdrop.counters.gone import driver_of, stands_for_gone, together
from pktdrop.model.counters import Scope
from pktdrop.model.drops import THE_GONE, Netns

BLUE = Netns(4026532281, 7)


@pytest.mark.parametrize("driver", ["igb", None])
def test_an_interface_that_is_gone_keeps_its_driver(driver: str | None) -> None:
    """By it its counters are understood; where it is not known nothing is."""
    scope = together(Scope(netns=BLUE, interface="eth0", queue=3), THE_GONE, driver)
    assert (scope.netns, scope.queue, scope.socket) == (THE_GONE, None, None)
    assert driver_of(scope.interface) == driver
    assert stands_for_gone(scope)


def test_sockets_that_are_gone_are_one() -> None:
    """Whatever their addresses; interfaces are not among them."""
    one, other = (together(Scope(netns=BLUE, socket=f"udp *:{port} ino:1"), BLUE, None) for port in (53, 54))
    assert one == other
    assert one.interface is None
    assert stands_for_gone(one)


@pytest.mark.parametrize("scope", [Scope(), Scope(netns=BLUE, interface="gone"), Scope(netns=BLUE, socket="udp *:53")])
def test_what_is_there_stands_for_itself(scope: Scope) -> None:
    """An interface may be called "gone": none has a space in its name (dev_valid_name)."""
    assert not stands_for_gone(scope)
    assert driver_of(scope.interface) is None
