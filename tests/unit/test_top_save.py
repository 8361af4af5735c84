# SPDX-License-Identifier: MIT
"""Saved screens: made anew where the user says, and nowhere that a link of another user leads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from pktdrop.errors import PktdropError
from pktdrop.top.save import save
from pktdrop.top.screen import Screen

NOBODY = 65534
NO_SCREEN = cast(Screen, None)
"""A text has the lines of the screen alone."""


def save_text(path: Path) -> list[Path]:
    """Save a screen of no lines as text."""
    return save(NO_SCREEN, [], str(path))


def test_a_new_file_is_made(tmp_path: Path) -> None:
    """The name that was given, and nothing else, is there afterwards."""
    assert save_text(tmp_path / "screen.txt") == [tmp_path / "screen.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["screen.txt"]


@pytest.mark.parametrize("there", ["file", "link", "link to nothing", "hard link", "pipe", "directory"])
def test_what_is_there_stays(tmp_path: Path, there: str) -> None:
    """Whatever has that name is left alone, and so is what it leads to; it says so, in two sentences."""
    path, secret = tmp_path / "screen.txt", tmp_path / "secret"
    secret.write_text("secret")
    if there == "file":
        path.write_text("old")
    elif there.startswith("link"):
        path.symlink_to(secret if there == "link" else tmp_path / "nothing")
    elif there == "hard link":
        os.link(secret, path)
    elif there == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    names = sorted(tmp_path.iterdir())
    with pytest.raises(PktdropError, match=f"^{path} cannot be written: File exists.\n"):
        save_text(path)
    assert secret.read_text() == "secret"
    assert names == sorted(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_trap_on_the_way(tmp_path: Path) -> None:
    """A directory's link that another user made, in a place that all may write, leads nowhere."""
    shared, etc = tmp_path / "shared", tmp_path / "etc"
    shared.mkdir()
    shared.chmod(0o1777)
    etc.mkdir()
    (shared / "logs").symlink_to(etc)
    os.chown(shared / "logs", NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(PktdropError, match=f"{shared}/logs belongs to another user"):
        save_text(shared / "logs" / "screen.txt")
    assert list(etc.iterdir()) == []
    save_text(shared / "screen.txt")
