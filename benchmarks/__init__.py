# SPDX-License-Identifier: MIT
"""What pktdrop costs, against what others cost on the same machine in the same run: see README.md."""
