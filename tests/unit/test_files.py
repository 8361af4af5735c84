# SPDX-License-Identifier: MIT
"""Files that others may have had a hand in: each attack is refused, or reaches nothing but itself."""

from __future__ import annotations

import os
import stat
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pktdrop.process import files

NOBODY = 65534
LIMIT = 1000
SECRET = b"what only root may read"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """A directory of the running user's alone."""
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture(name="good")
def _good(place: Path) -> Path:
    """A file that is all right."""
    good = place / "good"
    good.write_bytes(b"good")
    good.chmod(0o600)
    return good


@pytest.fixture(name="secret")
def _secret(tmp_path: Path) -> Path:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    return secret


def foreign_link(path: Path, target: Path) -> None:
    """Make a link that belongs to somebody else."""
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


# --- reading


def test_what_is_good_is_read(good: Path) -> None:
    """A file of one's own is read whole, up to exactly the limit, by either kind of reading."""
    good.write_bytes(bytes(range(250)) * 4)
    assert files.read(good, LIMIT) == files.read(good, LIMIT, trusted=False) == bytes(range(250)) * 4


@pytest.mark.parametrize("trusted", [True, False])
def test_a_link_is_not_followed(good: Path, secret: Path, trusted: bool) -> None:
    """A symbolic link in place of the file is refused, whoever made it."""
    good.unlink()
    good.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic link"):
        files.read(good, LIMIT, trusted)


def test_a_hard_link_is_refused(good: Path, secret: Path) -> None:
    """A file with a second name elsewhere is not trusted."""
    good.unlink()
    os.link(secret, good)
    with pytest.raises(files.Refused, match="second name"):
        files.read(good, LIMIT)


def test_a_file_that_is_just_replaced_is_read(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lost its name to another between opening and checking is the running user's all the same."""
    real = os.fstat

    def replace_first(descriptor: int) -> os.stat_result:
        if real(descriptor).st_size == 4:
            good.unlink(missing_ok=True)
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", replace_first)
    assert files.read(good, LIMIT) == b"good"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_something_else_than_a_file(good: Path, make: Callable[[Path], None], trusted: bool) -> None:
    """A pipe, which would block whoever opens it, and a directory are refused at once."""
    good.unlink()
    make(good)
    good.chmod(0o700)
    with pytest.raises(files.Refused, match="not a regular file"):
        files.read(good, LIMIT, trusted)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_file_of_3_gb_is_not_read(good: Path, trusted: bool) -> None:
    """A file that is too large is refused by its size; no byte of it is in memory."""
    os.truncate(good, 3 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(files.Refused, match="larger than 1,000 bytes"):
            files.read(good, LIMIT, trusted)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_grows_is_not_read_on(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written after the size was looked at is not read beyond the limit."""
    real = os.read

    def write_first(descriptor: int, size: int) -> bytes:
        with good.open("ab") as file:
            file.write(bytes(10 * LIMIT))
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", write_first)
    with pytest.raises(files.Refused, match="larger than"):
        files.read(good, LIMIT)


def test_a_file_without_a_size_is_read_to_its_end() -> None:
    """Files of proc(5) have a size of 0, and content."""
    assert files.read(Path("/proc/self/status"), 1 << 20, trusted=False).startswith(b"Name:")


@as_root
@pytest.mark.parametrize("wrong", ["good", "place"])
def test_another_owner_is_refused(good: Path, wrong: str) -> None:
    """Neither a file nor a directory of somebody else's is trusted."""
    os.chown(good if wrong == "good" else good.parent, NOBODY, NOBODY)
    with pytest.raises(files.Refused, match="belongs to another user"):
        files.read(good, LIMIT)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_refused(good: Path, mode: int) -> None:
    """The directory of a trusted file is one's own alone, sticky or not; one further up may be sticky."""
    good.parent.chmod(mode)
    with pytest.raises(files.Refused, match="others may write"):
        files.read(good, LIMIT)
    below = good.parent / "below"
    below.mkdir(mode=0o700)
    inner = good.rename(below / "good")
    if mode == 0o1777:
        assert files.read(inner, LIMIT) == b"good"
        return
    with pytest.raises(files.Refused, match=f"others may write {good.parent}$"):
        files.read(inner, LIMIT)


@as_root
def test_a_link_of_another_on_the_way(good: Path, tmp_path: Path) -> None:
    """A directory's link leads on if it is root's or one's own, and not if somebody else made it."""
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.symlink_to(good.parent)
    foreign_link(foreign, good.parent)
    assert files.read(own / "good", LIMIT) == files.read(own / "good", LIMIT, trusted=False) == b"good"
    for trusted in (True, False):
        with pytest.raises(files.Refused, match=f"{foreign} belongs to another user"):
            files.read(foreign / "good", LIMIT, trusted)


def test_links_of_all_kinds(good: Path, tmp_path: Path) -> None:
    """Relative and absolute links, with "..", and links to links lead where the kernel says; circles end."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "up").symlink_to("../../place")
    (tmp_path / "again").symlink_to(tmp_path / "deep" / "er" / "up")
    (tmp_path / "circle").symlink_to("circle")
    for directory in ("deep/er/up", "again", "deep/../place", "deep/er/../../again/../place"):
        path = tmp_path / directory / "good"
        assert files.read(path, LIMIT) == path.read_bytes() == b"good"
    with pytest.raises(OSError, match="symbolic links"):
        files.read(tmp_path / "circle" / "good", LIMIT)


def test_replaced_all_the_time(place: Path, secret: Path) -> None:
    """While somebody swaps the directory for a link to another, what is read is the own file or nothing."""
    decoy = secret.with_name("decoy")
    decoy.mkdir(mode=0o700)
    secret.rename(decoy / "good")
    os.chmod(decoy, 0o777)  # so that a check of the first, and reading from the second, would show
    (place / "good").write_bytes(b"good")
    (place / "good").chmod(0o600)
    spare, link = place.with_name("spare"), place.with_name("link")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            place.rename(spare)
            link.symlink_to(decoy)
            link.rename(place)
            place.unlink()
            spare.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        for _ in range(3000):
            try:
                found.add(files.read(place / "good", LIMIT))
            except (OSError, files.Refused):
                found.add(b"")
    finally:
        done.set()
        thread.join()
    assert found <= {b"good", b""}


# --- making new files


def test_a_new_file(place: Path) -> None:
    """It has what it was given, and the mode that the umask leaves."""
    mask = os.umask(0o027)
    try:
        files.create(place / "new", b"content")
    finally:
        os.umask(mask)
    assert (place / "new").read_bytes() == b"content"
    assert (place / "new").stat().st_mode & 0o777 == 0o640


def test_others_may_not_write_what_is_made(place: Path) -> None:
    """Whatever the umask says; and nobody else may read packets, which is what is written piece by piece."""
    before = os.umask(0)
    try:
        files.create(place / "new", b"content")
        files.create_stream(place / "stream").close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE((place / name).stat().st_mode) for name in ("new", "stream")] == [0o644, 0o600]


@pytest.mark.parametrize("there", ["file", "link", "link to nothing", "hard link", "pipe", "directory"])
def test_nothing_is_written_over(place: Path, secret: Path, there: str) -> None:
    """Whatever has the name already stays as it is, and so does what it leads to."""
    path = place / "new"
    made: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_bytes(b"old"),
        "link": lambda: path.symlink_to(secret),
        "link to nothing": lambda: path.symlink_to(place / "nothing"),
        "hard link": lambda: os.link(secret, path),
        "pipe": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }
    made[there]()
    before = path.lstat()
    with pytest.raises(FileExistsError):
        files.create(path, b"content")
    assert (before.st_ino, before.st_size, before.st_nlink) == (
        path.lstat().st_ino,
        path.lstat().st_size,
        path.lstat().st_nlink,
    )
    assert secret.read_bytes() == SECRET
    assert not (place / "nothing").exists()


@as_root
def test_a_new_file_where_another_led(place: Path, tmp_path: Path) -> None:
    """In somebody else's directory a file can be made; where only their link leads, none is."""
    theirs, trap = tmp_path / "theirs", tmp_path / "trap"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    foreign_link(trap, place)
    files.create(theirs / "new", b"content")
    assert (theirs / "new").read_bytes() == b"content"
    with pytest.raises(files.Refused, match=f"{trap} belongs to another user"):
        files.create(trap / "new", b"content")
    assert list(place.iterdir()) == []


def test_a_file_that_does_not_fit_leaves_nothing(place: Path) -> None:
    """Where writing fails the new name is gone again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.create(place / "new", bytes(LIMIT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(place.iterdir()) == []


# --- the way to a file


@as_root
def test_who_decides_what_is_at_a_path(good: Path, tmp_path: Path) -> None:
    """Root's alone is what only root can change: the file, each directory, each link, and what those lead to."""
    resolved = files.judge_way(good, (0,))
    assert resolved == good.resolve()
    link = tmp_path / "link"
    link.symlink_to(good.parent)
    assert files.judge_way(link / "good", (0,)) == good.resolve()
    assert files.judge_way(link, (0,)) == good.parent.resolve()
    os.chown(good, NOBODY, NOBODY)
    with pytest.raises(files.Refused, match=f"{good} belongs to another user"):
        files.judge_way(link / "good", (0,))
    assert files.judge_way(link / "good", (0, NOBODY)) == good.resolve()
    good.parent.chmod(0o707)
    with pytest.raises(files.Refused, match=f"others may write {good.parent}"):
        files.judge_way(link / "good", (0, NOBODY))
