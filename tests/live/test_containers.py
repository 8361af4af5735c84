# SPDX-License-Identifier: MIT
"""Losses in real containers of podman, made from a root with busybox alone: whose they are said to be."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pktdrop.demo.net import one_ns
from pktdrop.host.netns import identify, inside
from tests.kit.process import DEADLINE, command, need, run
from tests.kit.trace import finish, tracing

PORT = 8080
DROP = (
    f"add table ip t; add chain ip t in {{ type filter hook input priority 0; }};add rule ip t in tcp dport {PORT} drop"
)
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=16384:16384")
"""Those of podman are more than may be had where this already is a container."""


class Podman:
    """A podman that has all it keeps in one directory."""

    def __init__(self, where: Path) -> None:
        """Make a root with a program in it."""
        self._where = where
        self.root = where / "rootfs"
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
            (self.root / name).mkdir(parents=True)
        shutil.copy2("/bin/busybox", self.root / "bin/busybox")

    def __call__(self, *arguments: str) -> str:
        """Run it; return what it prints."""
        kept = (f"--{one}={self._where / one}" for one in ("root", "runroot", "tmpdir"))
        drivers = ("--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=none")
        return run("podman", *kept, *drivers, *arguments).strip()

    @contextmanager
    def container(self, name: str, network: str) -> Iterator[tuple[str, int]]:
        """Run a web server in a container around a block; give its ID and its process."""
        run_it = ("run", "--detach", *LIMITS, "--network", network, "--name", name, "--rootfs", str(self.root))
        identity = self(*run_it, "/bin/busybox", "httpd", "-f", "-p", str(PORT))
        try:
            yield identity, int(self("inspect", "--format", "{{.State.Pid}}", name))
        finally:
            self("rm", "--force", "--time", "0", name)


@pytest.fixture(name="podman")
def _podman() -> Iterator[Podman]:
    """A podman of its own. The name of its directory must be short."""
    for tool in ("podman", "conmon", "runc", "busybox"):
        need(tool)
    with tempfile.TemporaryDirectory(prefix="pktdrop-") as where:
        yield Podman(Path(where))


def lose(netns: Path, count: int) -> None:
    """Have packets to the server dropped in front of it, in its namespace."""
    with inside(netns):
        subprocess.run(["nft", DROP], check=True, timeout=DEADLINE)
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client, suppress(BlockingIOError):
                client.setblocking(False)
                client.connect(("127.0.0.1", PORT))


def drops_of(summary: dict[str, Any], inode: int) -> list[dict[str, Any]]:
    """The drops of the firewall in a namespace."""
    return [drop for drop in summary["drops"] if drop["netns"] == inode and drop["reason"] == "NETFILTER_DROP"]


def test_a_container_of_podman(podman: Podman) -> None:
    """Its network namespace has its name, in all commands, and so has the process that packets were for."""
    with podman.container("web-1", "none") as (identity, pid):
        netns = Path(f"/proc/{pid}/ns/net")
        with tracing("--container", "web-1") as trace:
            lose(netns, 5)
            summary = finish(trace)
        assert {drop["netns_name"] for drop in summary["drops"]} == {"podman web-1"}
        (drop,) = drops_of(summary, identify(netns).inode)
        container = {
            "label": "podman web-1", "runtime": "podman", "id": identity, "name": "web-1", "pod": None,
            "pod_namespace": None, "pod_uid": None, "user": None,
        }  # fmt: skip
        assert {**container, "unit": drop["container"]["unit"]} == drop["container"]
        assert drop["samples"]
        for sample in drop["samples"]:
            assert sample["owner"] == {"pid": pid, "comm": "busybox", "is_receiver": True}
            assert sample["container"] == drop["container"]
        assert "podman web-1" in run(*command(), "counters", "--all", "--all-netns")


def test_a_container_in_a_namespace_with_a_name(podman: Podman) -> None:
    """What people called it stays; the process is told with its container."""
    with one_ns() as net, podman.container("web-2", f"ns:/run/netns/{net['host'].name}") as (_, pid):
        here = net["host"].name
        with tracing("--netns", here) as trace:
            lose(Path("/run/netns", here), 5)
            summary = finish(trace)
        (drop,) = drops_of(summary, net["host"].inode)
    assert (drop["netns_name"], drop["container"]) == (here, None)
    told = [(sample["owner"]["pid"], sample["container"]["label"]) for sample in drop["samples"]]
    assert told == [(pid, "podman web-2")] * drop["sampled"]
    assert told
