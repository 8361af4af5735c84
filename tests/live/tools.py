# SPDX-License-Identifier: MIT
"""The tools that pktdrop is compared with."""

import shutil

import pytest


def need(*tools: str) -> None:
    """Skip where one of them is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
