# SPDX-License-Identifier: MIT
"""What a run may ask the programs for besides counting drops by their kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pktdrop.kernel.pcap import Instruction

PACKETS = 4
"""How many packets of each kind and CPU are copied between two looks."""


@dataclass(frozen=True)
class Extras:
    """Each costs time, if it is asked for."""

    packets: int = PACKETS
    """Packets of each kind and CPU that are sampled between two looks, the first ones."""
    stacks: bool = False
    """Samples come with the kernel's stack."""
    by: str | None = None
    """What drops are counted by, too: one of model.flow.BY."""
    program: "Sequence[Instruction]" = ()
    """A filter of packets, see kernel.pcap: only those that match are sampled, and counted apart."""


USUAL: Final = Extras()
"""What a run asks for if the user says nothing."""
