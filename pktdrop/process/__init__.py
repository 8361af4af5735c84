# SPDX-License-Identifier: MIT
"""A process among others: signals, standard files, other files, memory, faults."""
