# SPDX-License-Identifier: MIT
"""What keys of the kernel's count for, and by what name."""

from collections.abc import Sequence

from pktdrop.kernel.banks import Block
from pktdrop.kernel.records import DROP_KEY, DROP_VALUE, RawKey, RawValue
from pktdrop.kernel.sources import Sources
from pktdrop.kernel.tally import DropTally
from pktdrop.model.drops import DropKey, Netns
from tests.unit.make import make_drop

ONE, OTHER = Netns(11, 11), Netns(12, 12)


def named(found: Sequence[tuple[RawKey, RawValue]]) -> list[DropKey]:
    """Give each key the kind of its namespace, by number."""
    return [make_drop(netns=Netns(key.netns, key.netns), netns_name=None) for key, _ in found]


def block(packets: int, *where: Netns) -> Block:
    """One key in each of two namespaces, or in some."""
    keys = [DROP_KEY.pack(0, netns.inode, 2, 3, 0, 0x0800) for netns in where or (ONE, OTHER)]
    return Block(b"".join(keys), len(keys) * DROP_VALUE.pack(packets, 100 * packets, 1, 1, b""))


def test_only_keys_of_a_namespace_that_has_a_name_now_are_asked_for_theirs() -> None:
    """With tens of thousands of kinds, and a namespace with a name each second, asking for all takes a look's time."""
    sources, tally, asked = Sources(named), DropTally(), list[DropKey]()
    tally.add(sources.risen([block(3)], tally))

    def renamed(kind: DropKey) -> DropKey:
        asked.append(kind)
        return kind._replace(netns_name="blue")

    sources.rename(renamed, {ONE: "blue"})
    assert [kind.netns for kind in asked] == [ONE]
    tally.add(sources.risen([block(5)], tally))
    found = {(kind.netns, kind.netns_name): count.packets for kind, count in tally.totals.items()}
    assert found == {(ONE, None): 3, (ONE, "blue"): 2, (OTHER, None): 5}


def test_the_kernel_counts_from_zero_when_keys_are_given_up() -> None:
    """Of keys that are not there any more nothing is remembered, or of none; no count is lost or comes twice."""
    for live, forget, left in (((ONE, OTHER), False, 2), ((OTHER,), False, 1), ((ONE, OTHER), True, 0)):
        sources, tally = Sources(named), DropTally()
        tally.add(sources.risen([block(3)], tally))
        sources.begin_anew([block(3, *live)], forget)
        assert len(sources) == left
        assert sources.packets == 0
        tally.add(sources.risen([block(5)], tally))
        assert {kind.netns: count.packets for kind, count in tally.totals.items()} == {ONE: 8, OTHER: 8}
