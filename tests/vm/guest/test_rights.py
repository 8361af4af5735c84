# SPDX-License-Identifier: MIT
"""What is left of the answer where rights, symbols or types are withheld: less, said so, and the counts still exact."""

import os
import re
import resource
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.demo.causes.cause import Traffic
from pktdrop.demo.net import Net
from tests.kit.kernel import Reasons
from tests.kit.process import DEADLINE, command, error
from tests.kit.provoked import LAST_CPU, N, send
from tests.kit.rungs import doctor
from tests.kit.trace import function_of, inside, tracing

(CLOSED_PORT,) = [cause for cause in CAUSES if cause.name == "udp_closed_port"]
LOCKDOWN = Path("/sys/kernel/security/lockdown")
KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")
BTF = Path("/sys/kernel/btf")
HEADERS = Path("/lib/modules", os.uname().release, "build")
FILES = "+dac_override,+dac_read_search"
"""The rights to read a checkout and to write the cache, whoever they belong to. None of them is about BPF."""


@pytest.fixture
def built() -> Iterator[tuple[Net, Traffic]]:
    """UDP to a closed port, ready to be sent."""
    with CLOSED_PORT.net() as net:
        yield net, CLOSED_PORT.build(net)


def counted(built: tuple[Net, Traffic]) -> tuple[dict[str, Any], dict[str, str], str]:
    """Lose N packets under a tracer; return the one drop, how the probes were attached, and the limits it stated."""
    net, traffic = built
    with tracing() as trace:
        send(traffic, lose=N, spare=N, cpu=LAST_CPU)
        assert trace.stop() == 0, trace.stderr
        # where symbols are hidden, the call site of what is no network packet is not known either
        (drop,) = [one for one in inside(trace.summary["drops"], net.namespaces.values()) if one["protocol"] == "IPv4"]
        assert (drop["count"], drop["cpu"]) == (N, LAST_CPU)
        limits = "".join(line for line in trace.stderr.splitlines(True) if line.startswith("Limit: "))
        return drop, trace.lines("start")[0]["probes"], limits


def headers_are_too_new() -> bool:
    """Tell whether the headers name kinds of maps and programs that bcc's copy of linux/bpf.h, inside it, does not."""
    header = (HEADERS.parent / "source/include/uapi/linux/bpf.h").read_bytes()
    (library,) = Path("/usr/lib").glob("*/libbcc.so.0")
    known = library.read_bytes()
    return any(
        name not in known for name in re.findall(rb"^\t(BPF_(?:MAP_TYPE|PROG_TYPE|TRACE)_\w+)", header, re.MULTILINE)
    )


def with_rights(*capabilities: str) -> str:
    """Return how pktdrop is called by a root that has only these capabilities, for $PKTDROP."""
    rights = ",".join(["-all", FILES, *(f"+{name}" for name in capabilities)])
    return shlex.join(["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command()])


def test_lockdown(built: tuple[Net, Traffic], kernel_reasons: Reasons) -> None:
    """Drops are counted, with the target CPU, under any lockdown; "confidentiality" forbids raw and kprobe."""
    level = LOCKDOWN.read_text().partition("[")[2].partition("]")[0]
    drop, probes, limits = counted(built)
    assert function_of(drop["location"]) in CLOSED_PORT.functions
    assert probes == {"kfree_skb": "tp_btf", "enqueue_to_backlog": "fentry"}
    assert "target CPU" not in limits
    checks = doctor()
    forbidden = "degraded" if level == "confidentiality" else "ok"
    for check in ("lockdown", "kfree_skb raw", "enqueue_to_backlog kprobe"):
        assert checks[check]["status"] == forbidden
    for check in ("kfree_skb tp_btf", "enqueue_to_backlog fentry"):
        assert checks[check]["status"] == "ok"
    assert level in checks["lockdown"]["found"]
    assert ("no drop reasons" in limits) == (not kernel_reasons)
    assert ("TCP drops without an event" in limits) == (not kernel_reasons)
    assert (drop["reason"] == "NOT_SPECIFIED") == (not kernel_reasons)


def test_hidden_symbols(built: tuple[Net, Traffic], kernel_reasons: Reasons) -> None:
    """With kernel.kptr_restrict=2 call sites are addresses, for root too; both trace and doctor say so."""
    before = KPTR_RESTRICT.read_text()
    KPTR_RESTRICT.write_text("2")
    try:
        drop, _, limits = counted(built)
        symbols = doctor()["symbols"]
    finally:
        KPTR_RESTRICT.write_text(before)
    assert drop["location"].startswith("0x")
    assert "call sites are addresses" in limits
    assert symbols["status"] == "degraded"
    assert drop["reason"] == ("NO_SOCKET" if kernel_reasons else "NOT_SPECIFIED")


@pytest.mark.parametrize("syslog", [(), ("syslog",)], ids=["without CAP_SYSLOG", "with CAP_SYSLOG"])
def test_capabilities(built: tuple[Net, Traffic], syslog: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """CAP_BPF and CAP_PERFMON are enough to count by tp_btf; names of call sites take CAP_SYSLOG as well."""
    rights = with_rights("bpf", "perfmon", *syslog)
    # before Linux 5.11 maps are charged to the limit of locked memory, and to raise that takes one more capability
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setenv("PKTDROP", rights)
    drop, probes, limits = counted(built)
    assert probes["kfree_skb"] == "tp_btf"
    if syslog:
        assert function_of(drop["location"]) in CLOSED_PORT.functions
    else:
        assert drop["location"].startswith("0x")
        assert "call sites are addresses" in limits


def test_locked_memory(kernel_names: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maps are charged to a limit that may not be raised, two lines say so and what to do; elsewhere it works."""
    rights = f"prlimit --memlock=65536:65536 -- {with_rights('bpf', 'perfmon')}"
    monkeypatch.setenv("PKTDROP", rights)
    once = [*command(), "trace", "0.1", "1", "--no-cache"]
    done = subprocess.run(once, cwd="/", capture_output=True, text=True, timeout=4 * DEADLINE)
    if "bpf_map_memory" not in kernel_names:  # what is charged for a map, until Linux 5.11 (include/linux/bpf.h)
        assert done.returncode == 0, done.stderr
        return
    what, do = error(done.stderr)
    assert (done.returncode, done.stdout) == (1, "")
    assert what == "The kernel refuses to make a BPF map: Operation not permitted."
    assert "locked memory: 'ulimit -l unlimited'" in do


def test_one_capability_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CAP_BPF alone it says what is missing, in two lines, and that it is missing: exit 1."""
    monkeypatch.setenv("PKTDROP", with_rights("bpf"))
    refused = subprocess.run([*command(), "trace"], cwd="/", capture_output=True, text=True, timeout=4 * DEADLINE)
    what, do = error(refused.stderr)
    assert refused.returncode == 1
    assert "CAP_PERFMON" in what
    assert do.endswith(".")


def test_without_btf(built: tuple[Net, Traffic], kernel_reasons: Reasons, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where types are hidden, installed headers do; without either, or with an older bcc, it says what to install."""
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {BTF} && exec "$@"', "sh", *command()]
    monkeypatch.setenv("PKTDROP", shlex.join(hidden))
    if not HEADERS.exists() or headers_are_too_new():
        refused = subprocess.run([*command(), "trace"], cwd="/", capture_output=True, text=True, timeout=8 * DEADLINE)
        what, do = error(refused.stderr)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert ("headers are not installed" in what) == (not HEADERS.exists())
        assert ("install a newer bcc" in do) == HEADERS.exists()
        return
    drop, probes, _ = counted(built)
    assert probes == {"kfree_skb": "raw", "enqueue_to_backlog": "kprobe"}
    assert function_of(drop["location"]) in CLOSED_PORT.functions
    assert drop["reason"] == ("NO_SOCKET" if kernel_reasons else "NOT_SPECIFIED")
