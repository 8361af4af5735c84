# SPDX-License-Identifier: MIT
"""Views format what was measured; none reads a counter or a map."""
