# SPDX-License-Identifier: MIT
"""What becomes of a run (`run.Report`): trace, counters, diagnose. Those of `top` and `demo` are with their screens."""
