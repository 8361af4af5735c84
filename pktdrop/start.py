# SPDX-License-Identifier: MIT
"""The very start and the very end: signals, missing standard files, and what nobody caught."""

import os
import signal
import sys
from typing import NoReturn

# until here SIGINT raises KeyboardInterrupt, wherever it strikes: the launchers block it, see main()
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

from pktdrop.process import faults, messages  # noqa: E402


def main() -> NoReturn:
    """Run the command line, and end with its status.

    Until there is something to show, which the start line says, Ctrl-C, SIGTERM and SIGHUP end the process by
    themselves (a shell shows 130, 143, 129): nothing needs to be put back. `./bootstrap` and the command pktdrop start
    Python with SIGINT blocked, so that it comes here and not while Python makes itself ready.
    """
    _open_standard_files()
    messages.never_fail()
    status: int | str | None = 0
    try:
        from pktdrop.process.output import require_output

        require_output(sys.stdout)
        from pktdrop.cli import main as commands

        commands(prog_name="pktdrop")
    except SystemExit as end:
        status = end.code
    except BaseException as error:  # nothing may end in a traceback: what is no fault of pktdrop has none
        status = _complain(error)
    _flush()
    sys.exit(status)


def _open_standard_files() -> None:
    """Open /dev/null where a standard file is closed: else the next file opened has its number, and gets its text."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)  # the lowest that is free: this one
            os.set_inheritable(descriptor, True)


def _complain(error: BaseException) -> int:
    messages.complain(*faults.sentences(error))
    if os.environ.get(faults.TRACEBACK):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    return 1


def _flush() -> None:
    """Let go of what standard output did not take: Python would try again, and end with status 120."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
