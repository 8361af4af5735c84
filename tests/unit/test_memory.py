# SPDX-License-Identifier: MIT
"""Memory that is free goes back to the kernel."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.patience import PATIENCE

ROOT = Path(__file__).parents[2]
_HOLES = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from pktdrop.process import memory
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit("no mallopt")
memory.prepare()

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096

before = resident()
counts, small = [], []
for _ in range(640):
    counts.append(b"x" * 100_000)
    small.append(b"x" * 4096)
held = resident()
del counts
print(held - before, resident() - before)
"""


def test_what_large_counts_took_goes_back_at_once() -> None:
    """64 MB in pieces of 100 kB, with small things between that stay: the C library alone keeps all of it."""
    command = [sys.executable, "-I", "-c", _HOLES, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE)
    if done.stderr == "no mallopt\n":
        pytest.skip("this C library has no mallopt()")
    held, kept = map(int, done.stdout.split())
    assert held > 60 << 20
    assert kept < 8 << 20
