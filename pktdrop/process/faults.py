# SPDX-License-Identifier: MIT
"""What is said of an exception that nobody caught: one sentence what, one what to do.

Imported at the very start: once memory or file descriptors are used up, nothing more can be.
"""

import errno
import os
import sys
from types import TracebackType

from pktdrop.errors import PktdropError

TRACEBACK = "PKTDROP_TRACEBACK"
"""The environment variable that asks for Python's traceback, too."""
_REPORT = f"Report this, with what is shown when {TRACEBACK}=1 is set."
_MEND = f"See why that is so; if it should work, report what is shown when {TRACEBACK}=1 is set."
_NO_MEMORY = ("cannot allocate memory", "failed to map segment", "cannot map zero-fill pages")
"""How the dynamic linker (ld.so) says it of a module: a kernel without memory, or 'ulimit -v'."""
_FRAMES = 3
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_HOST = {
    errno.ENOMEM: ("There is not enough memory.", "Free some, or raise the limit (ulimit -v, MemoryMax=)."),
    errno.EMFILE: ("This process may not open more files.", "Raise the limit (ulimit -n 1024, LimitNOFILE=)."),
    errno.ENFILE: ("This host may not open more files.", "Raise the limit: sysctl fs.file-max."),
    errno.EAGAIN: (
        "No more processes or threads can be started.",
        "End some, or raise the limit (ulimit -u, TasksMax=).",
    ),
}
_THREAD = "can't start new thread"


def sentences(error: BaseException) -> tuple[str, str]:
    """Return what is the matter, and what to do."""
    if isinstance(error, PktdropError):
        return error.what, error.do
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY):
        number = errno.ENOMEM
    elif isinstance(error, RuntimeError) and text.startswith(_THREAD):
        number = errno.EAGAIN
    if number in _HOST:
        return _HOST[number]
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("pktdrop"):
        return (
            f"The Python module {error.name} is missing for {sys.executable}.",
            f"Install it (apt install python3-{error.name}), or start pktdrop by its ./bootstrap.",
        )
    if isinstance(error, OSError) and number is not None:
        name = ascii(os.fsdecode(error.filename)) + ": " if isinstance(error.filename, (str, bytes)) else ""
        return f"{name}{os.strerror(number)} ({source_lines(error.__traceback__)}).", _MEND
    called = type(error).__name__ + (f": {ascii(text.splitlines()[0])[1:-1]}" if text else "")
    return f"pktdrop has a fault: {called} ({source_lines(error.__traceback__)}).", _REPORT


def source_lines(trail: TracebackType | None) -> str:
    """Return the innermost lines of pktdrop that the exception came through: "watch.py:131, tracer.py:120"."""
    lines = []
    while trail is not None:
        path = trail.tb_frame.f_code.co_filename
        if path.startswith(_HERE):
            lines.append(f"{os.path.basename(path)}:{trail.tb_lineno}")
        trail = trail.tb_next
    return ", ".join(lines[-_FRAMES:]) or "at the start"
