# SPDX-License-Identifier: MIT
"""How to provoke drops, in network namespaces of its own: for `pktdrop demo` and for the live tests."""
