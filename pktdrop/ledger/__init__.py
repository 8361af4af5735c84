# SPDX-License-Identifier: MIT
"""Each loss counter that rose, next to the drop events that account for it."""
