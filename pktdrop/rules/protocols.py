# SPDX-License-Identifier: MIT
"""Names of ethertypes."""

import re

from pktdrop.rules.tables import Table

_NUMBER = re.compile(r"0x[0-9a-f]{1,4}|[0-9]{1,5}", re.IGNORECASE)
TABLE = Table("ethertypes.tsv", "number name source", lambda cells: (int(cells["number"], 16), cells["name"]))


class Protocols:
    """Ethertype to name and back, from data/ethertypes.tsv."""

    def __init__(self, names: dict[int, str]) -> None:
        """Take names by ethertype."""
        self._names = names
        self._numbers = {name.lower(): number for number, name in names.items()}

    @classmethod
    def load(cls) -> "Protocols":
        """Read the table that comes with pktdrop."""
        return cls(dict(TABLE.load()))

    def name(self, protocol: int) -> str:
        """Return "IPv4" for 0x0800; the number in hex where it has no name."""
        return self._names.get(protocol) or f"{protocol:#06x}"

    def number(self, name: str) -> int | None:
        """Return the ethertype of a name (whatever its case) or number; None if it is neither."""
        if _NUMBER.fullmatch(name):
            value = int(name, 0) if name[:2].lower() == "0x" else int(name)
            return value if value <= 0xFFFF else None
        return self._numbers.get(name.lower())

    def numbers(self) -> list[int]:
        """Return all ethertypes that have names."""
        return list(self._names)

    def names(self) -> list[str]:
        """Return the names of all ethertypes that have one."""
        return list(self._names.values())
