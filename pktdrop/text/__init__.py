# SPDX-License-Identifier: MIT
"""Text for people and programs: escaped, aligned, in the same words everywhere."""
