# SPDX-License-Identifier: MIT
"""Names of drop reasons, from the running kernel only: their numbers move with every release.

The upper 16 bits of a reason select a subsystem, the lower ones the reason in it (include/net/dropreason.h,
SKB_DROP_REASON_SUBSYS_SHIFT). The enumerators of each subsystem hold the whole number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pktdrop.kernel.btf import Btf, BtfError

CORE = "core"
NOT_SPECIFIED = "NOT_SPECIFIED"
_SHIFT = 16
_IN_SUBSYSTEM = (1 << _SHIFT) - 1
_SUBSYSTEM_PREFIX = "SKB_DROP_REASON_SUBSYS_"
_PREFIXES = ("SKB_DROP_REASON_", "SKB_")  # SKB_NOT_DROPPED_YET and SKB_CONSUMED have the short one
_NO_REASONS = ("_MAX", "_SUBSYS_MASK")
_FIRST = "__"  # __OVS_DROP_REASON, __QDISC_DROP_REASON: the subsystem's number with no reason in it
# The enum of a subsystem and the module it may be in: net/mac80211/drop.h, net/openvswitch/drop.h,
# include/net/dropreason-qdisc.h. Built in, it is in vmlinux.
_ENUMS = {
    "mac80211_unusable": ("mac80211", "mac80211_drop_reason"),
    "mac80211_monitor": ("mac80211", "mac80211_drop_reason"),
    "openvswitch": ("openvswitch", "ovs_drop_reason"),
    "qdisc": ("sch_generic", "qdisc_drop_reason"),
}
XDP = "xdp"
_XDP_NUMBER = 0x3FFF
_XDP_REASONS = {
    1: ("ABORTED", "xdp_exception"),
    2: ("INVALID_ACTION", "xdp_exception"),
    3: ("TX_ERR", "xdp_exception"),
    4: ("REDIRECT_ERR", "xdp_redirect_err"),
    5: ("DEVMAP_XMIT", "xdp_devmap_xmit"),
    6: ("BULK_TX", "xdp_bulk_tx"),
}
"""Reasons of ours, REASON_XDP_* of bpf/drops.h, with the tracepoint that tells each."""
OWN_NAMES = tuple(f"{XDP}/{name}" for name, _ in _XDP_REASONS.values())
"""Of reasons that no kernel has."""
_FORMAT_REASON = re.compile(r"\{ (\d+), \"(\w+)\" \}")

ReasonSource = Literal["BTF", "tracepoint format", "none"]


@dataclass(frozen=True)
class ReasonNames:
    """Number to subsystem and name. Subsystems are read when one of their reasons is first asked for."""

    source: ReasonSource
    core: Mapping[int, str]
    subsystems: Mapping[int, str] = field(default_factory=lambda: {0: CORE})
    directory: Path | None = None
    """Where the BTF of vmlinux and of modules is."""
    _read: dict[str, Mapping[int, str]] = field(default_factory=dict)

    @classmethod
    def from_btf(cls, btf: Btf, directory: Path) -> "ReasonNames":
        """Take the enums of vmlinux, and of modules in `directory` when needed."""
        enum = btf.enum("skb_drop_reason")
        if enum is None:
            return cls("none", {})
        core = {value: _short(name) for name, value in enum.items() if not name.endswith(_NO_REASONS)}
        numbers = btf.enum("skb_drop_reason_subsys") or {}
        subsystems = {
            value: name.removeprefix(_SUBSYSTEM_PREFIX).lower()
            for name, value in numbers.items()
            if not name.endswith("_NUM")
        }
        return cls("BTF", core, subsystems or {0: CORE}, directory)

    @classmethod
    def from_format(cls, text: str) -> "ReasonNames":
        """Take the names in the format of the tracepoint kfree_skb, which has those of the core only."""
        core = {int(number): name for number, name in _FORMAT_REASON.findall(text) if name != "MAX"}
        return cls("tracepoint format" if " reason;" in text else "none", core)

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        directory = None if self.directory is None else str(self.directory)
        return {"source": self.source, "core": self.core, "subsystems": self.subsystems, "directory": directory}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ReasonNames":
        """Return what as_json() wrote."""
        core, subsystems = ({int(number): name for number, name in data[key].items()} for key in ("core", "subsystems"))
        return cls(data["source"], core, subsystems, Path(data["directory"]) if data["directory"] else None)

    def name(self, reason: int) -> tuple[str, str]:
        """Return subsystem and name; what has no name keeps its number, as text."""
        if reason >> _SHIFT == _XDP_NUMBER and reason & _IN_SUBSYSTEM in _XDP_REASONS:
            return XDP, _XDP_REASONS[reason & _IN_SUBSYSTEM][0]
        if self.source == "none":
            return CORE, NOT_SPECIFIED
        subsystem, number = reason >> _SHIFT, reason & _IN_SUBSYSTEM
        if subsystem == 0:
            return CORE, self.core.get(number, str(number))
        name = self.subsystems.get(subsystem)
        if name is None:
            return str(subsystem), str(number)
        return name, self._members(name).get(reason, str(number))

    def value(self, name: str) -> int | None:
        """Return the number of a core reason, or None."""
        return next((number for number, known in self.core.items() if known == name), None)

    @property
    def tcp_input_has_events(self) -> bool:
        """Whether TCP frees the input it drops with an event.

        Its reasons came in one series with kfree_skb_reason() in tcp_drop(), which had called __kfree_skb()
        (net/ipv4/tcp_input.c, v5.10 and v6.1).
        """
        return self.value("TCP_OLD_DATA") is not None

    def names(self) -> list[str]:
        """Return all names, those of subsystems as "subsystem/NAME"."""
        found = list(self.core.values()) or [NOT_SPECIFIED]
        for number, subsystem in self.subsystems.items():
            found += [
                f"{subsystem}/{name}" for value, name in self._members(subsystem).items() if value >> _SHIFT == number
            ]
        return found

    def counts(self) -> dict[str, int]:
        """Return how many names each subsystem has; 0 where it is a module that is not loaded."""
        return {CORE: len(self.core)} | {
            subsystem: sum(value >> _SHIFT == number for value in self._members(subsystem))
            for number, subsystem in self.subsystems.items()
            if number
        }

    def _members(self, subsystem: str) -> Mapping[int, str]:
        if subsystem not in self._read:
            try:
                self._read[subsystem] = self._read_members(subsystem)
            except FileNotFoundError:  # its module is not loaded; it may be when it is asked for again
                return {}
        return self._read[subsystem]

    def _read_members(self, subsystem: str) -> Mapping[int, str]:
        if subsystem not in _ENUMS or self.directory is None:
            return {}
        module, enum_name = _ENUMS[subsystem]
        try:
            vmlinux = Btf.load(self.directory / "vmlinux")
            enum = vmlinux.enum(enum_name) or Btf.load(self.directory / module, vmlinux).enum(enum_name)
        except FileNotFoundError:
            raise
        except (OSError, BtfError):  # its BTF cannot be read: its reasons keep their numbers
            return {}
        return {
            value & 0xFFFFFFFF: name
            for name, value in (enum or {}).items()
            if not name.endswith(_NO_REASONS) and not name.startswith(_FIRST)
        }


def tracepoint(reason: int) -> str:
    """Return what tells of frames that end in XDP for a reason: there is no call site."""
    return _XDP_REASONS[reason & _IN_SUBSYSTEM][1]


def _short(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
