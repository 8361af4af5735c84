# SPDX-License-Identifier: MIT
"""What tells bytes from others: BLAKE2b, of 256 bits.

Not by way of hashlib, which loads OpenSSL for its other functions: 3 to 4 ms of each start. Its own BLAKE2b is this one
(Lib/hashlib.py, v3.10 to v3.13: "blake2b" is of the extension module always).
"""

try:
    from _blake2 import blake2b
except ImportError:  # a Python that keeps it elsewhere
    from hashlib import blake2b

_SIZE = 32


class Digest:
    """A digest of all that was fed to it."""

    def __init__(self, content: bytes = b"") -> None:
        """Begin with some bytes."""
        self._state = blake2b(content, digest_size=_SIZE)

    def update(self, content: bytes) -> None:
        """Feed more bytes to the digest."""
        self._state.update(content)

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._state.hexdigest()
