# SPDX-License-Identifier: MIT
"""From the record of a sampled packet to the Sample that it is."""

from collections.abc import Callable

from pktdrop.kernel.records import NO_DEVICE_TYPE, SAMPLE_FOR_SOCKET, SAMPLE_HAS_MAC, RawSample
from pktdrop.model.drops import DropKey
from pktdrop.model.sample import Sample, Socket


def sample(raw: RawSample, key: DropKey, wall: float, name: Callable[[int], str]) -> Sample:
    """Say what the numbers of a record mean. `wall` is what the wall clock is ahead of the monotonic one.

    `name` turns an address of the kernel into "symbol+offset".
    """
    return Sample(
        time=raw.time / 1e9 + wall,
        key=key,
        content=raw.content,
        length=raw.length,
        has_mac=bool(raw.flags & SAMPLE_HAS_MAC),
        network=(raw.network ^ 0x8000) - 0x8000,
        device_type=None if raw.device_type == NO_DEVICE_TYPE else raw.device_type,
        received=bool(raw.iif),
        tag=raw.vlan >> 16 & 0xFFF if raw.vlan & 0xFFFF else None,
        socket=_socket(raw) if raw.family else None,
        stack=_stack(key, tuple(map(name, raw.stack))),
    )


def _stack(key: DropKey, frames: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what is between the call site and the program: the tracepoint, and the function that frees."""
    return frames[frames.index(key.call_site) :] if key.call_site in frames else frames


def _socket(raw: RawSample) -> Socket:
    return Socket(
        family=raw.family,
        local_port=raw.local_port or None,
        remote_port=raw.remote_port or None,
        protocol=raw.protocol or None,
        state=raw.state,
        inode=raw.inode or None,
        cgroup=raw.cgroup or None,
        is_receiver=bool(raw.flags & SAMPLE_FOR_SOCKET),
    )
