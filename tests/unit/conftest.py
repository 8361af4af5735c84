# SPDX-License-Identifier: MIT
"""Property tests fail for what they find, never for how long it took; in CI ($CI) each run tries the same examples."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("pktdrop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("pktdrop"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "pktdrop")
