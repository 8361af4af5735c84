# SPDX-License-Identifier: MIT
"""Loss counters of the kernel, one module per source: a pure parser and a thin reader each."""
