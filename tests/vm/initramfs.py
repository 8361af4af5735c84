# SPDX-License-Identifier: MIT
"""The first root of a guest: busybox, the modules that lead to the real root, two scripts."""

import hashlib
import lzma
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.vm.kernels import Kernel

HERE = Path(__file__).resolve().parent
MODULES = ("virtio_pci", "virtio_console", "virtio_rng", "virtio_blk", "9p", "9pnet_virtio", "overlay")
_BUSYBOX = "/bin/busybox"
"""Package busybox-static: the one without libraries."""


def base(kernel: Kernel, cache: Path) -> Path:
    """Return the part that is the same for all runs of a kernel, made once."""
    scripts = [HERE / "init.sh", HERE / "start.sh"]
    digest = hashlib.sha256(b"".join(script.read_bytes() for script in scripts) + " ".join(MODULES).encode())
    made = cache / f"initramfs-{kernel.release}-{digest.hexdigest()[:12]}"
    if not made.exists():
        with tempfile.TemporaryDirectory(prefix="pktdrop-vm-") as directory:
            root = Path(directory)
            (root / "bin").mkdir()
            shutil.copy(_BUSYBOX, root / "bin/busybox")
            for script, name in zip(scripts, ("init", "start.sh"), strict=True):
                shutil.copy(script, root / name)
                (root / name).chmod(0o755)
            _add_modules(kernel, root / "modules")
            _write(made, _archive(root))
    return made


def of_one_run(command: str, settings: Mapping[str, str]) -> bytes:
    """Return what is appended to it for one run: the command, and settings for init.sh."""
    with tempfile.TemporaryDirectory(prefix="pktdrop-vm-") as directory:
        root = Path(directory)
        (root / "command").write_text(command + "\n")
        (root / "settings").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
        return _archive(root)


def uncompressed(kernel: Kernel, cache: Path) -> Path:
    """Return the kernel's ELF file, which QEMU starts as well: to unpack it in an emulated CPU takes 3 to 6 s.

    Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header": where in the file the compressed kernel is.
    """
    made = cache / f"vmlinux-{kernel.release}"
    if not made.exists():
        data = kernel.bzimage.read_bytes()
        setup_sectors = data[0x1F1] or 4
        offset = int.from_bytes(data[0x248:0x24C], "little") + (setup_sectors + 1) * 512
        payload = data[offset : offset + int.from_bytes(data[0x24C:0x250], "little")]
        _write(made, _decompressed(payload))
    return made


def _add_modules(kernel: Kernel, target: Path) -> None:
    """Copy modules and what they need, and write down in which order to load them."""
    target.mkdir()
    order: list[str] = []
    for module in MODULES:
        command = ("modprobe", "-d", str(kernel.image), "-S", kernel.release, "--show-depends", module)
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        for line in shown.splitlines():
            verb, *path = line.split()
            name = path[0].rpartition("/")[2].partition(".ko")[0] + ".ko"
            if verb == "insmod" and name not in order:
                order.append(name)
                (target / name).write_bytes(_decompressed(Path(path[0]).read_bytes()))
    (target / "order").write_text("".join(f"{name}\n" for name in order))


def _decompressed(data: bytes) -> bytes:
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(data)  # the kernel's own has its size appended
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        # zstd complains of the size behind the data, after it wrote all of it
        return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, timeout=60).stdout
    return data


def _archive(root: Path) -> bytes:
    """Return a directory as an archive such as the kernel unpacks."""
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    command = [_BUSYBOX, "cpio", "-o", "-H", "newc"]
    packed = subprocess.run(command, cwd=root, input=names.encode(), capture_output=True, check=True, timeout=60).stdout
    return packed + bytes(-len(packed) % 512)


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(data)
    Path(file.name).rename(target)
