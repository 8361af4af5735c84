# SPDX-License-Identifier: MIT
"""Starts from kept programs: the same counts, no compiler, and no fault of what is kept is a fault of the start.

Each test has a /var/cache of its own, in a mount namespace: that of the host is not touched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pktdrop.demo.causes import CAUSES
from pktdrop.kernel.cache import FORMAT
from tests.kit.caches import Host, another_cache
from tests.kit.process import DEADLINE, command, launch, need
from tests.kit.provoked import send
from tests.kit.rungs import doctor, offered
from tests.kit.trace import Trace, inside, total, tracing, without_times

CLOSED_PORT = next(cause for cause in CAUSES if cause.name == "udp_closed_port")
NOBODY = 65534
MB = 1000
"""In the kB of proc(5)."""


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    """A host where nothing is kept yet."""
    with another_cache(tmp_path) as host:
        yield host


@pytest.fixture(name="compiled", scope="module")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """What one start keeps: a file's name and content. In an emulated machine it takes half a minute to make."""
    with another_cache(tmp_path_factory.mktemp("compiled")) as host:
        start()
        return host.kept.name, host.kept.read_bytes()


@pytest.fixture(name="filled")
def _filled(host: Host, compiled: tuple[str, bytes]) -> Host:
    """A host where an earlier start has kept its programs."""
    name, content = compiled
    host.cache.mkdir(mode=0o700)
    (host.cache / name).write_bytes(content)
    (host.cache / name).chmod(0o600)
    return host


class Start(NamedTuple):
    """What a start of `pktdrop trace` was like."""

    probes: dict[str, str]
    complaints: str
    compiled: bool
    """Whether it ran another process, which is the compiler: memory that ended children had asked for, proc(5)."""
    libraries: frozenset[str]
    peak: int
    """In kB."""


def start(*options: str) -> Start:
    """Start, look, and end in good order."""
    with tracing("60", *options) as trace:
        process = Path("/proc", str(trace.process.pid))
        mapped = {line.split()[5].rpartition("/")[2] for line in _lines(process / "maps") if len(line.split()) > 5}
        status = dict(line.split(":", 1) for line in _lines(process / "status"))
        # field 11, cminflt; the name in field 2 may hold blanks
        faults_of_children = (process / "stat").read_text().rpartition(")")[2].split()[8]
        assert trace.stop() == 0, trace.stderr
        assert "Traceback" not in trace.stderr
        return Start(
            probes=trace.lines("start")[0]["probes"],
            complaints=" ".join(trace.stderr.split()),
            compiled=int(faults_of_children) > 0,
            libraries=frozenset(name for name in mapped if name.startswith(("libbcc", "libclang", "libLLVM"))),
            peak=int(status["VmHWM"].split()[0]),
        )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def found() -> str:
    """What `pktdrop doctor` says of the cache."""
    return str(doctor()["compiled programs"]["found"])


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what a file of the cache holds, under a right checksum."""
    data = json.loads(path.read_bytes().partition(b"\n")[2])
    edit(data)
    content = json.dumps(data).encode()
    path.write_bytes(FORMAT + hashlib.blake2b(content, digest_size=32).hexdigest().encode() + b"\n" + content)


def _mark(data: dict[str, Any]) -> None:
    """Make it known whether it is read: `pktdrop doctor` shows this."""
    data["compiled"]["bcc_version"] = "marked"


# --- hits


@pytest.mark.parametrize("rung", ["tp_btf", "raw"])
def test_the_same_counts_from_fresh_and_kept_programs(host: Host, rung: str) -> None:
    """A first start, a second one and one without the cache count the same drops, exactly as many as were sent."""
    if rung not in {rungs.kfree_skb for rungs in offered()}:
        pytest.skip(f"this kernel does not offer {rung}, says pktdrop doctor")
    shutil.rmtree(host.cache)  # which doctor filled
    with ExitStack() as stack:
        net = stack.enter_context(CLOSED_PORT.net())
        traffic = CLOSED_PORT.build(net)
        first, second, without_cache = (
            stack.enter_context(tracing("60", "--probe", rung, *option)) for option in ([], [], ["--no-cache"])
        )
        send(traffic, lose=37, spare=5, cpu=0)
        drops = []
        for trace in (first, second, without_cache):
            assert trace.stop() == 0
            drops.append(inside(trace.summary["drops"], net.namespaces.values()))
        assert total(drops[0]) == 37
        fresh, kept, compiled_anew = map(without_times, drops)
        assert fresh == kept == compiled_anew


def test_a_second_start_does_without_bcc_and_compiler(host: Host) -> None:
    """It maps no library of bcc, runs no process, and takes 45 MB at most; the first one ran the compiler."""
    first, second = start(), start()
    assert (first.compiled, second.compiled) == (True, False)
    assert second.libraries == frozenset()
    assert second.probes == first.probes
    assert second.peak <= 45 * MB


def test_all_options_share_the_programs(filled: Host) -> None:
    """What only user space looks at, and the size of a map, make no other programs; safe reads do."""
    before = filled.state()
    for options in (
        ["--map-entries", "16"],
        ["--reason", "NOT_SPECIFIED", "--interface", "lo", "--cpu", "0", "--protocol", "IPv4", "--no-noise"],
        ["--all-netns", "--limit", "1"],
        ["--probe", "none"],
    ):
        assert not start(*options).compiled, options
    assert before == filled.state()
    if "raw" in {rungs.kfree_skb for rungs in offered()}:
        start("--probe", "raw")
        assert not start("--probe", "raw").compiled


def test_doctor_says_hit_and_miss(host: Host) -> None:
    """The first look finds nothing, the next one what the first one kept; what trace keeps, doctor finds."""
    assert found() == "miss: nothing is stored for this kernel and version"
    assert found().startswith("hit: /var/cache/pktdrop/")
    assert not start().compiled
    shutil.rmtree(host.cache)
    start()
    kept = host.kept
    assert found() == f"hit: /var/cache/pktdrop/{kept.name}"


def test_no_cache_leaves_the_directory_alone(filled: Host) -> None:
    """With --no-cache nothing is read, replaced or touched, and nothing made."""
    filled.kept.write_bytes(b"damaged")
    before = filled.state()
    assert start("--no-cache").compiled
    assert before == filled.state()
    shutil.rmtree(filled.cache)
    assert start("--no-cache").compiled
    assert not filled.cache.exists()


def test_a_user_with_capabilities_has_an_own_cache(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, what CAP_BPF and CAP_PERFMON allow is kept in $XDG_CACHE_HOME, and /var/cache is left alone."""
    need("setpriv")  # it gives up root
    with tempfile.TemporaryDirectory() as name:
        own = Path(name, "pktdrop")
        os.chown(name, NOBODY, NOBODY)
        # locked memory, to which Linux before 5.11 charges maps; where it may not be raised, later kernels do without
        unlimited = ["sh", "-c", 'ulimit -l unlimited 2>/dev/null; exec "$@"', "sh"]
        become = [
            *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
            # the checkout may lie below a directory that is closed to others
            *(f"--{kind}-caps=+bpf,+perfmon,+dac_read_search" for kind in ("inh", "ambient")),
            *("--", "env", f"XDG_CACHE_HOME={name}"),
        ]
        monkeypatch.setenv("PKTDROP", shlex.join([*host.enter, *unlimited, *become, *host.pktdrop]))
        if subprocess.run([*command(), "--version"], cwd="/", capture_output=True, timeout=DEADLINE).returncode:
            pytest.skip("the user nobody cannot be given capabilities, or cannot read this checkout or interpreter")
        assert [start().compiled for _ in range(2)] == [True, False]
        assert [path.stat().st_uid for path in (own, *own.iterdir())] == [NOBODY, NOBODY]
        assert own.stat().st_mode & 0o777 == 0o700
    assert not host.cache.exists()


# --- what is kept is not what it was


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {}
"""By name, changes after which the programs cannot work."""


def _forgery(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    FORGED[edit.__name__.strip("_")] = edit
    return edit


def _code(data: dict[str, Any]) -> dict[str, Any]:
    code: dict[str, Any] = data["compiled"]["programs"]["count_kfree_skb"]
    return code


@_forgery
def _refused_by_the_verifier(data: dict[str, Any]) -> None:
    """A program that ends (BPF_EXIT, 0x95) without a result."""
    _code(data).update(instructions=base64.b64encode(b"\x95" + bytes(7)).decode(), maps={})


@_forgery
def _no_instructions(data: dict[str, Any]) -> None:
    _code(data).update(instructions="", maps={})


@_forgery
def _part_of_an_instruction(data: dict[str, Any]) -> None:
    code = _code(data)
    code["instructions"] = base64.b64encode(base64.b64decode(code["instructions"])[:-3]).decode()


@_forgery
def _no_base64(data: dict[str, Any]) -> None:
    _code(data)["instructions"] = "x"


@_forgery
def _program_gone(data: dict[str, Any]) -> None:
    del data["compiled"]["programs"]["count_kfree_skb"]


@_forgery
def _map_gone(data: dict[str, Any]) -> None:
    del data["compiled"]["maps"]["drops"]


@_forgery
def _map_of_no_kind(data: dict[str, Any]) -> None:
    data["compiled"]["maps"]["drops"]["type"] = 99999


@_forgery
def _map_without_keys(data: dict[str, Any]) -> None:
    data["compiled"]["maps"]["drops"]["key_size"] = 0


@_forgery
def _map_with_small_values(data: dict[str, Any]) -> None:
    data["compiled"]["maps"]["drops"]["value_size"] = 8


@_forgery
def _map_size_is_text(data: dict[str, Any]) -> None:
    data["compiled"]["maps"]["cpu_states"]["max_entries"] = "1"


@_forgery
def _map_behind_the_end(data: dict[str, Any]) -> None:
    _code(data)["maps"]["99999"] = "drops"


@_forgery
def _map_that_is_not_there(data: dict[str, Any]) -> None:
    code = _code(data)
    code["maps"] = dict.fromkeys(code["maps"], "elsewhere")


@_forgery
def _no_facts(data: dict[str, Any]) -> None:
    data["facts"] = {}


@pytest.mark.parametrize("what", FORGED)
def test_what_does_not_work_is_compiled_again(filled: Host, what: str) -> None:
    """A file with a right checksum, but with programs that cannot work: the start goes on, and replaces it."""
    whole = filled.kept.read_bytes()
    change(filled.kept, FORGED[what])
    assert whole != filled.kept.read_bytes()
    assert start().compiled
    assert whole == filled.kept.read_bytes()
    assert not start().compiled


def test_a_forged_type_is_compiled_again(filled: Host) -> None:
    """Programs for something else than the tracepoint kfree_skb, by its BTF id, are refused, which doctor says."""
    if start().probes["kfree_skb"] != "tp_btf":
        pytest.skip("this kernel does not take BTF-typed programs")
    path, whole = filled.kept, filled.kept.read_bytes()
    change(path, lambda data: data["facts"].update(tracepoint_id=1))
    assert found() == "miss: the kernel refuses what is stored for tp_btf"
    assert whole == path.read_bytes()


@pytest.mark.parametrize("damage", [b"", b"damaged", None], ids=["empty", "other", "cut"])
def test_damage_is_compiled_again(filled: Host, damage: bytes | None) -> None:
    """A file that is not whole is said to be damaged, and replaced."""
    path, whole = filled.kept, filled.kept.read_bytes()
    path.write_bytes(whole[:-1] if damage is None else damage)
    assert start().compiled
    assert whole == path.read_bytes()
    path.write_bytes(whole[:-1] if damage is None else damage)
    assert found() == "miss: the file is damaged"
    assert whole == path.read_bytes()


# --- what is kept is not one's own


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: os.chown(file, NOBODY, NOBODY), "{file} belongs to another user"),
        (lambda file: file.chmod(0o620), "others may write {file}"),
        (lambda file: file.chmod(0o602), "others may write {file}"),
        (lambda file: os.chown(file.parent, NOBODY, NOBODY), "/var/cache/pktdrop belongs to another user"),
        (lambda file: file.parent.chmod(0o770), "others may write /var/cache/pktdrop"),
        (lambda file: file.parent.chmod(0o1777), "others may write /var/cache/pktdrop"),
    ],
    ids=["owner", "group writes", "others write", "owner of directory", "group writes directory", "sticky directory"],
)
def test_what_is_not_ones_own_is_not_read(filled: Host, spoil: Callable[[Path], None], said: str) -> None:
    """What another user owns or may write is not read, which trace and doctor say; all works without."""
    file = filled.kept
    change(file, _mark)
    assert doctor()["bcc"]["found"] == "marked"  # so this is what a file that is read leads to
    said = said.format(file=f"/var/cache/pktdrop/{file.name}")
    spoil(file)
    checks = doctor()
    assert checks["bcc"]["found"] != "marked"
    assert checks["compiled programs"]["found"].startswith(f"miss: {said}")
    change(file, _mark)  # doctor has replaced it, if the directory is one's own
    spoil(file)
    again = start()
    assert again.compiled
    assert f"Warning: the compiled programs that are kept were not read: {said}." in again.complaints


def test_nothing_is_complained_of_otherwise(host: Host) -> None:
    """A cache that is empty, filled or damaged is nothing to warn of."""
    said = [start().complaints, start().complaints]
    host.kept.write_bytes(b"damaged")
    said.append(start().complaints)
    assert not [text for text in said if "Warning" in text]


# --- nothing can be kept


def test_a_read_only_cache(host: Host) -> None:
    """Where nothing can be written, a start works all the same, doctor says why, and what is there is used."""
    host.run("mount", "-o", "remount,bind,ro", "/var/cache")
    assert start().compiled
    assert found() == "miss: nothing is stored for this kernel and version; not stored: Read-only file system"
    host.run("mount", "-o", "remount,bind,rw", "/var/cache")
    start()
    host.run("mount", "-o", "remount,bind,ro", "/var/cache")
    assert not start().compiled
    assert found() == f"hit: /var/cache/pktdrop/{host.kept.name}"


def test_a_full_file_system(host: Host) -> None:
    """Where the file does not fit, a start works all the same, doctor says why, and nothing is left behind."""
    host.cache.mkdir(mode=0o700)
    host.run("mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "none", "/var/cache/pktdrop")
    assert start().compiled
    assert list(host.cache.iterdir()) == []
    assert found() == "miss: nothing is stored for this kernel and version; not stored: No space left on device"
    assert list(host.cache.iterdir()) == []


# --- several at once, and killed ones


def test_starts_at_once(host: Host) -> None:
    """Starts that find nothing compile side by side; all count the same, and one whole file is left."""
    with ExitStack() as stack:
        net = stack.enter_context(CLOSED_PORT.net())
        traffic = CLOSED_PORT.build(net)
        traces = [Trace("60") for _ in range(3)]
        for trace in traces:
            stack.callback(trace.kill)
        for trace in traces:
            assert trace.became_ready(), trace.stderr
        send(traffic, lose=21, spare=0, cpu=0)
        for trace in traces:
            assert trace.stop() == 0
            assert total(inside(trace.summary["drops"], net.namespaces.values())) == 21
    before = host.state()
    assert host.kept.suffix == ""
    assert not start().compiled
    assert before == host.state()


def test_killed_while_writing(filled: Host) -> None:
    """Whenever a start is killed around the writing, the next one works; in the end there is one whole file."""
    whole = filled.kept.read_bytes()
    for _ in range(4):
        shutil.rmtree(filled.cache)
        process = launch("trace", "60", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not filled.cache.exists():  # made right before the file is written: no pause that would miss it
                assert process.poll() is None
        finally:
            process.kill()
            process.wait()
        left = [path for path in filled.cache.iterdir() if path.suffix == ""]
        assert [path.read_bytes() for path in left] in ([], [whole])
        assert start().compiled == (not left)
        assert whole in [path.read_bytes() for path in filled.cache.iterdir() if path.suffix == ""]
    (file,) = (path for path in filled.cache.iterdir() if path.suffix == "")
    file.write_bytes(b"damaged")
    start()  # writes, and so tidies up after those that were killed
    assert whole == filled.kept.read_bytes()
