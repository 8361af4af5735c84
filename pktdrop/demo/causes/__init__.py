# SPDX-License-Identifier: MIT
"""All causes there are, by theme."""

from pktdrop.demo.causes import malformed, policy, routes, sending, sockets

CAUSES = (*sockets.CAUSES, *policy.CAUSES, *routes.CAUSES, *malformed.CAUSES, *sending.CAUSES)
"""Each exactly as its module defines it."""
