# SPDX-License-Identifier: MIT
"""The bpf(2) and perf_event_open(2) system calls, as far as pktdrop uses them.

Every attribute block is laid out as in include/uapi/linux/bpf.h and include/uapi/linux/perf_event.h; the constants
are theirs. Calls raise OSError with the kernel's errno. File descriptors are plain integers, closed by the caller;
maps, programs and attachments live in the kernel exactly as long as theirs: nothing is pinned, so nothing outlives
the process, however it ends.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import cache

# System call numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_SYSCALLS = {"x86_64": (321, 298), "aarch64": (280, 241)}

_PERF_EVENT_IOC_ENABLE = 0x2400  # include/uapi/linux/perf_event.h: _IO('$', 0)
_PERF_EVENT_IOC_SET_BPF = 0x40042408  # _IOW('$', 8, __u32)
_PERF_FLAG_FD_CLOEXEC = 8
_BPF_F_MMAPABLE = 1 << 10
_LOG_SIZE = 256 * 1024
_BATCH = 4096


class _Command(IntEnum):
    """Enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_BATCH = 24
    MAP_DELETE_BATCH = 27


class MapType(IntEnum):
    """Enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    ARRAY_OF_MAPS = 12
    RINGBUF = 27


class ProgramType(IntEnum):
    """Enum bpf_prog_type."""

    KPROBE = 2
    RAW_TRACEPOINT = 17
    TRACING = 26


class AttachType(IntEnum):
    """Enum bpf_attach_type."""

    NONE = 0
    TRACE_RAW_TP = 23
    TRACE_FENTRY = 24


class LoadError(OSError):
    """A program the kernel refused, with the end of the verifier's log."""

    def __init__(self, number: int, log: str) -> None:
        """Keep the errno and the line of the log that says why.

        It is the last one but for statistics; Linux 7.3 explains it in paragraphs below, the first of which begins with
        "Verification failed: " (as Debian's 7.3.4 prints it).
        """
        super().__init__(number, os.strerror(number))
        words = log.partition("\nVerification failed: ")[0]
        lines = [line for line in words.splitlines() if line and not line.startswith("processed ")]
        self.reason = lines[-1] if lines else os.strerror(number)


# syscall(2) as bpf(2) and perf_event_open(2): its result, the number of the call, the arguments of that
_BPF = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, use_errno=True)
_PERF_EVENT_OPEN = ctypes.CFUNCTYPE(
    *(ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong),
    use_errno=True,
)


@cache
def _function(prototype: Callable[..., Callable[..., int]]) -> Callable[..., int]:
    """Load syscall(2) once: that takes as long as five calls."""
    return prototype(("syscall", ctypes.CDLL(None, use_errno=True)))


def _syscall(prototype: Callable[..., Callable[..., int]], *arguments: int) -> int:
    machine = os.uname().machine
    numbers = _SYSCALLS.get(machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, f"system call numbers of {machine} are not known to pktdrop")
    result = _function(prototype)(numbers[prototype is not _BPF], *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _bpf(command: _Command, attributes: ctypes.Array[ctypes.c_char]) -> int:
    return _syscall(_BPF, command, ctypes.addressof(attributes), len(attributes))


def _block(layout: str, *values: int | bytes, size: int = 0) -> ctypes.Array[ctypes.c_char]:
    data = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(data, max(len(data), size))


def _name(name: str) -> bytes:
    return name.encode()[:15]  # BPF_OBJ_NAME_LEN - 1


def map_create(
    map_type: MapType, key_size: int, value_size: int, max_entries: int, name: str, inner_map: int = 0
) -> int:
    """Make a map and return its file descriptor. Sizes are in bytes. Arrays can be mapped into memory.

    A map of maps takes one as an example of those that it will hold.
    """
    flags = _BPF_F_MMAPABLE if map_type is MapType.ARRAY else 0
    return _bpf(
        _Command.MAP_CREATE,
        _block("IIIIIII16s", map_type, key_size, value_size, max_entries, flags, inner_map, 0, _name(name)),
    )


def map_memory(map_fd: int, value_size: int, max_entries: int) -> mmap.mmap:
    """Map the values of an array into memory. They stand one behind the other, 8 bytes aligned."""
    length = max_entries * (value_size + -value_size % 8)
    return mmap.mmap(map_fd, length + -length % mmap.PAGESIZE, flags=mmap.MAP_SHARED)


def program_load(
    program_type: ProgramType,
    instructions: bytes,
    name: str,
    attach_type: AttachType = AttachType.NONE,
    attach_btf_id: int = 0,
) -> int:
    """Load a program under the licence "Dual MIT/GPL" and return its file descriptor.

    Raises LoadError, with the verifier's last words, where the kernel refuses it.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Dual MIT/GPL")

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        # union bpf_attr, BPF_PROG_LOAD: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf,
        # kern_version, prog_flags, prog_name, prog_ifindex, expected_attach_type, prog_btf_fd,
        # func_info_rec_size, func_info, func_info_cnt, line_info_rec_size, line_info, line_info_cnt, attach_btf_id
        block = _block(
            "IIQQIIQII16sIIIIQIIQII",
            *(program_type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
            *((1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)),
            *(0, 0, _name(name), 0, attach_type, 0, 0, 0, 0, 0, 0, 0, attach_btf_id),
            size=144,
        )
        return _bpf(_Command.PROG_LOAD, block)

    try:
        return attempt(None)
    except OSError as refused:
        number = refused.errno or errno.EINVAL
    # only a refused load pays for the log
    log = ctypes.create_string_buffer(_LOG_SIZE)
    try:
        return attempt(log)
    except OSError:
        raise LoadError(number, log.value.decode(errors="replace")) from None


def raw_tracepoint_open(program: int, name: str | None = None) -> int:
    """Attach a raw tracepoint program to a tracepoint by name, or a BTF-typed program to what it was loaded for."""
    target = ctypes.create_string_buffer(name.encode()) if name else None
    return _bpf(
        _Command.RAW_TRACEPOINT_OPEN,
        _block("QII", ctypes.addressof(target) if target is not None else 0, program, 0),
    )


def kprobe_open(program: int, function: str) -> int:
    """Attach a kprobe program to the entry of a kernel function.

    Uses the kprobe PMU, not tracefs, so that the probe goes with the process. Raises FileNotFoundError where the
    kernel has no kprobes.
    """
    with open("/sys/bus/event_source/devices/kprobe/type", encoding="ascii") as source:
        pmu = int(source.read())
    target = ctypes.create_string_buffer(function.encode())
    # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags, wakeup_events,
    # bp_type, config1 (kprobe_func), config2 (probe_offset)
    size = 112  # PERF_ATTR_SIZE_VER5
    attributes = _block("IIQQQQQIIQQ", pmu, size, 0, 1, 0, 0, 0, 1, 0, ctypes.addressof(target), 0, size=size)
    event = _syscall(_PERF_EVENT_OPEN, ctypes.addressof(attributes), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def recursion_misses(program: int) -> int:
    """Return how many runs were skipped because the program was already running on that CPU; 0 before Linux 5.12."""
    info = ctypes.create_string_buffer(232)
    attributes = _block("IIQ", program, len(info), ctypes.addressof(info))
    _bpf(_Command.OBJ_GET_INFO_BY_FD, attributes)
    (skipped,) = struct.unpack_from("=Q", info, 208)  # struct bpf_prog_info
    return int(skipped)


def map_lookup(map_fd: int, key: bytes, value_size: int) -> bytes:
    """Return the value of one key; value_size is per CPU rounded up to 8 and times the CPUs for per-CPU maps."""
    buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    _bpf(
        _Command.MAP_LOOKUP_ELEM,
        _block("IIQQQ", map_fd, 0, ctypes.addressof(buffer), ctypes.addressof(value), 0),
    )
    return value.raw


def map_update(map_fd: int, key: bytes, value: bytes) -> None:
    """Set the value of one key. For a map of maps, every run of a program that has begun before is over on return."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    addresses = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
    _bpf(_Command.MAP_UPDATE_ELEM, _block("IIQQQ", map_fd, 0, *addresses, 0))


def map_delete(map_fd: int, keys: bytes, key_size: int) -> None:
    """Delete keys that are in a map, given one behind the other."""
    buffer = ctypes.create_string_buffer(keys, len(keys))
    here = ctypes.addressof(buffer)
    try:
        # union bpf_attr, BPF_MAP_*_BATCH, as in _batches()
        attributes = _block("QQQQIIQQ", 0, 0, here, 0, len(keys) // key_size, map_fd, 0, 0)
        if keys:
            _bpf(_Command.MAP_DELETE_BATCH, attributes)
            return
    except OSError as refused:
        if refused.errno != errno.EINVAL:  # before Linux 5.6
            raise
    for at in range(0, len(keys), key_size):
        _bpf(_Command.MAP_DELETE_ELEM, _block("IIQQQ", map_fd, 0, here + at, 0, 0))


def map_items(map_fd: int, key_size: int, value_size: int, at_once: bool = True) -> Iterator[tuple[bytes, bytes]]:
    """Yield blocks of (keys, values), each the concatenation of equally many, until the whole hash map is read.

    Batched look-ups (BPF_MAP_LOOKUP_BATCH) walk the map bucket by bucket: with entries never deleted, each one that
    was there at the start comes exactly once. Meanwhile the kernel runs no tracing program on the CPU that reads
    (bpf_disable_instrumentation() in __htab_map_lookup_and_delete_batch(), kernel/bpf/hashtab.c), and counts none as
    missed: what an interrupt brings in that time is not traced. Not `at_once`, and on kernels without batches (before
    5.6), the map is read key by key, which takes longer, but has no such stretch.
    """
    if not at_once:
        yield from _one_by_one(map_fd, key_size, value_size)
        return
    try:
        yield from _batches(map_fd, key_size, value_size)
    except OSError as refused:
        if refused.errno != errno.EINVAL:
            raise
        yield from _one_by_one(map_fd, key_size, value_size)


def _batches(map_fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    keys = ctypes.create_string_buffer(key_size * _BATCH)
    values = ctypes.create_string_buffer(value_size * _BATCH)
    position = ctypes.create_string_buffer(max(key_size, 8))
    first, done = True, False
    while not done:
        # union bpf_attr, BPF_MAP_*_BATCH: in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
        here = ctypes.addressof(position)
        attributes = _block(
            "QQQQIIQQ",
            0 if first else here,
            here,
            ctypes.addressof(keys),
            ctypes.addressof(values),
            _BATCH,
            map_fd,
            0,
            0,
        )
        try:
            _bpf(_Command.MAP_LOOKUP_BATCH, attributes)
        except OSError as end:
            if end.errno != errno.ENOENT:
                raise
            done = True
        first = False
        (count,) = struct.unpack_from("=I", attributes, 32)
        if count:
            yield ctypes.string_at(keys, count * key_size), ctypes.string_at(values, count * value_size)


def _one_by_one(map_fd: int, key_size: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    key = ctypes.create_string_buffer(key_size)
    first = True
    while True:
        here = ctypes.addressof(key)
        try:
            _bpf(_Command.MAP_GET_NEXT_KEY, _block("IIQQQ", map_fd, 0, 0 if first else here, here, 0))
        except OSError as end:
            if end.errno != errno.ENOENT:
                raise
            return
        first = False
        yield key.raw, map_lookup(map_fd, key.raw, value_size)


def cpu_numbers(text: str | None = None) -> int:
    """Return one more than the highest number that a CPU can have: that of the last in a list such as "0-3,8-11".

    The list is /sys/devices/system/cpu/possible (Documentation/admin-guide/cputopology.rst), in rising order.
    """
    if text is None:
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as source:
            text = source.read()
    return int(text.strip().replace(",", "-").rpartition("-")[2]) + 1
