# SPDX-License-Identifier: MIT
"""Copies of dropped packets: what is in them, whose they are, and as a file."""
