# SPDX-License-Identifier: MIT
"""Where packets are lost, why, and what to change: an account of drops and counters, put into words."""
