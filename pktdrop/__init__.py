# SPDX-License-Identifier: MIT
"""Where this host loses packets, and why."""

__version__ = "0.1.0"
