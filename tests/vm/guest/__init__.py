# SPDX-License-Identifier: MIT
"""What runs in the guests only: it needs a kernel of its own."""
