# SPDX-License-Identifier: MIT
"""Pictures for the README, made by the programs themselves."""
