# SPDX-License-Identifier: MIT
"""What tests of several kinds and benchmarks share. No test imports a test."""
