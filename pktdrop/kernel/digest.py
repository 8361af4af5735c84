# SPDX-License-Identifier: MIT
"""What tells bytes from others: BLAKE2b, of 256 bits.

Not by way of hashlib, which loads OpenSSL for its other functions: 3 to 4 ms of each start. Its own BLAKE2b is this one
(Lib/hashlib.py, v3.10 to v3.13: "blake2b" is of the extension module always).
"""

try:
    from _blake2 import blake2b
except ImportError:  # a Python that keeps it elsewhere
    from hashlib import blake2b


def digest(*content: bytes) -> str:
    """Return 64 hexadecimal digits for some bytes, in whatever pieces they come."""
    return blake2b(b"".join(content), digest_size=32).hexdigest()
