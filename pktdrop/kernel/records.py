# SPDX-License-Identifier: MIT
"""The structs of bpf/drops.h as user space reads them."""

import struct
from typing import NamedTuple

DROP_KEY = struct.Struct("=QIIIHHHxxxxxx")
DROP_VALUE = struct.Struct("=QQ16s")
NO_CPU = 0xFFFF


class RawKey(NamedTuple):
    """struct drop_key: numbers as the kernel counts them; 0 and NO_CPU mean unknown."""

    location: int
    netns: int
    ifindex: int
    reason: int
    cpu: int
    target_cpu: int
    protocol: int


class RawValue(NamedTuple):
    """struct drop_value."""

    packets: int
    octets: int
    interface: bytes
