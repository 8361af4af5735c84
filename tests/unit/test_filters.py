# SPDX-License-Identifier: MIT
"""What the user wants to see, and that nothing is hidden in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop import filters
from pktdrop.errors import WrongUse
from pktdrop.filters import Filter, Filters
from pktdrop.kernel.btf import Btf
from pktdrop.kernel.reasons import ReasonNames
from pktdrop.model.container import Container
from pktdrop.model.drops import Count, DropKey, Netns
from pktdrop.rules.protocols import Protocols
from tests.unit.make import JUDGE, make_backlog_drop, make_drop, make_noise

UDP = make_drop()
TCP = make_drop(reason="TCP_CSUM", call_site="tcp_v4_rcv+0x42", cpu=1, protocol=0x86DD)
OVS = make_drop(
    subsystem="openvswitch",
    reason="OVS_DROP_METER",
    interface="ovs0",
    netns_name=None,
    netns=Netns(4026532999, 9),
)
BACKLOG = make_backlog_drop()
NUMBER = make_drop(reason="137", interface=None, ifindex=7, netns=None, netns_name=None, protocol=0)
NOISE = make_noise()
ALL = (UDP, TCP, OVS, BACKLOG, NUMBER, NOISE)
DROPS = {key: Count(10**place, 60 * 10**place) for place, key in enumerate(ALL)}
_BTF = Path(__file__).parents[1] / "data/btf/6.12.95-debian"
KNOWN = ReasonNames.from_btf(Btf.load(_BTF / "vmlinux"), _BTF)
"""NO_SOCKET is 3 there, and 137 has no name (bpftool btf dump file vmlinux, enum skb_drop_reason)."""

WEB = Container("docker", "1f2e3d4c5b6a" + "0" * 52, "web-1")
CART = Container("containerd", "c" * 64, "cart", "cart-7f9", "shop")


def _container_filter(values: Sequence[str]) -> Filter:
    return filters.container_filter(values, {BACKLOG.netns: WEB, OVS.netns: CART}.get)  # type: ignore[arg-type]


Maker = Callable[[Sequence[str]], Filter]


def _protocol_filter(values: Sequence[str]) -> Filter:
    return filters.protocol_filter(values, Protocols.load())


def _shown(*chosen: Filter, noise: bool = True) -> set[DropKey]:
    return set(Filters(chosen, noise=noise).select(DROPS, JUDGE).drops)


@pytest.mark.parametrize(
    ("make", "values", "shown"),
    [
        (filters.reason_filter, ["NO_SOCKET"], {UDP}),
        (filters.reason_filter, ["no_socket"], {UDP}),
        (filters.reason_filter, ["TCP_*", "CPU_BACKLOG"], {TCP, BACKLOG}),
        (filters.reason_filter, ["!NO_SOCKET"], set(ALL) - {UDP}),
        (_container_filter, ["web-1"], {BACKLOG}),
        (_container_filter, ["docker web-*"], {BACKLOG}),
        (_container_filter, ["1f2e3d4c5b6a"], {BACKLOG}),
        (_container_filter, ["1f2e3d4c5b6a00"], {BACKLOG}),
        (_container_filter, ["1f2e3d4c5b6"], set()),
        (_container_filter, ["shop/cart-7f9"], {OVS}),
        (_container_filter, ["cart-7f9", "web-?"], {OVS, BACKLOG}),
        (_container_filter, ["cart"], {OVS}),
        (_container_filter, ["pod shop/*"], {OVS}),
        (_container_filter, ["!web-1"], set(ALL) - {BACKLOG}),
        (_container_filter, ["host"], set()),
        (filters.reason_filter, ["!*"], set()),
        (filters.reason_filter, ["*", "!TCP_*", "!ovs_*"], set(ALL) - {TCP, OVS}),
        (filters.reason_filter, ["openvswitch/*"], {OVS}),
        (filters.reason_filter, ["OpenVSwitch/ovs_drop_meter"], {OVS}),
        (filters.reason_filter, ["OVS_DROP_METER"], {OVS}),
        (filters.reason_filter, ["core/137"], {NUMBER}),
        (filters.reason_filter, ["core/*"], set(ALL) - {OVS}),
        (filters.reason_filter, ["TCP_CS[UV]M"], {TCP}),
        (filters.interface_filter, ["lo"], {UDP, TCP}),
        (filters.interface_filter, ["LO"], set()),
        (filters.interface_filter, ["e*", "ovs0"], {BACKLOG, NOISE, OVS}),
        (filters.interface_filter, ["!lo"], {OVS, BACKLOG, NUMBER, NOISE}),
        (filters.netns_filter, ["blue"], {UDP, TCP, NOISE}),
        (filters.netns_filter, ["4026532999"], {OVS}),
        (filters.netns_filter, ["!blue", "!host"], {OVS, NUMBER}),
        (filters.netns_filter, ["b*"], {UDP, TCP, NOISE}),
        (filters.netns_filter, ["None"], set()),
        (filters.cpu_filter, ["1"], {TCP}),
        (filters.cpu_filter, ["3"], {BACKLOG}),
        (filters.cpu_filter, ["!0"], {TCP}),
        (filters.cpu_filter, ["!3"], set(ALL) - {BACKLOG}),
        (_protocol_filter, ["IPv6"], {TCP}),
        (_protocol_filter, ["ipv6"], {TCP}),
        (_protocol_filter, ["0x86dd"], {TCP}),
        (_protocol_filter, ["34525"], {TCP}),
        (_protocol_filter, ["!IPv4"], {TCP, NUMBER}),
        ((lambda values: filters.reason_filter(values)), [], set(ALL)),
    ],
)
def test_a_filter_shows_what_it_names(make: Maker, values: list[str], shown: set[DropKey]) -> None:
    """An option shows what it names, and with a leading "!" all but that."""
    assert _shown(make(values)) == shown


def test_exclusion_wins() -> None:
    """What is both wanted and unwanted is not shown, in whatever order it is given."""
    assert _shown(filters.reason_filter(["!NO_SOCKET", "NO_SOCKET"])) == set()
    assert _shown(filters.reason_filter(["NO_SOCKET", "!NO_SOCKET"])) == set()


def test_all_options_must_agree() -> None:
    """A drop is shown if it passes each option."""
    both = filters.interface_filter(["lo"]), filters.cpu_filter(["1"])
    assert _shown(*both) == {TCP}


def test_noise_is_hidden_on_request_only() -> None:
    """Without noise, losses stay; with it, all stay."""
    assert _shown(noise=False) == set(ALL) - {NOISE}
    assert _shown(noise=True) == set(ALL)


def test_what_is_hidden_is_counted_in_packets() -> None:
    """The number that is not shown counts packets, not keys."""
    chosen = Filters([filters.reason_filter(["!TCP_*", "!NO_SOCKET"])]).select(DROPS, JUDGE)
    assert chosen.filtered == DROPS[TCP].packets + DROPS[UDP].packets == 11


def test_a_second_question_has_the_same_answer() -> None:
    """What a filter says of a key does not depend on what was asked before."""
    chosen = Filters([filters.cpu_filter(["3"])])
    first, second = chosen.select(DROPS, JUDGE), chosen.select({key: Count(1, 1) for key in reversed(ALL)}, JUDGE)
    assert set(first.drops) == set(second.drops) == {BACKLOG}
    assert second.filtered == len(ALL) - 1


_NAMES = st.sampled_from(["NO_SOCKET", "!NO_SOCKET", "TCP_*", "!TCP_*", "core/137", "!openvswitch/*", "*", "!*"])
_CPUS = st.sampled_from(["0", "1", "3", "!0", "!3", "77"])
_INTERFACES = st.sampled_from(["lo", "!lo", "eth*", "!*", "nosuch"])


@given(
    st.lists(_NAMES, max_size=3),
    st.lists(_CPUS, max_size=2),
    st.lists(_INTERFACES, max_size=2),
    st.booleans(),
    st.dictionaries(st.sampled_from(ALL), st.builds(Count, st.integers(0, 10**9), st.integers(0, 10**12))),
)
def test_shown_and_filtered_are_all(
    names: list[str], cpus: list[str], interfaces: list[str], noise: bool, drops: dict[DropKey, Count]
) -> None:
    """Whatever is filtered, what is shown is unchanged, and together with what is not it is everything."""
    chosen = Filters(
        [filters.reason_filter(names), filters.cpu_filter(cpus), filters.interface_filter(interfaces)], noise=noise
    ).select(drops, JUDGE)
    assert chosen.drops.items() <= drops.items()
    assert sum(count.packets for count in chosen.drops.values()) + chosen.filtered == sum(
        count.packets for count in drops.values()
    )


@pytest.mark.parametrize("value", ["x", "", "!", "-1", "1.0", "0x1", "!x", "1 ", "²", "①"])
def test_a_cpu_is_a_number(value: str) -> None:
    """What is no CPU number is refused as a wrong use of --cpu, before anything is traced."""
    with pytest.raises(WrongUse) as refused:
        filters.cpu_filter([value])
    assert refused.value.option == "--cpu"


@pytest.mark.parametrize("value", ["IPv5", "", "!", "0x", "0x12345", "65536", "!IPv5", "-1"])
def test_a_protocol_is_a_name_or_an_ethertype(value: str) -> None:
    """What is neither a known name nor a number of 16 bits is refused, with names that are known."""
    with pytest.raises(WrongUse) as refused:
        _protocol_filter([value])
    assert refused.value.option == "--protocol"
    assert "IPv4" in refused.value.why


@pytest.mark.parametrize(
    "value",
    ["NO_SOCKET", "no_socket", "!NO_SOCKET", "TCP_*", "!tcp_*", "core/NO_SOCKET", "core/*", "137", "core/137", "*",
     "openvswitch/OVS_DROP_METER", "openvswitch/*", "!OpenVSwitch/12"],
)  # fmt: skip
def test_known_reasons_are_taken(value: str) -> None:
    """A name of this kernel, a pattern that fits one, and any number are taken."""
    filters.check_reasons([value], KNOWN)


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("NO_SOKET", "NO_SOCKET"),
        ("!nosocket", "NO_SOCKET"),
        ("TCP_RST", "TCP_RESET"),
        ("RCVBUFF", "SOCKET_RCVBUFF"),
        ("openvswitch/OVS_METER", "OPENVSWITCH/OVS_DROP_METER"),
        ("core/TCP_CSUMM", "CORE/TCP_CSUM"),
    ],
)
def test_an_unknown_reason_gets_near_matches(value: str, near: str) -> None:
    """A name that this kernel does not have is refused, with the name that was probably meant."""
    with pytest.raises(WrongUse) as refused:
        filters.check_reasons(["NO_SOCKET", value], KNOWN)
    assert refused.value.option == "--reason"
    said = refused.value.why.split("Did you mean")
    assert repr(value.removeprefix("!")) in said[0]
    assert near in said[1].upper()


def test_a_number_that_has_a_name_is_refused() -> None:
    """Drops are shown by name, so the number of a named reason would never match: the name is told."""
    number = KNOWN.value("NO_SOCKET")
    with pytest.raises(WrongUse, match=f"reason {number} is called NO_SOCKET"):
        filters.check_reasons([str(number)], KNOWN)


def test_a_number_of_no_subsystem_is_refused() -> None:
    """A number is taken in the subsystems that this kernel has."""
    with pytest.raises(WrongUse, match="this kernel has no drop reason 'nosuch/137'"):
        filters.check_reasons(["nosuch/137"], KNOWN)


def test_a_kernel_without_reasons_has_one() -> None:
    """Where all drops are NOT_SPECIFIED, that name is taken."""
    filters.check_reasons(["NOT_SPECIFIED"], ReasonNames("none", {}))


@pytest.mark.parametrize("value", ["zzzz", "XYZ_*", "", "!", "openvswitch/NO_SOCKET/"])
def test_a_reason_like_none_is_refused(value: str) -> None:
    """A name or pattern that is like none of this kernel's is refused all the same."""
    with pytest.raises(WrongUse, match="this kernel has no drop reason"):
        filters.check_reasons([value], KNOWN)


def test_the_first_wrong_reason_is_named() -> None:
    """Each value is looked at, not only the first."""
    with pytest.raises(WrongUse, match="'BOGUS_ONE'"):
        filters.check_reasons(["NO_SOCKET", "BOGUS_ONE", "BOGUS_TWO"], KNOWN)
