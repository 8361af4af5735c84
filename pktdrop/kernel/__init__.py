# SPDX-License-Identifier: MIT
"""All that touches BPF and the running kernel's own description of itself."""
