# SPDX-License-Identifier: MIT
"""What is measured, as plain data: drops, counters, Looks. No I/O, no formatting, no judgement."""
