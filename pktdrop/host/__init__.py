# SPDX-License-Identifier: MIT
"""What is asked of this host besides counters: its network namespaces."""
