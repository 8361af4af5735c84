# SPDX-License-Identifier: MIT
"""How much longer than on an idle machine things may take on this one."""

import os


def _patience() -> float:
    """Return $PKTDROP_PATIENCE, or how many processes want each CPU, which is how much longer each takes."""
    given = os.environ.get("PKTDROP_PATIENCE")
    if given is not None:
        return float(given)
    load, _, _ = os.getloadavg()
    return max(1.0, load / len(os.sched_getaffinity(0)))


PATIENCE = 2.0 * _patience()
"""A factor for deadlines, which are for what never comes: who waits for something that comes is not held up by them.

Load may double while tests run; an emulated machine says by the variable how slow it is.
"""
