# SPDX-License-Identifier: MIT
"""pktdrop on a host that denies it things: never a traceback, the right exit status, results alone on standard output.

Each command runs under each hardship, in a mount namespace of its own, so that nothing of this host is touched.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest

from tests.kit.process import DEADLINE, ROOT, as_nobody, command, error, need


def _holding(*rights: str) -> str:
    """Return what starts a command as a root that has only some capabilities, and may read this checkout."""
    held = ",".join(f"+{name}" for name in ("dac_read_search", *rights))
    return f'exec setpriv --bounding-set=-all,{held} --inh-caps=-all,{held} -- "$@"'


HARDSHIPS = {
    "no /proc": "umount -l /proc",
    "no /sys": "umount -l /sys",
    "no /proc and no /sys": "umount -l /sys; umount -l /proc",
    "no /dev": "mount -t tmpfs none /dev",
    "another /run/netns": "mkdir -p /run/netns; mount -t tmpfs none /run/netns; echo > /run/netns/file",
    "no capabilities": _holding(),
    "capabilities for BPF alone": _holding("bpf", "perfmon"),
    **{f"{number} open files": f"ulimit -n {number}" for number in (5, 8, 12, 14, 16, 20, 24)},
    **{f"{size} kB of memory": f"ulimit -v {size}" for size in (30000, 40000, 70000, 150000)},
    "no files may grow": "ulimit -f 0",
    "no locked memory": "ulimit -l 0",
    "a small stack": "ulimit -s 256",
    "nothing can be written": (
        "for each in /var /run /tmp; do mount --bind $each $each && mount -o remount,bind,ro $each; done"
    ),
    "a full disk": (
        "for each in /var/cache /tmp; do"
        " mount -t tmpfs -o size=4k none $each; head -c 9k /dev/zero > $each/full 2>/dev/null; done"
    ),
    "no home": "unset HOME",
    "a home that is not there": "export HOME=/nosuch XDG_CACHE_HOME=/nosuch/cache",
    "a directory that is gone": 'here=$(mktemp -d); cd "$here"; rmdir "$here"',
    "an empty environment": 'exec env -i -- "$@"',
    "no PATH": "export PATH=/nosuch",
    "odd things among the namespaces": (
        "mkdir -p /run/netns; mount -t tmpfs none /run/netns; cd /run/netns; mkfifo fifo; ln -s loop loop; mkdir dir;"
        " touch uts; mount --bind /proc/self/ns/uts uts; seq 10000 | xargs touch;"
        " odd=$(printf 'a\\n\\033[31m%0240d\"\\\\' 0); touch \"$odd\"; mount --bind /proc/self/ns/net \"$odd\"; cd /"
    ),
    "hidden processes": "mount -t proc -o hidepid=2 none /proc",
    "a strict umask": "umask 0777",
    "no umask": "umask 0",
    "the C locale": "export LC_ALL=C",
    "the POSIX locale": "export LC_ALL=POSIX",
    "a locale that is not there": "export LC_ALL=xx_XX.ISO-8859-1",
    "an environment of bytes": r"X=$(printf '\377'); export X TERM=$X COLUMNS=$X LANG=$X HOME=$X",
    "no TERM": "unset TERM",
    "one column": "export COLUMNS=1",
    "no column": "export COLUMNS=0",
    "columns below zero": "export COLUMNS=-7",
    "many columns": "export COLUMNS=2000000000",
    "children that are not waited for": "trap '' CHLD",
    "ignored signals": "trap '' INT TERM HUP PIPE",
    "closed standard input": "exec <&-",
}  # fmt: skip
COMMANDS = {
    "trace": ("trace", "-d", "0.3"),
    "trace json": ("trace", "-d", "0.3", "--format", "json"),
    "top": ("top",),
    "counters": ("counters",),
    "counters json": ("counters", "--format", "json", "--all-netns"),
    "counters twice": ("counters", "0.2", "2"),
    "diagnose": ("diagnose", "-d", "0.3"),
    "diagnose json": ("diagnose", "-d", "0.3", "--format", "json"),
    "doctor": ("doctor",),
    "doctor json": ("doctor", "--format", "json"),
    "demo": ("demo", "no_route", "-d", "0.3"),
    "demo json": ("demo", "no_route", "-d", "0.3", "--format", "json"),
    "demo list": ("demo", "--list"),
    "strange values": ("trace", "-d", "0.3", "--interface", b"\xff\x1b[31m", "--netns", b"\xff", "--cpu", "99999"),
    "version": ("--version",),
    "help": ("trace", "--help"),
}
MANY = ["trace json", "counters", "diagnose", "doctor json", "demo json", "strange values"]
"""Those that are tried under each hardship; between them they do all that the others do."""
DIES = ("kB of memory", "small stack")
"""Hardships in which Python itself, or the dynamic linker, may not come as far as pktdrop."""


def under(hardship: str, *arguments: "str | bytes") -> "list[str | bytes]":
    """Return the command that runs pktdrop where something is denied."""
    return ["unshare", "--mount", "--", "sh", "-c", f'{hardship}\nexec "$@"', "sh", *command(), *arguments]


def run(hardship: str, *arguments: "str | bytes", **options: int) -> "subprocess.CompletedProcess[str]":
    """Run pktdrop under a hardship; see to it that no traceback is shown, whatever else is."""
    need("unshare")
    done = subprocess.run(
        under(hardship, *arguments),
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        cwd="/", text=True, errors="surrogateescape", timeout=4 * DEADLINE,
    )  # fmt: skip
    shown = (done.stdout or "") + (done.stderr or "")
    for word in ("Traceback", "Exception ignored", "has a fault", "Errno"):
        assert word not in shown, shown
    return done


def check_output(done: "subprocess.CompletedProcess[str]", is_json: bool) -> None:
    """Results alone are on standard output; where it could not be done, two sentences say why."""
    if is_json:
        for line in done.stdout.splitlines():
            json.loads(line)
    for word in ("Error: ", "Limit: ", "Warning: ", "Tracing drops", "Watching for"):
        assert not any(line.startswith(word) for line in done.stdout.splitlines()), done.stdout
    if done.returncode != 0 and not done.stdout:
        errors = done.stderr.partition("Error: ")
        assert "Error: " not in errors[0] + errors[2], done.stderr
        what, do = error(done.stderr)
        assert what.endswith("."), done.stderr
        assert do.endswith("."), done.stderr


@pytest.mark.parametrize("called", MANY)
@pytest.mark.parametrize(("name", "hardship"), HARDSHIPS.items(), ids=HARDSHIPS)
def test_hardship(name: str, hardship: str, called: str) -> None:
    """It does what it can, or says in two sentences what is missing and what to do, with status 1."""
    arguments = COMMANDS[called]
    done = run(hardship, *arguments)
    if name.endswith(DIES) and done.returncode not in (0, 1) and "pktdrop" not in done.stderr:
        return  # killed, or refused by the dynamic linker, before pktdrop began
    assert done.returncode in (0, 1), done.stderr
    check_output(done, "json" in arguments)


@pytest.mark.parametrize(
    ("hardship", "name", "said"),
    [
        *(("umount -l /proc", name, "mount -t proc") for name in ("trace", "counters", "diagnose", "demo")),
        ("umount -l /sys", "trace", "mount -t sysfs"),
        ("umount -l /sys", "strange values", "mount -t sysfs"),
        ("ulimit -n 6", "trace", "ulimit -n"),
        *((f"ulimit -n {number}", "trace", "ulimit -n") for number in (9, 12, 16, 20, 24)),
        ("ulimit -n 5", "diagnose", "ulimit -n"),
    ],
)
def test_what_to_do_is_said(hardship: str, name: str, said: str) -> None:
    """The second sentence is the way out of this hardship, not of another."""
    done = run(hardship, *COMMANDS[name])
    assert done.returncode == 1
    assert said in error(done.stderr)[1]


@pytest.mark.parametrize("name", ["counters json", "diagnose", "doctor", "strange values"])
def test_closed_directory_of_namespaces(name: str) -> None:
    """An ordinary user who may not read /run/netns gets all else, and is told once that names are not known."""
    need("unshare", "setpriv")
    closed = 'mkdir -p /run/netns && mount -t tmpfs -o mode=0 none /run/netns && exec "$@"'
    whole = ["unshare", "--mount", "--", "sh", "-c", closed, "sh", *as_nobody(), *COMMANDS[name]]
    done = subprocess.run(
        whole, cwd="/", capture_output=True, text=True, errors="surrogateescape", timeout=4 * DEADLINE
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if name in ("counters json", "diagnose") else 1)
    check_output(done, "json" in COMMANDS[name])
    if name in ("counters json", "diagnose"):
        told = " ".join((done.stdout if name == "diagnose" else done.stderr).split())
        assert told.lower().count("/run/netns cannot be read: permission denied") == 1


@pytest.mark.parametrize("mount", ["/proc", "/sys"])
def test_the_doctor_names_what_is_not_mounted(mount: str) -> None:
    """It is the doctor's first finding, with the command that mends it."""
    done = run(f"umount -l {mount}", "doctor", "--format", "json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert checks[mount]["status"] == "missing"
    assert "mount -t" in checks[mount]["do"]


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        (("--netns", "nosuch"), "there is no network namespace 'nosuch' now"),
        (("--netns", "!nosuch*"), "there is no network namespace 'nosuch*' now"),
        (("--netns", "1"), "there is no network namespace '1' now"),
        (("--cpu", "99999"), "this host has no CPU 99999"),
        (("--cpu", "!99999"), "this host has no CPU 99999"),
        (("--interface", "nosuch"), "no namespace has an interface 'nosuch' now"),
        (("--netns", "host", "--cpu", "0", "--interface", "lo", "--protocol", "IPv4"), None),
    ],
)
def test_filters_that_match_nothing_are_warned_of(arguments: "tuple[str, ...]", warned: "str | None") -> None:
    """A name that nothing has, and a CPU that this host cannot have, is said before the start; what is there is not."""
    done = run("", "trace", "-d", "0.1", *arguments)
    assert done.returncode == 0
    warnings = " ".join(done.stderr.split()).partition("Limit: ")[0].partition("Tracing drops")[0]
    if warned is None:
        assert "Warning: " not in warnings
    else:
        assert f"Warning: {warned}" in warnings


# --- standard files

WITHOUT_MESSAGES = {
    "full standard error": "exec 2>/dev/full",
    "closed standard error": "exec 2>&-",
    "closed input and standard error": "exec <&- 2>&-",
}
PRINTING = [name for name in COMMANDS if name not in ("top", "strange values")]


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.parametrize("hardship", WITHOUT_MESSAGES.values(), ids=WITHOUT_MESSAGES)
def test_messages_that_nobody_can_get(hardship: str, name: str) -> None:
    """Without a standard error that takes them, messages go nowhere: results and status are as they are with one."""
    arguments = COMMANDS[name]
    plain, done = run("", *arguments), run(hardship, *arguments)
    assert done.returncode == plain.returncode
    assert done.stderr == ""
    assert done.stdout
    check_output(done, "json" in arguments)


def test_a_refusal_that_nobody_can_get() -> None:
    """The status tells, also where the sentences go nowhere."""
    for hardship in WITHOUT_MESSAGES.values():
        done = run(f"umount -l /proc; {hardship}", "trace", "-d", "0.3")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
        done = run(hardship, "trace", "--nosuch")
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.parametrize("hardship", ["exec >/dev/full", "exec >&-", "exec <&- >&-"])
def test_results_that_nobody_can_get(hardship: str, name: str) -> None:
    """Where results cannot be written, two sentences say so."""
    done = run(hardship, *COMMANDS[name])
    assert done.returncode == 1
    what, _ = error(done.stderr)
    assert ("No space left" if "full" in hardship else "closed") in what


@pytest.mark.parametrize("name", PRINTING)
def test_no_standard_files_at_all(name: str) -> None:
    """With all three closed there is the status alone: it could not be done; and no other file gets what they would."""
    done = run("exec <&- >&- 2>&-", *COMMANDS[name])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# --- signals

_COUNTING = """
import os, sys
sys.path.insert(0, sys.argv.pop(1))
at, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
seen = 0
def hook(event, arguments):
    global seen
    seen += 1
    if seen == at:
        os.kill(os.getpid(), number)
sys.addaudithook(hook)
try:
    from pktdrop.start import main
    main()
finally:
    print("events", seen, file=sys.stderr)
"""
"""Runs pktdrop and sends it a signal at a certain audit event (sys.addaudithook): an import, a file, a process..."""
INTERRUPTED = ["trace json", "counters", "counters twice", "diagnose", "doctor", "demo json"]
POINTS = int(os.environ.get("PKTDROP_POINTS", "12"))
"""At how many points of a run a signal is tried."""


def _blocked() -> None:
    """Start with the signal blocked, as ./bootstrap and the command pktdrop do."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))


def _pending() -> None:
    _blocked()
    os.kill(os.getpid(), signal.SIGINT)


def _launched(
    arguments: "tuple[str | bytes, ...]",
    at: int = 0,
    number: int = signal.SIGINT,
    before: Callable[[], None] = _blocked,
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _COUNTING, str(ROOT), str(at), str(number), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        preexec_fn=before,
    )  # fmt: skip


def _ended(process: "subprocess.Popen[str]", name: str, number: int) -> None:
    """Check that a signal ended it as it should: by itself while there is nothing to show, else in good order."""
    stdout, stderr = process.communicate(timeout=4 * DEADLINE)
    for word in ("Traceback", "Exception", "Error: ", "Aborted", "has a fault"):
        assert word not in stdout + stderr
    began = "Ctrl-C" in stderr
    if process.returncode == -number:
        # either before anything was promised, or after all of it was written
        assert not began or stdout
    else:
        assert process.returncode in ((0, 1) if name.startswith("doctor") else (0,)), stderr
    if "json" in COMMANDS[name]:
        kinds = [json.loads(line)["type"] for line in stdout.splitlines()]
        assert not began or kinds[-1] == "summary"


@pytest.mark.parametrize("name", INTERRUPTED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_at_any_point_ends_it(name: str, number: signal.Signals) -> None:
    """From the first import to the last line, a signal ends it quietly: by itself until there is something to show."""
    counted = _launched(COMMANDS[name])
    events = int(counted.communicate(timeout=4 * DEADLINE)[1].rpartition("events ")[2])
    assert events > 100
    for point in range(POINTS):
        _ended(_launched(COMMANDS[name], 1 + point * events // POINTS, number), name, number)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_before_python_was_ready_ends_it(name: str) -> None:
    """What was sent while Python made itself ready ends it at once, by itself, without a word."""
    process = _launched(COMMANDS[name], before=_pending)
    assert process.communicate(timeout=4 * DEADLINE) == ("", "")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("name", INTERRUPTED)
def test_ctrl_c_at_any_time_ends_it(name: str) -> None:
    """The same by the clock: after 0 to 600 ms."""
    for step in range(POINTS):
        process = _launched(COMMANDS[name])
        time.sleep(0.6 * step / POINTS)  # what is tried: nothing is waited for
        process.send_signal(signal.SIGINT)
        _ended(process, name, signal.SIGINT)


# --- top, on a terminal


def _on_terminal(columns: int, hardship: str, at: float | None) -> "tuple[int, bytes]":
    """Run top on a terminal so wide, end it by a signal `at` seconds after its start, or once it shows something."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        under(hardship, "top"), stdin=slave, stdout=slave, stderr=slave, cwd="/", start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown, begin, sent = b"", time.monotonic(), False
    while True:
        if not sent and (b"\x1b[?1049h" in shown if at is None else time.monotonic() - begin >= at):
            process.send_signal(signal.SIGTERM)
            sent = True
        assert time.monotonic() - begin < 4 * DEADLINE, shown
        if select.select([master], [], [], 0.02)[0]:
            try:
                more = os.read(master, 1 << 16)
            except OSError:  # EIO: the other side was closed
                break
            shown += more
    os.close(master)
    return process.wait(DEADLINE), shown


@pytest.mark.parametrize("columns", [1, 2, 20, 500])
def test_top_on_a_terminal_of_any_width(columns: int) -> None:
    """It shows what fits, and ends well."""
    status, shown = _on_terminal(columns, "", None)
    assert status == 0
    assert b"Traceback" not in shown


@pytest.mark.parametrize("name", [name for name in HARDSHIPS if not name.endswith(DIES)])
def test_top_under_hardship(name: str) -> None:
    """It shows its screen, or says in two sentences why not."""
    status, shown = _on_terminal(80, HARDSHIPS[name], None)
    assert status in (0, 1)
    for word in (b"Traceback", b"Exception", b"has a fault"):
        assert word not in shown
    assert status == 0 or b"Error: " in shown


def test_top_is_ended_at_any_time() -> None:
    """A signal while it starts ends it by itself, or with the terminal given back."""
    for step in range(POINTS):
        status, shown = _on_terminal(80, "", 0.05 + 0.9 * step / POINTS)
        assert b"Traceback" not in shown
        assert b"Exception" not in shown
        assert status in (0, -signal.SIGTERM)
        assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l")


def test_bootstrap_blocks_what_python_is_not_ready_for() -> None:
    """Ctrl-C is blocked when Python starts; pktdrop lets it in (test_a_signal_before_python_was_ready_ends_it)."""
    text = (ROOT / "bootstrap").read_text(encoding="utf-8")
    (begin,) = [line for line in text.splitlines() if line.strip().startswith("quietly=(/")]
    mask = "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    done = subprocess.run(
        ["bash", "-c", f'{begin}\n"${{quietly[@]}}" "$@"', "bash", sys.executable, "-I", "-c", mask],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(int(signal.SIGINT))]
