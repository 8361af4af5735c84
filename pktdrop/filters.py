# SPDX-License-Identifier: MIT
"""What the user wants to see. Counting is not touched: what a filter hides is still counted, and said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pktdrop.errors import WrongUse
from pktdrop.kernel.reasons import CORE, OWN_NAMES, ReasonNames
from pktdrop.model.container import SHORT_ID, Container
from pktdrop.model.drops import Count, DropKey, Judge, Netns
from pktdrop.model.sample import Owner
from pktdrop.model.snapshots import Drops, Kinds
from pktdrop.rules.protocols import Protocols


@dataclass(frozen=True)
class Selection:
    """Drops that are shown, and how many packets are not."""

    drops: Mapping[DropKey, Count]
    filtered: int
    judge: Judge
    """Says what the rules make of a kind: loss, noise or doubt."""
    shows: Callable[[DropKey], bool] = lambda key: True
    """Whether a kind is shown, if it has drops."""


@dataclass(frozen=True)
class Filter:
    """The values of one option: a drop passes if it matches one of `wanted` (or there are none) and no `unwanted`."""

    matches: Callable[[DropKey, str], bool]
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str], matches: Callable[[DropKey, str], bool]) -> "Filter":
        """Split the values of an option: a leading "!" excludes."""
        return cls(
            matches,
            tuple(value for value in values if not value.startswith("!")),
            tuple(value[1:] for value in values if value.startswith("!")),
        )

    def passes(self, key: DropKey) -> bool:
        """Tell whether a drop is shown."""
        if any(self.matches(key, value) for value in self.unwanted):
            return False
        return not self.wanted or any(self.matches(key, value) for value in self.wanted)


class Filters:
    """All filters; a drop is shown if it passes each. Asked once per kind."""

    def __init__(self, filters: Sequence[Filter], noise: bool = True) -> None:
        """Take the filters, and whether noise is shown."""
        self._filters = tuple(one for one in filters if one.wanted or one.unwanted)
        self._noise = noise
        self._kinds = Kinds()
        self._answers: list[bool] = []
        """Whether each kind passes the filters, by number of the kind; only of kinds that were asked for."""

    def select(self, drops: Mapping[DropKey, Count], judge: Judge) -> Selection:
        """Split drops into those that are shown and the number of packets that are not."""
        if not self._filters and self._noise:
            return Selection(drops, 0, judge)
        all_drops = Drops.of(drops)
        if self._kinds is not all_drops.kinds:
            self._kinds, self._answers = all_drops.kinds, []
        self._answers += (self._shows(key, judge) for key in self._kinds.keys[len(self._answers) :])
        shown = all_drops.those(map(self._answers.__getitem__, all_drops.numbers))
        filtered = sum(all_drops.packets) - sum(shown.packets)
        return Selection(shown, filtered, judge, lambda key: self._shows(key, judge))

    def _shows(self, key: DropKey, judge: Judge) -> bool:
        return (self._noise or judge(key).noise is None) and all(one.passes(key) for one in self._filters)


def reason_filter(values: Sequence[str]) -> Filter:
    """Match reasons by name, whatever their case: "NO_SOCKET", "TCP_*", "openvswitch/*", "core/137"."""

    def matches(key: DropKey, value: str) -> bool:
        name = key.reason if "/" not in value else f"{key.subsystem}/{key.reason}"
        return fnmatchcase(name.upper(), value.upper())

    return Filter.of(values, matches)


def check_reasons(values: Sequence[str], reasons: ReasonNames) -> None:
    """Raise WrongUse for what no drop on this kernel can be called, with names that are near."""
    plain = [name.upper() for name in (*reasons.names(), *OWN_NAMES)]
    known = plain + [f"{CORE}/{name}".upper() for name in plain if "/" not in name]
    for value in values:
        name = value.removeprefix("!")
        subsystem, _, last = name.upper().rpartition("/")
        if any(fnmatchcase(one, name.upper()) for one in known):
            continue
        if last.isdecimal() and subsystem in ("", *(one.upper() for one in reasons.subsystems.values())):
            called = reasons.name(int(last))[1] if subsystem in ("", CORE.upper()) else last
            if called == last:
                continue
            raise WrongUse(f"reason {last} is called {called} on this kernel.", "--reason")
        near = get_close_matches(name.upper(), known if subsystem else plain, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "'pktdrop doctor' shows where reasons come from."
        raise WrongUse(f"this kernel has no drop reason {name!r}. {hint}", "--reason")


def packet_filter() -> Filter:
    """Return a filter on whether packets of a kind match the filter that the programs in the kernel have."""
    return Filter(lambda key, _: key.matches, wanted=("",), unwanted=())


def process_choice(values: Sequence[str]) -> Callable[[Owner | None], bool]:
    """Return what tells whether a packet is of a process, by name or number: "nginx", "php*", "812", "!ssh*".

    It is of none where its process is not known.
    """
    unwanted = tuple(value[1:] for value in values if value.startswith("!"))
    wanted = tuple(value for value in values if not value.startswith("!"))

    def is_one(owner: Owner, names: Sequence[str]) -> bool:
        return any(name == str(owner.pid) or fnmatchcase(owner.comm, name) for name in names)

    def chosen(owner: Owner | None) -> bool:
        if owner is None:
            return not wanted
        return not is_one(owner, unwanted) and (not wanted or is_one(owner, wanted))

    return chosen


def interface_filter(values: Sequence[str]) -> Filter:
    """Match interfaces by name, in whatever namespace: "eth0", "veth*"."""
    return Filter.of(values, lambda key, value: fnmatchcase(key.interface or "", value))


def netns_filter(values: Sequence[str]) -> Filter:
    """Match namespaces by name or inode."""
    return Filter.of(
        values,
        lambda key, value: (key.netns is not None and str(key.netns) == value)
        or fnmatchcase(key.netns_name or "", value),
    )


def container_filter(values: Sequence[str], container: Callable[[Netns], Container | None]) -> Filter:
    """Match the container or pod that a namespace is called by: "web-1", "docker web-*", "shop/cart-7f9", an ID."""

    def matches(key: DropKey, value: str) -> bool:
        found = None if key.netns is None else container(key.netns)
        return found is not None and is_container(found, value)

    return Filter.of(values, matches)


def is_container(container: Container, value: str) -> bool:
    """Tell whether a container is called so: by what is shown, its name, its pod, or the first 12 digits of its ID."""
    if container.id is not None and len(value) >= SHORT_ID and container.id.startswith(value):
        return True
    pod = None if container.pod is None else f"{container.pod_namespace}/{container.pod}"
    names = str(container), container.name, container.pod, pod, container.unit
    return any(name is not None and fnmatchcase(name, value) for name in names)


def cpu_filter(values: Sequence[str]) -> Filter:
    """Return a filter on the CPU that dropped, and on the one whose backlog was full."""
    for value in values:
        number = value.removeprefix("!")
        if not (number.isascii() and number.isdigit()):
            raise WrongUse(f"{value!r} is not a CPU number.", "--cpu")
    return Filter.of(values, lambda key, value: int(value) in (key.cpu, key.target_cpu))


def protocol_filter(values: Sequence[str], protocols: Protocols) -> Filter:
    """Match ethertypes by name or number: "IPv4", "arp", "0x88cc"."""
    numbers = {}
    for value in values:
        name = value.removeprefix("!")
        number = protocols.number(name)
        if number is None:
            raise WrongUse(
                f"{name!r} is no ethertype: give a name ({', '.join(protocols.names()[:4])}...) or a number (0x88cc).",
                "--protocol",
            )
        numbers[name] = number
    return Filter.of(values, lambda key, value: key.protocol == numbers[value])
