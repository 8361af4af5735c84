# SPDX-License-Identifier: MIT
"""Distribution kernels in virtual machines, with pktdrop and its tests inside: `./bootstrap test --vm`."""
