# SPDX-License-Identifier: MIT
"""Each loss counter that moved, next to the drop events that account for it."""
