# SPDX-License-Identifier: MIT
"""Tables of facts, each row with its source, and what they make of drops and counters."""
