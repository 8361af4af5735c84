# SPDX-License-Identifier: MIT
"""Frames made byte by byte: those of `pktdrop demo`."""

from pktdrop.demo.frames import *  # noqa: F403
