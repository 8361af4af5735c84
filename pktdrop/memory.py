# SPDX-License-Identifier: MIT
"""Memory that is free, but kept by the C library: reading tens of thousands of kinds takes some for a moment."""

import ctypes

_MALLOC_TRIM = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t)


def give_back() -> None:
    """Return it to the kernel, in some 2 ms: malloc_trim(3), which not every C library has."""
    try:
        trim = _MALLOC_TRIM(("malloc_trim", ctypes.CDLL(None)))
    except AttributeError:
        return
    trim(0)
