# SPDX-License-Identifier: MIT
"""A virtual machine that runs one command on a distribution's kernel and is gone.

Its root is this machine's own, read-only, with a layer in memory above: the checkout and all tools are there, and
nothing that the guest does stays. virtme-ng 1.42 does much the same, but not with Debian's kernels, where
virtio_console is a module: it does not load that, and output and exit status of the command are lost.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm import initramfs, nic, warm
from tests.vm.kernels import Kernel

_EMULATED = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem,-cx16")
"""Under QEMU 7.2's emulation of cmpxchg16b Linux 6.12 faults: without cx16 it does not use that."""
_NO_WATCHDOGS = "nowatchdog workqueue.watchdog_thresh=0 rcupdate.rcu_cpu_stall_suppress=1"
"""Where QEMU gets no CPU for a while, the kernel it emulates takes that for a fault of its own."""
_HARDWARE = ("-accel", "kvm", "-cpu", "host")
_KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=5 panic=-1 mitigations=off tsc=reliable random.trust_cpu=on net.ifnames=0 "
    "no_timer_check"  # on a busy machine an emulated timer may not tick while the kernel waits for that
)
_COMPLAINTS = ("BUG: ", "Oops: ", "WARNING: ", "Kernel panic")
_KVM_MUST_BOOT_IN = 60.0
_POLL = 0.1


class MachineError(Exception):
    """A guest that did not do what it was started for, and why."""


class BootError(MachineError):
    """A guest that ended before it got as far as its command."""


@dataclass(frozen=True)
class Result:
    """How a command in a guest ended."""

    status: int
    stdout: str
    stderr: str
    boot_seconds: float
    """From QEMU's start to the start of the command."""
    seconds: float
    """Of the command."""
    complaints: tuple[str, ...]
    """Lines in which the guest's kernel complains of itself."""


@dataclass(frozen=True)
class Machine:
    """How guests are made: a kernel, and what they are to have."""

    kernel: Kernel
    cache: Path
    hardware: bool = False
    """KVM, else emulation."""
    headers: bool = False
    """Whether the kernel's headers are installed."""
    options: str = ""
    """More for the kernel's command line."""
    cpus: int = 2
    megabytes: int = 2048
    root: Path = Path("/")
    """What lies below all else. The checkout is there in any case."""
    shares: Mapping[str, Path] = field(default_factory=dict)
    """Directories of this machine that the guest may write, by their place in the guest."""
    nics: Sequence[str] = ()
    """Models of QEMU's NICs, see nic.py."""

    def run(self, command: Sequence[str], seconds: float, echo: bool = False) -> Result:
        """Boot, run a command, switch off. Raises MachineError where it did not come to an end in time.

        With `echo` the command's standard output is copied to ours as it comes. An emulated guest that ends before it
        gets as far as the command is started once more, which is told: QEMU 7.2 was seen to have a kernel fault that
        changed its own code while it booted.
        """
        try:
            return self._run_once(command, seconds, echo)
        except BootError as reason:
            if self.hardware:
                raise
            print(f"vm: {reason}\nvm: it is started once more", file=sys.stderr, flush=True)
            return self._run_once(command, seconds, echo)

    def _run_once(self, command: Sequence[str], seconds: float, echo: bool) -> Result:
        with tempfile.TemporaryDirectory(prefix="pktdrop-vm-") as directory:
            files = Path(directory)
            for name in ("stdout", "stderr", "control", "console", "qemu"):
                (files / name).touch()
            arguments = self._arguments(files, shlex.join(command))
            started = time.monotonic()
            with nic.cables(files, len(self.nics)), _process(arguments, files / "qemu") as process:
                begun = _wait(process, files, started + seconds, echo)
            return _result(files, started, begun, seconds, process.returncode)

    def _arguments(self, files: Path, command: str) -> list[str]:
        trees = {"kernel": self.kernel.image, "host": self.root}
        if self.headers:
            trees = {"headers": self.kernel.headers, **trees}
        shares = {f"share{number}": place for number, place in enumerate(self.shares)}
        settings = {
            "trees": " ".join(trees),
            "shares": " ".join(f"{tag}:{place}" for tag, place in shares.items()),
        }
        initrd = files / "initrd"
        initrd.write_bytes(
            initramfs.base(self.kernel, self.cache).read_bytes() + initramfs.of_one_run(command, settings)
        )
        arguments = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        arguments += ["-machine", "q35", *(_HARDWARE if self.hardware else _EMULATED)]
        arguments += ["-smp", str(self.cpus), "-m", str(self.megabytes), "-device", "virtio-rng-pci"]
        arguments += ["-kernel", str(initramfs.uncompressed(self.kernel, self.cache)), "-initrd", str(initrd)]
        arguments += ["-append", f"{_KERNEL_OPTIONS} {'' if self.hardware else _NO_WATCHDOGS} {self.options}"]
        warm.archive(files / "warm.tar", self.root)
        disk = f"file={files}/warm.tar,if=none,id=warm,format=raw,readonly=on"
        arguments += ["-drive", disk, "-device", "virtio-blk-pci,drive=warm"]
        arguments += ["-serial", f"file:{files}/console", "-device", "virtio-serial-pci"]
        for number, name in enumerate(("stdout", "stderr", "control"), 1):
            arguments += ["-chardev", f"file,id={name},path={files}/{name}"]
            arguments += ["-device", f"virtserialport,chardev={name},nr={number}"]
        arguments += nic.arguments(files, self.nics)
        for tag, tree in trees.items():
            arguments += _shared(tag, tree, ",readonly=on")
        for tag, place in shares.items():
            arguments += _shared(tag, self.shares[place])
        return arguments


def hardware_works(kernel: Kernel, cache: Path) -> bool:
    """Tell whether a guest boots with KVM. A /dev/kvm alone says little: guests may hang at their first instructions.

    The answer is kept until this machine boots anew.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    answer = cache / f"kvm-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    if not answer.exists():
        try:
            Machine(kernel, cache, hardware=True).run(["true"], _KVM_MUST_BOOT_IN)
            answer.write_text("works\n")
        except MachineError as reason:
            answer.write_text(f"does not work: {reason}\n")
    return answer.read_text().startswith("works")


def _shared(tag: str, tree: Path, mode: str = "") -> list[str]:
    device = f"local,id={tag},path={tree},security_model=none,multidevs=remap{mode}"
    return ["-fsdev", device, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


@contextmanager
def _process(arguments: list[str], messages: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run QEMU around a block. It ends with it, and with this process, even one that is killed."""
    command = ["setpriv", "--pdeathsig", "KILL", "--", *arguments]
    with open(messages, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", files: Path, deadline: float, echo: bool) -> float:
    """Wait for the guest's end, or the deadline; return when its command was started, 0 if it was not."""
    begun = 0.0
    with open(files / "stdout", "rb") as output:
        while True:
            ended = process.poll() is not None
            if not begun and (files / "control").stat().st_size:
                begun = time.monotonic()
            if echo:
                sys.stdout.buffer.write(output.read())
                sys.stdout.buffer.flush()
            if ended or time.monotonic() > deadline:
                return begun
            time.sleep(_POLL)


def _result(files: Path, started: float, begun: float, seconds: float, ended: int | None) -> Result:
    console = (files / "console").read_text(errors="replace").splitlines()
    said = dict(line.partition(" ")[::2] for line in (files / "control").read_text().splitlines())
    stdout, stderr, qemu = ((files / name).read_text(errors="replace") for name in ("stdout", "stderr", "qemu"))
    if "status" not in said:
        last = "\n".join([*stdout.splitlines()[-10:], *stderr.splitlines()[-10:], *console[-20:], qemu])
        if not begun and ended != -signal.SIGKILL:
            raise BootError(f"the guest did not come up; its last words:\n{last}")
        reason = f"did not end in {seconds:.0f} s" if ended == -signal.SIGKILL else "ended before its command did"
        raise MachineError(f"the guest {reason}; its last words:\n{last}")
    complaints = tuple(line.strip() for line in console if any(complaint in line for complaint in _COMPLAINTS))
    now = time.monotonic()
    return Result(int(said["status"]), stdout, stderr, begun - started, now - begun, complaints)
