# SPDX-License-Identifier: MIT
"""The ways of reading packets that this kernel lets programs go."""

from pathlib import Path

import pytest

from pktdrop.kernel import host, readers
from pktdrop.kernel.btf import Btf, BtfKind

VMLINUX = Path("/sys/kernel/btf/vmlinux")


def works(reader: str) -> bool:
    """Whether the kernel lets a program read so: the same programs as pktdrop's trial, each by itself."""
    host.raise_memlock()  # as a tracer does, before Linux 5.11
    btf = Btf.load(VMLINUX)
    found = readers.facts(btf)
    tracepoint = btf.find("btf_trace_kfree_skb", BtfKind.TYPEDEF) or 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "ORDER", (reader,))
        return readers.choose(found, tracepoint) == reader
