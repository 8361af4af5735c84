# SPDX-License-Identifier: MIT
"""The runner itself: output and exit status come back, and nothing else: no process, no file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm.kernels import Kernel, cache_directory, fetch
from tests.vm.machine import Machine, MachineError

SECONDS = 300.0
SUITE = os.environ.get("PKTDROP_VM_KERNEL", "bookworm")
CACHE = Path(os.environ.get("PKTDROP_VM_CACHE") or cache_directory())


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """The kernel to boot."""
    return fetch(SUITE, CACHE)


def guests(runner: int) -> list[int]:
    """Return the processes of QEMU that another process has started."""
    children = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    return [int(pid) for pid in children if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_output_and_status_come_back(kernel: Kernel) -> None:
    """Both outputs and the exit status of the command are the result; the kernel is the one that was asked for."""
    command = ["sh", "-c", "uname -r; echo it failed >&2; exit 7"]
    result = Machine(kernel, CACHE).run(command, SECONDS)
    assert (result.status, result.stdout, result.stderr) == (7, f"{kernel.release}\n", "it failed\n")
    assert result.complaints == ()


def test_nothing_is_written_here(kernel: Kernel, tmp_path: Path) -> None:
    """What the guest writes stays there, but for the directories that it was given."""
    (tmp_path / "given").mkdir()
    (tmp_path / "kept").mkdir()
    write = f"echo guest | tee {tmp_path}/kept/file /run/given/file; rm -rf /usr/bin"
    result = Machine(kernel, CACHE, shares={"/run/given": tmp_path / "given"}).run(["sh", "-c", write], SECONDS)
    assert result.stdout == "guest\n"
    assert (tmp_path / "given/file").read_text() == "guest\n"
    assert list((tmp_path / "kept").iterdir()) == []
    assert Path("/usr/bin").is_dir()


def test_guest_that_hangs_is_ended(kernel: Kernel) -> None:
    """A command that does not end in its time is an error that says so, and its process is gone."""
    with pytest.raises(MachineError, match="did not end in 15 s"):
        Machine(kernel, CACHE).run(["sleep", "1000"], 15)
    assert guests(os.getpid()) == []


def test_kernel_that_panics_is_an_error(kernel: Kernel) -> None:
    """A guest that ends before its command is an error which shows the console."""
    with pytest.raises(MachineError, match="ended before its command did"):
        Machine(kernel, CACHE).run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"], SECONDS)


def test_kernel_that_does_not_come_up_is_an_error(kernel: Kernel, capfd: pytest.CaptureFixture[str]) -> None:
    """It is started once more, as that may be the emulation's fault, and both are told."""
    with pytest.raises(MachineError, match="did not come up"):
        Machine(kernel, CACHE, options="rdinit=/nonesuch").run(["true"], SECONDS)
    assert capfd.readouterr().err.count("vm: it is started once more\n") == 1
    assert guests(os.getpid()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_killed_runner_leaves_nothing(kernel: Kernel, how: signal.Signals) -> None:
    """However the runner ends, its guest ends with it."""
    command = [sys.executable, "-I", "-m", "tests.vm", "--cache", str(CACHE), SUITE, "--", "sleep", "1000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as runner:
        deadline = time.monotonic() + SECONDS
        while not (started := guests(runner.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        runner.send_signal(how)
        runner.wait(30)
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)
