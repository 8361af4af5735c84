# SPDX-License-Identifier: MIT
"""What makes Looks: drops, counters and answers of this host, read at one moment."""
