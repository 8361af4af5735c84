# SPDX-License-Identifier: MIT
"""One profiled start of `pktdrop trace`: its functions are timed from outside, none is changed.

Run by path, with the CLOCK_MONOTONIC time at which the process was asked for, and options of trace. Prints one
JSON object: ms by part.
Indented parts are inside the one above; parts of the compiler process run beside those of pktdrop.
"""

import sys
import time

_BEGIN = time.monotonic()

import json  # noqa: E402  the interpreter's own start ends above
import subprocess  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import redirect_stderr  # noqa: E402
from io import StringIO  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


class Times:
    """Sums of time by part."""

    def __init__(self) -> None:
        """Start empty."""
        self.ms: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.request: bytes = b""
        self.replaced: list[tuple[Any, Any]] = []

    def around(self, owner: Any, name: str, part: str) -> None:
        """Time a function or method of `owner` as `part`."""
        plain = owner.__dict__[name]
        bound = isinstance(plain, classmethod | staticmethod)
        function: Callable[..., Any] = plain.__func__ if bound else plain

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self.ended[part] = time.monotonic()
                self.ms[part] = self.ms.get(part, 0.0) + (self.ended[part] - start) * 1000

        setattr(owner, name, type(plain)(timed) if bound else timed)
        self.replaced.append((plain, timed))


_TRACER = "rights to attached"
# module, class or "", function, part; those that a start does not import are not part of it
_TIMED = (
    ("pktdrop.kernel.host", "", "require_bpf_rights", "rights"),
    ("pktdrop.kernel.prepared", "Build", "key", "key of the cache: sources, build id of the BTF"),
    ("pktdrop.kernel.cache", "Cache", "load", "file of the cache read"),
    ("pktdrop.kernel.prepared", "", "_decode", "programs and kernel facts out of it"),
    ("pktdrop.kernel.prepared", "Build", "make", "programs made"),
    ("pktdrop.kernel.compiler", "Compiler", "__init__", "  compiler process started"),
    ("pktdrop.kernel.facts", "KernelFacts", "read", "  kernel facts"),
    ("pktdrop.kernel.btf", "Btf", "load", "    BTF read and indexed"),
    ("pktdrop.kernel.layout", "", "declarations", "    struct layouts"),
    ("pktdrop.kernel.reasons", "ReasonNames", "from_btf", "    reason names"),
    ("pktdrop.kernel.compiler", "Compiler", "compile", "  waiting for the compiler"),
    ("pktdrop.kernel.programs", "Programs", "__init__", "maps made"),
    ("pktdrop.kernel.sysbpf", "", "program_load", "programs loaded (the verifier)"),
    ("pktdrop.kernel.sysbpf", "", "raw_tracepoint_open", "programs attached"),
    ("pktdrop.kernel.tracer", "Tracer", "__init__", _TRACER),
    ("pktdrop.kernel.tracer", "Tracer", "snapshot", "first look at the drops"),
    ("pktdrop.counters.collect", "Collector", "read", "first look at the counters"),
)


def _time_all(times: Times) -> None:
    for module_name, class_name, function, part in _TIMED:
        module = sys.modules.get(module_name)
        if module is None:
            continue
        times.around(getattr(module, class_name) if class_name else module, function, part)
        if not class_name:  # also where another module has it by name
            plain, timed = times.replaced[-1]
            for other in [other for name, other in sys.modules.items() if name.startswith("pktdrop")]:
                if other.__dict__.get(function) is plain:
                    setattr(other, function, timed)


def _run(times: Times, options: list[str]) -> None:
    """Run pktdrop until it has looked once."""
    start = time.monotonic()
    from pktdrop import cli, run
    from pktdrop.cli import trace  # noqa: F401

    times.ms["imports of pktdrop"] = (time.monotonic() - start) * 1000
    if options:  # a start that compiles imports these later
        from pktdrop.kernel import btf, compiler, layout, reasons  # noqa: F401
    _time_all(times)
    started: list[float] = []
    plain = run.say

    def say(*said: str) -> None:
        started.append(time.monotonic())
        plain(*said)

    run.say = say
    communicate = subprocess.Popen.communicate

    def keep_request(process: Any, request: Any = None, timeout: Any = None) -> Any:
        times.request = request or times.request
        return communicate(process, request, timeout)

    subprocess.Popen.communicate = keep_request  # type: ignore[method-assign,assignment]
    with redirect_stderr(StringIO()):
        cli.main(["trace", "1", "-d", "0.01", *options], standalone_mode=False)
    subprocess.Popen.communicate = communicate  # type: ignore[method-assign]
    times.ms["whole, to attached"] = (times.ended[_TRACER] - float(sys.argv[1])) * 1000
    times.ms["whole, to the start line"] = (started[0] - float(sys.argv[1])) * 1000


def _compiler_process(times: Times) -> None:
    """Time the compiler process alone, with the same request."""
    from pktdrop.kernel import compile_worker

    not_hidden = json.dumps({**json.loads(times.request), "hide_symbols": False}).encode()

    def ms(*arguments: str, request: bytes = b"") -> float:
        start = time.monotonic()
        subprocess.run([sys.executable, "-I", *arguments], input=request, capture_output=True, check=True)
        return (time.monotonic() - start) * 1000

    bare, with_bcc = ms("-c", "pass"), ms("-c", "import bcc")
    whole = ms(compile_worker.__file__, request=times.request)
    times.ms["compiler process alone, whole"] = whole
    times.ms["  its interpreter"] = bare
    times.ms["  its import of bcc"] = with_bcc - bare
    times.ms["  its compilation and the rest"] = whole - with_bcc
    times.ms["the same where /proc/kallsyms is not hidden from bcc"] = ms(compile_worker.__file__, request=not_hidden)


def main() -> None:
    """Print the parts."""
    times = Times()
    times.ms["interpreter"] = (_BEGIN - float(sys.argv[1])) * 1000
    _run(times, sys.argv[2:])
    if times.request:
        _compiler_process(times)
    print(json.dumps(times.ms))


if __name__ == "__main__":
    main()
