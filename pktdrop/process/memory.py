# SPDX-License-Identifier: MIT
"""Memory that is free, but kept by the C library or searched by Python: tens of thousands of kinds take some."""

import ctypes
import gc

_MALLOC_TRIM = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)
_MALLOPT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)
_M_MMAP_THRESHOLD = -3  # malloc.h
_APART = 64 << 10
"""Bytes: what is at least so large is a mapping of its own, and given back at once when it is free. By itself the C
library raises the limit to what was freed (mallopt(3)), and counts of 65,536 kinds leave holes between small things."""
_SELDOM = (20_000, 20, 20)
"""When to search for cycles, of which there are few: with 60,000 kinds this takes a fifth of the time of a look."""


def prepare() -> None:
    """Set the process up for tens of thousands of kinds; mallopt(3) is not in every C library."""
    gc.set_threshold(*_SELDOM)
    try:
        set_option = _MALLOPT(("mallopt", ctypes.CDLL(None)))
    except AttributeError:
        return
    set_option(_M_MMAP_THRESHOLD, _APART)


def give_back() -> None:
    """Return it to the kernel, in some 2 ms: malloc_trim(3), which not every C library has."""
    try:
        trim = _MALLOC_TRIM(("malloc_trim", ctypes.CDLL(None)))
    except AttributeError:
        return
    trim(0)
