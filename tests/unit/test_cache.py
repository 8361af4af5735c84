# SPDX-License-Identifier: MIT
"""The cache as files: whole, trusted, or a miss; whatever happens to them, a start goes on."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.kernel.cache import Cache, default_directory

KEY, OTHER_KEY = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
OLD, NEW = b"old " * 5000, b"new " * 7000
"""Longer than any buffer of Python's, so that writing them takes more than one call where space ends."""
NOBODY = 65534
KEPT = 8

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(name="directory")
def _directory(tmp_path: Path) -> Path:
    """A directory that does not exist yet."""
    return tmp_path / "cache"


def stored(directory: Path, content: bytes = OLD, key: str = KEY) -> Path:
    """Store something; return the one file that holds it."""
    before = set(directory.iterdir()) if directory.exists() else set()
    Cache(directory).store(key, content)
    (path,) = set(directory.iterdir()) - before
    return path


def load(directory: Path, key: str = KEY) -> tuple[bytes | None, str]:
    """Load a key; return its content and what the cache says of it."""
    cache = Cache(directory)
    return cache.load(key), cache.state


def store(directory: Path, content: bytes, key: str = KEY) -> str:
    """Ask for a key, as a start does, and store it; return what the cache says of both."""
    cache = Cache(directory)
    cache.load(key)
    cache.store(key, content)
    return cache.state


def in_child(work: Callable[[], object]) -> int:
    """Start a process that does some work and ends with status 0, or 1 where it raises; return its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def status_of(child: int) -> int:
    """Wait for a process; return its exit status, negative the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size in bytes: the write that crosses it is cut, the next fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- hits and misses


@given(st.binary(max_size=3000))
def test_what_was_stored_is_loaded(content: bytes) -> None:
    """Any content comes back byte for byte, also through another Cache, and the state is a hit that names the file."""
    with tempfile.TemporaryDirectory() as directory:
        path = stored(Path(directory), content)
        assert (content, f"hit: {path}") == load(Path(directory))


def test_nothing_stored_is_a_miss(directory: Path) -> None:
    """An empty cache, and one without a directory, is a miss that says so, and makes nothing."""
    assert load(directory) == (None, "miss: nothing is stored for this kernel and version")
    assert not directory.exists()


def test_another_key_is_a_miss(directory: Path) -> None:
    """Content is found under its own key only."""
    stored(directory)
    assert load(directory, OTHER_KEY)[0] is None


def test_later_content_replaces_earlier(directory: Path) -> None:
    """One key has one file, with what was stored last."""
    path = stored(directory, OLD)
    store(directory, NEW)
    assert load(directory)[0] == NEW
    assert [path] == list(directory.iterdir())


def test_without_a_directory_nothing_is_kept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is not used neither finds nor keeps anything, in the working directory or elsewhere."""
    directory.mkdir()
    monkeypatch.chdir(directory)
    cache = Cache(None)
    cache.store(KEY, OLD)
    assert cache.load(KEY) is None
    assert cache.state == "not used"
    assert list(directory.iterdir()) == []


def test_only_the_user_may_read_and_write(directory: Path) -> None:
    """The directory is made with mode 0700 and the file with 0600, whatever the umask allows."""
    mask = os.umask(0)
    try:
        path = stored(directory)
    finally:
        os.umask(mask)
    assert (directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_directory_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has /var/cache/pktdrop; others a directory below $XDG_CACHE_HOME, else below ~/.cache (XDG Base Directory).

    That specification has an empty variable and a relative path ignored.
    """
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory() == Path("/var/cache/pktdrop")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_directory() == Path("/elsewhere/pktdrop")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_directory() == Path("/home/somebody/.cache/pktdrop")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_directory() == Path("/home/somebody/.cache/pktdrop")


# --- damage


@given(st.binary(min_size=1, max_size=300), st.data())
def test_changed_bytes_are_a_miss(content: bytes, data: st.DataObject) -> None:
    """Whatever bytes of the file are replaced, removed or added: never an exception, never other content."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = stored(directory, content)
        whole = path.read_bytes()
        first = data.draw(st.integers(0, len(whole)), label="first")
        last = data.draw(st.integers(first, min(first + 8, len(whole))), label="last")
        damaged = whole[:first] + data.draw(st.binary(max_size=8), label="instead") + whole[last:]
        path.write_bytes(damaged)
        expected = (content, f"hit: {path}") if damaged == whole else (None, "miss: the file is damaged")
        assert expected == load(directory)


def test_each_flipped_bit_is_a_miss(directory: Path) -> None:
    """One bit of one byte, each byte in turn, is noticed."""
    path = stored(directory, b"content")
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << index % 8]) + whole[index + 1 :])
        assert load(directory) == (None, "miss: the file is damaged"), index


def test_each_length_cut_is_a_miss(directory: Path) -> None:
    """A file that ends early, at every byte, is noticed; one that is stored again is a hit again."""
    path = stored(directory, b"content")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert load(directory) == (None, "miss: the file is damaged"), length
    store(directory, b"content")
    assert load(directory)[0] == b"content"


@given(st.binary(max_size=200))
def test_any_other_file_is_a_miss(content: bytes) -> None:
    """A file of anything else in its place is a miss."""
    with tempfile.TemporaryDirectory() as directory:
        stored(Path(directory)).write_bytes(content)
        assert load(Path(directory)) == (None, "miss: the file is damaged")


def test_an_older_format_is_a_miss(directory: Path) -> None:
    """A file as version 0.1.0 first wrote it, a checksum and the content, is not read: others may be behind it."""
    path = stored(directory)
    path.write_bytes(hashlib.sha256(OLD).hexdigest().encode() + b"\n" + OLD)
    assert load(directory) == (None, "miss: the file is damaged")


def test_a_file_of_3_gb_is_not_read(directory: Path) -> None:
    """One that is larger than any that was ever stored is a miss, at once."""
    path = stored(directory)
    os.truncate(path, 3 << 30)
    content, state = load(directory)
    assert content is None
    assert state == f"miss: {path} is larger than 16,777,216 bytes"


# --- trust


def test_a_second_name_is_not_read(directory: Path) -> None:
    """A file that has another name elsewhere is not read."""
    path = stored(directory)
    os.link(path, directory.with_name("elsewhere"))
    assert load(directory) == (None, f"miss: {path} has a second name")


@as_root
def test_a_parent_that_others_may_write(directory: Path) -> None:
    """A directory above the cache's own that others may write leads nowhere; nothing is stored there."""
    stored(directory)
    directory.parent.chmod(0o777)
    assert load(directory) == (None, f"miss: others may write {directory.parent}")
    assert store(directory, NEW).endswith(f"; not stored: others may write {directory.parent}")


@as_root
@pytest.mark.parametrize("owned", ["file", "directory"])
def test_what_another_user_owns_is_not_read(directory: Path, owned: str) -> None:
    """A file, or a directory with it, that belongs to somebody else is not read, and which one is said."""
    path = stored(directory)
    wrong = path if owned == "file" else directory
    os.chown(wrong, NOBODY, NOBODY)
    assert (None, f"miss: {wrong} belongs to another user") == load(directory)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_read(directory: Path, mode: int) -> None:
    """A file that its group or everybody may write is not read, and which one is said; stored again, it is a hit."""
    path = stored(directory)
    path.chmod(mode)
    assert (None, f"miss: others may write {path}") == load(directory)
    store(directory, NEW)
    assert load(directory)[0] == NEW


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_not_used(directory: Path, mode: int) -> None:
    """A directory that its group or everybody may write, sticky or not, is neither read nor written, which is said."""
    path = stored(directory)
    whole = path.read_bytes()
    directory.chmod(mode)
    assert (None, f"miss: others may write {directory}") == load(directory)
    assert store(directory, NEW) == f"miss: others may write {directory}; not stored: others may write {directory}"
    assert [path] == list(directory.iterdir())
    assert path.read_bytes() == whole


@as_root
def test_nothing_is_stored_for_another_user_to_change(directory: Path) -> None:
    """A directory that belongs to somebody else gets no file, and that is said."""
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    assert store(directory, OLD).endswith(f"; not stored: {directory} belongs to another user")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("where", ["elsewhere", "in the cache"])
def test_a_symbolic_link_is_not_followed(directory: Path, where: str) -> None:
    """A link in place of the file, even to a good one, is a miss; storing replaces the link, not its target."""
    path = stored(directory)
    target = path.rename((directory if where == "in the cache" else directory.parent) / "target")
    path.symlink_to(target)
    whole = target.read_bytes()
    content, state = load(directory)
    assert content is None
    assert state.startswith("miss: ")
    store(directory, NEW)
    assert load(directory)[0] == NEW
    assert target.read_bytes() == whole
    assert not path.is_symlink()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "pipe"])
def test_something_else_than_a_file(directory: Path, make: Callable[[Path], None]) -> None:
    """A directory or a pipe in place of the file is a miss, at once, and storing over it raises nothing."""
    path = stored(directory)
    path.unlink()
    make(path)
    path.chmod(0o600)
    content, state = load(directory)
    assert content is None
    assert state.startswith("miss: ")
    store(directory, NEW)
    assert load(directory)[0] == (NEW if make is os.mkfifo else None)


@pytest.mark.parametrize("place", ["file", "below a file", "link to nothing"])
def test_no_directory_can_be_made(tmp_path: Path, place: str) -> None:
    """Where something else is in the way of the directory, a start does without, and says so."""
    blocker = tmp_path / "blocker"
    if place == "link to nothing":
        blocker.symlink_to(tmp_path / "nothing" / "at all")
    else:
        blocker.write_bytes(b"")
    directory = blocker / "cache" if place == "below a file" else blocker
    state = store(directory, OLD)
    assert state.startswith("miss: ")
    assert "; not stored: " in state
    assert load(directory)[0] is None


def test_only_what_is_not_ones_own_is_mistrusted(directory: Path) -> None:
    """A cache tells apart what somebody else could have written from what is not there, damaged or good."""

    def mistrusted() -> str:
        cache = Cache(directory)
        cache.load(KEY)
        return cache.mistrusted

    assert mistrusted() == ""
    path = stored(directory)
    assert mistrusted() == ""
    path.write_bytes(b"damaged")
    assert mistrusted() == ""
    path.chmod(0o606)
    assert mistrusted() == f"others may write {path}"
    directory.chmod(0o702)
    assert mistrusted() == f"others may write {directory}"


def test_what_the_next_start_finds(directory: Path) -> None:
    """What was loaded or stored is kept for the next start; nothing is without a directory, or in one that is bad."""
    cache = Cache(directory)
    cache.load(KEY)
    assert not cache.kept
    cache.store(KEY, OLD)
    assert cache.kept
    again = Cache(directory)
    again.load(KEY)
    assert again.kept
    directory.chmod(0o702)
    again.store(KEY, NEW)
    assert not again.kept
    nowhere = Cache(None)
    nowhere.store(KEY, OLD)
    assert not nowhere.kept


# --- writing that does not end well


def test_no_room_for_the_new(directory: Path) -> None:
    """Where the file can only be written in part, the old content stays, nothing is left over, and why is said."""
    stored(directory, OLD)
    before = set(directory.iterdir())
    with limited_file_size(len(OLD) // 2):
        state = store(directory, NEW)
    assert state.endswith(f"; not stored: {os.strerror(errno.EFBIG)}")
    assert load(directory)[0] == OLD
    assert before == set(directory.iterdir())


def test_killed_in_the_middle_of_writing(directory: Path) -> None:
    """A writer that the kernel kills in its write(2) leaves the old content; the next store leaves one whole file."""
    path = stored(directory, OLD)

    def write_too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and gets EFBIG instead
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(OLD) // 2, resource.RLIM_INFINITY))
        Cache(directory).store(KEY, NEW)

    assert status_of(in_child(write_too_much)) == -signal.SIGXFSZ
    assert load(directory)[0] == OLD
    assert len(list(directory.iterdir())) == 2
    store(directory, NEW, OTHER_KEY)
    assert (load(directory)[0], load(directory, OTHER_KEY)[0]) == (OLD, NEW)
    assert {path, path.with_name(OTHER_KEY)} == set(directory.iterdir())


@pytest.mark.parametrize("before", [None, OLD], ids=["empty", "old"])
def test_killed_between_writing_and_renaming(
    directory: Path, before: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer killed before its file is in place leaves what was there; the next store cleans up."""
    if before is not None:
        stored(directory, before)
    with monkeypatch.context() as in_child_only:
        in_child_only.setattr(os, "replace", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        child = in_child(lambda: Cache(directory).store(KEY, NEW))
    assert status_of(child) == -signal.SIGKILL
    assert load(directory)[0] == before
    store(directory, NEW)
    assert load(directory)[0] == NEW
    assert [path.name for path in directory.iterdir()] == [KEY]


def test_left_over_of_a_writer_with_the_same_process_id(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container each start may have the same process id: what a killed one left does not hinder the next."""
    with monkeypatch.context() as in_child_only:
        in_child_only.setattr(os, "getpid", lambda: 1)
        in_child_only.setattr(os, "replace", lambda *_, **__: os._exit(9))
        assert status_of(in_child(lambda: Cache(directory).store(KEY, NEW))) == 9
        in_child_only.undo()
        in_child_only.setattr(os, "getpid", lambda: 1)
        assert "not stored" not in store(directory, NEW)
    assert load(directory)[0] == NEW
    assert [path.name for path in directory.iterdir()] == [KEY]


def test_killed_at_any_moment(directory: Path) -> None:
    """Whenever a writer that stores two contents in turn is killed, one of both is there, whole."""
    chance = random.Random(4)
    stored(directory, OLD)
    for _ in range(20):
        reader, writer = os.pipe()

        def write_on(progress: int = writer) -> None:
            while True:
                for content in (NEW, OLD):
                    Cache(directory).store(KEY, content)
                    os.write(progress, b".")

        child = in_child(write_on)
        os.close(writer)
        for _ in range(chance.randrange(1, 20)):
            assert os.read(reader, 1) == b"."
        os.kill(child, signal.SIGKILL)
        assert status_of(child) == -signal.SIGKILL
        os.close(reader)
        assert load(directory)[0] in (OLD, NEW)
    store(directory, NEW)
    assert load(directory)[0] == NEW
    assert [path.name for path in directory.iterdir()] == [KEY]


# --- several at once


def test_two_at_once(directory: Path) -> None:
    """Processes that load and store the same key at once all work, always find it whole, and leave one file."""
    contents = (OLD, NEW)
    stored(directory, OLD)

    def start_often(own: bytes) -> None:
        for _ in range(100):
            cache = Cache(directory)
            found = cache.load(KEY)
            assert found in contents, cache.state
            cache.store(KEY, own)
            assert cache.state.startswith("hit: ")
            assert "not stored" not in cache.state

    assert [status_of(child) for child in [in_child(lambda own=own: start_often(own)) for own in contents]] == [0, 0]
    assert load(directory)[0] in contents
    assert [path.name for path in directory.iterdir()] == [KEY]


def test_a_writer_at_work_is_not_disturbed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process is just writing is no left-over: it is there when that process goes on."""
    go_on, going = os.pipe()
    here, written = os.pipe()
    replace = os.replace

    def wait_first(*arguments: str, **directories: int) -> None:
        os.write(written, b".")
        os.read(go_on, 1)
        replace(*arguments, **directories)

    with monkeypatch.context() as in_child_only:
        in_child_only.setattr(os, "replace", wait_first)
        child = in_child(lambda: Cache(directory).store(OTHER_KEY, NEW))
    os.close(written)  # else a child that fails would be waited for forever
    assert os.read(here, 1) == b"."
    stored(directory, OLD)
    os.write(going, b".")
    assert status_of(child) == 0
    assert (load(directory)[0], load(directory, OTHER_KEY)[0]) == (OLD, NEW)
    assert {KEY, OTHER_KEY} == {path.name for path in directory.iterdir()}
    for descriptor in (go_on, going, here):
        os.close(descriptor)


# --- growth


def test_the_newest_files_stay(directory: Path) -> None:
    """Of many keys, the eight that were stored last are kept, and all of them can be loaded."""
    keys = [f"{number:032x}" for number in (5, 3, 9, 1, 12, 7, 2, 11, 4, 10, 8, 6)]
    for age, key in enumerate(keys):
        path = stored(directory, key.encode(), key) if age < KEPT else directory / key
        if age >= KEPT:
            store(directory, key.encode(), key)
        os.utime(path, (1_700_000_000 + age, 1_700_000_000 + age))
    assert sorted(keys[-KEPT:]) == sorted(path.name for path in directory.iterdir())
    assert [key.encode() for key in keys[-KEPT:]] == [load(directory, key)[0] for key in keys[-KEPT:]]


def test_what_was_just_stored_stays(directory: Path) -> None:
    """A file from a time when the clock was wrong does not push out the one that was just stored."""
    future = 4_000_000_000
    for number in range(KEPT):
        os.utime(stored(directory, OLD, f"{number:032x}"), (future, future))
    store(directory, NEW)
    assert load(directory)[0] == NEW


def test_something_foreign_in_the_directory(directory: Path) -> None:
    """Directories that somebody put there are left alone, and storing does not fail for them."""
    for number in range(KEPT + 1):
        (directory / f"foreign{number}").mkdir(mode=0o700, parents=True)
    directory.chmod(0o700)
    assert "not stored" not in store(directory, NEW)
    assert load(directory)[0] == NEW
    assert all((directory / f"foreign{number}").is_dir() for number in range(KEPT + 1))
